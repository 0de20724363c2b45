"""Reading dropped files: from bytes to numbered rows of text or numbers, in bounded memory.

What belongs here is the form of a file: its name, compression, encoding, delimiter, quotes, header and
records. What its values mean is asked in ``core/ingestion/contract.py``. A *data row* is a record after the
header that is not blank; data rows are numbered from 1. Each is given out, as a row or as malformed, or the
whole
file is refused: nothing is skipped.

Text is read twice. The first look decides on the encoding, the delimiter and the quotes, and refuses what
must not be read at all; the second gives the rows. Quotes as RFC 4180 has them
(https://www.rfc-editor.org/rfc/rfc4180) are read by Arrow, odder ones by Python's ``csv`` in strict mode,
which is slower and says where a record is broken.
"""

import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.core.ingestion.files.base import OpenFile
from poleng_assets.core.ingestion.files.delimited_text import TextFile
from poleng_assets.core.ingestion.files.parquet_file import ParquetFile, open_parquet
from poleng_assets.storage.dropped_files import SUFFIXES, known_suffix


@contextmanager
def open_file(path: Path, needed: Sequence[str], *, max_bytes: int) -> Iterator[OpenFile]:
    """Open a dropped file for reading.

    Args:
        path: of the file; its suffix says what it must hold.
        needed: names of the columns that are wanted. The delimiter of a text is the one under which its
            header holds most of them.
        max_bytes: how much it may hold when it is decompressed.

    Raises:
        FileRefused: the file is not what its suffix says, is damaged, empty or too large, is no text in a
            known encoding, has no header, or has a quote that is never closed.
    """
    suffix = known_suffix(path.name)
    if not suffix:
        raise FileRefused(f"{path.name} is none of {', '.join(SUFFIXES)}")
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise FileRefused(f"{path.name} is not a regular file")
    if status.st_size == 0:
        raise FileRefused(f"{path.name} is empty: it has 0 bytes. Was it copied whole?")
    if suffix == ".parquet":
        with open_parquet(path) as file:
            yield ParquetFile(path, file, needed, max_bytes)
    else:
        yield TextFile(path, needed, max_bytes)


def count_rows(path: Path, needed: Sequence[str], *, max_bytes: int) -> int:
    """Return how many data rows a file has, malformed ones too, by reading it once more.

    Raises:
        FileRefused: as :func:`open_file` and :meth:`OpenFile.chunks` do.
    """
    with open_file(path, needed, max_bytes=max_bytes) as file:
        return file.count()
