"""The contact list for a contact centre: ids with readable answers, highest score first."""

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
        remark: a note about this list, the same in every row; may be empty.

    Returns:
        One row for each contact, highest score first (ties by id, so that the order is reproducible):
        the id, ``prediction`` (the score, 4 decimals), the labels of the features, ``reasons``, ``remark``:
        exactly these columns. Formulas in texts are escaped.
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
    """Return a list as CSV with every text quoted.

    Without quotes, a spreadsheet with semicolon separators would split a text at its semicolon and run the
    rest as a formula.
    """
    return listed.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)


def read_list(path: Path) -> pd.DataFrame:
    """Read a list that :func:`as_csv` wrote.

    Raises:
        ValueError: the file is not such a list, or was edited.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file, strict=True)
        if "prediction" not in header or any(len(row) != len(header) for row in rows):
            raise ValueError("unexpected columns")
        listed = pd.DataFrame(rows, columns=pd.Index(header), dtype=object)
        return listed.astype({"prediction": float})
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is not a valid contact list: {error}") from error
