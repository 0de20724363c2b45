"""Row accounting: every row read is scored, in quarantine, in a rejected file, or erased on request.

What was in a file is counted again from the file (``core/ingestion/files/open_file.py``), not taken from
ingestion.
"""

from dataclasses import dataclass
from pathlib import Path

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.ingestion.contract import FileRefused, required_columns
from poleng_assets.core.ingestion.files.open_file import count_rows
from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.files import count_batch_rows, count_file_rows


@dataclass(frozen=True)
class Account:
    """Where the rows of one file are.

    Attributes:
        read: rows that ingestion read.
        in_file: rows that the archived file holds, counted again; None when it is not kept any more.
        scored: of those, the ones with a current score; of field studies and outcomes, all that are kept.
        erased: rows that were removed since, on request or because they were kept long enough.
    """

    read: int
    in_file: int | None
    kept: int
    scored: int
    quarantined: int
    erased: int

    @property
    def balanced(self) -> bool:
        """Return whether every row that came in is somewhere."""
        return self.taken_in_whole and self.scored == self.kept

    @property
    def taken_in_whole(self) -> bool:
        """Return whether every row of the file is kept, in quarantine or erased (gone from it, perhaps)."""
        in_file = self.read if self.in_file is None else self.in_file
        file_agrees = in_file + self.erased >= self.read >= in_file
        return file_agrees and self.kept + self.quarantined + self.erased == self.read

    def in_words(self) -> str:
        """Describe where the rows are."""
        file = "the file is no longer kept" if self.in_file is None else f"{self.in_file:,} in the file"
        return (
            f"{self.read:,} rows read ({file}) = {self.scored:,} scored + {self.quarantined:,} in quarantine "
            f"+ {self.erased:,} erased + {self.read - self.scored - self.quarantined - self.erased:,} lost"
        )


def account(con: Connection, study: Study, kind: Kind, name: str, in_file: int | None) -> Account:
    """Return the account of one file that was taken in.

    Args:
        in_file: rows that the archived file holds now.

    Raises:
        LookupError: no such file was taken in.
    """
    read, *rest = count_file_rows(con, study, kind, name)
    return Account(read, in_file, *rest)


def rows_in(path: Path | None, study: Study, kind: Kind) -> int | None:
    """Count the rows of a file again; None when there is no such file any more, or it cannot be read."""
    if path is None or not path.exists():
        return None
    limit = study.policies.ingestion.max_expanded_megabytes * 2**20
    try:
        return count_rows(path, required_columns(study, kind), max_bytes=limit)
    except FileRefused:
        return None


@dataclass(frozen=True)
class Balance:
    """The rows of all batches of a home. ``refused``: of files that were refused whole and could be read."""

    read: int
    scored: int
    quarantined: int
    refused: int
    erased: int
    waiting: int

    @property
    def came_in(self) -> int:
        """Rows in all files that were ever dropped, as far as they could be read."""
        return self.read + self.refused

    @property
    def lost(self) -> int:
        """Rows that are nowhere."""
        return self.read - self.scored - self.quarantined - self.erased - self.waiting

    def in_words(self) -> str:
        """Describe where the rows are."""
        return (
            f"{self.came_in:,} rows came in = {self.scored:,} scored + {self.waiting:,} waiting for a score "
            f"+ {self.quarantined:,} in quarantine + {self.refused:,} in refused files "
            f"+ {self.erased:,} erased + {self.lost:,} lost"
        )


def balance(con: Connection) -> Balance:
    """Return the account of all batches together.

    ``waiting`` are rows that have no score yet: of batches that are to be scored, and of people who were
    just released from quarantine. That the scores are those of the very people of a batch is seen by its own
    account.
    """
    return Balance(*count_batch_rows(con))
