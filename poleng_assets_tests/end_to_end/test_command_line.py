"""``poleng run-pending`` and ``poleng retrain`` as processes, on a home without a daemon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import duckdb
import pytest

from poleng_assets.models.registry import Registry
from poleng_assets.storage.home import Home
from poleng_assets.storage.landing import Landing
from poleng_assets.study.loading import load_study
from poleng_assets_tests.end_to_end.conftest import POLENG, poleng
from poleng_assets_tests.faults.seclusion import Seclusion, cannot_seclude, run_secluded

pytestmark = pytest.mark.slow


@dataclass
class Founded:
    """A home into which a founding study and a batch were dropped, and what ``poleng run-pending`` did.

    Attributes:
        home: the home.
        exit_code: of the command.
        said: what it printed.
        seen: what a watch saw of it, without a network; None where a machine cannot do without.
    """

    home: Home
    exit_code: int
    said: str
    seen: Seclusion | None

    def versions(self) -> list[int]:
        return [one.version for one in Registry(self.home, load_study()).versions()]

    def decisions(self) -> list[tuple[str, str]]:
        with duckdb.connect(self.home.warehouse, read_only=True) as con:
            return con.sql("SELECT kind, reason FROM decisions ORDER BY decided_at").fetchall()


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory, small_survey: Path) -> Founded:
    folder = tmp_path_factory.mktemp("command_line")
    home = Home(folder / "home")
    study = small_survey / "field_studies" / "founding_study.parquet"
    assert poleng("submit", "study", study, "--home", home.root).returncode == 0
    Landing(home).submit("batches", small_survey / "batches" / "clean_batch_1.parquet")
    settle: list[str | Path] = ["run-pending", "--home", home.root]
    if cannot_seclude():
        done = poleng(*settle)
        return Founded(home, done.returncode, done.stdout + done.stderr, None)
    seen = run_secluded([POLENG, *settle], folder / "watched")
    return Founded(home, seen.exit_code, seen.output, seen)


def words(answer: CompletedProcess[str]) -> str:
    assert "Traceback" not in answer.stdout + answer.stderr
    return answer.stdout


def test_settling_an_empty_home_says_that_nothing_waits(tmp_path: Path):
    answer = poleng("run-pending", "--home", tmp_path / "home")
    assert answer.returncode == 0, answer.stderr
    said = words(answer)
    for kind in ("field_studies", "batches", "outcomes"):
        assert f"{kind}_arrivals: No new files in {tmp_path / 'home' / 'landing' / kind}" in said
    assert "retrain_and_promote" not in said


def test_retraining_without_a_field_study_says_what_is_missing(tmp_path: Path):
    answer = poleng("retrain", "--home", tmp_path / "home")
    assert answer.returncode == 1
    assert "There is no field study to train on" in answer.stdout
    assert not Registry(Home(tmp_path / "home"), load_study()).versions()


def test_a_founding_study_that_waits_makes_the_first_version(founded: Founded):
    assert founded.exit_code == 0, founded.said
    assert "Traceback" not in founded.said
    assert "ingest_field_study founding_study" in founded.said
    assert "version 1 trained; version 1 promoted" in founded.said
    assert founded.versions() == [1]
    assert [kind for kind, _ in founded.decisions()][:2] == ["retrain", "promote"]
    assert not list(founded.home.landing("field_studies").iterdir())


def test_a_batch_that_waits_as_well_is_scored_and_gets_its_list(founded: Founded):
    assert "process_batch clean_batch_1" in founded.said
    assert (founded.home.contact_lists / "clean_batch_1.csv").exists()


def test_all_that_sends_nothing_and_loads_no_pickle(founded: Founded):
    """``make test-faults`` does the same with the whole demo; faults/test_seclusion.py watches the watch."""
    if founded.seen is None:
        pytest.skip(f"no network namespace can be made here: {cannot_seclude()}")
    seen = founded.seen
    assert (seen.no_routes, seen.sent, seen.reached_for, seen.unpickled) == (0, 0, (), ())
    assert seen.secluded


def test_settling_again_has_nothing_to_do(founded: Founded):
    answer = poleng("run-pending", "--home", founded.home.root)
    assert answer.returncode == 0
    assert "retrain_and_promote" not in words(answer)


def test_retraining_on_the_same_data_says_that_it_was_done_before(founded: Founded):
    answer = poleng("retrain", "--reason", "curiosity", "--home", founded.home.root)
    assert answer.returncode == 0, answer.stderr
    said = words(answer)
    assert "version 1 was trained before on the same data" in said
    assert "version 1 was already promoted" in said
    assert founded.versions() == [1]
    kinds = [kind for kind, _ in founded.decisions()]
    assert (kinds.count("promote"), kinds.count("retrain")) == (1, 2)
    assert founded.decisions()[-1] == ("retrain", "curiosity")


def test_a_mode_that_is_none_is_refused(tmp_path: Path):
    answer = poleng("retrain", "--mode", "hasty", "--home", tmp_path / "home")
    assert answer.returncode == 2
    assert "'quick', 'full'" in answer.stderr
    assert not (tmp_path / "home").exists()
