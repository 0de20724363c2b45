"""Reading a corrected sheet: the cells of each row, by its number."""

import re
from collections.abc import Iterator
from pathlib import Path

from poleng_assets.core.ingestion.contract import FileRefused, check_columns, required_columns
from poleng_assets.core.ingestion.files.base import OpenFile
from poleng_assets.core.ingestion.files.open_file import open_file
from poleng_assets.core.ingestion.quarantine.sheet import ROW_NUMBER
from poleng_assets.storage.dropped_files import has_known_suffix
from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study

_ROW_NUMBER = re.compile(r"0*([1-9][0-9]{0,17})(\.0+)?")


def read_sheet(sheet: Path, study: Study, kind: Kind) -> dict[int, dict[str, str]]:
    """Return the needed cells of each row, by its number; of any delimiter, as spreadsheets save them.

    Raises:
        FileRefused: the sheet cannot be read, or a row has no number, or one that stands there already.
    """
    columns = [ROW_NUMBER, *required_columns(study, kind)]
    if not has_known_suffix(sheet.name) or sheet.suffix == ".parquet" or not sheet.is_file():
        raise FileRefused(f"{sheet} is not a CSV file")
    rows: dict[int, dict[str, str]] = {}
    limit = study.policies.ingestion.max_expanded_megabytes * 2**20
    with open_file(sheet, columns, max_bytes=limit) as file:
        if ROW_NUMBER not in file.columns:
            raise FileRefused(
                f"{sheet.name} has no column {ROW_NUMBER}: correct the sheet that "
                f"poleng quarantine list --source {kind}/NAME --out FILE.csv writes"
            )
        check_columns(file.columns, study, kind)
        for where, cells in _lines(file, sheet.name):
            # Spreadsheets leave lines of nothing but delimiters at the end.
            if any(cell.strip() for cell in cells.values()):
                number = _row_number(cells.pop(ROW_NUMBER), where)
                if number in rows:
                    raise FileRefused(f"{where}: duplicate {ROW_NUMBER} {number}")
                rows[number] = cells
            if file.ascii_only and not all(cell.isascii() for cell in cells.values()):
                raise FileRefused(f"{where}: unknown character encoding: save the sheet as 'CSV UTF-8'")
    return rows


def _lines(file: OpenFile, name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where each line of a sheet stands, in words, and its cells by column."""
    for chunk in file.chunks():
        for bad in chunk.malformed:
            raise FileRefused(f"{name}, row {bad.row_number} below the header: {bad.reason}")
        for number, cells in zip(chunk.row_numbers, chunk.rows.to_pylist(), strict=True):
            yield (
                f"{name}, row {number} below the header",
                {column: cell or "" for column, cell in cells.items()},
            )


def _row_number(cell: str, where: str) -> int:
    number = _ROW_NUMBER.fullmatch(cell.strip())
    if number is None:
        # The cell is not shown: where columns slipped, it may be anybody's id.
        raise FileRefused(f"{where}: {ROW_NUMBER} is not a row number")
    return int(number[1])
