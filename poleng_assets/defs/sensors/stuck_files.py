"""Entries of a landing folder that nothing can be done with: each is tried once, and named once."""

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from poleng_assets.storage.landing import Dropped, FileChanged, Landing

# Disk errors that may be fixed without anybody touching the file: it is tried again at every look.
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


@dataclass
class StuckFiles:
    """The entries of a landing folder that nothing can be done with, kept in the sensor's cursor.

    Each is tried once, until it is touched or somebody says ``poleng retry``.

    Attributes:
        reset_at: up to which run failures do not count any more.
        before: the stamp of each that could not be refused before, and why, by its name.
        named: the names that were logged before.
        reasons: why each is stuck now.
    """

    reset_at: int
    before: dict[str, tuple[str, str]]
    named: set[str]
    reasons: dict[str, str] = field(default_factory=dict)
    now: dict[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, cursor: str | None, reset_at: int) -> "StuckFiles":
        """Read the cursor; what was stuck before ``poleng retry`` is tried again."""
        kept = json.loads(cursor) if cursor else {}
        before = kept.get("stuck", {}) if kept.get("forgiven") == reset_at else {}
        known = {name: (stamp, why) for name, (stamp, why) in before.items()}
        return cls(reset_at, known, set(kept.get("named", ())))

    def add(self, dropped: Dropped, why: str) -> None:
        """Note down that a file is left alone, and why."""
        self.reasons[dropped.path.name] = why
        self.now[dropped.path.name] = (dropped.stamp, why)

    def refuse(self, landing: Landing, dropped: Dropped, why: str) -> str:
        """Refuse a file or another entry, unless it is known that this fails; return what is to be logged."""
        name = dropped.path.name
        stamp, known = self.before.get(name, ("", ""))
        if stamp == dropped.stamp:
            self.add(dropped, known)
            return ""
        try:
            rejected = landing.reject(dropped.kind, dropped.path, why)
        except FileChanged as change:
            return str(change)
        except FileNotFoundError:
            return ""  # somebody took it away
        except OSError as error:
            failed = f"it is rejected ({why}), but cannot be moved ({error.strerror}): remove it by hand"
            if error.errno in _PASSING:
                return f"{name}: {failed}"
            self.add(dropped, failed)
            return ""
        if os.path.lexists(dropped.path):
            self.add(dropped, f"it was rejected ({why}), but cannot be removed: remove it by hand")
        return f"Rejected {name}: {why}; moved to {rejected}"

    def news(self, left: Mapping[str, str]) -> list[str]:
        """Return the names that were not logged before."""
        return [name for name in left if name not in self.named]

    def cursor(self, left: Mapping[str, str]) -> str:
        """Return the cursor that keeps all of it."""
        return json.dumps({"forgiven": self.reset_at, "stuck": self.now, "named": sorted(left)})
