"""Which version may serve instead of the champion."""

from collections.abc import Collection


class RollbackRefused(ValueError):
    """The wanted version cannot serve; the message says which ones can."""


def rollback_target(serving: int | None, served: Collection[int], wanted: int | None = None) -> int:
    """Return the version to roll back to.

    Args:
        serving: the champion, None when there is none.
        served: every version that was ever promoted.
        wanted: a version asked for; by default the one promoted before the champion.

    Raises:
        RollbackRefused: there is no such version, or it never passed the gates.
    """
    if serving is None:
        raise RollbackRefused("no model serves yet, so there is nothing to roll back")
    others = sorted(version for version in served if version != serving)
    listed = ", ".join(map(str, others)) or "none"
    if wanted is None:
        earlier = [version for version in others if version < serving]
        if not earlier:
            raise RollbackRefused(f"no version was promoted before version {serving}; others: {listed}")
        return earlier[-1]
    if wanted == serving:
        raise RollbackRefused(f"version {serving} serves already")
    if wanted not in others:
        raise RollbackRefused(f"version {wanted} was never promoted; versions that were: {listed}")
    return wanted
