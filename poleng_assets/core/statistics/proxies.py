"""Proxies: questions whose answers reveal the answer to a protected question.

Sources:
    H. Cramer, Mathematical Methods of Statistics, 1946, ch. 21; W. Bergsma, Journal of the Korean Statistical
    Society 42, 2013 (without its bias in small tables).
"""

from collections.abc import Mapping
from math import sqrt

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from poleng_assets.study.policies import ContactPolicy
from poleng_assets.study.schema import Study


def proxies(rows: pa.Table, study: Study) -> dict[str, str]:
    """Return the proxies of protected questions, each with the reason.

    Args:
        rows: the features as codes; those that a model learns from.
        study: protected questions, and from which association on a question stands for one.

    Returns:
        By name of the feature; protected ones are not among them.
    """
    columns = {name: _codes(rows, name) for name in study.feature_names}
    associations: dict[str, list[str]] = {}
    for protected in study.protected:
        for feature in study.features:
            if feature.name in study.protected:
                continue
            table = _counts(columns[feature.name], columns[protected])
            strength, given_away = cramers_v(table), _given_away(table, study.policies.contact)
            title = study.feature(protected).title
            if given_away:
                share, answers = given_away
                associations.setdefault(feature.name, []).append(
                    f"{title} (one answer reveals it for {share:.0%} of {answers} people)"
                )
            elif strength > study.policies.contact.max_association:
                associations.setdefault(feature.name, []).append(f"{title} (association {strength:.2f})")
    return {name: ", ".join(named) for name, named in associations.items()}


def shown_proxies(study: Study, measured: Mapping[str, str] | None) -> list[str]:
    """Describe the shown questions that are protected, or proxies of a protected question.

    Args:
        study: says what is shown as a reason.
        measured: as :func:`proxies` returns it; None when it was not measured.
    """
    shown = study.policies.contact.shown_reasons or ()
    sentences = []
    for name in shown:
        if name in study.policies.contact.withheld_reasons:
            continue
        title = study.feature(name).title
        if name in study.protected:
            sentences.append(f"{title} is protected, and contact lists may show it as a reason")
        elif measured and name in measured:
            sentences.append(f"{title} may be shown as a reason, and is a proxy for {measured[name]}")
    sentences += [
        f"{study.feature(name).title} is protected, and is a column of the contact lists"
        for name in study.contact_list
        if name in study.protected
    ]
    return sentences


def cramers_v(table: np.ndarray) -> float:
    """Return the association of two properties: 0 is none, 1 is complete.

    Args:
        table: people with each pair of values, shape (values of one, values of the other).
    """
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    people, (rows, columns) = float(table.sum()), table.shape
    if people < 2 or min(rows, columns) < 2:
        return 0.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / people
    squared = float(((table - expected) ** 2 / expected).sum()) / people
    squared = max(0.0, squared - (rows - 1) * (columns - 1) / (people - 1))
    smaller = min(kinds - (kinds - 1) ** 2 / (people - 1) for kinds in (rows, columns)) - 1
    return min(1.0, sqrt(squared / smaller)) if smaller > 0 else 0.0


def _given_away(table: np.ndarray, policy: ContactPolicy) -> tuple[float, int] | None:
    """Return share and number of people of the most revealing answer; None when none reveals enough.

    A protected answer that is the rule does not count: that nearly everybody is a citizen is told by none.
    """
    people = table.sum(axis=1)
    rare = table.sum(axis=0) < policy.common_share * table.sum()
    enough = people >= policy.revealing_people
    if not rare.any() or not enough.any():
        return None
    shares = table[enough][:, rare] / people[enough, None]
    answer, value = np.unravel_index(int(shares.argmax()), shares.shape)
    share = float(shares[answer, value])
    return (share, int(people[enough][answer])) if share >= policy.revealing_share else None


def _codes(rows: pa.Table, name: str) -> tuple[np.ndarray, int]:
    """Return the position of each answer among the different ones, sorted, and how many those are."""
    answers = pc.fill_null(rows[name].cast(pa.string()), "")
    values = pc.unique(answers)
    values = values.take(pc.sort_indices(values))
    return pc.index_in(answers, value_set=values).to_numpy(), len(values)


def _counts(first: tuple[np.ndarray, int], second: tuple[np.ndarray, int]) -> np.ndarray:
    """Return the contingency table of two columns of :func:`_codes`."""
    (rows, row_values), (columns, column_values) = first, second
    flat = np.bincount(rows * column_values + columns, minlength=row_values * column_values)
    return flat.reshape(row_values, column_values).astype(np.float64)
