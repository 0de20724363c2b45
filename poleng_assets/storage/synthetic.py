"""Made-up and real people never meet in one home.

The files of the synthetic population carry a mark in their Parquet metadata. A home is of the sort that was
taken in first, and says so in a file of its own, so that whoever asks need not open the warehouse. What
belongs here is how files and homes are told apart, and the words by which the other sort is refused.
"""

import filecmp
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from poleng_assets.storage.files import write_whole
from poleng_assets.storage.home import KINDS, Home

Sort = Literal["made-up", "real"]
MADE_UP: Sort = "made-up"
REAL: Sort = "real"
# In the metadata of a Parquet file.
MARK = b"poleng_people"


class OtherPeople(ValueError):
    """A file or a scenario is of the other sort of people than its home; the message says what to do."""


def metadata_of_made_up() -> dict[bytes, bytes]:
    """Return what the metadata of a file of made-up people holds."""
    return {MARK: MADE_UP.encode()}


def is_made_up(home: Home, file: Path) -> bool:
    """Return whether a file is one of the synthetic population.

    Files of earlier releases have no mark: there, the population's own folder in the home tells.
    """
    for kind in KINDS:
        known = home.simulation / kind / file.name
        if known.is_file() and filecmp.cmp(known, file, shallow=False):
            return True
    if file.suffix != ".parquet":
        return False
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(file).metadata or {}
    except (pa.ArrowException, OSError):
        return False
    return metadata.get(MARK) == MADE_UP.encode()


def sort_of_home(home: Home) -> Sort | None:
    """Return which sort of people a home holds; None when it holds nobody."""
    try:
        sort = json.loads(home.people.read_text(encoding="utf-8"))["people"]
    except FileNotFoundError:
        return _sort_of_unmarked(home)
    return MADE_UP if sort == MADE_UP else REAL


def _sort_of_unmarked(home: Home) -> Sort | None:
    """Return the sort of a home that no release has marked yet."""
    archived = [file for kind in KINDS for file in _files(home.archive(kind))]
    if not archived:
        # Retention may have erased the files of real people; those of a story are never so old.
        return REAL if any(_files(home.contact_lists)) else None
    if not home.simulation.is_dir():
        return REAL
    return MADE_UP if all(is_made_up(home, file) for file in archived) else REAL


def claim(home: Home, sort: Sort) -> Sort:
    """Mark a home as of a sort, unless it is of one already; return its sort."""
    current = sort_of_home(home)
    if not home.people.exists():
        current = current or sort
        write_whole(home.people, json.dumps({"people": current}))
    return current or sort


def admit(home: Home, file: Path) -> None:
    """Refuse a file of another sort than its home; the first one says which sort that is.

    Raises:
        OtherPeople: it is of the other sort.
    """
    sort = MADE_UP if is_made_up(home, file) else REAL
    if claim(home, sort) != sort:
        raise OtherPeople(_words(home, file.name, sort))


def refuse_other_people(home: Home, file: Path) -> None:
    """As :func:`admit`, of a file that is not taken in yet: nothing is said about the home."""
    sort = MADE_UP if is_made_up(home, file) else REAL
    if sort_of_home(home) not in (None, sort):
        raise OtherPeople(_words(home, file.name, sort))


def claim_for_story(home: Home) -> None:
    """Make a home one of made-up people, before their story is played in it.

    Raises:
        OtherPeople: it holds real people, or a file of theirs waits in it.
    """
    waiting = sorted(
        file.name for kind in KINDS for file in _files(home.landing(kind)) if not is_made_up(home, file)
    )
    if not waiting and claim(home, MADE_UP) == MADE_UP:
        return
    whom = (
        f"files that are not made up wait in it ({', '.join(waiting)})" if waiting else "it holds real people"
    )
    raise OtherPeople(
        f"No made-up people are played with in {home.root}: {whom}. Play in a home of its own: "
        "`poleng simulate --home FOLDER`"
    )


def strangers(home: Home) -> list[Path]:
    """Return the files of real people that were dropped into, or refused by, a home of made-up ones."""
    if sort_of_home(home) != MADE_UP:
        return []
    folders = [folder(kind) for kind in KINDS for folder in (home.landing, home.rejected)]
    return sorted(file for folder in folders for file in _files(folder) if not is_made_up(home, file))


def _words(home: Home, name: str, sort: Sort) -> str:
    if sort == REAL:
        return (
            f"{name} is no file of the made-up people of `poleng simulate`, and {home.root} holds them: "
            "made-up and real people never meet. Give real people a home of their own: name another folder "
            "by POLENG_HOME or --home (`poleng dev --home FOLDER`), and drop the file there. Or empty this "
            "one first (`poleng reset`)"
        )
    return (
        f"{name} holds made-up people of `poleng simulate`, and {home.root} holds real ones: they never "
        "meet. Drop it into a home of its own (POLENG_HOME or --home)"
    )


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        for file in folder.iterdir():
            if file.is_file() and not file.name.startswith(".") and not file.name.endswith(".reason.txt"):
                yield file
