"""How an answer as people write it becomes a survey code. Shared by the contract and the encoder.

``20``, ``"020"``, ``20.0``, ``" 20 "`` and a category of any of them are one code; an empty string, a
NaN and a null are a missing answer; anything else is no code. Truth values are 1 and 0; as words they are so
only where a question has just these codes. Whether the study knows the code is asked elsewhere.
"""

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_CODE = r"^[+-]?0*[0-9]{1,10}(\.0+)?$"
_INTEGER_PART = r"^\+?(-?[0-9]+).*$"
_TEXTS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
)
_LEAST, _MOST = -(2**31), 2**31 - 1  # what the warehouse and the encoder hold


def to_codes(values: Any, truths: bool = False) -> tuple[pa.Array, pa.Array]:
    """Return the codes in ``values`` and a mask of the values that are no code.

    Args:
        values: Arrow array (chunked or not, dictionary or not) of any type, length n.
        truths: whether the words ``true`` and ``false`` in letters of any size stand for 1 and 0, as a typed
            column of truth values does.

    Returns:
        ``(codes, broken)``: int64 codes with nulls for missing and for broken values, and a boolean
        array that is true where a value was given that is no code: no whole number, or one that 32 bits
        do not hold. Both have length n.
    """
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        array = array.dictionary_encode()  # answers repeat: each spelling is read once
    if pa.types.is_dictionary(array.type):
        codes, broken = _to_codes(array.dictionary, truths)
        codes = codes.take(array.indices)
        if not broken.true_count:
            return codes, pa.repeat(False, len(array))
        return codes, pc.fill_null(broken.take(array.indices), False)
    return _to_codes(array, truths)


def _to_codes(array: pa.Array, truths: bool) -> tuple[pa.Array, pa.Array]:
    kind = array.type
    if pa.types.is_null(kind) or pa.types.is_boolean(kind):
        return array.cast(pa.int64()), pa.repeat(False, len(array))
    if pa.types.is_integer(kind):
        # 64 bits without a sign are more than Arrow compares; as floats they are far beyond 32 bits still.
        unsigned = pa.types.is_uint64(kind)
        return _held(array.cast(pa.float64(), safe=False) if unsigned else array, array.is_valid())
    if pa.types.is_decimal(kind):
        whole = pc.if_else(pc.equal(pc.floor(array), array), array, None)
        # Arrow makes 3.0000000000000004 of a decimal 3.00000.
        return _held(pc.round(whole.cast(pa.float64())), array.is_valid())
    if pa.types.is_floating(kind):
        numbers = array.cast(pa.float64())
        given = pc.fill_null(pc.invert(pc.is_nan(numbers)), False)
        return _held(pc.if_else(pc.equal(pc.floor(numbers), numbers), numbers, None), given)
    if not any(is_of(kind) for is_of in _TEXTS):
        return pa.nulls(len(array), pa.int64()), array.is_valid()  # a second is no code 1
    text = pc.utf8_trim_whitespace(array.cast(pa.string()))
    if truths:
        text = _in_digits(text)
    given = pc.fill_null(pc.not_equal(text, ""), False)
    whole = pc.fill_null(pc.match_substring_regex(text, _CODE), False)
    digits = pc.replace_substring_regex(pc.if_else(whole, text, None), _INTEGER_PART, r"\1")
    # Floats hold ten digits exactly, and any number of zeros before them.
    return _held(digits.cast(pa.float64()), given)


def _in_digits(texts: pa.Array) -> pa.Array:
    """Return texts with truth values as ``1`` and ``0``."""
    small = pc.utf8_lower(texts)
    code = pc.index_in(small, pa.array(["false", "true"]))
    return pc.coalesce(code.cast(pa.string()), texts)


def _held(numbers: pa.Array, given: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the whole numbers that 32 bits hold, and which of the given values are none."""
    if pa.types.is_integer(numbers.type):
        ends = pc.min_max(numbers).as_py()
        if ends["min"] is None or _LEAST <= ends["min"] <= ends["max"] <= _MOST:
            return numbers.cast(pa.int64()), pa.repeat(False, len(numbers))
    held = pc.and_(pc.greater_equal(numbers, _LEAST), pc.less_equal(numbers, _MOST))
    codes = pc.if_else(pc.fill_null(held, False), numbers, None).cast(pa.int64())
    return codes, pc.and_(given, codes.is_null())


def to_table(rows: pa.Table | pa.RecordBatch | pd.DataFrame) -> pa.Table:
    """Return the rows as an Arrow table; frames come from notebooks and MLflow, tables from DuckDB.

    A frame's column may mix numbers and text, which Arrow refuses; such columns go through text.

    Raises:
        pyarrow.ArrowInvalid: (a ``ValueError``) a frame's column stands twice, or holds what Arrow does
            not know; the message names it.
    """
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, pa.RecordBatch):
        return pa.Table.from_batches([rows])
    names = [str(name) for name in rows.columns]
    arrays = {}
    for position, name in enumerate(names):
        if name in arrays:
            raise pa.ArrowInvalid(f"the column {name!r} stands twice")
        column = rows.iloc[:, position]
        try:
            if column.dtype == object:
                column = column.map(str, na_action="ignore").astype("string")
            arrays[name] = pa.array(column, from_pandas=True)
        except (pa.ArrowException, TypeError, UnicodeError, ArithmeticError) as error:
            raise pa.ArrowInvalid(f"the column {name!r} of {column.dtype} holds no codes: {error}") from error
    return pa.table(arrays)
