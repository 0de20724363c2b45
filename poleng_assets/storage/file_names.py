"""What the names in a landing folder say: an id, a copy that is not whole yet, or litter of a system."""

import re
from collections.abc import Iterable

from poleng_assets.storage.dropped_files import SUFFIXES, has_known_suffix

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
# Windows takes these for devices, whatever suffix they have: a list of that name cannot be opened there.
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
DEVICE = re.compile(r"(CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9])(\..*)?", re.IGNORECASE)

# Under which names files are brought here by browsers, WinSCP, rsync, rclone, Hadoop, editors and others.
# They are renamed when they are whole.
_TEMPORARY_ENDS = (
    *(".filepart", ".partial", ".crdownload", ".download", ".opdownload", ".aria2", ".bc!", ".!ut", ".!qb"),
    *(".tmp", ".temp", ".upload", ".uploading", ".incomplete", ".inprogress", ".in-progress", ".writing"),
    *(".copying", "._copying_", ".swp", ".swo", ".swx", ".lock", ".lck", ".unfinished", ".pending"),
)
_TEMPORARY = re.compile(
    r".*\.part\d*|~\$.*|#.*#|_temporary|"
    r".*\.(csv|parquet|gz|bz2|zst)\.[0-9a-f]{8}",  # as the AWS command line calls them
    re.IGNORECASE | re.DOTALL,
)
_LITTER = frozenset(
    (
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "autorun.inf", "icon\r"),
        *("lost+found", "$recycle.bin", "recycler", "system volume information", "__macosx"),
        *("@eadir", "#recycle", "#snapshot", "network trash folder", "temporary items", "_success"),
    )
)


def name_problem(name: str) -> str:
    """Return why a file of that name can never be taken in; nothing when it can."""
    if not NAME.fullmatch(name) or ".." in name or name.endswith("."):
        return (
            "its name may hold letters, digits, '.', '-' and '_' only, 100 at most; it must begin with a "
            "letter or digit, must not end in '.', and must not hold '..'"
        )
    if DEVICE.fullmatch(name):
        return f"{name.partition('.')[0]} is the name of a device on Windows; give the file another name"
    if not has_known_suffix(name):
        return f"its name ends in none of {', '.join(SUFFIXES)}"
    return ""


def clash_problem(name: str, others: Iterable[str]) -> str:
    """Return which name differs from a new one by capitals alone; nothing when none does.

    A name that is among the others is no clash: its file is a version of what is there.

    Args:
        name: that a file gives to its batch, study or outcomes.
        others: names that are taken.
    """
    taken = set(others)
    if name in taken:
        return ""
    twin = next((other for other in sorted(taken) if other.casefold() == name.casefold()), "")
    if not twin:
        return ""
    return (
        f"{name!r} differs from {twin!r}, which is there already, by capitals only: on Windows and macOS the "
        f"two would share their lists and reports. Call it {twin!r} if it is a new version of that one, "
        "otherwise give it another name"
    )


def is_hidden(name: str) -> bool:
    """Return whether a system does not show files of that name."""
    return name.startswith(".")


def may_be_meant(name: str) -> bool:
    """Return whether a hidden file looks like one that was to be dropped; macOS puts ``._`` beside others."""
    return is_hidden(name) and has_known_suffix(name) and not name.startswith(("._", ".~"))


def is_temporary(name: str) -> bool:
    """Return whether programs give such names to files that they have not finished."""
    return name.casefold().endswith(_TEMPORARY_ENDS) or _TEMPORARY.fullmatch(name) is not None


def is_litter(name: str) -> bool:
    """Return whether systems and editors leave such files and folders behind by themselves."""
    return name.casefold() in _LITTER or name.endswith("~")
