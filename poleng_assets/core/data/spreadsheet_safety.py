"""Cells of spreadsheets: how a text is kept from being run by the program that opens it."""

import unicodedata

# https://owasp.org/www-community/attacks/CSV_Injection; spreadsheets of the Far East take the wide forms
# for the narrow ones.
FORMULA_SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20"
CELL_BREAKS = "\t\r\n\0"


def escape_formula(text: str) -> str:
    """Keep a spreadsheet from running a cell as a formula (OWASP, CSV injection).

    A cell that begins with a sign of a formula, blanks and invisible characters aside, gets an apostrophe
    before it. So does one that has an apostrophe there already: :func:`unescape_formula` takes off just one.
    """
    if text[:1].isalnum():
        return text
    begins = text.lstrip(_unseen(text))
    risky = text.startswith((*CELL_BREAKS, "'")) or begins.startswith(tuple(FORMULA_SIGNS))
    return f"'{text}" if risky else text


def unescape_formula(cell: str) -> str:
    """Return the text that :func:`escape_formula` made a cell of."""
    return cell.removeprefix("'")


def _unseen(text: str) -> str:
    """Return the blanks, controls and formatting characters of a text (Unicode categories Z and C)."""
    return "".join({sign for sign in text if unicodedata.category(sign)[0] in "ZC"})
