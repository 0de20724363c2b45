"""Safe display of untrusted text: control, bidirectional and invisible characters are escaped.

File names, cells, reasons and titles are untrusted. This applies to every display; ``text/markdown.py`` adds
the escapes of Markdown.
"""

import re
import unicodedata

# Joiners: Persian, Indian languages and emoji need them.
_JOINERS = "\u200c\u200d"
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_ASCII = re.compile(r"[\t\n -~]*")


def visible(text: str) -> str:
    """Return a text with its control characters, invisible characters and surrogates escaped.

    ESC becomes ``\\x1b``, a right-to-left override ``\\u202e``, a byte of a file name that is not UTF-8
    ``\\udcff``. Line ends and tabs are kept.
    """
    if _ASCII.fullmatch(text):
        return text
    return "".join(_escaped(letter) for letter in text)


def in_one_line(text: str) -> str:
    """Return :func:`visible` text in one line, such as a file name."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _escaped(letter: str) -> str:
    if letter in "\n\t" or letter in _JOINERS or unicodedata.category(letter) not in _INVISIBLE:
        return letter
    return letter.encode("unicode_escape").decode()


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its class."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def wrapped(text: str, width: int = 100) -> str:
    """Return a text wrapped at about a width, after commas and ends of sentences.

    Other spaces are kept: names, paths and commands are not split.
    """
    lines = [""]
    for part in re.split(r"(?<=[,;.:]) ", text):
        if lines[-1] and len(lines[-1]) + 1 + len(part) > width:
            lines.append(part)
        else:
            lines[-1] = f"{lines[-1]} {part}" if lines[-1] else part
    return "\n".join(lines)
