"""The study: one survey programme, read from its YAML file and validated.

Columns, codes, labels and policies live here and nowhere else in the code. What belongs in this
module is the shape of that file and how a wrong one is refused; what is done with a policy does not.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from poleng_assets.study.text import Repeated, StudyText

Share = Annotated[float, Field(ge=0, le=1)]
LEAST_CODE, MOST_CODE = -(2**31), 2**31 - 1  # what the warehouse and the encoder hold
_CODE = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
STUDIES = Path(__file__).parent / "studies"


class StudyError(ValueError):
    """A study file that cannot be used; the message names each field, its line and the reason."""


def _read_code(written: object) -> int:
    """Return a code as the questionnaire has it: decimal digits, with zeros before them or not."""
    number = _CODE.fullmatch(str(written).strip()) if isinstance(written, int | str) else None
    if number is None or isinstance(written, bool):
        raise ValueError(
            f"{written!r} is no valid integer: a code is a whole number, in decimal digits as in the data"
        )
    code = int(number[1])
    if not LEAST_CODE <= code <= MOST_CODE:
        raise ValueError(f"{written} is no valid integer of 32 bits, which is all that the warehouse holds")
    return code


def _read_words(written: str) -> str:
    words = written.strip()
    if not words:
        raise ValueError("has no words")
    if control := _CONTROL.search(words):
        raise ValueError(f"holds a control character, {control[0]!a}")
    return words


def _not_reserved(name: str) -> str:
    from poleng_assets.warehouse.schema import names_in_use  # loads DuckDB, and needs this module

    if name in names_in_use():
        raise ValueError(
            f"the project itself has a column of the name {name} beside the answers: call this one "
            f"otherwise, such as {name}_asked, in the study and in the files"
        )
    return name


Code = Annotated[int, BeforeValidator(_read_code)]
Words = Annotated[str, AfterValidator(_read_words)]
ColumnName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$"), AfterValidator(_not_reserved)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Feature(_Strict):
    """One column of the survey, with the question asked and what each code means."""

    name: ColumnName
    question: Words
    title: Words
    kind: Literal["nominal", "ordinal", "binary"]
    codes: dict[Code, Words] = Field(min_length=2)

    @property
    def is_ordinal(self) -> bool:
        """Ordinal codes are numbers with an order; the other kinds are names."""
        return self.kind == "ordinal"

    @property
    def is_yes_or_no(self) -> bool:
        """Whether the codes are 1 and 0, which truth values stand for."""
        return set(self.codes) == {0, 1}

    @property
    def closed_codes(self) -> list[int] | None:
        """The codes that an answer must be among, in order; None: others are news, and taken.

        A new country or religion is what a survey finds, and drift to be told. A step of a scale, or a third
        answer to a question of two, is a fault of the data.
        """
        return None if self.kind == "nominal" else sorted(self.codes)

    def label(self, code: object) -> str:
        """Return the words for a code: ``3``, ``3.0`` and ``"3"`` alike.

        A code that the study does not know comes back as ``unknown (code)``, a missing one as
        an empty string, so that a list never shows a bare number as if it were an answer.
        """
        text = "" if code is None else str(code).strip()
        if text in ("", "nan", "<NA>"):
            return ""
        number = _CODE.fullmatch(text)
        if number is None:
            return f"unknown ({code})"
        return self.codes.get(int(number[1]), f"unknown ({int(number[1])})")


class Target(_Strict):
    """What is predicted; ``positive`` is the code of the people worth a contact."""

    name: ColumnName
    question: Words
    title: Words
    definition: Words
    positive: Code
    codes: dict[Code, Words] = Field(min_length=2, max_length=2)

    @model_validator(mode="after")
    def _is_zero_one(self) -> Self:
        if set(self.codes) != {0, 1}:
            raise ValueError(f"the codes must be 0 and 1, not {sorted(self.codes)}")
        if self.positive != 1:
            raise ValueError("the positive code must be 1: scores are the probability of code 1")
        return self


class IngestionPolicy(_Strict):
    """How much of a file may break the contract before the file is refused, and what it must hold.

    ``min_of_each_class``: people of each class of the target that all field studies together must have.
    ``min_share_of_each_class``: a field study with a smaller share of a class is taken in with a remark.
    """

    max_quarantined_share: Share
    max_expanded_megabytes: int = Field(ge=1)
    min_of_each_class: int = Field(default=20, ge=2)
    min_share_of_each_class: Share = 0.01


class ContactPolicy(_Strict):
    """Whom to contact, and what a contact list tells about them; ``core/modeling/decision_rule.py`` applies
    it."""

    rule: Literal["threshold", "youden", "cost_ratio", "capacity"]
    threshold: Share
    cost_ratio: float = Field(gt=0)
    capacity: int = Field(ge=1)
    usual_batch: int = Field(ge=1)
    reasons: int = Field(ge=0)
    # Studies of earlier releases list what is withheld: core/modeling/explanations.py says what holds then.
    shown_reasons: tuple[str, ...] | None = None
    withheld_reasons: tuple[str, ...] = ()
    max_association: Share = 0.25


class Budget(_Strict):
    """How long tuning may go on: it stops at whichever comes first."""

    trials: int = Field(ge=1)
    minutes: float = Field(gt=0)


class TrainingPolicy(_Strict):
    """How a challenger is trained and tuned, and what is kept from it.

    The numbers from ``rounds`` on are the boosted trees that tuning begins with.
    """

    holdout_share: float = Field(gt=0, lt=0.9)
    seed: int = Field(ge=0, lt=2**31)
    masked: tuple[str, ...]
    masked_share: Share
    varies_by: str | None
    candidates: tuple[Literal["xgboost", "logistic", "forest"], ...] = Field(min_length=1)
    max_blended: int = Field(ge=1)
    min_blend_gain: float = Field(ge=0)
    min_calibration_gain: float = Field(ge=0)
    folds: int = Field(ge=2)
    mode: Literal["quick", "full"]
    quick: Budget
    full: Budget
    rounds: int = Field(ge=1, le=10_000)
    learning_rate: float = Field(gt=0, le=1)
    max_depth: int = Field(ge=1, le=16)
    min_child_weight: float = Field(gt=0)
    subsample: float = Field(gt=0, le=1)
    colsample: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _candidates_differ(self) -> Self:
        if len(set(self.candidates)) < len(self.candidates):
            raise ValueError(f"a candidate stands twice in {list(self.candidates)}")
        return self

    def budget(self, mode: Literal["quick", "full"]) -> Budget:
        """Return how long tuning may go on in a mode."""
        return {"quick": self.quick, "full": self.full}[mode]


class PromotionPolicy(_Strict):
    """When a challenger may serve. Log-losses are in nats for each person; losses are rises of them."""

    min_auc: Share
    max_auc: Share
    flagged_share: tuple[Share, Share]
    min_score_spread: float = Field(ge=0)
    min_distinct_scores: int = Field(ge=2)
    calibration_bins: int = Field(ge=2)
    max_calibration_error: Share
    fine_calibration_error: Share
    max_calibration_loss: Share
    min_log_loss_gain: float = Field(ge=0)
    max_auc_loss: float = Field(ge=0)
    max_population_log_loss_loss: float = Field(ge=0)
    max_group_log_loss_loss: float = Field(ge=0)
    min_group_rows: int = Field(ge=2)
    # Studies of earlier releases do not have them: groups that are passed over are named, and refuse nobody.
    min_group_selection_rate: Share = 0.05
    min_group_recall: Share = 0.1
    refuse_passed_over: bool = False
    confidence: float = Field(gt=0.5, lt=1)
    resamples: int = Field(ge=100)
    seed: int = Field(ge=0)
    shadow_batches: int = Field(ge=0)


class OverseerPolicy(_Strict):
    """When a batch is drifted, when that is acted upon, and how often the project may try to mend it."""

    policy: Literal["harm", "any_drift"]
    min_rows: int = Field(ge=10)
    compare_within: str | None
    min_stratum: int = Field(ge=2)
    false_alarms: float = Field(gt=0, lt=0.5)
    resamples: int = Field(ge=100)
    seed: int = Field(ge=0)
    min_distance: Share
    max_outside_support: Share
    max_missing_rise: Share
    max_auc_drop: Share
    max_drifted_columns: Share
    weak_batches: tuple[int, int]
    trusted_within: float = Field(gt=0, lt=1)
    cooldown_batches: int = Field(ge=0)
    max_retrain_attempts: int = Field(ge=1)
    domain_classifier: bool
    report_sample: int = Field(ge=1000)

    @model_validator(mode="after")
    def _some_of_the_last(self) -> Self:
        some, last = self.weak_batches
        if not 1 <= some <= last:
            raise ValueError(f"weak_batches: [k, n] with 1 <= k <= n, not {list(self.weak_batches)}")
        return self


class OutcomesPolicy(_Strict):
    """Who is asked for the truth, so that performance stays measurable."""

    audit_share: Share
    audit_seed: int = Field(ge=0)
    max_log_loss_rise: float = Field(ge=0)
    request_within: float = Field(gt=0, lt=0.5)
    min_interviews: int = Field(ge=1)


class NotificationsPolicy(_Strict):
    """What is told to the addresses of ``POLENG_NOTIFY``, and how often; ``digest_hour`` is in UTC."""

    max_per_hour: int = Field(default=20, ge=1)
    repeat_after_hours: float = Field(default=24.0, ge=0)
    digest_hour: int = Field(default=7, ge=0, le=23)
    told_within_hours: float = Field(default=24.0, gt=0)
    give_up_after_days: float = Field(default=3.0, gt=0)


class RetentionPolicy(_Strict):
    """How many days each table and folder keeps what it holds about people; None: for ever.

    Tables by their names; the others are folders of the home (``core/privacy/retention.py`` says from when
    on). ``max_gap`` is about the clock: after so many days without a sign of life nothing is erased unasked.
    """

    batch_rows: int | None = Field(default=None, ge=1)
    field_study_rows: int | None = Field(default=None, ge=1)
    outcomes: int | None = Field(default=None, ge=1)
    predictions: int | None = Field(default=None, ge=1)
    contact_lists: int | None = Field(default=None, ge=1)
    drift_reports: int | None = Field(default=None, ge=1)
    drift_metrics: int | None = Field(default=None, ge=1)
    performance: int | None = Field(default=None, ge=1)
    quarantine: int | None = Field(default=None, ge=1)
    field_study_requests: int | None = Field(default=None, ge=1)
    archive: int | None = Field(default=None, ge=1)
    rejected: int | None = Field(default=None, ge=1)
    contact_list_files: int | None = Field(default=None, ge=1)
    reports: int | None = Field(default=None, ge=1)
    requests: int | None = Field(default=None, ge=1)
    max_gap: int = Field(default=100, ge=1)

    @model_validator(mode="after")
    def _scores_last_as_long_as_answers(self) -> Self:
        rows, scores = self.batch_rows or math.inf, self.predictions or math.inf
        if scores < rows:
            raise ValueError("predictions must be kept as long as batch_rows: everybody kept has a score")
        return self


class Policies(_Strict):
    """Every decision that is the organisation's to take, in one place."""

    ingestion: IngestionPolicy
    contact: ContactPolicy
    training: TrainingPolicy
    promotion: PromotionPolicy
    overseer: OverseerPolicy
    outcomes: OutcomesPolicy
    # Studies of earlier releases do not have it, and none of it changes a result.
    notifications: NotificationsPolicy = NotificationsPolicy()
    retention: RetentionPolicy = RetentionPolicy()


class Study(_Strict):
    """One survey programme; see ``studies/political_engagement.yaml`` for the file it is read from."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: Words
    id: ColumnName
    target: Target
    contact_list: tuple[str, ...]
    protected: tuple[str, ...]
    policies: Policies
    features: tuple[Feature, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = self.feature_names
        repeated = [n for n, count in Counter([self.id, self.target.name, *names]).items() if count > 1]
        if repeated:
            raise ValueError(f"features: names must differ, {', '.join(repeated)} stands twice")
        titles = [title for title, count in Counter(f.title for f in self.features).items() if count > 1]
        if titles:
            raise ValueError(f"features: titles must differ, {', '.join(titles)} stands twice")
        fields = {
            "contact_list": self.contact_list,
            "protected": self.protected,
            "policies.training.masked": self.policies.training.masked,
            "policies.training.varies_by": [v for v in [self.policies.training.varies_by] if v],
            "policies.overseer.compare_within": [v for v in [self.policies.overseer.compare_within] if v],
            "policies.contact.shown_reasons": self.policies.contact.shown_reasons or (),
            "policies.contact.withheld_reasons": self.policies.contact.withheld_reasons,
        }
        for field, columns in fields.items():
            unknown = [n for n in columns if n not in names]
            if unknown:
                raise ValueError(f"{field}: {', '.join(unknown)} is no feature")
        return self

    @property
    def feature_names(self) -> list[str]:
        """The features' names, in the order of the study: the order of every frame and matrix."""
        return [f.name for f in self.features]

    def feature(self, name: str) -> Feature:
        """Return the feature of that name; raises ``KeyError`` when there is none."""
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(name)


def study_file() -> Path:
    """Return the study file that ``POLENG_STUDY`` names, or the one that ships."""
    return Path(os.environ.get("POLENG_STUDY") or STUDIES / "political_engagement.yaml")


def load_study(path: Path | None = None) -> Study:
    """Read a study file and validate it; one that has not changed since is not read again.

    Args:
        path: of the file; by default the one that ``POLENG_STUDY`` names, or the one that ships.

    Raises:
        StudyError: the file is missing, is no YAML, or breaks the model above. The message has one
            line for each fault: the file, the line, the field and the reason.
    """
    path = path or study_file()
    try:
        status = path.stat()
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror}") from error
    return _study_in(path, (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=4)
def _study_in(path: Path, stamp: object) -> Study:
    """Read a study anew only when ``stamp`` has changed: sensors ask every few seconds."""
    try:
        text = StudyText(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: is no YAML: {error}") from error
    if not isinstance(text.content, dict):
        raise StudyError(f"{path}: line 1: a study is a mapping of fields, this is not")
    if twice := list(text.repeated_keys(_as_one_key)):
        raise StudyError("\n".join(f"{path}: line {one.line}: {_stands_twice(one)}" for one in twice))
    try:
        return Study.model_validate(text.content)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            where, why = _fault(fault["loc"], fault["msg"])
            if fault["type"] == "string_type" and (written := text.written(where)) is not None:
                why += f": if {written or 'nothing'} is meant as a word, put it in quotes"
            faults.append(f"{path}: line {text.line_of(where)}: {'.'.join(where)}: {why}")
        raise StudyError("\n".join(faults)) from error


def _fault(location: tuple[str | int, ...], message: str) -> tuple[tuple[str, ...], str]:
    """Return where a fault is and why; a rule about the whole study names its field in the message."""
    why = message.removeprefix("Value error, ")
    where = tuple(str(part) for part in location if part != "[key]")
    if not where:
        field, _, why = why.partition(": ")
        where = tuple(field.split("."))
    return where, why


def _as_one_key(mapping: tuple[str, ...], key: str) -> object:
    """Return what two keys share that are one: of codes, the number, however it is spelled."""
    number = _CODE.fullmatch(key.strip()) if mapping[-1:] == ("codes",) else None
    return int(number[1]) if number else key


def _stands_twice(key: Repeated) -> str:
    if key.location[-1] == key.earlier:
        return f"{key.earlier}: stands twice"
    return (
        f"{'.'.join(key.location)}: is the same code as {key.earlier} in line {key.earlier_line}, in another "
        "spelling: give each code once"
    )
