"""The model card: one self-contained page about one model version, for somebody who has to answer for it.

This module formats what is measured elsewhere. A card describes groups of people and
never a person: it takes metrics and tables of groups, and no rows.

Source: M. Mitchell et al., Model Cards for Model Reporting, FAT* 2019 (which parts a card has).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from statistics import NormalDist
from typing import Any

import pandas as pd

from poleng_assets.core.data.library_versions import library_version
from poleng_assets.core.modeling.explanations import shown_questions
from poleng_assets.core.modeling.training_configuration import TrainingConfiguration
from poleng_assets.core.promotion.holdout_evaluation import HoldoutEvaluation
from poleng_assets.core.reports.charts import Chart
from poleng_assets.core.reports.holdout_charts import BARS_SHOWN, CAPTIONS, holdout_charts
from poleng_assets.core.reports.pages import template
from poleng_assets.core.statistics.groups import OTHERS
from poleng_assets.core.statistics.intervals import Interval
from poleng_assets.core.statistics.metrics import METRICS, Metric
from poleng_assets.core.statistics.proxies import shown_proxies
from poleng_assets.core.statistics.selection_rates import contacts_in_table, passed_over
from poleng_assets.study.schema import Study

CANDIDATES_SHOWN = 15
LIBRARIES = ("nannyml", "optuna", "poleng_assets", "scikit-learn", "xgboost")
TILES = ("auc", "precision", "recall", "flagged_share")


@dataclass(frozen=True)
class ModelCard:
    """The content of a card of one model version.

    Attributes:
        trained_at: with a time zone.
        training_data_hash: of all field studies that it was trained on.
        evaluation: on the holdout; a metric without an interval is shown alone.
        candidates: that were compared, best first: ``candidate``, ``log_loss`` and
            any other columns; may be empty.
        configuration: that it was trained by.
        dagster_run_id: of the run that trained it.
        mlflow_run_id: of the run that keeps it.
    """

    study: Study
    version: int
    trained_at: datetime
    training_data_hash: str
    evaluation: HoldoutEvaluation
    candidates: pd.DataFrame
    configuration: TrainingConfiguration
    dagster_run_id: str
    mlflow_run_id: str

    @cached_property
    def plots(self) -> dict[str, Chart]:
        """Charts of the holdout, by title."""
        reference = self.evaluation.reference
        return holdout_charts(reference[self.study.target.name].to_numpy(), reference["score"].to_numpy())

    @property
    def importance(self) -> list[tuple[str, float]]:
        """Title of each question, and its mean absolute contribution to a score (log-odds)."""
        return [(self.study.feature(name).title, value) for name, value in self.evaluation.importance.items()]


@dataclass(frozen=True)
class Line:
    """One row of a table: its header and its cells."""

    head: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """The groups of one property."""

    title: str
    lines: list[Line]


def render_model_card(card: ModelCard) -> str:
    """Return the card as self-contained HTML that opens offline."""
    study, titles = card.study, {feature.name: feature.title for feature in card.study.features}
    evaluation, figures, policies = card.evaluation, card.evaluation.figures, card.study.policies
    return template("model_card.html").render(
        card=card,
        study=study,
        heading=f"Model version {card.version}",
        trained_at=card.trained_at.astimezone(UTC),
        sought=study.target.codes[study.target.positive],
        others=study.target.codes[1 - study.target.positive],
        training_rows=sum(rows for rows, _ in evaluation.rows.values()),
        holdout_rows=sum(rows for _, rows in evaluation.rows.values()),
        protected=[titles[name] for name in study.protected],
        masked=[titles[name] for name in policies.training.masked],
        shown_reasons=[titles[name] for name in shown_questions(study, evaluation.proxies)],
        given_away=shown_proxies(study, evaluation.proxies),
        in_short=how_good(figures, evaluation.intervals),
        figures=[
            Line(metric.title, (*_value_and_interval(evaluation, metric), metric.explanation))
            for metric in _measured(evaluation, METRICS)
        ],
        tiles=[
            (metric.title, *_value_and_interval(evaluation, metric))
            for metric in _measured(evaluation, TILES)
        ],
        confusion=_confusion(figures),
        passed_over=_passed_over(card),
        worst_groups=worst_groups(evaluation.groups, figures, titles),
        worst_populations=worst_groups(evaluation.populations, figures, titles),
        group_tables=[
            ("Protected groups", _sections(evaluation.groups, figures, titles)),
            ("Populations", _sections(evaluation.populations, figures, titles)),
        ],
        questions=_questions(card.importance),
        more_questions=max(0, len(card.importance) - BARS_SHOWN),
        captions=CAPTIONS,
        seeds={"training": policies.training.seed, "promotion": policies.promotion.seed},
        package_versions={name: library_version(name) for name in LIBRARIES},
        columns=[str(name).replace("_", " ") for name in card.candidates.columns],
        candidates=[[_cell(v) for v in row] for row in card.candidates.head(CANDIDATES_SHOWN).to_numpy()],
        numeric=[pd.api.types.is_numeric_dtype(kind) for kind in card.candidates.dtypes],
        candidates_left_out=max(0, len(card.candidates) - CANDIDATES_SHOWN),
        made_at=datetime.now(UTC),
    )


def how_good(figures: Mapping[str, float], intervals: Mapping[str, Interval]) -> list[str]:
    """Summarise the performance of a model in sentences, from the available metrics.

    Args:
        figures: metrics on the holdout, by name.
        intervals: of those metrics, 95 %.
    """

    def shown(name: str, form: str) -> str:
        between = _between(intervals.get(name), form)
        return _figure(figures[name], form) + (f" ({between})" if between else "")

    sentences = []
    if "auc" in figures:
        sentences.append(
            "A person of the target group scores higher than another person in "
            f"{shown('auc', 'share')} of all pairs (AUC); 50% is random."
        )
    if {"precision", "recall", "flagged_share"} <= figures.keys():
        sentences.append(
            f"It flags {shown('flagged_share', 'share')} of the people for contact. Precision is "
            f"{shown('precision', 'share')}, recall {shown('recall', 'share')}."
        )
    if "lift_at_10" in figures:
        sentences.append(
            f"The 10% with the highest scores hold {shown('lift_at_10', 'times')} as many people of the "
            "target group as a random sample (lift)."
        )
    if "calibration_error" in figures:
        sentences.append(
            f"The calibration error is {shown('calibration_error', 'share')} on average, some of it sampling "
            "error."
        )
    return sentences


def worst_groups(groups: pd.DataFrame, figures: Mapping[str, float], titles: Mapping[str, str]) -> list[str]:
    """Describe the group with the worst value of each metric, in sentences.

    The worst of many groups looks bad by chance alone. So a difference is called significant only when its
    95 % interval, widened for that many groups (Bonferroni), excludes the overall recall, or a calibration
    bias of zero.

    Args:
        groups: as ``evaluate_groups`` returns them.
        figures: of all people together, for comparison.
        titles: of properties, by column name; a property without a title keeps its name.

    Returns:
        Nothing when there are not two groups to compare.
    """
    shown = groups[groups["value"] != OTHERS]
    if len(shown) < 2:
        return []
    sentences = []
    row, recall = _first(shown, "recall"), figures.get("recall")
    if recall is not None and row["recall"] < recall:
        chance = _chance(recall - row["recall"], row["recall_upper"] - row["recall"], len(shown))
        sentences.append(
            f"Recall is lowest for {_name(row, titles)}: {_with_ends(row, 'recall')}, "
            f"{recall:.1%} overall. {chance}"
        )
    for direction, sign in (("high", 1), ("low", -1)):
        row = _first(shown, "calibration_gap", largest=sign > 0)
        gap = row["calibration_gap"]
        if gap * sign > 0:
            chance = _chance(abs(gap), row["calibration_gap_upper"] - gap, len(shown))
            sentences.append(
                f"Scores are too {direction} most of all for {_name(row, titles)}: calibration bias "
                f"{_points(row)} percentage points. {chance}"
            )
    row = _first(shown, "auc")
    if "auc" in figures and row["auc"] < figures["auc"]:
        sentences.append(
            f"AUC is lowest for {_name(row, titles)}: {row['auc']:.3f}, {figures['auc']:.3f} overall."
        )
    most, least = (_first(shown, "flagged_share", largest=largest) for largest in (True, False))
    sentences.append(
        f"The contact rate is highest for {_name(most, titles)}: {_contacted(most)}. "
        f"It is lowest for {_name(least, titles)}: {_contacted(least)}."
    )
    return sentences


def _measured(evaluation: HoldoutEvaluation, names: Iterable[str]) -> list[Metric]:
    return [METRICS[name] for name in names if name in evaluation.figures]


def _value_and_interval(evaluation: HoldoutEvaluation, metric: Metric) -> tuple[str, str]:
    value, interval = evaluation.figures[metric.name], evaluation.intervals.get(metric.name)
    return _figure(value, metric.unit), _between(interval, metric.unit)


def _passed_over(card: ModelCard) -> list[str]:
    """Describe the groups that the contact rule passes over, without duplicates."""
    tables = (card.evaluation.groups, card.evaluation.populations)
    counted = [group for table in tables for group in contacts_in_table(table)]
    return list(
        dict.fromkeys(group.in_words() for group in passed_over(counted, card.study.policies.promotion))
    )


def _first(shown: pd.DataFrame, column: str, largest: bool = False) -> pd.Series:
    """Return the group with the smallest or largest value; groups without one come last."""
    return shown.sort_values(column, ascending=not largest, kind="stable").iloc[0]


def _chance(distance: float, half_width: float, groups: int) -> str:
    """Say whether a difference is significant, given the half width of its 95 % interval and the groups."""
    normal = NormalDist()
    widened = half_width * normal.inv_cdf(1 - 0.025 / groups) / normal.inv_cdf(0.975)
    if distance > widened:
        return f"The difference is significant, even for the worst of {groups} groups."
    return f"For the worst of {groups} groups, the difference may be chance."


def _contacted(row: pd.Series) -> str:
    return f"{row['flagged_share']:.1%}, with a target rate of {row['target_rate']:.1%}"


def _sections(groups: pd.DataFrame, figures: Mapping[str, float], titles: Mapping[str, str]) -> list[Section]:
    """Return the groups of each property as lines of a table."""
    sections: dict[str, Section] = {}
    for _, row in groups.iterrows():
        name = str(row["property"])
        section = sections.setdefault(name, Section(titles.get(name, name), []))
        section.lines.append(Line(str(row["value"]), _group_cells(row, figures)))
    return list(sections.values())


def _group_cells(row: pd.Series, figures: Mapping[str, float]) -> tuple[str, ...]:
    if row["value"] == OTHERS:
        return (f"{row['rows']:,}", *[""] * 6, "not shown: too few people")
    remarks = []
    if row["recall_upper"] < figures.get("recall", 0):
        remarks.append("low recall")
    if row["calibration_gap_lower"] > 0:
        remarks.append("scores too high")
    if row["calibration_gap_upper"] < 0:
        remarks.append("scores too low")
    return (
        f"{row['rows']:,}",
        f"{row['target_rate']:.1%}",
        f"{row['flagged_share']:.1%}",
        _with_ends(row, "recall"),
        _figure(row["precision"], "share"),
        _figure(row["auc"], "number"),
        _points(row),
        ", ".join(remarks),
    )


def _confusion(figures: Mapping[str, float]) -> list[tuple[int, int]]:
    """Return (contacted, not contacted) of the target group and of the others."""
    names = (("true_positives", "false_negatives"), ("false_positives", "true_negatives"))
    return [(int(figures[contacted]), int(figures[others])) for contacted, others in names]


def _questions(importance: Sequence[tuple[str, float]]) -> list[tuple[str, float, str]]:
    """Return title, length of the bar in percent of the longest, and value; the largest first."""
    largest = sorted(importance, key=lambda bar: -bar[1])[:BARS_SHOWN]
    longest = max((value for _, value in largest), default=0.0) or 1.0
    return [(title, 100 * value / longest, f"{value:.3f}") for title, value in largest]


def _name(row: pd.Series, titles: Mapping[str, str]) -> str:
    return f"“{row['value']}” ({titles.get(row['property'], row['property'])}, {row['rows']:,} people)"


def _with_ends(row: pd.Series, name: str) -> str:
    if pd.isna(row[name]):
        return ""
    return f"{row[name]:.1%} ({row[f'{name}_lower']:.1%} to {row[f'{name}_upper']:.1%})"


def _points(row: pd.Series) -> str:
    """Return the calibration bias in percentage points, signed, with its interval where it is known."""
    value, low, high = (
        # Adding zero takes the sign from a zero that was rounded.
        round(100 * row[name], 1) + 0.0
        for name in ("calibration_gap", "calibration_gap_lower", "calibration_gap_upper")
    )
    return f"{value:+.1f}" + ("" if pd.isna(low) else f" ({low:+.1f} to {high:+.1f})")


def _figure(value: float, form: str) -> str:
    if pd.isna(value):
        return ""
    return {"share": f"{value:.1%}", "number": f"{value:.3f}", "times": f"{value:.2f} times"}[form]


def _between(interval: Interval | None, form: str) -> str:
    if interval is None:
        return ""
    low, high = (_figure(end, form).removesuffix(" times") for end in interval)
    return f"{low} to {high}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.4f}" if abs(value) < 10 else f"{value:,.0f}"
    return "" if value is None else str(value)
