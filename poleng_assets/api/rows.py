"""Rows as somebody has them at hand, made to answers and codes by the rules of the door."""

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from poleng_assets.core.features.answers import NO_CODE, UNKNOWN, read_answers
from poleng_assets.core.features.encoder import Encoder, EncodingError
from poleng_assets.study.schema import Study

# A frame, an Arrow table (or what gives one: a DuckDB relation, a polars frame), one person or many as
# mappings from question to code.
Rows: TypeAlias = Any

NULLABLE = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}


def answers_of(rows: Rows, study: Study) -> tuple[pa.Table, pd.Index]:
    """Return the study's columns of rows as they were given, and the index that their scores get."""
    if isinstance(rows, pd.Series):
        rows = rows.to_frame().T
    elif isinstance(rows, Mapping):
        rows = _people([rows], study)
    elif isinstance(rows, list | tuple):
        rows = _people(rows, study)
    wanted = {study.id, *study.feature_names}
    if isinstance(rows, pd.DataFrame):
        # Others may hold what no table does, and are left out at the door too.
        return Encoder.table(rows.loc[:, [name in wanted for name in rows.columns]]), rows.index
    if not hasattr(rows, "__arrow_c_stream__") and not hasattr(rows, "__arrow_c_array__"):
        raise TypeError(
            f"people come as a frame, an Arrow table, or mappings from question to code, not as "
            f"{type(rows).__name__}"
        )
    table = rows if isinstance(rows, pa.Table) else pa.table(rows)
    positions = [position for position, name in enumerate(table.column_names) if name in wanted]
    return table.select(positions), pd.RangeIndex(table.num_rows)


def _people(people: Sequence[Any], study: Study) -> pd.DataFrame:
    """Return mappings as a frame; a question that one of them lacks is not taken for a missing answer."""
    for row, person in enumerate(people, 1):
        if not isinstance(person, Mapping):
            raise TypeError(f"row {row} is no mapping from question to code, but {type(person).__name__}")
        if lacking := [name for name in study.feature_names if name not in person]:
            raise EncodingError(
                f"column {lacking[0]!r} is missing in row {row}: say None where there is no answer"
            )
    names = [study.id] * any(study.id in person for person in people) + study.feature_names
    return pd.DataFrame({name: [person.get(name) for person in people] for name in names})


def codes_of(table: pa.Table, study: Study) -> pa.Table:
    """Return the answers as int64 codes, in the order of the study, by the rules of the door.

    A nominal code that the study does not list is news, and taken; of the other kinds it is broken
    (``core/ingestion/contract.py``).

    Raises:
        EncodingError: with one line for each question that is missing or has an answer that is no code.
    """
    columns, faults = {}, []
    for feature in study.features:
        count = table.column_names.count(feature.name)
        if count != 1:
            faults.append(f"column {feature.name!r} {'stands twice' if count else 'is missing'}")
            continue
        given = table[feature.name]
        try:
            answers = read_answers(given, feature)
        except pa.ArrowException as error:
            faults.append(f"column {feature.name!r} holds {given.type}, which are no survey codes: {error}")
            continue
        listed = ", ".join(map(str, feature.closed_codes or ()))
        for broken, why in ((answers.no_code, NO_CODE), (answers.unknown, f"{UNKNOWN}: {listed}")):
            if pc.any(broken).as_py():
                row = pc.index(broken, True).as_py()
                value = reprlib.repr(given[row].as_py())
                faults.append(f"column {feature.name!r} holds {value} in row {row + 1}, which {why}")
                break
        columns[feature.name] = answers.codes
    if faults:
        raise EncodingError("\n".join(faults))
    return pa.table(columns)


def as_frame(codes: pa.Table) -> pd.DataFrame:
    """Return codes as a frame in which they stay whole numbers where another is missing."""
    return codes.to_pandas(types_mapper=NULLABLE.get)
