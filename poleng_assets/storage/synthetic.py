"""Synthetic and real people are never mixed in one home.

The files of the synthetic population are marked in their Parquet metadata. The first ingested file decides
whether a home is synthetic or real, which its file ``people.json`` stores.
"""

import filecmp
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from poleng_assets.storage.files import write_atomically
from poleng_assets.storage.home import KINDS, Home

Sort = Literal["made-up", "real"]
SYNTHETIC: Sort = "made-up"
REAL: Sort = "real"
# In the metadata of a Parquet file.
MARK = b"poleng_people"


class OtherPeople(ValueError):
    """A file or a scenario is synthetic in a real home, or the reverse; the message says what to do."""


def synthetic_metadata() -> dict[bytes, bytes]:
    """Return the Parquet metadata of a file of synthetic people."""
    return {MARK: SYNTHETIC.encode()}


def is_synthetic(home: Home, file: Path) -> bool:
    """Return whether a file has synthetic people.

    Files of earlier releases have no mark: they are compared with the simulation folder of the home.
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
    return metadata.get(MARK) == SYNTHETIC.encode()


def sort_of_home(home: Home) -> Sort | None:
    """Return whether the people of a home are synthetic or real; None if it has no people."""
    try:
        sort = json.loads(home.people.read_text(encoding="utf-8"))["people"]
    except FileNotFoundError:
        return _sort_of_unmarked(home)
    return SYNTHETIC if sort == SYNTHETIC else REAL


def _sort_of_unmarked(home: Home) -> Sort | None:
    """Return the sort of a home without a mark."""
    archived = [file for kind in KINDS for file in _files(home.archive(kind))]
    if not archived:
        # Retention may have erased the files of real people; those of a simulation are never so old.
        return REAL if any(_files(home.contact_lists)) else None
    if not home.simulation.is_dir():
        return REAL
    return SYNTHETIC if all(is_synthetic(home, file) for file in archived) else REAL


def claim(home: Home, sort: Sort) -> Sort:
    """Mark a home as synthetic or real, unless it is marked already; return its sort."""
    current = sort_of_home(home)
    if not home.people.exists():
        current = current or sort
        write_atomically(home.people, json.dumps({"people": current}))
    return current or sort


def admit(home: Home, file: Path) -> None:
    """Refuse a file of another sort than its home; the first file decides the sort.

    Raises:
        OtherPeople: it is of the other sort.
    """
    sort = SYNTHETIC if is_synthetic(home, file) else REAL
    if claim(home, sort) != sort:
        raise OtherPeople(_refusal(home, file.name, sort))


def refuse_other_people(home: Home, file: Path) -> None:
    """Check like :func:`admit`, before ingestion: the home is not marked."""
    sort = SYNTHETIC if is_synthetic(home, file) else REAL
    if sort_of_home(home) not in (None, sort):
        raise OtherPeople(_refusal(home, file.name, sort))


def claim_for_scenario(home: Home) -> None:
    """Mark a home as synthetic, before a scenario is played in it.

    Raises:
        OtherPeople: it has real people, or pending files of real people.
    """
    waiting = sorted(
        file.name for kind in KINDS for file in _files(home.landing(kind)) if not is_synthetic(home, file)
    )
    if not waiting and claim(home, SYNTHETIC) == SYNTHETIC:
        return
    reason = (
        f"it has pending files of real people ({', '.join(waiting)})" if waiting else "it has real people"
    )
    raise OtherPeople(
        f"No scenario can be played in {home.root}: {reason}. Use another home: "
        "`poleng simulate --home FOLDER`"
    )


def real_files(home: Home) -> list[Path]:
    """Return the files of real people in the landing and rejected folders of a synthetic home."""
    if sort_of_home(home) != SYNTHETIC:
        return []
    folders = [folder(kind) for kind in KINDS for folder in (home.landing, home.rejected)]
    return sorted(file for folder in folders for file in _files(folder) if not is_synthetic(home, file))


def _refusal(home: Home, name: str, sort: Sort) -> str:
    if sort == REAL:
        return (
            f"{name} has real people, and {home.root} has synthetic people of `poleng simulate`: they must "
            "not be mixed. Use another home for real people (POLENG_HOME or `poleng dev --home FOLDER`), and "
            "submit the file there. Or empty this home first (`poleng reset`)"
        )
    return (
        f"{name} has synthetic people of `poleng simulate`, and {home.root} has real people: they must not "
        "be mixed. Submit it to another home (POLENG_HOME or --home)"
    )


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        for file in folder.iterdir():
            if file.is_file() and not file.name.startswith(".") and not file.name.endswith(".reason.txt"):
                yield file
