"""Groups of people: their answers as the survey words them, and what a model does in each."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa

from poleng_assets.core.statistics.intervals import Z_95, wilson_interval
from poleng_assets.study.schema import Study

NO_ANSWER = "no answer"
OTHERS = "others, too few each"
GROUP_COLUMNS = (
    "property",
    "value",
    "rows",
    "target_rate",
    "mean_score",
    "flagged_share",
    "recall",
    "recall_lower",
    "recall_upper",
    "precision",
    "auc",
    "calibration_gap",
    "calibration_gap_lower",
    "calibration_gap_upper",
)


def labelled_groups(study: Study, rows: pa.Table, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the answers to some questions in words, by the question's title, each of shape (rows,).

    Args:
        rows: the features as codes.
    """
    return {study.feature(name).title: _labels(study, rows, name) for name in names}


def _labels(study: Study, rows: pa.Table, name: str) -> np.ndarray:
    answers, feature = rows[name].to_pandas().astype(object), study.feature(name)
    labels = {code: feature.label(code) for code in answers.dropna().unique()}
    return answers.map(labels).fillna(NO_ANSWER).to_numpy()


def evaluate_groups(
    target: np.ndarray,
    score: np.ndarray,
    contact: np.ndarray,
    groups: Mapping[str, np.ndarray],
    min_rows: int,
) -> pd.DataFrame:
    """Measure each group of people on its own: how often it is contacted, found, and rightly scored.

    Values that fewer than ``min_rows`` people have are left out: such figures are noise, and near to
    telling about single persons. So that nobody vanishes, each property that leaves somebody out ends
    with a row :data:`OTHERS` that has their number and no figure; pooled figures of one small group
    would be its own. A missing value is a group too (:data:`NO_ANSWER`).

    Args:
        target: 0 or 1, shape (n,).
        score: probability of 1, shape (n,).
        contact: whether the person is contacted, bool, shape (n,).
        groups: for each property, the value of each row in words, shape (n,).
        min_rows: that a value needs to be shown, at least 1.

    Returns:
        One row for each property and value, the largest first within a property, with
        :data:`GROUP_COLUMNS`. ``calibration_gap`` is the mean score minus the target rate: above zero,
        the group is said to be more positive than it is. Intervals are of 95 %: Wilson's for the
        recall, the normal approximation (of the mean of score minus target) for the gap. NaN is what
        cannot be said: recall without positives, precision without contacts, AUC of one class.

    Raises:
        ValueError: a property has another number of rows than the target.
    """
    rows: list[dict[str, object]] = []
    for name, values in groups.items():
        if len(values) != len(target):
            raise ValueError(f"{name} has {len(values)} rows, the target {len(target)}")
        names, which, counts = np.unique(_named(values), return_inverse=True, return_counts=True)
        # By size, and by name where sizes are equal, so that the table is the same every time.
        for position in sorted(range(len(names)), key=lambda p: (-counts[p], names[p])):
            if counts[position] >= min_rows:
                group = which == position
                figures = _group_figures(target[group], score[group], contact[group])
                rows.append({"property": name, "value": str(names[position]), **figures})
        left_out = int(counts[counts < min_rows].sum())
        if left_out:
            rows.append({"property": name, "value": OTHERS, "rows": left_out})
    numbers = dict.fromkeys(GROUP_COLUMNS[3:], float)
    return pd.DataFrame(rows, columns=list(GROUP_COLUMNS)).astype({"rows": int, **numbers})


def group_masks(columns: Mapping[str, np.ndarray], least: int) -> dict[str, np.ndarray]:
    """Return which rows have each value that at least so many rows have.

    Args:
        columns: for each property its values, each of shape (n,); a property without a name is left out
            of the names of its values.
        least: values that fewer rows have are left out.

    Returns:
        Masks of shape (n,) by ``property: value``.
    """
    masks = {}
    for column, values in columns.items():
        names, which, counts = np.unique(values.astype(str), return_inverse=True, return_counts=True)
        for position, (name, count) in enumerate(zip(names, counts, strict=True)):
            if count >= least:
                masks[f"{column}: {name}" if column else str(name)] = which == position
    return masks


def _group_figures(target: np.ndarray, score: np.ndarray, contact: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    positives, contacts = int((target == 1).sum()), int(contact.sum())
    hits = int(contact[target == 1].sum())
    recall_lower, recall_upper = wilson_interval(hits, positives)
    excess = score - target
    gap = float(excess.mean())
    error = float(excess.std(ddof=1)) / math.sqrt(len(excess)) if len(excess) > 1 else math.nan
    return {
        "rows": len(target),
        "target_rate": float(target.mean()),
        "mean_score": float(score.mean()),
        "flagged_share": contacts / len(target),
        "recall": hits / positives if positives else math.nan,
        "recall_lower": recall_lower,
        "recall_upper": recall_upper,
        "precision": hits / contacts if contacts else math.nan,
        "auc": float(roc_auc_score(target, score)) if 0 < positives < len(target) else math.nan,
        "calibration_gap": gap,
        "calibration_gap_lower": gap - Z_95 * error,
        "calibration_gap_upper": gap + Z_95 * error,
    }


def _named(values: np.ndarray) -> np.ndarray:
    column = pd.Series(values, dtype=object)
    return np.where(column.isna() | (column == ""), NO_ANSWER, column.astype(str)).astype(str)
