"""What is asked of the server: a body becomes the survey codes of respondents, or is refused in words.

The contract is that of files (``core/features/answers.py``), asked for all answers at once: column by column,
one row would take several times as long. A test holds both against each other. No reason repeats what was
given: answers are nobody's business but theirs who sent them, and errors are logged by clients.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from poleng_assets.core.features.answers import NO_CODE, UNKNOWN, Vocabulary
from poleng_assets.core.features.codes import to_codes

# The door's own reading of ids: what is blank, too long or unprintable there, is so here.
from poleng_assets.core.ingestion.contract import read_ids
from poleng_assets.study.schema import Study

SHAPE = (
    'the body must be an object with "respondents" (one respondent, or a list of them: each an object with '
    'the code of every question) and, if wanted, "reasons": true, and nothing else'
)
FAULTS_TOLD = 100
_ABSENT = object()
_TRUTHS = {"true": 1, "false": 0}


class NotUnderstood(ValueError):
    """The body is no request at all; the message says what is expected, and repeats nothing of it."""


class TooMany(ValueError):
    """More respondents than one request may hold; the message says how many, and what to do."""


@dataclass(frozen=True)
class Fault:
    """One answer that cannot be taken.

    Attributes:
        row: of the respondent in the request, from 1.
        field: the question, or the id; empty when the whole respondent is meant.
        reason: in words, without the answer.
    """

    row: int
    field: str
    reason: str


class Refused(ValueError):
    """Some respondents break the contract, and so none is scored; ``faults`` says which and why."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        number = len(faults)
        super().__init__(f"{number} {'answer breaks' if number == 1 else 'answers break'} the contract")
        self.faults = list(faults)


@dataclass(frozen=True)
class Asked:
    """Respondents who keep the contract.

    Attributes:
        codes: int64, shape (features, n), in the order of the study; 0 where nothing was answered.
        given: bool, shape (features, n): whether there is an answer.
        ids: of each respondent, None where none was given.
        reasons: whether to say why.
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
        columns = [pa.array(one, mask=~there) for one, there in zip(self.codes, self.given, strict=True)]
        return pa.table(columns, names=list(self.features))


class Reader:
    """Reads bodies by the contract of one study."""

    def __init__(self, study: Study, max_rows: int) -> None:
        """Take the study, and how many respondents one request may hold."""
        self._study, self._max_rows = study, max_rows
        self._names = study.feature_names
        self._known = Vocabulary([feature.closed_codes for feature in study.features])

    def read(self, body: bytes) -> Asked:
        """Return the respondents of a request.

        Args:
            body: JSON, as ``SHAPE`` has it.

        Raises:
            NotUnderstood: it is no JSON, or has another shape.
            TooMany: it holds more respondents than allowed.
            Refused: some answers are missing, or are none.
        """
        rows, reasons = self._shape(_parsed(body))
        faults: list[Fault] = []
        ids = self._ids(rows, faults)
        codes, given = self._codes(rows, faults)
        if faults:
            order = {name: place for place, name in enumerate(["", self._study.id, *self._names])}
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
            raise NotUnderstood("there is no respondent in the request")
        if len(rows) > self._max_rows:
            raise TooMany(
                f"one request may hold {self._max_rows:,} respondents, this one has {len(rows):,}: send them "
                "in parts, or all of them as a batch (`poleng submit batch FILE`)"
            )
        strangers = [place for place, row in enumerate(rows, 1) if not isinstance(row, dict)]
        if strangers:
            raise Refused(
                [Fault(row, "", "is no object with an answer to each question") for row in strangers]
            )
        return rows, reasons

    def _ids(self, rows: Sequence[Mapping[str, Any]], faults: list[Fault]) -> Sequence[str | None]:
        name = self._study.id
        if not any(row.get(name) is not None for row in rows):
            return [None] * len(rows)
        texts: list[str | None] = []
        for place, row in enumerate(rows, 1):
            text = _id_text(row.get(name))
            if text is None and row.get(name) is not None:
                faults.append(Fault(place, name, "is neither text nor a whole number"))
            texts.append(text)
        ids, found = read_ids(name, pa.array(texts, pa.string()), False)
        broken = {(place, reason) for fault in found for place, reason in fault.each()}
        faults += [Fault(place + 1, name, reason) for place, reason in broken]
        listed = ids.to_pylist()
        faults += [
            Fault(place, name, "is empty")
            for place, (text, stored) in enumerate(zip(texts, listed, strict=True), 1)
            if text is not None and stored is None
        ]
        return listed

    def _codes(self, rows: Sequence[Mapping[str, Any]], faults: list[Fault]) -> tuple[np.ndarray, np.ndarray]:
        """Return codes and which are given, each of shape (features, n); add what is wrong to ``faults``."""
        answers = [
            _in_digits(row.get(feature.name, _ABSENT))
            if feature.is_yes_or_no
            else row.get(feature.name, _ABSENT)
            for feature in self._study.features
            for row in rows
        ]
        stacked, strangers = _as_arrow(answers)
        read, broken = to_codes(stacked)
        shape = (len(self._names), len(rows))
        given = read.is_valid().to_numpy(zero_copy_only=False).reshape(shape)
        codes = read.fill_null(0).to_numpy().reshape(shape)
        for place, reason in strangers:
            faults.append(self._fault(place, len(rows), reason))
        for place in np.flatnonzero(broken.to_numpy(zero_copy_only=False)).tolist():
            faults.append(self._fault(place, len(rows), f"{NO_CODE}: that is a whole number"))
        for place in np.flatnonzero(self._known.lacks(codes, given)).tolist():
            feature = self._study.features[place // len(rows)]
            known = ", ".join(map(str, sorted(feature.codes)))
            reason = f"{UNKNOWN}: {known}, or null for no answer"
            faults.append(self._fault(place, len(rows), reason))
        return codes, given

    def _fault(self, place: int, rows: int, reason: str) -> Fault:
        feature, row = divmod(place, rows)
        return Fault(row + 1, self._names[feature], reason)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise NotUnderstood(f"the body is no JSON: see line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError):
        # Not chained: what Python says of it repeats parts of the body.
        raise NotUnderstood(
            "the body is no JSON that can be read: is it UTF-8, has no object the same field twice, and are "
            "there no NaN and no endless numbers in it?"
        ) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; of a field that stands twice, nobody knows which one is meant."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a field stands twice")
    return made


def _refuse_constant(name: str) -> Any:
    raise ValueError("JSON has no such number")


def _as_arrow(answers: Sequence[Any]) -> tuple[pa.Array, list[tuple[int, str]]]:
    """Return the answers as one array, missing where there is none to read, and which are none at all."""
    if all(type(one) is int or one is None for one in answers):
        try:
            return pa.array(answers, pa.int64()), []
        except (OverflowError, pa.ArrowException):
            pass  # a number of more than 64 bits: as text it is told like any other that is no code
    strangers: list[tuple[int, str]] = []
    texts: list[str | None] = []
    for place, one in enumerate(answers):
        text = None
        if one is _ABSENT:
            strangers.append((place, "is missing: say null where there is no answer"))
        elif isinstance(one, list | dict):
            strangers.append((place, "holds a list or an object, and is no survey code"))
        elif one is not None:
            text = _text(one)
        texts.append(text)
    return pa.array(texts, pa.string()), strangers


def _in_digits(answer: Any) -> Any:
    """Return an answer to a question of yes or no: a truth value may be a word, as at the door."""
    return _TRUTHS.get(answer.strip().lower(), answer) if isinstance(answer, str) else answer


def _text(answer: Any) -> str:
    """Return an answer as the door reads it: ``true`` is 1, as in a column of truth values."""
    if isinstance(answer, bool):
        return str(int(answer))
    # Half of a surrogate pair is no text that Arrow takes; what stands for it here is no code.
    return answer.encode("utf-8", "replace").decode() if isinstance(answer, str) else str(answer)


def _id_text(given: Any) -> str | None:
    """Return an id as text, None when it is none."""
    if isinstance(given, bool) or not isinstance(given, str | int):
        return None
    text = str(given)
    return text if text.encode("utf-8", "replace").decode() == text else None
