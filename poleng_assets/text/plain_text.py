"""Text of others as text: what would steer a terminal, turn a line around or hide is written out.

File names, cells, reasons and titles come from people whom nobody knows. What belongs here holds wherever
they are shown; what a kind of markup needs besides stands with it (``text/markdown.py``).
"""

import re
import unicodedata

# Joiners: Persian, Indian languages and emoji are written with them.
_JOINERS = "\u200c\u200d"
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_ASCII = re.compile(r"[\t\n -~]*")


def visible(text: str) -> str:
    """Return a text with its control characters, invisible ones and halves of characters written out.

    ESC becomes ``\\x1b``, a right-to-left override ``\\u202e``, a byte of a file name that is no UTF-8
    ``\\udcff``. Line ends and tabulators stay.
    """
    if _ASCII.fullmatch(text):
        return text
    return "".join(_seen(letter) for letter in text)


def in_one_line(text: str) -> str:
    """Return :func:`visible` text that cannot begin a line of its own, such as a file name."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _seen(letter: str) -> str:
    if letter in "\n\t" or letter in _JOINERS or unicodedata.category(letter) not in _UNSEEN:
        return letter
    return letter.encode("unicode_escape").decode()


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its class."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def wrapped(text: str, width: int = 100) -> str:
    """Return a text in lines of a width or little more, broken behind commas and ends of sentences.

    Other blanks are left alone: names, paths and commands stay in one piece.
    """
    lines = [""]
    for part in re.split(r"(?<=[,;.:]) ", text):
        if lines[-1] and len(lines[-1]) + 1 + len(part) > width:
            lines.append(part)
        else:
            lines[-1] = f"{lines[-1]} {part}" if lines[-1] else part
    return "\n".join(lines)
