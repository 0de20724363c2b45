"""What a person is recognised by where no id stands: answers that nobody else gave, and the exact score.

A few answers are shared by many people, and so is a score that was rounded. Only what was the person's alone
in the warehouse tells of them; that is asked before their rows are erased.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.data.subject_ids import as_stored
from poleng_assets.core.features.codes import to_codes
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.subject_rows import Answers, answers_of, scores_of

ERASED = "[erased]"
# Of a score: how many decimals tell it from others, and how many from those nearest to it.
DECIMALS, ALL_DECIMALS = 6, 12
_DELIMITERS = (",", ";", "\t", "|")
_JOINED_BY = (",", ";", "\t", "|", ", ", "; ", " | ", '","', '";"', "', '")
_NUMBER = re.compile(r"(?<![\w.])\d?\.\d{6,}(?![\w.])")
_SCORES = ("score", "prediction")
ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be")


@dataclass(frozen=True)
class Marks:
    """What one person is recognised by besides the id.

    Attributes:
        study: names the questions and their codes.
        answers: sets of answers, in the order of the study, that nobody else gave.
        scores: that nobody else has, with the number of decimals that tells them.
        alone: whether nobody else in the warehouse gave these answers to these questions.
    """

    study: Study
    answers: tuple[Answers, ...] = ()
    scores: Mapping[float, int] = field(default_factory=dict)
    alone: Callable[[tuple[str, ...], Answers], bool] = lambda _names, _codes: True

    @property
    def fewest(self) -> int:
        """How many questions a table must have to be taken for answers."""
        features = len(self.study.features)
        return min(features, max(self.study.policies.privacy.min_identifying_answers, (features + 1) // 2))

    def in_bytes(self, content: bytes, encodings: Sequence[str] = ENCODINGS) -> bool:
        """Whether the answers stand side by side, or the exact score, in bytes; quick."""
        # Letters of two bytes have a zero each: without many of them, one encoding is enough to look for.
        sample = content[:4096]
        if 4 * sample.count(0) < len(sample):
            encodings = ENCODINGS[:1]
        if any(joined in content for code in encodings for joined in self._joined[code]):
            return True
        return any(
            self._is_score(token)
            for code in encodings
            for literal in self._score_literals[code]
            for token in _tokens_at(content, literal, code)
        )

    def in_text(self, text: str) -> bool:
        """Whether a text holds the answers, in a table or an object, or the exact score."""
        return self._in_line(text) or any(True for _ in self._rows_of_text(text))

    def in_table(self, table: pa.Table) -> bool:
        """Whether a row of a table has the answers or the exact score, and no other person's id."""
        return bool(pc.any(self.rows_of_table(table)).as_py())

    def rows_of_table(self, table: pa.Table) -> pa.Array:
        """Return which rows have the answers or the exact score and no other id: bool, shape (rows,)."""
        names = [name.strip() for name in table.column_names]
        matches = pa.repeat(False, table.num_rows)
        known = [name for name in self.study.feature_names if name in names]
        if len(known) >= self.fewest:
            codes = [to_codes(table.column(names.index(name)))[0] for name in known]
            for answers in self._answers_to(known):
                same = pa.repeat(True, table.num_rows)
                for column, code in zip(codes, answers, strict=True):
                    equal = column.is_null() if code is None else pc.fill_null(pc.equal(column, code), False)
                    same = pc.and_(same, equal)
                matches = pc.or_(matches, same)
        scores = pa.array(list(self.scores), pa.float64())
        for name, column in zip(names, table.columns, strict=True):
            if pa.types.is_floating(column.type) and name not in self.study.feature_names and len(scores):
                array = column.cast(pa.float64()).combine_chunks()
                matches = pc.or_(matches, pc.fill_null(pc.is_in(array, scores), False))
        if self.study.id in names:
            matches = pc.and_(matches, as_stored(table.column(names.index(self.study.id))).is_null())
        return matches

    def is_row(self, row: Mapping[str, object]) -> bool:
        """Whether cells by the names of their columns are the person's, who has no id there."""
        if str(row.get(self.study.id) or "").strip():
            return False
        known = tuple(name for name in self.study.feature_names if name in row)
        matching = [
            answers
            for answers in self._sets_of(known)
            if known and all(self._is_code(n, row[n], c) for n, c in zip(known, answers, strict=True))
        ]
        for name in _SCORES:
            if matching and name in row and self._is_rounded_score(row[name]):
                return True
        return len(known) >= self.fewest and any(self._counts(known, answers) for answers in matching)

    def redact(self, text: str) -> str:
        """Return a text without the lines, objects and numbers that are the person's."""
        try:
            content = json.loads(text) if text.lstrip()[:1] in ("{", "[") else None
        except ValueError:
            content = None
        if content is not None:
            return json.dumps(self._without(content)) if self._in_object(content) else text
        lines = text.splitlines(keepends=True)
        matching = set(self._rows_of_text(text))
        for number, line in enumerate(lines):
            if number in matching or self._in_line(line):
                lines[number] = ERASED + line[len(line.rstrip("\r\n")) :]
        return "".join(lines)

    def _in_line(self, text: str) -> bool:
        return self.in_bytes(text.encode("utf-8", "surrogatepass"), ENCODINGS[:1])

    # Objects

    def _in_object(self, content: Any) -> bool:
        if isinstance(content, dict):
            return self.is_row(content) or any(map(self._in_object, content.values()))
        if isinstance(content, list):
            return any(map(self._in_object, content))
        if isinstance(content, str):
            return self.in_text(content)
        return isinstance(content, float) and self._is_score(repr(content))

    def _without(self, content: Any) -> Any:
        if isinstance(content, dict):
            if self.is_row(content):
                return {}
            return {name: self._without(value) for name, value in content.items()}
        if isinstance(content, list):
            return [self._without(value) for value in content]
        if isinstance(content, str):
            return self.redact(content)
        return None if isinstance(content, float) and self._is_score(repr(content)) else content

    # Texts

    def _rows_of_text(self, text: str) -> Iterator[int]:
        """Yield the numbers of the lines, from 0, that are the person's."""
        if not self.answers or sum(name in text for name in self.study.feature_names) < 2:
            return
        if text.lstrip()[:1] in ("{", "["):
            try:
                if self._in_object(json.loads(text)):
                    yield 0
                return
            except ValueError:
                pass  # lines of objects, or no objects at all
        lines = text.splitlines(keepends=True)
        header: list[str] = []
        delimiter = ","
        for number, line in enumerate(lines):
            if line.lstrip()[:1] == "{":
                try:
                    content = json.loads(line)
                except ValueError:
                    continue
                if self._in_object(content):
                    yield number
                continue
            if columns := self._header_in(line):
                header, delimiter = columns
            elif header:
                cells = _cells(line, delimiter)
                if len(cells) == len(header) and self.is_row(dict(zip(header, cells, strict=True))):
                    yield number

    def _header_in(self, line: str) -> tuple[list[str], str] | None:
        for delimiter in _DELIMITERS:
            if delimiter not in line:
                continue
            names = [cell.strip().lstrip("\ufeff").strip() for cell in _cells(line, delimiter)]
            known = set(names) & set(self.study.feature_names)
            if len(known) >= self.fewest or (len(known) >= 2 and set(names) & set(_SCORES)):
                return names, delimiter
        return None

    # Answers

    def _sets_of(self, names: Sequence[str]) -> list[Answers]:
        columns = [self.study.feature_names.index(name) for name in names]
        return [tuple(answers[column] for column in columns) for answers in self.answers]

    def _answers_to(self, names: Sequence[str]) -> list[Answers]:
        return [answers for answers in self._sets_of(names) if self._counts(tuple(names), answers)]

    def _counts(self, names: tuple[str, ...], answers: Answers) -> bool:
        """Whether these answers tell of the person; of all questions that is known already."""
        fewest = min(self.study.policies.privacy.min_identifying_answers, len(self.study.features))
        if sum(code is not None for code in answers) < fewest:
            return False
        return len(names) == len(self.study.features) or self.alone(names, answers)

    def _is_code(self, name: str, cell: object, code: int | None) -> bool:
        text = "" if cell is None else str(cell).strip().strip('"').strip()
        if code is None:
            return text.lower() in ("", "nan", "none", "null", "<na>")
        try:
            return float(text) == code
        except ValueError:
            return text.lstrip("'") == self.study.feature(name).label(code)

    @cached_property
    def _joined(self) -> dict[str, list[bytes]]:
        """The answers side by side, as in a line without a header, if they are enough; by encoding."""
        fewest = 2 * self.study.policies.privacy.min_identifying_answers
        texts = [
            sign.join("" if code is None else str(code) for code in answers)
            for answers in self.answers
            if sum(code is not None for code in answers) >= fewest
            for sign in _JOINED_BY
        ]
        return {encoding: [text.encode(encoding) for text in texts] for encoding in ENCODINGS}

    # Scores

    @cached_property
    def _score_literals(self) -> dict[str, list[bytes]]:
        """How the scores begin behind their zero, by encoding."""
        texts = set()
        for score, decimals in self.scores.items():
            text = f"{score:.17f}"
            # The number cut off, and rounded, at the first place that tells.
            texts |= {text[1 : 2 + decimals], f"{score:.{decimals}f}"[1:]}
        return {encoding: [text.encode(encoding) for text in sorted(texts)] for encoding in ENCODINGS}

    def _is_score(self, token: str) -> bool:
        match = _NUMBER.fullmatch(token)
        if match is None:
            return False
        decimals = len(token.partition(".")[2])
        return any(
            decimals >= least and abs(float(token) - score) <= 0.51 * 10.0**-decimals + 3e-16
            for score, least in self.scores.items()
        )

    def _is_rounded_score(self, cell: object) -> bool:
        text = str(cell).strip()
        decimals = len(text.partition(".")[2])
        try:
            number = float(text)
        except ValueError:
            return False
        return decimals >= 3 and any(abs(number - score) <= 0.51 * 10.0**-decimals for score in self.scores)


def marks_of(
    con: Connection, study: Study, ids: Sequence[str], alone: Callable[[tuple[str, ...], Answers], bool]
) -> Marks:
    """Return what a person who is in the warehouse is recognised by.

    Args:
        ids: the person's id, in each spelling.
        alone: as :class:`Marks` has it.
    """
    columns = tuple(study.feature_names)
    answers = tuple(given for given in sorted(answers_of(con, study, ids), key=repr) if alone(columns, given))
    scores: dict[float, int] = {}
    for score, distance in scores_of(con, study, ids):
        if distance is None or distance > 10.0**-ALL_DECIMALS:
            apart = distance is None or distance > 2 * 10.0**-DECIMALS
            scores[score] = DECIMALS if apart else ALL_DECIMALS
    return Marks(study, answers, scores, alone)


def _cells(line: str, delimiter: str) -> list[str]:
    """Return the cells of a line; none when it is no line of a table."""
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter), [])
    except csv.Error:
        return []


def _tokens_at(content: bytes, literal: bytes, encoding: str) -> Iterator[str]:
    """Yield the numbers that begin with a literal such as ``.731209``, from its leading zero on."""
    at, width = content.find(literal), len("0".encode(encoding))
    while at >= 0:
        text = content[at : at + 24 * width].decode(encoding, "ignore")
        digits = re.match(r"\.\d+(?![\w.])", text)
        # Zeros between are the other halves of letters, whichever order their bytes have.
        before = content[max(0, at - 8) : at].replace(b"\0", b"")[-2:].decode("latin-1")
        if digits and (not before[-1:].isdigit() or (before[-1:] == "0" and not before[:-1].isdigit())):
            yield f"0{digits[0]}"
        at = content.find(literal, at + 1)
