"""The study: one survey programme, as its YAML file describes it.

Columns, codes and labels are only in that file, not in the code. This module has the structure of the file
and its validation; ``study/policies.py`` has the policies.
"""

import re
from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from poleng_assets.study.policies import Policies, Strict

LEAST_CODE, MOST_CODE = -(2**31), 2**31 - 1  # the range of the warehouse and the encoder
CODE = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")

# The project's own columns beside a person's id or answers in tables, frames and lists: a question must not
# have the same name. A test compares them with the tables of the warehouse.
RESERVED_COLUMNS = frozenset(
    {"audit", "batch", "contact", "created_at", "field_study", "list_number", "model_version", "part"}
    | {"prediction", "reasons", "remark", "requested_at", "row_number", "score", "scored_at", "source"}
    | {"stratum", "unknown_answers", "why"}
)


class StudyError(ValueError):
    """A study file is invalid; the message names each field, its line and the reason."""


def _read_code(written: object) -> int:
    """Return a code as an integer, from decimal digits with optional leading zeros."""
    number = CODE.fullmatch(str(written).strip()) if isinstance(written, int | str) else None
    if number is None or isinstance(written, bool):
        raise ValueError(
            f"{written!r} is not a valid integer: a code is a whole number in decimal digits, as in the data"
        )
    code = int(number[1])
    if not LEAST_CODE <= code <= MOST_CODE:
        raise ValueError(f"{written} is not a valid integer of 32 bits, the type of codes in the warehouse")
    return code


def _read_text(written: str) -> str:
    text = written.strip()
    if not text:
        raise ValueError("is empty")
    if control := _CONTROL.search(text):
        raise ValueError(f"contains a control character, {control[0]!a}")
    return text


def _not_reserved(name: str) -> str:
    if name in RESERVED_COLUMNS:
        raise ValueError(
            f"{name} is a reserved column of the project: rename this one, for example to {name}_asked, in "
            f"the study and in the files"
        )
    return name


Code = Annotated[int, BeforeValidator(_read_code)]
Text = Annotated[str, AfterValidator(_read_text)]
ColumnName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$"), AfterValidator(_not_reserved)]


class Feature(Strict):
    """One column of the survey, with its question and the labels of its codes."""

    name: ColumnName
    question: Text
    title: Text
    kind: Literal["nominal", "ordinal", "binary"]
    codes: dict[Code, Text] = Field(min_length=2)

    @property
    def is_ordinal(self) -> bool:
        """Whether the codes have an order; otherwise they are categories."""
        return self.kind == "ordinal"

    @property
    def is_yes_or_no(self) -> bool:
        """Whether the codes are 1 and 0, for which files may have true and false."""
        return set(self.codes) == {0, 1}

    @property
    def closed_codes(self) -> list[int] | None:
        """The allowed codes in order; None: other codes are accepted.

        A new country or religion is valid data, and reported as drift. A new step of a scale, or a third
        answer to a binary question, is a data error.
        """
        return None if self.kind == "nominal" else sorted(self.codes)

    def label(self, code: object) -> str:
        """Return the label of a code: ``3``, ``3.0`` and ``"3"`` are equal.

        An unknown code is returned as ``unknown (code)``, a missing one as an empty string: lists never show
        a bare number.
        """
        text = "" if code is None else str(code).strip()
        if text in ("", "nan", "<NA>"):
            return ""
        number = CODE.fullmatch(text)
        if number is None:
            return f"unknown ({code})"
        return self.codes.get(int(number[1]), f"unknown ({int(number[1])})")


class Target(Strict):
    """The target; ``positive`` is the code of the people to contact."""

    name: ColumnName
    question: Text
    title: Text
    definition: Text
    positive: Code
    codes: dict[Code, Text] = Field(min_length=2, max_length=2)

    @model_validator(mode="after")
    def _is_zero_one(self) -> Self:
        if set(self.codes) != {0, 1}:
            raise ValueError(f"the codes must be 0 and 1, not {sorted(self.codes)}")
        if self.positive != 1:
            raise ValueError("the positive code must be 1: scores are the probability of code 1")
        return self


class Study(Strict):
    """One survey programme; see ``studies/political_engagement.yaml`` for the file it is read from."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: Text
    id: ColumnName
    target: Target
    contact_list: tuple[str, ...]
    protected: tuple[str, ...]
    policies: Policies
    features: tuple[Feature, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        _refuse_repeated("names", [self.id, self.target.name, *self.feature_names])
        _refuse_repeated("titles", [feature.title for feature in self.features])
        fields = {
            "contact_list": self.contact_list,
            "protected": self.protected,
            "policies.training.masked": self.policies.training.masked,
            "policies.training.varies_by": [self.policies.training.varies_by],
            "policies.overseer.compare_within": [self.policies.overseer.compare_within],
            "policies.contact.shown_reasons": self.policies.contact.shown_reasons or (),
            "policies.contact.withheld_reasons": self.policies.contact.withheld_reasons,
        }
        for field, columns in fields.items():
            unknown = [name for name in columns if name is not None and name not in self.feature_names]
            if unknown:
                raise ValueError(f"{field}: {', '.join(unknown)} is not a feature")
        return self

    @property
    def feature_names(self) -> list[str]:
        """The features' names, in the order of the study: the order of every frame and matrix."""
        return [f.name for f in self.features]

    def feature(self, name: str) -> Feature:
        """Return the feature of that name; raises ``KeyError`` if there is none."""
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(name)


def _refuse_repeated(what: str, values: list[str]) -> None:
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise ValueError(f"features: {what} must differ, {', '.join(repeated)} occurs twice")
