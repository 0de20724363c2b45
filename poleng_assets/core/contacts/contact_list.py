"""The contact list as a contact centre gets it: words beside the ids, strongest first.

What belongs here too is how a cell is kept from being run by the spreadsheet that opens it.
"""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path

import pandas as pd

from poleng_assets.study.schema import Study

# https://owasp.org/www-community/attacks/CSV_Injection; spreadsheets of the Far East take the wide forms
# for the narrow ones.
FORMULA_SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20"
CELL_BREAKS = "\t\r\n\0"


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
    safe = {name: text.astype(object).map(harmless) for name, text in texts.items()}
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


def harmless(text: str) -> str:
    """Keep a spreadsheet from running a cell as a formula (OWASP, CSV injection).

    A cell that begins with a sign of a formula, blanks and invisible characters aside, gets an apostrophe
    before it. So does one that has an apostrophe there already: :func:`as_it_was` takes off just one.
    """
    if text[:1].isalnum():
        return text
    begins = text.lstrip(_unseen(text))
    risky = text.startswith((*CELL_BREAKS, "'")) or begins.startswith(tuple(FORMULA_SIGNS))
    return f"'{text}" if risky else text


def as_it_was(cell: str) -> str:
    """Return the text that :func:`harmless` made a cell of."""
    return cell.removeprefix("'")


def _unseen(text: str) -> str:
    """Return the blanks, controls and formatting characters of a text (Unicode categories Z and C)."""
    return "".join({sign for sign in text if unicodedata.category(sign)[0] in "ZC"})
