"""Requests to the server: a body is read into survey codes of respondents, or refused with a reason.

The contract is that of files (``core/features/answers.py``), applied to all answers at once: column by
column, one row would take several times as long. A test compares both. No reason repeats an answer: they
are special-category data, and clients log errors.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from poleng_assets.core.features.answers import NO_CODE, UNKNOWN, Vocabulary
from poleng_assets.core.features.codes import to_codes

# The same rules for ids as for files.
from poleng_assets.core.ingestion.contract import read_ids
from poleng_assets.study.schema import Study

SHAPE = (
    'the body must be an object with "respondents" (one respondent or a list of them, each an object with '
    'the code of every question) and optionally "reasons": true, and nothing else'
)
FAULTS_SHOWN = 100
_ABSENT = object()
_TRUTHS = {"true": 1, "false": 0}


class NotUnderstood(ValueError):
    """The body is not a valid request; the message says what is expected, and repeats nothing of it."""


class TooMany(ValueError):
    """Too many respondents in one request; the message says how many are allowed and what to do."""


@dataclass(frozen=True)
class Fault:
    """One invalid answer.

    Attributes:
        row: of the respondent in the request, from 1.
        field: the question, or the id; empty for the complete respondent.
        reason: a message without the answer.
    """

    row: int
    field: str
    reason: str


class Refused(ValueError):
    """Some respondents break the contract, so none is scored; ``faults`` lists the reasons."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        number = len(faults)
        super().__init__(f"{number} {'answer breaks' if number == 1 else 'answers break'} the contract")
        self.faults = list(faults)


@dataclass(frozen=True)
class Asked:
    """Valid respondents.

    Attributes:
        codes: int64, shape (features, n), in the order of the study; 0 for a missing answer.
        given: bool, shape (features, n): whether there is an answer.
        ids: of each respondent, None if not given.
        reasons: whether to return reasons.
        features: the study's names, in the order of ``codes``.
    """

    codes: np.ndarray
    given: np.ndarray
    ids: Sequence[str | None]
    reasons: bool
    features: Sequence[str]

    @property
    def rows(self) -> pa.Table:
        """The codes as a table of int64 columns, as the encoder reads them."""
        columns = [pa.array(codes, mask=~given) for codes, given in zip(self.codes, self.given, strict=True)]
        return pa.table(columns, names=list(self.features))


class Reader:
    """Reads request bodies by the contract of one study."""

    def __init__(self, study: Study, max_rows: int) -> None:
        self._study, self._max_rows = study, max_rows
        self._names = study.feature_names
        self._known = Vocabulary([feature.closed_codes for feature in study.features])

    def read(self, body: bytes) -> Asked:
        """Return the respondents of a request.

        Args:
            body: JSON as described by ``SHAPE``.

        Raises:
            NotUnderstood: it is not JSON, or has another structure.
            TooMany: it has more respondents than allowed.
            Refused: some answers are missing or invalid.
        """
        rows, reasons = self._shape(_parsed(body))
        faults: list[Fault] = []
        ids = self._ids(rows, faults)
        codes, given = self._codes(rows, faults)
        if faults:
            order = {name: index for index, name in enumerate(["", self._study.id, *self._names])}
            raise Refused(sorted(faults, key=lambda fault: (fault.row, order[fault.field])))
        return Asked(codes, given, ids, reasons, self._names)

    def _shape(self, content: Any) -> tuple[list[Mapping[str, Any]], bool]:
        if not isinstance(content, dict) or not content.keys() <= {"respondents", "reasons"}:
            raise NotUnderstood(SHAPE)
        rows, reasons = content.get("respondents"), content.get("reasons", False)
        rows = [rows] if isinstance(rows, dict) else rows
        if not isinstance(rows, list) or not isinstance(reasons, bool):
            raise NotUnderstood(SHAPE)
        if not rows:
            raise NotUnderstood("the request has no respondent")
        if len(rows) > self._max_rows:
            raise TooMany(
                f"a request may have at most {self._max_rows:,} respondents, this one has {len(rows):,}: "
                "split it, or submit a batch (`poleng submit batch FILE`)"
            )
        invalid = [number for number, row in enumerate(rows, 1) if not isinstance(row, dict)]
        if invalid:
            raise Refused(
                [Fault(number, "", "is not an object with an answer to each question") for number in invalid]
            )
        return rows, reasons

    def _ids(self, rows: Sequence[Mapping[str, Any]], faults: list[Fault]) -> Sequence[str | None]:
        name = self._study.id
        if not any(row.get(name) is not None for row in rows):
            return [None] * len(rows)
        texts: list[str | None] = []
        for number, row in enumerate(rows, 1):
            text = _id_text(row.get(name))
            if text is None and row.get(name) is not None:
                faults.append(Fault(number, name, "is neither text nor a whole number"))
            texts.append(text)
        ids, id_faults = read_ids(name, pa.array(texts, pa.string()), False)
        invalid = {(index, reason) for fault in id_faults for index, reason in fault.each()}
        faults += [Fault(index + 1, name, reason) for index, reason in invalid]
        listed = ids.to_pylist()
        faults += [
            Fault(number, name, "is empty")
            for number, (text, stored) in enumerate(zip(texts, listed, strict=True), 1)
            if text is not None and stored is None
        ]
        return listed

    def _codes(self, rows: Sequence[Mapping[str, Any]], faults: list[Fault]) -> tuple[np.ndarray, np.ndarray]:
        """Return codes and which are given, both (features, n); add invalid answers to ``faults``."""
        answers = [
            _in_digits(row.get(feature.name, _ABSENT))
            if feature.is_yes_or_no
            else row.get(feature.name, _ABSENT)
            for feature in self._study.features
            for row in rows
        ]
        stacked, not_codes = _as_arrow(answers)
        read, broken = to_codes(stacked)
        shape = (len(self._names), len(rows))
        given = read.is_valid().to_numpy(zero_copy_only=False).reshape(shape)
        codes = read.fill_null(0).to_numpy().reshape(shape)
        for index, reason in not_codes:
            faults.append(self._fault(index, len(rows), reason))
        for index in np.flatnonzero(broken.to_numpy(zero_copy_only=False)).tolist():
            faults.append(self._fault(index, len(rows), f"{NO_CODE}: that is a whole number"))
        for index in np.flatnonzero(self._known.lacks(codes, given)).tolist():
            feature = self._study.features[index // len(rows)]
            known = ", ".join(map(str, sorted(feature.codes)))
            reason = f"{UNKNOWN}: {known}, or null for no answer"
            faults.append(self._fault(index, len(rows), reason))
        return codes, given

    def _fault(self, index: int, rows: int, reason: str) -> Fault:
        feature, row = divmod(index, rows)
        return Fault(row + 1, self._names[feature], reason)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise NotUnderstood(
            f"the body is not valid JSON: see line {error.lineno}, column {error.colno}"
        ) from None
    except (ValueError, RecursionError):
        # Not chained: the message of Python repeats parts of the body.
        raise NotUnderstood(
            "the body is not valid JSON: it must be UTF-8, without duplicate fields in an object, and "
            "without NaN or infinite numbers"
        ) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a field occurs twice")
    return content


def _refuse_constant(name: str) -> Any:
    raise ValueError("JSON has no such number")


def _as_arrow(answers: Sequence[Any]) -> tuple[pa.Array, list[tuple[int, str]]]:
    """Return the answers as one array with nulls, and the index and reason of each invalid one."""
    if all(type(answer) is int or answer is None for answer in answers):
        try:
            return pa.array(answers, pa.int64()), []
        except (OverflowError, pa.ArrowException):
            pass  # a number of more than 64 bits: as text it is reported like any other invalid code
    invalid: list[tuple[int, str]] = []
    texts: list[str | None] = []
    for index, answer in enumerate(answers):
        text = None
        if answer is _ABSENT:
            invalid.append((index, "is missing: send null for no answer"))
        elif isinstance(answer, list | dict):
            invalid.append((index, "is a list or an object, not a survey code"))
        elif answer is not None:
            text = _text(answer)
        texts.append(text)
    return pa.array(texts, pa.string()), invalid


def _in_digits(answer: Any) -> Any:
    """Return an answer to a yes-or-no question, where true and false may be text, as in files."""
    return _TRUTHS.get(answer.strip().lower(), answer) if isinstance(answer, str) else answer


def _text(answer: Any) -> str:
    """Return an answer as text as files have it: ``true`` is 1, as in a boolean column."""
    if isinstance(answer, bool):
        return str(int(answer))
    # Arrow refuses half of a surrogate pair; its replacement is not a code.
    return answer.encode("utf-8", "replace").decode() if isinstance(answer, str) else str(answer)


def _id_text(given: Any) -> str | None:
    """Return an id as text, None if it is not an id."""
    if isinstance(given, bool) or not isinstance(given, str | int):
        return None
    text = str(given)
    return text if text.encode("utf-8", "replace").decode() == text else None
