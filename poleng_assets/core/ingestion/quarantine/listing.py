"""Which rows are in quarantine, and why."""

from dataclasses import dataclass

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.storage.home import KINDS, Kind
from poleng_assets.warehouse.files import file_record
from poleng_assets.warehouse.quarantine import commonest_faults, count_by_source, rows_of, source_of

_SHOWN = 3


@dataclass(frozen=True)
class Quarantined:
    """One file's rows in quarantine: how many, and the commonest faults as (column, reason, rows)."""

    source: str
    rows: int
    commonest: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one row."""

    row_number: int
    column: str
    reason: str


def parse_source(source: str) -> tuple[Kind, str]:
    """Return kind and id of a file from what quarantine calls it, such as ``batches/march``.

    Raises:
        LookupError: it has another form.
    """
    kind, _, name = source.partition("/")
    for known in KINDS:
        if kind == known and name:
            return known, name
    raise LookupError(
        f"{source!r} is no source: it must be {', '.join(KINDS)}, a slash and a name, such as batches/march"
    )


def list_sources(con: Connection) -> list[Quarantined]:
    """Return the files that have rows in quarantine, by name, with their three commonest faults."""
    faults = commonest_faults(con, _SHOWN)
    return [Quarantined(source, rows, tuple(faults[source])) for source, rows in count_by_source(con).items()]


def list_faults(con: Connection, kind: Kind, name: str) -> list[Fault]:
    """Return all that is wrong with the rows of one file, in the order of the file.

    Raises:
        LookupError: no such file was taken in.
    """
    file_record(con, kind, name)
    rows = rows_of(con, source_of(kind, name))
    return [Fault(number, *fault) for number, _, faults in rows for fault in faults]
