"""Markdown for the UIs of Dagster and MLflow, with untrusted text escaped.

All Markdown with a name, an answer, a title or a reason is made here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from poleng_assets.text.plain_text import visible

if TYPE_CHECKING:
    import pandas as pd

# An underscore within a word needs no escape; URLs would become links.
_INLINE = re.compile(r"[\\`*\[\]<>&|~]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=\bwww)\.|@")
# The start of a heading, a list, a rule or a numbered list at the beginning of a line.
_BLOCK = re.compile(r"(?:[#+=-]+(?=\s|$))|(?:(?<=\d)[.)](?=\s|$))")
_NUMBER = re.compile(r"\d{1,9}(?=[.)])")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")


def escaped(text: str) -> str:
    """Return Markdown that shows exactly this text in one line, without links, emphasis or cells."""
    line = _INLINE.sub(r"\\\g<0>", " ".join(visible(text).split()))
    number = _NUMBER.match(line)
    begins = _BLOCK.match(line, number.end() if number else 0)
    return f"{line[: begins.start()]}\\{line[begins.start() :]}" if begins else line


def unescaped(markdown: str) -> str:
    """Return the text that was passed to :func:`escaped`, except for spaces."""
    return _ESCAPED.sub(r"\1", markdown)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; every cell is escaped."""
    lines = [[escaped(str(cell)) for cell in row] for row in [head, *rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in [lines[0], ["---"] * len(head), *lines[1:]])


def frame_as_table(frame: pd.DataFrame, *, align: Sequence[str] | None = None) -> str:
    """Return a frame as a table: numbers as numbers, everything else as escaped text.

    Args:
        frame: without its index.
        align: of each column (``left``, ``right``); by default by its type.
    """
    import pandas as pd

    texts = [not pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]
    shown = frame.copy()
    shown.columns = [escaped(str(name)) for name in frame.columns]
    for column, is_text in enumerate(texts):
        if is_text:
            shown.isetitem(column, [_cell(value) for value in frame.iloc[:, column]])
    options: dict[str, Any] = {"colalign": align} if align and len(frame) else {}
    # Otherwise tabulate reads the code 032 as the number 32. Without rows it has no columns.
    as_text = [n for n, text in enumerate(texts) if text and len(frame)]
    return str(shown.to_markdown(index=False, disable_numparse=as_text, **options))


def _cell(value: Any) -> str:
    import pandas as pd

    return "" if pd.isna(value) else escaped(str(value))


def points(lines: Iterable[str]) -> str:
    """Return a bullet list of texts."""
    return "\n".join(f"- {escaped(line)}" for line in lines)
