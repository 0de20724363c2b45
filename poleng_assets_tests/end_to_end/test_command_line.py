"""``poleng settle`` and ``poleng retrain`` as processes, on a home without a daemon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import duckdb
import pytest

from poleng_assets.home import Home
from poleng_assets.resources.registry import Registry
from poleng_assets.study import load_study
from poleng_assets_tests.end_to_end.conftest import poleng

pytestmark = pytest.mark.slow


@dataclass
class Founded:
    """A home into which a founding study was dropped, and what ``poleng settle`` said to it."""

    home: Home
    said: CompletedProcess[str]

    def versions(self) -> list[int]:
        return [one.version for one in Registry(self.home, load_study()).versions()]

    def decisions(self) -> list[tuple[str, str]]:
        with duckdb.connect(self.home.warehouse, read_only=True) as con:
            return con.sql("SELECT kind, reason FROM decisions ORDER BY decided_at").fetchall()


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory, small_survey: Path) -> Iterator[Founded]:
    home = Home(tmp_path_factory.mktemp("command_line") / "home")
    study = small_survey / "field_studies" / "founding_study.parquet"
    assert poleng("submit", "study", study, "--home", home.root).returncode == 0
    yield Founded(home, poleng("settle", "--home", home.root))


def words(answer: CompletedProcess[str]) -> str:
    assert "Traceback" not in answer.stdout + answer.stderr
    return answer.stdout


def test_settling_an_empty_home_says_that_nothing_waits(tmp_path: Path):
    answer = poleng("settle", "--home", tmp_path / "home")
    assert answer.returncode == 0, answer.stderr
    said = words(answer)
    for kind in ("field_studies", "batches", "outcomes"):
        assert f"{kind}_arrivals: Nothing new in {tmp_path / 'home' / 'landing' / kind}" in said
    assert "retrain_and_promote" not in said


def test_retraining_without_a_field_study_says_what_is_missing(tmp_path: Path):
    answer = poleng("retrain", "--home", tmp_path / "home")
    assert answer.returncode == 1
    assert "There is no field study to learn from" in answer.stdout
    assert not Registry(Home(tmp_path / "home"), load_study()).versions()


def test_a_founding_study_that_waits_makes_the_first_version(founded: Founded):
    assert founded.said.returncode == 0, founded.said.stderr
    said = words(founded.said)
    assert "ingest_field_study founding_study" in said
    assert "version 1 trained; version 1 promoted" in said
    assert founded.versions() == [1]
    assert [kind for kind, _ in founded.decisions()][:2] == ["retrain", "promote"]
    assert not list(founded.home.landing("field_studies").iterdir())


def test_settling_again_has_nothing_to_do(founded: Founded):
    answer = poleng("settle", "--home", founded.home.root)
    assert answer.returncode == 0
    assert "retrain_and_promote" not in words(answer)


def test_retraining_on_the_same_data_says_that_it_was_done_before(founded: Founded):
    answer = poleng("retrain", "--reason", "curiosity", "--home", founded.home.root)
    assert answer.returncode == 0, answer.stderr
    said = words(answer)
    assert "version 1 was trained before on the very same data" in said
    assert "version 1 was promoted before" in said
    assert founded.versions() == [1]
    kinds = [kind for kind, _ in founded.decisions()]
    assert (kinds.count("promote"), kinds.count("retrain")) == (1, 2)
    assert founded.decisions()[-1] == ("retrain", "curiosity")


def test_a_mode_that_is_none_is_refused(tmp_path: Path):
    answer = poleng("retrain", "--mode", "hasty", "--home", tmp_path / "home")
    assert answer.returncode == 2
    assert "'quick', 'full'" in answer.stderr
    assert not (tmp_path / "home").exists()
