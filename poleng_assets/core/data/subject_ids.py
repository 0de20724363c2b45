"""The ids of people: the one rule by which every door reads them, and what nearly matches.

An id is a text, compared as it is written: ``7``, ``007``, ``7.0``, ``a`` and ``A`` are different people.
Only the blanks around it are no part of it, and a typed column (whole numbers, decimals, floats, UUIDs) is
read as the text that such a value has. Nothing else is changed: whether ``000123`` of a registry and ``123``
of a spreadsheet are one person is a question for people. So ids that meet nobody are reported beside those
that differ from them by spelling alone (:func:`near_spellings`), and never joined by it.
"""

import unicodedata
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.study.schema import Study
from poleng_assets.warehouse.people import known_ids

# What Unicode calls white space (https://www.unicode.org/Public/UCD/latest/ucd/PropList.txt), for Python and
# Arrow alike: each strips other characters by itself.
BLANKS = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680"
    + "".join(map(chr, range(0x2000, 0x200B)))
    + "\u2028\u2029\u202f\u205f\u3000"
)
EXAMPLES = 3
_UUID_BYTES = 16
# Format characters (zero-width, directions of text, byte order marks), controls, and letters without a shape.
_INVISIBLE = (
    r"[\p{Cc}\p{Cf}\x{034F}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180F}\x{3164}"
    r"\x{FE00}-\x{FE0F}\x{FFA0}]"
)
_QUOTES = "[\"'`\u2018-\u201f]+"
_Step = Callable[[pa.Array], pa.Array]


def _without(pattern: str, kept: str = "") -> _Step:
    return lambda texts: pc.replace_substring_regex(texts, pattern, kept)


# How one id comes to be spelled in two ways, in the order in which each is undone.
_STEPS: dict[str, _Step] = {
    "another Unicode form of the same letters": lambda texts: pc.utf8_normalize(texts, "NFKC"),
    "invisible characters": _without(_INVISIBLE),
    "blanks": _without(r"[\s\p{Z}]+"),
    "quotes around it": _without(f"^{_QUOTES}|{_QUOTES}$"),
    "capital letters": pc.utf8_lower,
    "a decimal point and zeros": _without(r"^([+-]?[0-9]+)[.,]0*$", r"\1"),
    "leading zeros": _without(r"(^|[^0-9])0+([0-9])", r"\1\2"),
    "dashes or brackets": _without(r"[\p{Pd}_{}()\[\]]+"),
}


def plain_id(text: str) -> str:
    """Return an id that somebody wrote as the warehouse has it: without the blanks around it."""
    return text.strip(BLANKS)


def is_number_or_text(kind: pa.DataType) -> bool:
    """Return whether values of such a type of Arrow are numbers or text, or all missing."""
    return (
        pa.types.is_null(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
    )


def is_id_type(kind: pa.DataType) -> bool:
    """Return whether a column of such a type (of Arrow; of a dictionary, that of its values) may hold ids."""
    return is_number_or_text(kind) or is_uuid(kind)


def is_uuid(kind: pa.DataType) -> bool:
    """Return whether a type holds UUIDs: Parquet's own, or the sixteen bytes that writers without it use."""
    plain = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    named = not isinstance(kind, pa.BaseExtensionType) or kind.extension_name == "arrow.uuid"
    return bool(named and pa.types.is_fixed_size_binary(plain) and plain.byte_width == _UUID_BYTES)


def as_written(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return ids as texts, blanks and all, and which of them cannot be told as a whole number.

    Args:
        values: of a type that :func:`is_id_type` takes, no dictionary; length n.

    Returns:
        ``(texts, inexact)``: strings with nulls where there is none, and booleans; both of length n.
    """
    kind = values.type
    inexact = pa.repeat(False, len(values))
    if is_uuid(kind):
        stored = values.storage if isinstance(values, pa.ExtensionArray) else values
        texts = [None if value is None else str(uuid.UUID(bytes=value)) for value in stored.to_pylist()]
        return pa.array(texts, pa.string()), inexact
    if pa.types.is_floating(kind):
        numbers = values.cast(pa.float64())
        given = pc.fill_null(pc.invert(pc.is_nan(numbers)), False)
        # From 2^53 on, neighbouring whole numbers are one float: two people would be one.
        exact = pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(pc.abs(numbers), 2.0**53))
        values = pc.if_else(exact, numbers, None).cast(pa.int64())
        inexact = pc.and_(given, values.is_null())
    elif pa.types.is_decimal(kind):
        whole = pc.if_else(pc.equal(pc.floor(values), values), values, None)
        inexact = pc.and_(values.is_valid(), whole.is_null())
        values = whole.cast(pa.decimal256(76, 0))
    return values.cast(pa.string()), inexact


def trimmed(texts: pa.Array) -> pa.Array:
    """Return ids without the blanks around them; one of blanks alone is none."""
    text = pc.utf8_trim(texts, BLANKS)
    return pc.if_else(pc.equal(text, ""), None, text)


def as_stored(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column of ids as the warehouse would have them; what is no id is null.

    Args:
        values: of any type; one that holds no ids gives nulls alone. Length n.
    """
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if not is_id_type(array.type):
        return pa.nulls(len(array), pa.string())
    return trimmed(as_written(array)[0])


@dataclass(frozen=True)
class NearSpelling:
    """Two ids that differ by spelling alone, and by what: they may be one person, or two."""

    given: str
    known: str
    differ_by: tuple[str, ...]

    def in_words(self) -> str:
        """Describe it in one line; what cannot be seen is written as its code."""
        given, known = shown(self.given), shown(self.known)
        if unicodedata.normalize("NFKC", given) == unicodedata.normalize("NFKC", known):
            given, known = ascii(self.given), ascii(self.known)
        return f"{given} here, {known} there ({', '.join(self.differ_by)})"


@dataclass(frozen=True)
class Strangers:
    """Ids that meet nobody as they are written.

    Attributes:
        ids: how many different ones there are.
        alike: how many of them are known in another spelling.
        examples: some of these.
    """

    ids: int
    alike: int
    examples: tuple[NearSpelling, ...]

    def in_words(self) -> str:
        """Describe what nearly matched and what to do; empty when nothing did."""
        if not self.alike:
            return ""
        examples = "; ".join(near.in_words() for near in self.examples)
        return (
            f"{self.alike:,} of {self.ids:,} are known in another spelling: {examples}. Ids are compared as "
            "they are written: if these are the same people, write their ids as they came first"
        )


def near_spellings(
    given: pa.Array | pa.ChunkedArray, known: Iterable[pa.Array | pa.ChunkedArray], examples: int = EXAMPLES
) -> Strangers:
    """Find for ids that meet nobody those that differ from them by spelling alone.

    Args:
        given: texts that are not among the known ones, as the warehouse has them.
        known: texts as the warehouse has them, in portions of any size: they are looked through once.
    """
    unknown = pc.unique(pc.drop_null(given))
    unknown = unknown.combine_chunks() if isinstance(unknown, pa.ChunkedArray) else unknown
    first_of: dict[str, str] = {}  # for each key, the known id that stands first
    keys = _keys(unknown)
    for portion in known:
        texts = pc.unique(pc.drop_null(portion))
        known_keys = _keys(texts)
        shared = pc.is_in(known_keys, keys)
        for key, text in zip(
            known_keys.filter(shared).to_pylist(), texts.filter(shared).to_pylist(), strict=True
        ):
            first_of.setdefault(key, text)
    alike = [
        (text, first_of[key])
        for text, key in zip(unknown.to_pylist(), keys.to_pylist(), strict=True)
        if key in first_of
    ]
    shown_ones = tuple(NearSpelling(text, other, _differ_by(text, other)) for text, other in alike[:examples])
    return Strangers(len(unknown), len(alike), shown_ones)


def alike_in_warehouse(
    con: Connection, study: Study, given: Iterable[str], examples: int = EXAMPLES
) -> Strangers:
    """Find for ids that no table has those of respondents that differ by spelling alone."""
    return near_spellings(pa.array(list(given), pa.string()), known_ids(con, study), examples)


def shown(text: str) -> str:
    """Return an id in quotes, so that blanks, controls and what cannot be seen stand out."""
    return repr(text) if text.isprintable() else ascii(text)


def _keys(texts: pa.Array, leave_out: str = "") -> pa.Array:
    """Return what is left of ids when everything is undone by which one id comes to have two spellings."""
    for name, step in _STEPS.items():
        if name != leave_out:
            texts = step(texts)
    return texts


def _differ_by(given: str, known: str) -> tuple[str, ...]:
    """Name each step without which two ids of one key would not meet."""
    pair = pa.array([given, known])
    needed = [name for name in _STEPS if len(set(_keys(pair, leave_out=name).to_pylist())) > 1]
    # Where two steps each do without the other, both are named.
    changing = [name for name, step in _STEPS.items() if not step(pair).equals(pair)]
    return tuple(needed or changing)
