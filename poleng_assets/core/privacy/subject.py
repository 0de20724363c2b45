"""How one person is recognised: as the id of a row, and as a word in a text.

An id is sure of itself in the column of ids. Anywhere else, only an id of as many characters as the study
asks for (``policies.privacy.min_id_length``) tells of a person: a shorter one (``7``) is an answer as well.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from functools import cached_property

from poleng_assets.core.data.spreadsheet_safety import escape_formula
from poleng_assets.core.data.subject_ids import plain_id
from poleng_assets.core.privacy.quasi_identifiers import ERASED, Marks
from poleng_assets.study.policies import PrivacyPolicy
from poleng_assets.study.schema import Study

# A word ends where no letter, digit or underscore goes on, nor behind one dot or hyphen: ``b-12`` is another
# id than ``b-123`` and ``a-b-12``. A line break that is written out (JSON) begins a word.
_BEFORE = r"(?:(?<!\w)(?<!\w[.\-])|(?<=\\[nrt]))"
_XML_ESCAPE = re.compile("(_x[0-9a-fA-F]{4}_)")
_WIDE_LETTER = re.compile(rb"x")
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
_AFTER = r"(?!\w)(?![.\-]\w)"


@dataclass(frozen=True)
class Person:
    """One respondent.

    Attributes:
        id: as the warehouse has it.
        column: of the ids.
        listed: whether files that spreadsheets open are looked at, where ids are made harmless.
        marks: answers and scores that are the person's alone; None when they are not known.
        recognisable_from: characters of an id that can be distinguished from an answer.
    """

    id: str
    column: str
    listed: bool = False
    marks: Marks | None = None
    recognisable_from: int = PrivacyPolicy().min_id_length

    @classmethod
    def of(cls, subject: str, study: Study) -> Person:
        """Return the person with an id; blanks around it are no part of it, as in ingestion."""
        return cls(plain_id(subject), study.id, recognisable_from=study.policies.privacy.min_id_length)

    @property
    def recognisable(self) -> bool:
        """Whether the id can be told from an answer wherever it stands."""
        return len(self.id) >= self.recognisable_from

    @cached_property
    def ids(self) -> frozenset[str]:
        """The id as it may stand in the column of ids."""
        return frozenset(map(escape_formula, self._spelled) if self.listed else self._spelled)

    def matches_id(self, cell: object) -> bool:
        """Whether a cell of the column of ids is this person's; whole numbers are read as ingestion does."""
        if isinstance(cell, float) and cell.is_integer():
            cell = int(cell)
        return plain_id(str(cell)) in self.ids or str(cell) in self.ids

    def mentioned_in(self, text: str) -> bool:
        """Whether a text names the person; never, when the id is too short to tell."""
        return self.recognisable and self._word.search(text) is not None

    def in_bytes(self, content: bytes) -> bool:
        """Whether the id stands in bytes as a word, or answers or scores that are the person's alone."""
        if self.recognisable and any(literal in content for literal in self.literals):
            named = self.bytes_pattern.search(content) is not None
        else:
            named = False
        return named or bool(self.marks and self.marks.in_bytes(content))

    def redact(self, text: str) -> str:
        """Return the text without the person's id."""
        return self._word.sub(ERASED, text)

    @cached_property
    def spellings(self) -> list[str]:
        """The id as it is written inside CSV, JSON, HTML and workbooks."""
        written = {*self._spelled, self.id.replace('"', '""'), html.escape(self.id)}
        # In the XML of a workbook quotes stand as they are, and what looks like an escape is escaped.
        written.add(html.escape(_XML_ESCAPE.sub(r"_x005F\1", self.id), quote=False))
        written |= {json.dumps(self.id, ensure_ascii=ascii)[1:-1] for ascii in (True, False)}
        return sorted(written, key=len, reverse=True)

    @cached_property
    def bytes_pattern(self) -> re.Pattern[bytes]:
        """Finds the id as a word in bytes, in the encodings that a file may have."""
        before, after = _BEFORE.encode(), _AFTER.encode()
        patterns = [before + re.escape(literal) + after for literal in self._in_bytes("utf-8")]
        for code in _WIDE:
            before, after = _wide_ends(code)
            patterns += [before + re.escape(literal) + after for literal in self._in_bytes(code)]
        return re.compile(b"|".join(patterns))

    @cached_property
    def literals(self) -> list[bytes]:
        """The same without regard to words: quick to look for in large files."""
        return [literal for code in ("utf-8", *_WIDE) for literal in self._in_bytes(code)]

    @cached_property
    def longest(self) -> int:
        """How many bytes the longest spelling takes."""
        return max(map(len, self.literals))

    @cached_property
    def _spelled(self) -> set[str]:
        # What a file of Windows-1252 gives when its bytes are taken for UTF-8.
        try:
            return {self.id, self.id.encode("cp1252").decode("utf-8", "surrogateescape")}
        except UnicodeEncodeError:
            return {self.id}

    @cached_property
    def _word(self) -> re.Pattern[str]:
        return re.compile(_BEFORE + f"(?:{'|'.join(map(re.escape, self.spellings))})" + _AFTER)

    def _in_bytes(self, encoding: str) -> set[bytes]:
        errors = "surrogateescape" if encoding == "utf-8" else "surrogatepass"
        return {spelling.encode(encoding, errors) for spelling in self.spellings}


def _wide_ends(encoding: str) -> tuple[bytes, bytes]:
    """Return what must not stand before and behind a word where a letter takes several bytes, as patterns."""
    letter, sign = (
        _WIDE_LETTER.sub(rb"[%s]" % kind, re.escape("x".encode(encoding)))
        for kind in (rb"0-9A-Za-z_", rb".\-")
    )
    before = b"(?<!%s)(?<!%s%s)" % (letter, letter, sign)
    return before, b"(?!%s)(?!%s%s)" % (letter, sign, letter)
