"""A desk to try the documentation at: a home as the demo leaves it, and the files that a reader would have.

The home is played with the quick study, from fewer files than the demo drops, under the same names.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import yaml

from poleng_assets.cli import main
from poleng_assets.simulation.population import synthesise, write_scenario_data
from poleng_assets.storage.home import CHECKOUT
from poleng_assets.study.loading import load_study
from poleng_assets_tests.docs.pages import Block
from poleng_assets_tests.faults.quick_study import write_quick_study

# What a reader's shell would do with a line, and the project's own process need not.
_SHELL = re.compile(r"[|<>&;*`]|\$\(")
_PLAYED = {
    "field_studies": ["founding_study", "followup_study"],
    "batches": ["clean_batch_1", "drift_batch_1"],
    "outcomes": ["clean_batch_1"],
}


@dataclass
class Desk:
    """A folder to work in: ``data`` is its home.

    Commands of the project run in this process, because each new one would load its libraries anew.
    """

    folder: Path
    exported: dict[str, str] = field(default_factory=dict)

    def run(self, command: str) -> tuple[int, str]:
        """Run one line as a shell would; return its exit code and all that it said."""
        words = shlex.split(command, comments=True)
        settings: dict[str, str] = {}
        while words and re.match(r"[A-Z_]+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            settings[name] = value
        if words[0] == "export":
            self.exported |= dict(word.split("=", 1) for word in words[1:])
            return 0, ""
        with self._surroundings(settings):
            if words[0] == "poleng" and not _SHELL.search(command):
                return _inside(words[1:])
            done = subprocess.run(
                ["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False
            )
        return done.returncode, done.stdout + done.stderr

    def write(self, block: Block) -> None:
        """Write a block of YAML over a study file: fields and policies that it does not name stay."""
        path = self.folder / block.file
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        changes = yaml.safe_load("\n".join(block.lines))
        for name, policy in changes.pop("policies", {}).items():
            content["policies"][name] |= policy
        content |= changes
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    @contextmanager
    def _surroundings(self, settings: dict[str, str]) -> Iterator[None]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with (
            contextlib.chdir(self.folder),
            patch.dict(os.environ, {**self.exported, "PATH": path} | settings),
        ):
            if "POLENG_HOME" in self.exported:
                os.environ.pop("POLENG_STUDY", None)  # that is the one of the desk's own home
            yield


def _inside(arguments: list[str]) -> tuple[int, str]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main.main.main(arguments, prog_name="poleng")
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()


@contextmanager
def laid_out(folder: Path) -> Iterator[Desk]:
    """Lay the desk: play the demo's story in its home, and put the reader's files on it."""
    folder.mkdir()
    for name in ("poleng_assets", "deploy"):
        (folder / name).symlink_to(CHECKOUT / name)
    quick = write_quick_study(folder / "quick.yaml", every_feature=True)
    settings = {"POLENG_STUDY": str(quick), "POLENG_HOME": str(folder / "data")}
    with patch.dict(os.environ, settings):
        _write_readers_files(folder)
        everything, played = folder / "everything", folder / "demo_data"
        write_scenario_data(load_study(), everything, scale=0.05)
        for kind, files in _PLAYED.items():
            (played / kind).mkdir(parents=True)
            for name in files:
                shutil.move(everything / kind / f"{name}.parquet", played / kind)
        shutil.rmtree(everything)
        desk = Desk(folder)
        code, said = desk.run("poleng simulate full --data demo_data")
        assert code == 0, said
        yield desk


def _write_readers_files(folder: Path) -> None:
    study = load_study()
    target = study.target.name

    def people(rows: int, seed: int, letter: str) -> pd.DataFrame:
        drawn = synthesise(study, rows=rows, seed=seed, part="clean")
        return drawn.assign(**{study.id: [f"{letter}-{number:04}" for number in range(1, rows + 1)]})

    march = people(150, 1, "M")
    march.drop(columns=target).to_parquet(folder / "march.parquet", index=False)
    march[[study.id, target]].head(80).to_csv(folder / "march_outcomes.csv", index=False)
    people(150, 2, "A").drop(columns=target).to_csv(folder / "april.csv", index=False)
    june = people(150, 3, "J").drop(columns=target)
    june.loc[[4, 9], "sex"] = 99  # two rows that break the contract
    june.to_csv(folder / "june.csv", index=False)
    people(40, 4, "B").drop(columns=[target, "sex"]).to_csv(folder / "broken.csv", index=False)
    people(600, 5, "S").to_parquet(folder / "my_study.parquet", index=False)
    answers = people(900, 6, "P")[[study.id, "sex", "generation", "education", target]]
    answers.rename(columns={study.id: "person", target: "disengaged"}).to_csv(
        folder / "my_answers.csv", index=False
    )
