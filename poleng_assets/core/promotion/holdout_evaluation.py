"""The evaluation of a trained model on its holdout: all that is measured on people it never saw.

What belongs here puts together metrics, groups and importance of one model; how each of them is measured
stands in ``core/statistics/``, how it is shown in ``core/reports/model_card.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from poleng_assets.core.modeling.model import Model
from poleng_assets.core.statistics.groups import evaluate_groups, labelled_groups
from poleng_assets.core.statistics.intervals import Interval
from poleng_assets.core.statistics.metrics import evaluate, score_metrics
from poleng_assets.core.statistics.resampling import bootstrap_intervals
from poleng_assets.study.schema import Study
from poleng_assets.text.markdown import table

# Explaining a row costs as much as scoring it a thousand times. The means of 500 rows are within 3 % of the
# largest one of those of 4,000, and the first ten features are the same.
EXPLAINED_ROWS = 500


@dataclass(frozen=True)
class HoldoutEvaluation:
    """What is known of a model.

    Attributes:
        reference: the holdout rows without ids, with ``score`` and ``contact``: the version's reference.
        figures: on the holdout.
        intervals: of those figures, 95 %.
        on_training: a few figures on the training rows, to see how much was learned by heart.
        groups: figures of each protected group.
        populations: figures of each field study, and of each value of the feature that effects vary by.
        importance: of each feature: how much it moves the scores of the holdout, in log-odds, largest first.
        rows: training rows and holdout rows of each field study.
        proxies: questions that stood for a protected one among the training rows, with the words for why.
    """

    reference: pd.DataFrame
    figures: Mapping[str, float]
    intervals: Mapping[str, Interval]
    on_training: Mapping[str, float]
    groups: pd.DataFrame
    populations: pd.DataFrame
    importance: Mapping[str, float]
    rows: Mapping[str, tuple[int, int]]
    proxies: Mapping[str, str] | None = None

    def metrics(self) -> dict[str, float]:
        """Return all figures by the names that the registry keeps."""
        ends = {
            f"test_{name}_{end}": value
            for name, interval in self.intervals.items()
            for end, value in zip(("lower", "upper"), interval, strict=True)
        }
        return (
            {f"train_{name}": value for name, value in self.on_training.items()}
            | {f"test_{name}": value for name, value in self.figures.items()}
            | ends
        )

    def metric_table(self) -> str:
        """Return the figures as markdown, training rows beside the holdout."""
        lines = [
            (name, _cell(self.on_training.get(name)), _cell(value), self._interval(name))
            for name, value in sorted(self.figures.items())
        ]
        return table(["figure", "training rows", "holdout", "95 %"], lines)

    def _interval(self, name: str) -> str:
        interval = self.intervals.get(name)
        return f"{_cell(interval[0])} to {_cell(interval[1])}" if interval else ""


def evaluate_model(model: Model, study: Study, training: pa.Table, holdout: pa.Table) -> HoldoutEvaluation:
    """Measure a model.

    Args:
        training: ``field_study``, features and target of the rows that it learned from.
        holdout: the same columns of the rows that it has never seen, at least one.
    """
    target = holdout[study.target.name].to_numpy()
    score = model.score(holdout)
    contact = model.rule.decide(score)
    by = [study.policies.training.varies_by, study.policies.overseer.compare_within]
    populations = {
        "Field study": holdout["field_study"].to_numpy(zero_copy_only=False),
        **labelled_groups(study, holdout, dict.fromkeys(name for name in by if name)),
    }
    least = study.policies.promotion.min_group_rows
    explained = holdout.take(np.linspace(0, len(score) - 1, min(len(score), EXPLAINED_ROWS)).astype(int))
    on_training = score_metrics(training[study.target.name].to_numpy(), model.score(training))
    reference = holdout.select([*study.feature_names, study.target.name]).to_pandas()
    promotion = study.policies.promotion
    return HoldoutEvaluation(
        reference=reference.assign(score=score, contact=contact.astype(int)),
        figures=evaluate(target, score, contact),
        intervals=bootstrap_intervals(target, score, contact, promotion.interval_resamples, promotion.seed),
        on_training={name: on_training[name] for name in ("auc", "log_loss", "rmse") if name in on_training},
        groups=evaluate_groups(
            target, score, contact, labelled_groups(study, holdout, study.protected), least
        ),
        populations=evaluate_groups(target, score, contact, populations, least),
        importance=model.importance(explained),
        rows=_rows_of_each(training, holdout),
        proxies=model.proxies,
    )


def _rows_of_each(training: pa.Table, holdout: pa.Table) -> dict[str, tuple[int, int]]:
    learned, held = (rows["field_study"].to_pandas().value_counts() for rows in (training, holdout))
    return {
        name: (int(learned.get(name, 0)), int(held.get(name, 0)))
        for name in sorted({*learned.index, *held.index})
    }


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    # Shares and losses stay far below; what is above counts people.
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.0f}"
