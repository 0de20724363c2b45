"""The contact list as a contact centre gets it: words beside the ids, strongest first."""

import csv
from pathlib import Path

import pandas as pd

from poleng_assets.core.data.spreadsheet_safety import escape_formula
from poleng_assets.study.schema import Study


def contact_list(scored: pd.DataFrame, study: Study, remark: str = "") -> pd.DataFrame:
    """Return the people to contact.

    Args:
        scored: every respondent of a batch: id, the study's contact-list features as codes, ``score``
            (probability of the positive class), ``contact`` (boolean), and for the contacts ``reasons``
            (words).
        study: which columns the list has and what the codes mean.
        remark: what the reader must know about this list, the same in every row; may be empty.

    Returns:
        One row for each contact, strongest first (ties by id, so that the list is always the same):
        the id, ``prediction`` (the score, 4 decimals), the features in words, ``reasons``, ``remark``:
        exactly these columns, whatever else is known of the people. Every text is harmless.
    """
    chosen = scored[scored["contact"]].sort_values(["score", study.id], ascending=[False, True])
    texts = {study.id: chosen[study.id]}
    for name in study.contact_list:
        texts[name] = chosen[name].map(study.feature(name).label, na_action=None)
    texts["reasons"] = chosen["reasons"].fillna("")
    texts["remark"] = pd.Series(remark, index=chosen.index, dtype=object)
    safe = {name: text.astype(object).map(escape_formula) for name, text in texts.items()}
    columns = {study.id: safe.pop(study.id), "prediction": chosen["score"].round(4), **safe}
    return pd.DataFrame(columns).reset_index(drop=True)


def as_csv(listed: pd.DataFrame) -> str:
    """Return a list as CSV, with every text in quotes.

    Without them, a spreadsheet that takes semicolons for separators would cut a text at its semicolon, and
    run what follows.
    """
    return listed.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)


def read_list(path: Path) -> pd.DataFrame:
    """Return the list that :func:`as_csv` made a file of.

    Raises:
        ValueError: it is another file than that, or was changed by hand.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file, strict=True)
        if "prediction" not in header or any(len(row) != len(header) for row in rows):
            raise ValueError("its columns are others")
        listed = pd.DataFrame(rows, columns=pd.Index(header), dtype=object)
        return listed.astype({"prediction": float})
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is no contact list as it was made: {error}") from error
