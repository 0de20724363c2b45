"""File names in a landing folder: valid ids, temporary names of incomplete copies, and system files."""

import re
from collections.abc import Iterable

from poleng_assets.storage.dropped_files import SUFFIXES, has_known_suffix

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
# On Windows these are devices, with any suffix: a list of that name could not be opened.
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
DEVICE = re.compile(r"(CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9])(\..*)?", re.IGNORECASE)

# Temporary names of browsers, WinSCP, rsync, rclone, Hadoop, editors and others, which rename complete files.
_TEMPORARY_ENDS = (
    *(".filepart", ".partial", ".crdownload", ".download", ".opdownload", ".aria2", ".bc!", ".!ut", ".!qb"),
    *(".tmp", ".temp", ".upload", ".uploading", ".incomplete", ".inprogress", ".in-progress", ".writing"),
    *(".copying", "._copying_", ".swp", ".swo", ".swx", ".lock", ".lck", ".unfinished", ".pending"),
)
_TEMPORARY = re.compile(
    r".*\.part\d*|~\$.*|#.*#|_temporary|"
    r".*\.(csv|parquet|gz|bz2|zst)\.[0-9a-f]{8}",  # of the AWS command line
    re.IGNORECASE | re.DOTALL,
)
_SYSTEM_FILES = frozenset(
    (
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "autorun.inf", "icon\r"),
        *("lost+found", "$recycle.bin", "recycler", "system volume information", "__macosx"),
        *("@eadir", "#recycle", "#snapshot", "network trash folder", "temporary items", "_success"),
    )
)


def name_problem(name: str) -> str:
    """Return why a file of that name can never be ingested; empty if it can."""
    if not NAME.fullmatch(name) or ".." in name or name.endswith("."):
        return (
            "its name may contain only letters, digits, '.', '-' and '_', at most 100; it must start with a "
            "letter or digit, must not end with '.', and must not contain '..'"
        )
    if DEVICE.fullmatch(name):
        return f"{name.partition('.')[0]} is a device name on Windows; rename the file"
    if not has_known_suffix(name):
        return f"its name ends in none of {', '.join(SUFFIXES)}"
    return ""


def clash_problem(name: str, others: Iterable[str]) -> str:
    """Return the problem of a name that differs from another one by case only; empty if there is none.

    An existing name is no clash: its file is a new version.

    Args:
        name: of the new batch, study or outcomes.
        others: existing names.
    """
    existing = set(others)
    if name in existing:
        return ""
    twin = next((other for other in sorted(existing) if other.casefold() == name.casefold()), "")
    if not twin:
        return ""
    return (
        f"{name!r} differs from the existing {twin!r} by upper and lower case only: on Windows and macOS the "
        f"two would share their lists and reports. Name it {twin!r} if it is a new version of that one, "
        "otherwise choose another name"
    )


def is_hidden(name: str) -> bool:
    """Return whether files of this name are hidden."""
    return name.startswith(".")


def may_be_meant(name: str) -> bool:
    """Return whether a hidden file looks like data; macOS creates ``._`` files beside others."""
    return is_hidden(name) and has_known_suffix(name) and not name.startswith(("._", ".~"))


def is_temporary(name: str) -> bool:
    """Return whether programs use such names for incomplete files."""
    return name.casefold().endswith(_TEMPORARY_ENDS) or _TEMPORARY.fullmatch(name) is not None


def is_system_file(name: str) -> bool:
    """Return whether systems and editors create files and folders of this name."""
    return name.casefold() in _SYSTEM_FILES or name.endswith("~")
