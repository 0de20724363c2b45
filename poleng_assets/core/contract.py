"""The contract at the door: which columns a file must have and which codes they may hold.

Columns decide about the file, codes about the row: a file without a column is refused, a row with a
code that no answer can have goes to quarantine. A *nominal* code that the study does not list is
neither: a new country is news, kept and counted by the overseer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from poleng_assets.core.codes import to_codes
from poleng_assets.home import Kind
from poleng_assets.study import Study

QUARANTINE_COLUMNS = ["row_number", "column_name", "reason", "payload"]


class FileRefused(Exception):
    """A file that cannot be taken in; the message is for the person who dropped it."""


@dataclass(frozen=True)
class CheckedRows:
    """Rows in canonical types, and what was wrong with the others.

    Attributes:
        rows: the sound rows as the warehouse stores them, with their ``row_number`` in the file.
        broken: one row for each fault, with the columns ``QUARANTINE_COLUMNS``; the payload is
            the whole row as JSON, so that nothing is lost.
    """

    rows: pd.DataFrame
    broken: pd.DataFrame

    @property
    def broken_rows(self) -> int:
        """How many rows have at least one fault."""
        return self.broken["row_number"].nunique()


def required_columns(study: Study, kind: Kind) -> list[str]:
    """Return the columns that a file of this kind must have."""
    features = [] if kind == "outcomes" else study.feature_names
    target = [] if kind == "batches" else [study.target.name]
    return [study.id, *features, *target]


def check_columns(columns: Sequence[str], study: Study, kind: Kind) -> list[str]:
    """Return the columns of a file that the study does not use; they are left out.

    Raises:
        FileRefused: a column is missing, or stands twice.
    """
    needed = required_columns(study, kind)
    twice = sorted({name for name in columns if list(columns).count(name) > 1})
    if twice:
        raise FileRefused(f"the column {', '.join(twice)} stands twice")
    missing = [name for name in needed if name not in columns]
    if missing == needed:
        raise FileRefused(
            f"none of the needed columns is there ({', '.join(needed)}): does the file have a header "
            "row, and is it whole?"
        )
    if missing:
        hint = ""
        if missing == [study.target.name]:
            hint = " (the target: without it this is a batch, to be dropped into landing/batches)"
        raise FileRefused(
            f"{_count(len(missing), 'column')} missing: {', '.join(missing)}{hint}. "
            f"A file of {kind} needs: {', '.join(needed)}"
        )
    return [name for name in columns if name not in needed]


def check_rows(table: pa.Table, study: Study, kind: Kind, first_row: int = 1) -> CheckedRows:
    """Bring rows into canonical types and set the broken ones apart.

    Args:
        table: rows as read from the file, with every required column, of any type.
        study: whose codes count.
        kind: of the file; batches have no target.
        first_row: number in the file of the first row, from 1.

    Raises:
        FileRefused: a column is of a kind that holds no answers, such as lists or pictures.
    """
    import pandera.errors

    names = required_columns(study, kind)
    frame = pd.DataFrame({"row_number": range(first_row, first_row + table.num_rows)})
    faults: list[tuple[int, str, str]] = []
    for name in names:
        try:
            if name == study.id:
                frame[name] = _ids(table[name])
                continue
            codes, broken = to_codes(table[name])
        except pa.ArrowException as error:
            raise FileRefused(f"the column {name} holds {table[name].type}, not answers: {error}") from error
        frame[name] = codes.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        for index in broken.to_numpy(zero_copy_only=False).nonzero()[0]:
            faults.append((int(index), name, f"{table[name][int(index)].as_py()!r} is no survey code"))
    try:
        _row_schema(study, kind).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as error:
        already = {(index, name) for index, name, _ in faults}
        for case in error.failure_cases.itertuples():
            key = (int(case.index), str(case.column))
            if key not in already:
                faults.append((*key, _reason(str(case.check), case.failure_case)))
    broken_at = sorted({index for index, _, _ in faults})
    broken = pd.DataFrame(
        [
            (first_row + index, name, reason, _payload(table, index, names))
            for index, name, reason in sorted(faults)
        ],
        columns=QUARANTINE_COLUMNS,
    )
    rows = frame.drop(index=broken_at)
    return CheckedRows(_as_stored(rows, study, kind), broken)


def storage_types(study: Study, kind: Kind) -> dict[str, str]:
    """Return the DuckDB type of each column: ids and names are text, ordinals and targets numbers."""
    types = {study.id: "VARCHAR NOT NULL", study.target.name: "INTEGER NOT NULL"}
    types |= {f.name: "INTEGER" if f.is_ordinal else "VARCHAR" for f in study.features}
    return {name: types[name] for name in required_columns(study, kind)}


def _row_schema(study: Study, kind: Kind) -> Any:
    """Build the pandera schema of one row; https://pandera.readthedocs.io/ (lazy validation)."""
    import pandera.pandas as pandera

    columns = {study.id: pandera.Column(object, nullable=False)}
    if kind != "outcomes":
        for feature in study.features:
            known = [] if feature.kind == "nominal" else [pandera.Check.isin(sorted(feature.codes))]
            columns[feature.name] = pandera.Column("Int64", known, nullable=True)
    if kind != "batches":
        columns[study.target.name] = pandera.Column(
            "Int64", pandera.Check.isin(sorted(study.target.codes)), nullable=False
        )
    return pandera.DataFrameSchema(columns)


def _ids(values: pa.ChunkedArray) -> pd.Series:
    """Return the ids as text, empty ones as None."""
    text = values.cast(pa.string()).to_pandas().str.strip()
    return text.where(text.notna() & (text != ""), None).astype(object)


def _reason(check: str, value: object) -> str:
    if check == "not_nullable":
        return "is empty"
    return f"{value} is not among the codes of the study"


def _payload(table: pa.Table, index: int, names: Sequence[str]) -> str:
    row = {name: table[name][index].as_py() for name in names}
    return json.dumps(row, default=str, ensure_ascii=False)


def _as_stored(rows: pd.DataFrame, study: Study, kind: Kind) -> pd.DataFrame:
    text = [f.name for f in study.features if not f.is_ordinal] if kind != "outcomes" else []
    return rows.astype(dict.fromkeys(text, "string")).reset_index(drop=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun} is" if number == 1 else f"{number} {noun}s are"
