"""The contract of answers: which values are a code of a question. Files, the API and the server read by it.

A value is *no code* when it is no whole number of 32 bits; a code is *unknown* when its question lists all
the codes that there are and this one is not among them. A nominal code that the study does not list is
neither: a new country is news, and kept.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from poleng_assets.core.features.codes import to_codes
from poleng_assets.study.schema import Feature, Target

NO_CODE = "is no survey code"
UNKNOWN = "is not among the codes of the study"
_STEP = 2**33  # apart enough that codes of 32 bits of one question never meet those of the next


@dataclass(frozen=True)
class Answers:
    """The answers to one question.

    Attributes:
        codes: int64, shape (n,); null where there is no answer, or none that is a code.
        no_code: bool, shape (n,): a value was given that is no code.
        unknown: bool, shape (n,): the code is none of the question's.
    """

    codes: pa.Array
    no_code: pa.BooleanArray
    unknown: pa.BooleanArray


def read_answers(values: Any, question: Feature | Target) -> Answers:
    """Read the values of one column.

    Args:
        values: Arrow array of any type, length n; a dictionary or not.
        question: whose answers they are. That of the target is always one of its codes.

    Raises:
        pyarrow.ArrowException: values of this type are never codes.
    """
    truths, closed = (
        (True, sorted(question.codes))
        if isinstance(question, Target)
        else (question.is_yes_or_no, question.closed_codes)
    )
    codes, no_code = to_codes(values, truths)
    if closed is None:
        return Answers(codes, no_code, pa.repeat(False, len(codes)))
    known = pc.is_in(codes, value_set=pa.array(closed, pa.int64()))
    return Answers(codes, no_code, pc.and_(codes.is_valid(), pc.invert(known)))


class Vocabulary:
    """A set of codes for each question, looked up for all answers at once."""

    def __init__(self, codes: Sequence[Collection[int] | None]) -> None:
        """Take the codes of each question; None: any code is in it."""
        known = [number * _STEP + code for number, listed in enumerate(codes) for code in listed or ()]
        self._keys = np.array(sorted(known) or [-_STEP], dtype=np.int64)
        self._closed = np.array([listed is not None for listed in codes])
        self._offsets = np.arange(len(codes), dtype=np.int64)[:, None] * _STEP

    def lacks(self, codes: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Return which answers are not in it: bool, shape (features, n); a missing one never is.

        Args:
            codes: int64 within 32 bits, shape (features, n).
            given: bool, shape (features, n).
        """
        keys = codes + self._offsets
        places = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return given & self._closed[:, None] & (self._keys[places] != keys)
