"""How an answer as people write it becomes a survey code. Shared by the contract and the encoder.

``20``, ``"20"``, ``20.0``, ``" 20 "`` and a category of any of them are one code; an empty string, a
NaN and a null are a missing answer; anything else is no code. Whether the study knows the code is
asked elsewhere.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_CODE = r"^[+-]?[0-9]{1,9}(\.0+)?$"
_INTEGER_PART = r"^\+?(-?[0-9]+).*$"


def to_codes(values: Any) -> tuple[pa.Array, pa.Array]:
    """Return the codes in ``values`` and a mask of the values that are no code.

    Args:
        values: Arrow array (chunked or not, dictionary or not) of any type, length n.

    Returns:
        ``(codes, broken)``: int64 codes with nulls for missing and for broken values, and a boolean
        array that is true where a value was given that is no code. Both have length n.
    """
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        codes = array.cast(pa.int64(), safe=False)
        given = array.is_valid()
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = array.cast(pa.float64())
        given = pc.fill_null(pc.invert(pc.is_nan(numbers)), False)
        whole = pc.fill_null(
            pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(pc.abs(numbers), 1e9)), False
        )
        codes = pc.if_else(whole, numbers, None).cast(pa.int64())
    elif pa.types.is_null(kind):
        codes = array.cast(pa.int64())
        given = array.is_valid()
    else:
        text = pc.utf8_trim_whitespace(array.cast(pa.string()))
        given = pc.fill_null(pc.not_equal(text, ""), False)
        whole = pc.fill_null(pc.match_substring_regex(text, _CODE), False)
        digits = pc.replace_substring_regex(pc.if_else(whole, text, None), _INTEGER_PART, r"\1")
        codes = digits.cast(pa.int64())
    broken = pc.and_(given, codes.is_null())
    return codes, broken


def to_table(rows: pa.Table | pa.RecordBatch | pd.DataFrame) -> pa.Table:
    """Return the rows as an Arrow table; frames come from notebooks and MLflow, tables from DuckDB.

    A frame's column may mix numbers and text, which Arrow refuses; such columns go through text.
    """
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, pa.RecordBatch):
        return pa.Table.from_batches([rows])
    arrays = {}
    for name in rows.columns:
        column = rows[name]
        if column.dtype == object:
            column = column.map(str, na_action="ignore").astype("string")
        arrays[str(name)] = pa.array(column, from_pandas=True)
    return pa.table(arrays)
