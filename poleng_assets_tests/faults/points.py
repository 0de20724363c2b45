"""Points at which a process may die: just before each of its lasting effects.

What lasts is a commit of DuckDB, a commit of SQLite (Dagster, MLflow, the search), a file that is made,
moved or removed. Just before an effect is just after the one before it, so that both sides of each are
reached. The product knows nothing of this: everything is watched from outside.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

KILLED = 137
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
HALF = "half of it: "
_STATEMENT = re.compile(
    r"\s*(INSERT(?:\s+OR\s+\w+)?\s+INTO|UPDATE|DELETE\s+FROM|CREATE\s+(?:TABLE|OR\s+REPLACE\s+VIEW)|ALTER\s+TABLE)"
    r"\s+(?:IF\s+NOT\s+EXISTS\s+)?\"?(\w+)",
    re.IGNORECASE,
)
# A database that is made beside its place is named after the process that makes it.
_PROCESS = re.compile(r"\.\d+\.part$")
_EVENT = re.compile(r"(ASSET|STEP|PIPELINE|RUN)_[A-Z_]+")


class Points:
    """Counts the points of this process, by kind, and ends it at the chosen one.

    Args:
        root: the home; other files are none of ours.
        log: a file that gets a line for each point.
        stop: kind and number (from 1) of the point to end at, None to go on to the end.
    """

    def __init__(self, root: Path, log: Path, stop: tuple[str, int] | None = None) -> None:
        self.root, self.stop = str(root), stop
        self.counts: Counter[str] = Counter()
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._busy = self._removing = False

    def install(self) -> None:
        """Watch everything from now on; there is no way back, so this is for a process of its own."""
        import duckdb
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        sys.addaudithook(self._audit)
        event.listen(Engine, "before_cursor_execute", self._statement)
        event.listen(Engine, "commit", self._commit)
        event.listen(Engine, "rollback", _forget)
        connect = duckdb.connect

        def watched(database: Any = ":memory:", *args: Any, **options: Any) -> Any:
            con = connect(database, *args, **options)
            writable = str(database).startswith(self.root) and not options.get("read_only")
            return _Watched(con, self) if writable else con

        duckdb.connect = watched

    def reach(self, kind: str) -> None:
        """Come to a point; the process ends here if it is the chosen one."""
        self.counts[kind] += 1
        os.write(self._log, f"{kind}\n".encode())
        if self.stop == (kind, self.counts[kind]):
            os._exit(KILLED)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._busy or not event.startswith(("open", "os.", "shutil.rmtree")):
            return
        self._busy = True
        try:
            self._file(event, arguments)
        finally:
            self._busy = False

    def _file(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "shutil.rmtree":
            self._removing = self._place(arguments[0]) is not None
        if event in ("os.remove", "os.rmdir") and arguments[1] != -1:
            # Inside of rmtree a name is relative to its folder.
            if self._removing:
                self.reach("file: a folder is being removed")
            return
        place = self._place(arguments[1] if event == "os.rename" else arguments[0]) if arguments else None
        if place is None or place.startswith("dagster/"):
            return
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
            self.reach(f"file: write {_role(place)}")
            if not place.endswith(".db"):
                self._half(f"file: {HALF}{_role(place)}", arguments[0])
        elif event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
            self.reach(f"file: {event.rpartition('.')[2]} {_role(place)}")

    def _half(self, kind: str, path: Any) -> None:
        """Leave the beginning of a file behind, when it is the chosen point."""
        if self.stop == (kind, self.counts[kind] + 1):
            Path(os.fsdecode(path)).write_bytes(b"half")
        self.reach(kind)

    def _place(self, path: Any) -> str | None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return None
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - links are not followed
        return name[len(self.root) + 1 :] if name.startswith(self.root + "/") else None

    def _statement(self, connection: Any, _: Any, statement: str, values: Any, *__: Any) -> None:
        found = _STATEMENT.match(statement)
        if found and "written" not in connection.info:
            table = found.group(2)
            if table == "event_logs":
                table = _event(values)
            store = Path(connection.engine.url.database or "").stem
            store = next((one for one in ("mlflow", "trials") if one in store), "dagster")
            verb = found.group(1).split()[0].upper()
            # Libraries make and migrate dozens of tables when a home is new.
            made = verb in ("CREATE", "ALTER") or table.startswith(("alembic", "_alembic"))
            connection.info["written"] = f"{store}: tables are made" if made else f"{store}: {verb} {table}"

    def _commit(self, connection: Any) -> None:
        written = connection.info.pop("written", None)
        if written:
            self.reach(written)


def _forget(connection: Any) -> None:
    connection.info.pop("written", None)


def _event(values: Any) -> str:
    """Return which event is written, and of what."""
    texts = [one for one in (values.values() if isinstance(values, dict) else values) if isinstance(one, str)]
    kinds = [one for one in texts if _EVENT.fullmatch(one)]
    assets = [one for one in texts if one.startswith('["')]
    return " ".join(["event", *(kinds[:1] or ["of a log"]), *assets[:1]])


def _role(place: str) -> str:
    """Return which file it is, without ids."""
    parts = place.split("/")
    if parts[0] == "mlartifacts":
        # MLflow writes beside the place first, under a name by lot.
        name = ".uploading" if "uploading" in parts[-1] else parts[-1]
        return f"mlartifacts/{name}" if "." in name else "mlartifacts"
    if parts[0] in ("landing", "archive", "rejected"):
        return "/".join(parts[:2])
    return _PROCESS.sub(".part", parts[0])


class _Watched:
    """A DuckDB connection that tells before each commit, and before each write outside of a transaction."""

    def __init__(self, con: Any, points: Points) -> None:
        self._con, self._points = con, points
        self._inside, self._written = False, ""
        # Rows are found as variables of who asks, and between him and DuckDB stands this.
        con.execute("SET python_scan_all_frames = true")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._con, name)

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self) -> _Watched:
        self._con.begin()
        self._inside, self._written = True, ""
        return self

    def commit(self) -> _Watched:
        self._points.reach(f"warehouse: commit {self._written or 'nothing'}")
        self._con.commit()
        self._inside = False
        return self

    def rollback(self) -> _Watched:
        self._inside = False
        self._con.rollback()
        return self

    def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        found = _STATEMENT.match(query) if isinstance(query, str) else None
        if found:
            said = f"{found.group(1).split()[0].upper()} {found.group(2)}"
            if self._inside:
                self._written = self._written or said
            else:
                self._points.reach(f"warehouse: {said}")
        return self._con.execute(query, *args, **options)

    def close(self) -> None:
        self._points.reach("warehouse: close")
        self._con.close()
