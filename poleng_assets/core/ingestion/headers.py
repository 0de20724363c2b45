"""The names of columns: how files write them, and how a refusal tells of those that are missing.

A header is read as its writer meant it: blanks, marks and invisible characters around a name, and quotes
around it, are no part of it. More is not guessed: ``Country`` for ``country`` is told as the nearest name.
"""

import difflib
import re
import unicodedata
from collections.abc import Sequence

_PAIRS = ('""', "''", "``", "\u201c\u201d", "\u201e\u201c", "\u2018\u2019", "\u00ab\u00bb")
_QUOTES = {pair[0]: pair[1] for pair in _PAIRS}
# A byte order mark that was taken for Windows-1252 and saved as UTF-8.
_MARK_MISREAD = "\u00ef\u00bb\u00bf"
_MOST_NAMED = 40
_LONGEST = 40  # characters of a name
_MOST_MATCHED = 8
_MOST_COMPARED = 1_000
_CLOSE = 0.7  # of difflib's ratio


def plain_name(written: str) -> str:
    """Return the name of a column without the blanks, marks, invisible signs and quotes around it."""
    name = written
    while True:
        before = name
        name = _stripped(name.removeprefix(_MARK_MISREAD))
        if len(name) > 1 and _QUOTES.get(name[0]) == name[-1]:
            name = name[1:-1]
        if name == before:
            return name


def blanks_follow(header: str, delimiter: str) -> bool:
    """Return whether a header has blanks behind its delimiters, so that a quote behind them opens a field."""
    return re.search(re.escape(delimiter) + " +\\S", header) is not None


def missing_in_words(missing: Sequence[str], present: Sequence[str]) -> str:
    """Describe which columns a file has and which are nearest to the missing ones, in whole sentences.

    A first row that may be a person's answers is not repeated: it is no header.

    Args:
        missing: names that are needed and not there.
        found: the names that are there, as :func:`plain_name` gives them.
    """
    named = [name for name in present if name]
    sentences = []
    if named and all(map(_may_be_a_name, named)):
        sentences.append(f"It has: {listed(named)}.")
    near = [(name, match) for name in missing[:_MOST_MATCHED] if (match := _nearest(name, named))]
    if near:
        pairs = ", ".join(f"{_cut(match)} for {name}" for name, match in near)
        sentences.append(f"Did you mean: {pairs}? Names must match exactly.")
    return " ".join(sentences)


def listed(names: Sequence[str]) -> str:
    """Return names in one list, not more than anybody reads."""
    some = ", ".join(map(_cut, names[:_MOST_NAMED]))
    return some if len(names) <= _MOST_NAMED else f"{some} and {len(names) - _MOST_NAMED:,} more"


def _nearest(name: str, present: Sequence[str]) -> str | None:
    by_letters: dict[str, str] = {}
    for other in present[:_MOST_COMPARED]:
        by_letters.setdefault(_letters(other), other)
    close = difflib.get_close_matches(_letters(name), by_letters, n=1, cutoff=_CLOSE)
    return by_letters[close[0]] if close else None


def _letters(name: str) -> str:
    """Return what of a name is compared: its letters and digits, small."""
    return "".join(sign for sign in unicodedata.normalize("NFKC", name).casefold() if sign.isalnum())


def _may_be_a_name(text: str) -> bool:
    return not re.fullmatch(r"[+-]?[0-9.,]+|.*[0-9]{4}.*", text) and len(text) <= 2 * _LONGEST


def _stripped(text: str) -> str:
    first, last = 0, len(text)
    while first < last and _is_no_part(text[first]):
        first += 1
    while first < last and _is_no_part(text[last - 1]):
        last -= 1
    return text[first:last]


def _is_no_part(sign: str) -> bool:
    """Return whether a character is a blank, a control or one that has no shape."""
    return sign.isspace() or unicodedata.category(sign) in ("Cc", "Cf", "Zs", "Zl", "Zp")


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
