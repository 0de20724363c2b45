"""The policies of a study: the parameters of decisions about people and models, with their valid ranges.

The modules that apply a policy describe its effect.
"""

import math
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Bound = TypeVar("Bound", int, float)


def _rising(ends: tuple[Bound, Bound]) -> tuple[Bound, Bound]:
    if ends[0] > ends[1]:
        raise ValueError(f"the lower bound must come first, not {list(ends)}")
    return ends


Shares = Annotated[tuple[Share, Share], AfterValidator(_rising)]
Positives = Annotated[tuple[Positive, Positive], AfterValidator(_rising)]
Counts = Annotated[tuple[Count, Count], AfterValidator(_rising)]


class Strict(BaseModel):
    """A part of the study file: no unknown fields, no infinite numbers, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class IngestionPolicy(Strict):
    """When a file is refused: limits for invalid rows, and minimum content.

    ``min_of_each_class``: people of each class of the target that all field studies together must have.
    ``min_share_of_each_class``: a field study with a smaller share of a class is ingested with a remark.
    The others are about files with people of earlier files (``core/ingestion/duplicates.py``).
    """

    max_quarantined_share: Share
    max_expanded_megabytes: int = Field(ge=1)
    min_of_each_class: int = Field(default=20, ge=2)
    min_share_of_each_class: Share = 0.01
    distinct_share: Share = 0.95
    min_same_rows: int = Field(default=20, ge=1)
    renamed_share: Share = 0.2
    min_alike: int = Field(default=5, ge=1)
    min_alike_share: Share = 0.01
    other_spelling_share: Share = 0.5


class ContactPolicy(Strict):
    """The contact decision and the content of a contact list; see ``core/modeling/decision_rule.py``."""

    rule: Literal["threshold", "youden", "cost_ratio", "capacity"]
    threshold: Share
    cost_ratio: float = Field(gt=0)
    capacity: int = Field(ge=1)
    usual_batch: int = Field(ge=1)
    reasons: int = Field(ge=0)
    # Studies of earlier releases list withheld reasons instead: see core/modeling/explanations.py.
    shown_reasons: tuple[str, ...] | None = None
    withheld_reasons: tuple[str, ...] = ()
    max_association: Share = 0.25
    revealing_share: Share = 0.8
    revealing_people: int = Field(default=20, ge=1)
    common_share: Share = 0.75


class Budget(Strict):
    """The budget of hyperparameter tuning: it stops at the limit that is reached first."""

    trials: int = Field(ge=1)
    minutes: float = Field(gt=0)


class BoostingSearch(Strict):
    """The search space of boosted trees; a starting point outside extends it."""

    rounds: Counts = (150, 1500)
    learning_rate: Positives = (0.01, 0.15)
    max_depth: Counts = (2, 7)
    min_child_weight: Positives = (1.0, 50.0)
    subsample: Positives = (0.5, 1.0)
    colsample: Positives = (0.2, 1.0)
    reg_lambda: Positives = (0.1, 30.0)


class BoostingPolicy(Strict):
    """The starting point of tuning for boosted trees, and its search space."""

    rounds: int = Field(ge=1, le=10_000)
    learning_rate: float = Field(gt=0, le=1)
    max_depth: int = Field(ge=1, le=16)
    min_child_weight: float = Field(gt=0)
    subsample: float = Field(gt=0, le=1)
    colsample: float = Field(gt=0, le=1)
    reg_lambda: float = Field(default=1.0, gt=0)
    search: BoostingSearch = BoostingSearch()


class LogisticSearch(Strict):
    """The search space of the logistic regression."""

    C: Positives = (0.01, 1.0)
    strength: Shares = (0.0, 1.0)


class LogisticPolicy(Strict):
    """The starting point for the logistic regression; ``strength`` applies to varying effects."""

    C: float = Field(default=0.1, gt=0)
    strength: Share = 0.6
    search: LogisticSearch = LogisticSearch()


class ForestSearch(Strict):
    """The search space of the random forest."""

    trees: Counts = (50, 400)
    min_samples_leaf: Counts = (3, 50)
    max_features: Shares = (0.1, 0.8)


class ForestPolicy(Strict):
    """The starting point of tuning for the random forest, and its search space."""

    trees: int = Field(default=80, ge=1)
    min_samples_leaf: int = Field(default=10, ge=1)
    max_features: float = Field(default=0.3, gt=0, le=1)
    search: ForestSearch = ForestSearch()


_TREES = ("rounds", "learning_rate", "max_depth", "min_child_weight", "subsample", "colsample")


class TrainingPolicy(Strict):
    """How a challenger is trained and tuned, and which data is held out."""

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
    blended_from: int = Field(default=10, ge=1)
    pruned_after: int = Field(default=4, ge=1)
    xgboost: BoostingPolicy
    logistic: LogisticPolicy = LogisticPolicy()
    forest: ForestPolicy = ForestPolicy()

    @model_validator(mode="before")
    @classmethod
    def _with_trees_of_earlier_releases(cls, content: Any) -> Any:
        """Move the six parameters of boosted trees from earlier releases to their candidate."""
        if not isinstance(content, dict) or "xgboost" in content:
            return content
        moved = {name: content[name] for name in _TREES if name in content}
        return {name: value for name, value in content.items() if name not in moved} | {"xgboost": moved}

    @model_validator(mode="after")
    def _candidates_differ(self) -> Self:
        if len(set(self.candidates)) < len(self.candidates):
            raise ValueError(f"a candidate occurs twice in {list(self.candidates)}")
        return self

    def budget(self, mode: Literal["quick", "full"]) -> Budget:
        """Return the tuning budget of a mode."""
        return {"quick": self.quick, "full": self.full}[mode]


class PromotionPolicy(Strict):
    """When a challenger is promoted. Log-losses are in nats per person; losses are increases of them."""

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
    # Studies of earlier releases lack these: under-contacted groups are reported, and block no promotion.
    min_group_selection_rate: Share = 0.05
    min_group_recall: Share = 0.1
    refuse_passed_over: bool = False
    confidence: float = Field(gt=0.5, lt=1)
    resamples: int = Field(ge=100)
    seed: int = Field(ge=0)
    shadow_batches: int = Field(ge=0)
    shadow_rows: int = Field(default=50_000, ge=1)
    interval_resamples: int = Field(default=100, ge=10)
    min_known_share: Share = 0.8


class OverseerPolicy(Strict):
    """When a batch is drifted, when drift causes an action, and how often the model is retrained."""

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
    confidence: float = Field(default=0.998, gt=0.5, lt=1)
    weak_confidence: float = Field(default=0.95, gt=0.5, lt=1)
    disjoint_distance: Share = 0.99
    max_domain_auc: Share = 0.65
    min_comparable: Share = 0.5
    smoothing_rows: float = Field(default=3.0, ge=0)
    limits_quantile: float = Field(default=0.05, gt=0, lt=1)

    @model_validator(mode="after")
    def _some_of_the_last(self) -> Self:
        some, last = self.weak_batches
        if not 1 <= some <= last:
            raise ValueError(f"weak_batches: [k, n] with 1 <= k <= n, not {list(self.weak_batches)}")
        return self


class OutcomesPolicy(Strict):
    """The audit sample, the realised performance, and requested field studies."""

    audit_share: Share
    audit_seed: int = Field(ge=0)
    max_log_loss_rise: float = Field(ge=0)
    request_within: float = Field(gt=0, lt=0.5)
    min_interviews: int = Field(ge=1)
    newest_batches: int = Field(default=5, ge=1)
    uncertain_scores: Shares = (0.35, 0.65)
    max_strata_features: int = Field(default=2, ge=0)
    complete_share: Share = 0.9
    score_parts: int = Field(default=5, ge=1)
    min_in_part: int = Field(default=10, ge=1)
    resamples: int = Field(default=200, ge=10)
    seed: int = Field(default=23, ge=0)


class PrivacyPolicy(Strict):
    """Minimum group sizes in outputs, and how an erased person is recognised."""

    min_group_size: int = Field(default=10, ge=2)
    min_id_length: int = Field(default=6, ge=1)
    min_identifying_answers: int = Field(default=4, ge=1)


class NotificationsPolicy(Strict):
    """Limits for notifications to ``POLENG_NOTIFY``; ``digest_hour`` is in UTC."""

    max_per_hour: int = Field(default=20, ge=1)
    repeat_after_hours: float = Field(default=24.0, ge=0)
    digest_hour: int = Field(default=7, ge=0, le=23)
    told_within_hours: float = Field(default=24.0, gt=0)
    give_up_after_days: float = Field(default=3.0, gt=0)


class RetentionPolicy(Strict):
    """Days for which each table and folder keeps personal data; None: for ever.

    Tables by their names; the others are folders of the home (``warehouse/retention.py`` defines the start).
    ``max_gap`` protects against a wrong clock: after so many days without activity nothing is erased
    automatically.
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
            raise ValueError("predictions must be kept as long as batch_rows: every person needs a score")
        return self


class Policies(Strict):
    """All decisions of the organisation."""

    ingestion: IngestionPolicy
    contact: ContactPolicy
    training: TrainingPolicy
    promotion: PromotionPolicy
    overseer: OverseerPolicy
    outcomes: OutcomesPolicy
    # Studies of earlier releases lack these; the defaults change no result.
    privacy: PrivacyPolicy = PrivacyPolicy()
    notifications: NotificationsPolicy = NotificationsPolicy()
    retention: RetentionPolicy = RetentionPolicy()
