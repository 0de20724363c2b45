"""The contact list as a contact centre gets it: words beside the ids, strongest first."""

from __future__ import annotations

import pandas as pd

from poleng_assets.study import Study

FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def contact_list(scored: pd.DataFrame, study: Study, remark: str = "") -> pd.DataFrame:
    """Return the people to contact.

    Args:
        scored: every respondent of a batch: id, the study's contact-list features as codes, ``score``
            (probability of being disengaged), ``contact`` (boolean), and for the contacts ``reasons``
            (words).
        study: which columns the list has and what the codes mean.
        remark: what the reader must know about this list, the same in every row; may be empty.

    Returns:
        One row for each contact, strongest first (ties by id, so that the list is always the same):
        the id, ``prediction`` (the score, 4 decimals), the features in words, ``reasons``, ``remark``.
    """
    chosen = scored[scored["contact"]].sort_values(["score", study.id], ascending=[False, True])
    columns = {
        study.id: chosen[study.id].map(harmless),
        "prediction": chosen["score"].round(4),
    }
    for name in study.contact_list:
        columns[name] = chosen[name].map(study.feature(name).label, na_action=None)
    columns["reasons"] = chosen["reasons"]
    columns["remark"] = pd.Series(remark, index=chosen.index, dtype=object)
    return pd.DataFrame(columns).reset_index(drop=True)


def harmless(text: str) -> str:
    """Keep a spreadsheet from running an id as a formula (OWASP, CSV injection)."""
    return f"'{text}" if text.startswith(FORMULA_SIGNS) else text
