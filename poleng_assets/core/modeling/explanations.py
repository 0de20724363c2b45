"""The reasons for a high score: a person's answers with the largest contributions, if they may be shown.

The study lists what may be shown (``policies.contact.shown_reasons``). Without that list nothing is told
that is protected or stands for what is protected, as ``core/statistics/proxies.py`` measured it in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from poleng_assets.study.schema import Study

if TYPE_CHECKING:
    from poleng_assets.core.modeling.model import Model


def shown_questions(study: Study, proxies: Mapping[str, str] | None) -> list[str]:
    """Return the features that may be shown as a reason, in the order of the study.

    The study's list is final, a protected question on it too; the model card says what that gives away.
    Without one: what is neither protected, nor withheld, nor stands for
    a protected one by the measure of the model's training. A model that was never measured tells nothing.

    Args:
        study: protected questions and what may be shown.
        proxies: of the model, as ``core/statistics/proxies.py`` measures them; None when nobody did.
    """
    policy = study.policies.contact
    if policy.shown_reasons is not None:
        allowed = set(policy.shown_reasons)
    elif proxies is None:
        allowed = set()
    else:
        allowed = set(study.feature_names) - set(study.protected) - set(proxies)
    return [name for name in study.feature_names if name in allowed - set(policy.withheld_reasons)]


def strongest_reasons(model: Model, rows: pd.DataFrame, study: Study) -> list[str]:
    """Return for each person the answers that raise the score most, strongest first.

    What an answer contributes is the weighted sum of what it contributes to each model of the blend, in
    log-odds: the booster's own contributions (Lundberg et al. 2018, arXiv:1802.03888), the effects of
    the regression. Only answers that raise the score are reasons for a contact, so there may be
    fewer than asked.

    Args:
        rows: the study's features as codes, n rows.

    Returns:
        n texts such as ``Education: Lower secondary; Household income: Low``; empty when nothing that may
        be shown raises it.
    """
    shown = set(shown_questions(study, model.proxies))
    if not shown:
        return [""] * len(rows)
    contributions = model.contributions(rows)
    contributions[:, [name not in shown for name in study.feature_names]] = -np.inf
    strongest = np.argsort(-contributions, axis=1, kind="stable")[:, : study.policies.contact.reasons]
    answers = [rows[name].tolist() for name in study.feature_names]
    return [
        "; ".join(
            f"{study.features[position].title}: "
            f"{study.features[position].label(answers[position][row]) or 'no answer'}"
            for position in chosen
            if contributions[row, position] > 0
        )
        for row, chosen in enumerate(strongest)
    ]
