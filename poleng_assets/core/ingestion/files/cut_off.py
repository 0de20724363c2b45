"""Whether the last value of a file may be the beginning of another one: text that was cut off within it."""

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.core.ingestion.files.base import OpenFile
from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.people import shortest_other_id

_TRUTH = ("true", "false")


def refuse_if_cut_off(con: Connection, study: Study, kind: Kind, name: str, file: OpenFile) -> None:
    """Refuse a text whose last line has no end and whose last value may be longer in truth.

    Many programs write no end of the last line: a value that no code of its question begins with is whole.
    An id is when another one of the file is as short.

    Args:
        con: of the warehouse, with the rows of the file.

    Raises:
        FileRefused: the file may have been cut off.
    """
    value = file.last_value
    if value is None:
        return
    column = file.columns[-1]
    codes = {feature.name: feature.codes for feature in study.features} | {
        study.target.name: study.target.codes
    }
    if column in codes:
        spellings = [str(code) for code in codes[column]] + (
            list(_TRUTH) if set(codes[column]) == {0, 1} else []
        )
        longer = [
            word for word in spellings if word.startswith(value.casefold()) and word != value.casefold()
        ]
        why = f"may be the beginning of {longer[0]!r}" if longer else ""
    elif column == study.id:
        shortest = shortest_other_id(con, study, kind, name, but=value)
        why = "is shorter than all others" if shortest is not None and len(value) < shortest else ""
    else:
        why = ""
    if why:
        raise FileRefused(
            f"the file may break off within its last row: its last line has no end, and the last value, "
            f"{value!r} of {column}, {why}. Was it copied whole? If it was, put a line break behind it"
        )
