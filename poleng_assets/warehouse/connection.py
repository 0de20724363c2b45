"""The warehouse: one DuckDB file, written by one process at a time, or read by several.

Connections are short: what is computed from its rows is computed when it is closed
(:meth:`Warehouse.read_compute_write`). Which tables there are is in ``warehouse/schema.py``.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import duckdb
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.study.schema import Study
from poleng_assets.text.plain_text import first_line
from poleng_assets.warehouse.schema import create_tables, is_up_to_date
from poleng_assets.warehouse.writes import transaction

Inputs = TypeVar("Inputs")
Result = TypeVar("Result")

PATIENCE_SECONDS = 60.0
SAY_EVERY_SECONDS = 30.0
# How often something is computed whose rows others change meanwhile, before that is given up.
ATTEMPTS = 5
# Beyond it DuckDB works in a folder beside the file. By default it would keep what it has read and written,
# up to most of the machine's memory, which the daemon, the UI and a training share.
# https://duckdb.org/docs/stable/guides/performance/environment asks for at least 125 for each thread.
MEGABYTES_PER_THREAD = 250


class WarehouseBusy(RuntimeError):
    """Another process locks the warehouse and did not release it in time."""


class WarehouseUnusable(RuntimeError):
    """The warehouse cannot be opened or written; the message says why and what to do. It is left as it is."""


class WarehouseChanged(RuntimeError):
    """Others went on changing what something was computed from; nothing was written."""


@dataclass(frozen=True)
class Warehouse:
    """Opens the DuckDB file; the tables are there when a connection is handed out.

    Attributes:
        path: of the DuckDB file.
        study: whose columns the tables have.
        patience_seconds: how long to wait for another process that holds the file.
        say: is called with who holds it, at once and every ``SAY_EVERY_SECONDS``.
        guard: looks at each connection before it is handed out, and raises to refuse it.
    """

    path: Path
    study: Study
    patience_seconds: float = PATIENCE_SECONDS
    say: Callable[[str], None] = field(default=lambda message: None, compare=False, repr=False)
    guard: Callable[[Connection], None] = field(default=lambda con: None, compare=False, repr=False)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Open the file for reading and writing, and close it at the end, whatever happens.

        Raises:
            WarehouseBusy: another process held it for ``patience_seconds``; the message names it.
            WarehouseUnusable: it is damaged, or of another DuckDB, or may not be written, or the disk is
                full; also when that happens while it is open.
        """
        with self._opened(read_only=False) as con:
            # What a killed process had put beside the file: rows of people, and nobody else's at this moment.
            shutil.rmtree(f"{self.path}.tmp", ignore_errors=True)
            create_tables(con, self.study)
            self.guard(con)
            yield con

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open an existing file for reading only; what an earlier release lacks is made before.

        Raises:
            FileNotFoundError: there is none.
            WarehouseBusy: as for :meth:`connect`.
            WarehouseUnusable: as for :meth:`connect`.
        """
        if not self.path.exists():
            raise FileNotFoundError(self.path)
        with self._opened(read_only=True) as con:
            # One that may not be written is read as it is.
            current = is_up_to_date(con, self.study) or not os.access(self.path, os.W_OK)
            if current:
                self.guard(con)
                yield con
        if not current:
            # Of an earlier release: what it lacks is made once, by whoever comes first.
            with self.connect():
                pass
            with self._opened(read_only=True) as con:
                yield con

    def read_compute_write(
        self,
        state: Callable[[Connection], object],
        read: Callable[[Connection], Inputs],
        compute: Callable[[Inputs], Result],
        write: Callable[[Connection, Result], None],
    ) -> Result:
        """Read, let the file go, compute, and write in one transaction; return what was computed.

        It is written only if what it rests on is still so: otherwise all is done again. So nobody who was
        erased meanwhile is written down again, and nothing is decided on what is decided otherwise by then.

        Args:
            state: returns what the result rests on, to be compared by ``==``; called before reading, and
                inside the transaction that writes.
            read: returns what is needed from the warehouse.
            compute: takes as long as it takes; the file is closed.
            write: puts the result into the warehouse.

        Raises:
            WarehouseChanged: it was computed ``ATTEMPTS`` times, and never the state was still the same.
            WarehouseBusy, WarehouseUnusable: as for :meth:`connect`.
        """
        for _ in range(ATTEMPTS):
            with self.read() as con:
                before, inputs = state(con), read(con)
            result = compute(inputs)
            with self.connect() as con, transaction(con):
                if state(con) == before:
                    write(con, result)
                    return result
        raise WarehouseChanged(
            f"others changed the warehouse {self.path} during each of {ATTEMPTS} attempts: nothing was "
            "written. Run this again when they have finished"
        )

    @contextmanager
    def _opened(self, *, read_only: bool) -> Iterator[Connection]:
        try:
            con = self._open(read_only=read_only)
        except duckdb.Error as error:
            raise WarehouseUnusable(f"{_trouble_words(self.path, error)}. Nothing was changed") from error
        try:
            yield con
        except duckdb.Error as error:
            # A full disk or a bad one; everything else is a fault of the query, and says so itself.
            if not re.search(f"{_DISK_FULL}|{_DAMAGED_IN_USE}", _without_names(error)):
                raise
            raise WarehouseUnusable(_trouble_words(self.path, error)) from error
        finally:
            con.close()

    def _open(self, *, read_only: bool) -> Connection:
        started = time.monotonic()
        last_message = -SAY_EVERY_SECONDS
        while True:
            try:
                return duckdb.connect(self.path, read_only=read_only, config={"memory_limit": _memory()})
            except (duckdb.IOException, duckdb.ConnectionException) as error:
                # The second: this process itself has it open, in the other of both ways.
                if not re.search("could not set lock|different configuration", _without_names(error).lower()):
                    raise
                waited = time.monotonic() - started
                if waited > self.patience_seconds:
                    raise WarehouseBusy(_busy_words(self.path, error, self.patience_seconds)) from error
                # Two runs that meet let go within moments: that is no news.
                if waited > 1.0 and waited - last_message >= SAY_EVERY_SECONDS:
                    last_message = waited
                    self.say(_waiting_words(self.path, error, waited, self.patience_seconds))
                time.sleep(0.2)


def _memory() -> str:
    return f"{MEGABYTES_PER_THREAD * max(2, os.cpu_count() or 1)}MB"


def _holder(error: Exception) -> str:
    """Return who holds the file, by name and number, as DuckDB tells it."""
    holder = re.search(r"in (.+?\(PID \d+\))", str(error))
    return holder.group(1) if holder else "another process"


def _waiting_words(path: Path, error: Exception, waited: float, patience: float) -> str:
    return (
        f"Waiting for the warehouse {path}: it has been locked by {_holder(error)} for {waited:.0f} s. "
        f"This continues when the lock is released, and gives up after {_minutes(patience)}"
    )


def _busy_words(path: Path, error: Exception, patience: float) -> str:
    return (
        f"the warehouse {path} is locked by {_holder(error)}, for more than {_minutes(patience)}. "
        "Close that connection (a DuckDB shell, a notebook) and run this again; nothing was lost"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


_DISK_FULL = r"No space left on device|Disk quota exceeded|out of disk space|max_temp_directory_size"
_DAMAGED_IN_USE = r"Corrupt database|database has been invalidated"
# What DuckDB says when a file or its disk is not as it should be, and what to do about it.
_TROUBLES = (
    (
        r"storage version number|newer version of DuckDB|more recent version of DuckDB",
        "it was written by another version of DuckDB than the installed one ({duckdb}). "
        "Install the release of this project that wrote it, or a later one",
    ),
    (_DISK_FULL, "the disk is full. Free some space and run this again; what was not committed is not in it"),
    (
        r"Permission denied|Read-only file system|not permitted|Cannot open (file|database)",
        "permission denied. Check that its folder exists, that you own both, and that the disk "
        "is not mounted read-only",
    ),
    (
        r"replaying WAL",
        "its log of last changes (the file beside it, ending in .wal) is damaged. Restore the newest "
        "backup (`poleng restore`), and keep both files until you have",
    ),
    (
        rf"not a valid DuckDB|Could not read|{_DAMAGED_IN_USE}|checksum|[Ss]erialization|I/O error",
        "it is damaged or not a DuckDB file. Restore the newest backup (`poleng restore`), and keep "
        "this file until you have",
    ),
)


def _trouble_words(path: Path, error: Exception) -> str:
    message = _without_names(error)
    troubles = (trouble for pattern, trouble in _TROUBLES if re.search(pattern, message))
    trouble = next(troubles, "it cannot be opened").format(duckdb=duckdb.__version__)
    return f"the warehouse {path} cannot be used: {trouble}. DuckDB says: {first_line(error)}"


def _without_names(error: Exception) -> str:
    """Return DuckDB's words without the names in them: what a folder is called decides nothing."""
    return re.sub(r'"[^"]*"', "", str(error))
