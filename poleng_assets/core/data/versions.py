"""Versions of a file: the same name with other content is a new version, and the old one is kept.

The first version has the file's name for its id (``march``), later ones a number behind a sign that no
file name may hold (``march@2``). Each is a partition of its own, with its own rows, scores and list.
"""

from collections.abc import Iterable, Mapping

SIGN = "@"


def version_id(name: str, number: int) -> str:
    """Return the id of a version, numbered from 1."""
    return name if number == 1 else f"{name}{SIGN}{number}"


def name_and_number(id_: str) -> tuple[str, int]:
    """Return the name that a file was dropped under, and which version of it this is, from 1."""
    name, _, number = id_.partition(SIGN)
    return name, int(number or 1)


def assign_id(name: str, digest: str, known: Mapping[str, str]) -> str:
    """Return the id under which a file belongs.

    Args:
        known: hash of the content of each id that was taken in.

    Returns:
        The id that has this very content already, else the next free version of the name.
    """
    versions = {id_: held for id_, held in known.items() if name_and_number(id_)[0] == name}
    for id_, held in versions.items():
        if held == digest:
            return id_
    return version_id(name, max((name_and_number(id_)[1] for id_ in versions), default=0) + 1)


def newest(ids: Iterable[str]) -> list[str]:
    """Return the newest version of each name, sorted: a corrected field study replaces the earlier one."""
    numbers: dict[str, int] = {}
    for id_ in ids:
        name, number = name_and_number(id_)
        numbers[name] = max(number, numbers.get(name, 0))
    return sorted(version_id(name, number) for name, number in numbers.items())
