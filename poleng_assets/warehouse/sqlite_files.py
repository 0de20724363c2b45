"""SQLite files, whoever made them: copied, read and rewritten text by text.

What stands in the stores of MLflow and Dagster is known to ``mlflow_store.py`` and ``dagster_store.py``.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

# As long as Dagster and MLflow write at most.
PATIENCE_SECONDS = 30.0
_HEADER = b"SQLite format 3\0"


def is_sqlite(path: Path) -> bool:
    """Return whether a file begins like a SQLite database."""
    with path.open("rb") as file:
        return file.read(len(_HEADER)) == _HEADER


def copy_sqlite(path: Path, copy: Path) -> None:
    """Copy a database as one moment of it; https://www.sqlite.org/backup.html."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=60)) as source, closing(sqlite3.connect(copy)) as target:
        target.execute("PRAGMA synchronous = OFF")  # it is read again before anybody relies on it
        source.backup(target)
        # One file, whatever the journal of the original: nothing is left beside it.
        target.execute("PRAGMA journal_mode = DELETE")


@contextmanager
def kept_open(paths: Sequence[Path]) -> Iterator[None]:
    """Hold databases open without reading or locking anything; those that are missing are passed over.

    Raises:
        sqlite3.Error: one cannot be read.
    """
    with ExitStack() as stack:
        for path in paths:
            if path.exists():
                con = sqlite3.connect(
                    f"{path.as_uri()}?mode=rw",
                    uri=True,
                    timeout=PATIENCE_SECONDS,
                    check_same_thread=False,  # a generator may be closed by another thread
                )
                stack.enter_context(closing(con))
                con.execute("SELECT count(*) FROM sqlite_master").fetchall()  # opens the log, too
        yield


def rows_of_image(content: bytes) -> Iterator[dict[str, object]]:
    """Yield every row of every table of a database that is given as bytes, by the names of its columns.

    Raises:
        sqlite3.Error: it is damaged.
    """
    with closing(sqlite3.connect(":memory:")) as con:
        con.deserialize(content)
        for table in _tables(con):
            rows = con.execute(f'SELECT * FROM "{table}"')  # noqa: S608
            names = [column[0].strip() for column in rows.description]
            for row in rows:
                yield dict(zip(names, row, strict=True))


def count_texts(path: Path, is_meant: Callable[[str], bool]) -> list[tuple[str, str, int]]:
    """Return table, column and number of the text cells that a function picks; nothing is written.

    Raises:
        sqlite3.Error: the file is damaged or locked.
    """
    uri = f"{path.as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=PATIENCE_SECONDS)) as con:
        return list(_texts(con, is_meant))


def rewrite_texts(path: Path, rewrite: Callable[[str], str]) -> int:
    """Replace every text cell by what a function makes of it, in one transaction; return how many changed.

    Raises:
        sqlite3.Error: the file is damaged or locked.
    """
    changed = 0
    with closing(sqlite3.connect(path, timeout=PATIENCE_SECONDS)) as con:
        con.create_function("rewritten", 1, rewrite)
        with con:
            for table, column, cells in _texts(con, lambda text: rewrite(text) != text):
                changed += cells
                con.execute(
                    f'UPDATE "{table}" SET "{column}" = rewritten("{column}") '  # noqa: S608
                    f'WHERE is_meant("{column}")'
                )
    return changed


def vacuum(path: Path) -> None:
    """Write a database again: what was written over stays in free pages and in the log until then."""
    with closing(sqlite3.connect(path, timeout=PATIENCE_SECONDS)) as con:
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        con.execute("VACUUM")
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _texts(con: sqlite3.Connection, is_meant: Callable[[str], bool]) -> Iterator[tuple[str, str, int]]:
    con.create_function(
        "is_meant", 1, lambda cell: isinstance(cell, str) and is_meant(cell), deterministic=True
    )
    for table in _tables(con):
        for _, column, *_ in con.execute(f'PRAGMA table_info("{table}")').fetchall():
            ((cells,),) = con.execute(
                f'SELECT count(*) FROM "{table}" WHERE typeof("{column}") = \'text\' '  # noqa: S608
                f'AND is_meant("{column}")'
            ).fetchall()
            if cells:
                yield table, column, cells


def _tables(con: sqlite3.Connection) -> list[str]:
    rows = con.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return [name for (name,) in rows]
