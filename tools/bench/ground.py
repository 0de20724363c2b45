"""What is measured on: the survey, the champion of the project, the rival's model, batches of any size.

Made once for each state of the code, the study and the data, under the bench's folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bench.processes import BIN, CHECKOUT, MeasurementFailed, run_command, run_task

KEPT = "made.json"


@dataclass(frozen=True)
class Ground:
    """The folder of one state of code, study and data.

    Attributes:
        folder: that all is kept in.
        data: the survey, laid out as ``poleng simulate --data`` wants it.
        say: told what is being made.
    """

    folder: Path
    data: Path
    say: Callable[[str], None]

    @property
    def home(self) -> Path:
        """A home whose first champion serves, trained by the project on the founding study."""
        return self.folder / "champion" / "home"

    @property
    def model(self) -> Path:
        """The champion as files, to be read without MLflow."""
        return self.folder / "champion" / "model"

    def champion(self) -> dict[str, Any]:
        """Train the champion through the command line, once; return what it is made of."""

        def make(folder: Path) -> dict[str, Any]:
            self.say("the champion, trained by the project")
            home = folder / "home"
            founding = _founding_study(self.data)
            run_command([BIN / "poleng", "submit", "study", founding, "--home", home])
            run_command([BIN / "poleng", "settle", "--home", home])
            return dict(run_task("export_champion", home=home, folder=folder / "model").found)

        return self._once("champion", make)

    def seed(self) -> Path:
        """Train the rival's model with as many trees as the champion has, once; return its folder."""
        trees = self.champion()["trees"]

        def make(folder: Path) -> dict[str, Any]:
            self.say(f"the seed's model, with {trees['rounds']} trees")
            return dict(
                run_task("learn_seeds_way", data=self.data, folder=folder / "model", trees=trees).found
            )

        self._once("seed", make)
        return self.folder / "seed" / "model"

    def people(self, rows: int) -> Path:
        """Write a batch of so many people, once; return the file."""

        def make(folder: Path) -> dict[str, Any]:
            self.say(f"a batch of {rows:,} people")
            return dict(
                run_task(
                    "write_people", data=self.data, rows=rows, file=folder / f"people_{rows}.parquet"
                ).found
            )

        self._once(f"people_{rows}", make)
        return self.folder / f"people_{rows}" / f"people_{rows}.parquet"

    def known(self, batches: int) -> Path:
        """Make a home that has dealt with so many batches, once; return it."""
        self.champion()
        people = self.people(1_000)

        def make(folder: Path) -> dict[str, Any]:
            self.say(f"a home that knows {batches:,} batches")
            home = folder / "home"
            return dict(
                run_task("know_batches", home=self.home, people=people, folder=home, batches=batches).found
            )

        self._once(f"known_{batches}", make)
        return self.folder / f"known_{batches}" / "home"

    def played(self) -> Path:
        """Play the full scenario, once; return a folder with its ``home`` and its ``parts.parquet``."""

        def make(folder: Path) -> dict[str, Any]:
            self.say("the full scenario, whose lists the lean script must equal")
            home = folder / "home"
            run_command([BIN / "poleng", "simulate", "full", "--data", self.data, "--home", home])
            return dict(run_task("export_parts", home=home, file=folder / "parts.parquet").found)

        self._once("played", make)
        return self.folder / "played"

    def _once(self, name: str, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """Make a folder whole, or find it made; return what was kept of its making."""
        folder = self.folder / name
        if not (folder / KEPT).exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
            folder.mkdir(parents=True)
            kept = make(folder)
            (folder / KEPT).write_text(json.dumps(kept), encoding="utf-8")
        found: dict[str, Any] = json.loads((folder / KEPT).read_text(encoding="utf-8"))
        return found


def prepare(work: Path, data: Path | None, say: Callable[[str], None]) -> Ground:
    """Return the ground of this state of the code; those of other states are removed.

    Args:
        work: the bench's folder.
        data: the survey; None for the synthetic one.
        say: told what is being made.
    """
    grounds = work / "ground"
    name = state_of(data)
    for other in grounds.iterdir() if grounds.is_dir() else ():
        if other.name != name:
            shutil.rmtree(other)
    folder = grounds / name
    folder.mkdir(parents=True, exist_ok=True)
    if data is None:
        data = folder / "population"
        if not data.exists():
            say("the synthetic survey")
            part = folder / ".population.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            run_task("make_population", folder=part)
            part.replace(data)
    return Ground(folder, data.resolve(), say)


def state_of(data: Path | None) -> str:
    """Return a name for the state of the code, the study and the data that a champion follows from."""
    code = (
        path for path in (CHECKOUT / "poleng_assets").rglob("*") if path.suffix in (".py", ".yaml", ".json")
    )
    files = [*code, *(path for path in (data.rglob("*") if data else ()) if path.is_file())]
    if os.environ.get("POLENG_STUDY"):
        files.append(Path(os.environ["POLENG_STUDY"]))
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def commit() -> str:
    """Return the commit that is measured, with a plus when files differ from it; "unknown" without git."""
    try:
        asked = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _founding_study(data: Path) -> Path:
    found = sorted((data / "field_studies").glob("founding_study.*"))
    if not found:
        raise MeasurementFailed(f"{data / 'field_studies'} has no founding_study")
    return found[0]
