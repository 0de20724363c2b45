"""Made-up and real people never meet in one home, whichever door they come to."""

from pathlib import Path

import dagster as dg
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from poleng_assets.cli.main import main
from poleng_assets.definitions import build_defs
from poleng_assets.defs.instance import open_instance
from poleng_assets.headless.runner import HeadlessRunner
from poleng_assets.simulation.population import write_scenario_data
from poleng_assets.storage.home import Home
from poleng_assets.storage.landing import Landing
from poleng_assets.storage.synthetic import (
    REAL,
    SYNTHETIC,
    OtherPeople,
    admit,
    claim,
    is_synthetic,
    sort_of_home,
)
from poleng_assets.study.loading import load_study
from poleng_assets.study.schema import Study
from poleng_assets_tests.homes import new_home

GUARDED = {"simulate_clean", "simulate_drift", "simulate_full", "reset"}


@pytest.fixture(scope="module")
def made_up_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made_up")
    write_scenario_data(load_study(), folder, scale=0.002, marked=True)
    return folder


@pytest.fixture
def real_file(tmp_path: Path, study: Study) -> Path:
    path = tmp_path / "march.csv"
    pd.DataFrame({study.id: ["a"], **dict.fromkeys(study.feature_names, 1)}).to_csv(path, index=False)
    return path


@pytest.fixture
def batch(made_up_files: Path) -> Path:
    return made_up_files / "batches" / "clean_batch_1.parquet"


def poleng(*words: object, typed: str = "") -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], input=typed)


def jobs_of(home: Home) -> set[str]:
    return {job.name for job in build_defs(home=home).jobs or []}


def run_job(place: Home, name: str, op: str, **config: str) -> dg.ExecuteInProcessResult:
    with open_instance(place) as instance:
        return (
            build_defs(home=place)
            .resolve_job_def(name)
            .execute_in_process(
                instance=instance, run_config={"ops": {op: {"config": config}}}, raise_on_error=False
            )
        )


def failure(result: dg.ExecuteInProcessResult, op: str) -> str:
    data = result.failure_data_for_node(op)
    assert data is not None
    assert data.user_failure_data is not None
    return data.user_failure_data.description or ""


def test_the_files_of_the_demo_say_that_their_people_are_made_up(
    made_up_files: Path, real_file: Path, home: Home, batch: Path, tmp_path: Path
):
    assert {is_synthetic(home, file) for file in made_up_files.rglob("*.parquet")} == {True}
    assert not is_synthetic(home, real_file)
    rewritten = tmp_path / "rewritten.parquet"
    pd.read_parquet(batch).to_parquet(rewritten, index=False)
    assert not is_synthetic(home, rewritten)


def test_a_home_is_of_the_sort_that_comes_first(home: Home, batch: Path, real_file: Path, tmp_path: Path):
    assert sort_of_home(home) is None
    admit(home, real_file)
    assert sort_of_home(home) == REAL
    with pytest.raises(OtherPeople, match="has synthetic people"):
        admit(home, batch)
    other = Home(tmp_path / "other").create()
    admit(other, batch)
    assert sort_of_home(other) == SYNTHETIC
    with pytest.raises(OtherPeople, match=r"Use another home for real people.*--home"):
        admit(other, real_file)


def test_a_home_of_an_earlier_release_is_known_by_its_files(home: Home, batch: Path, real_file: Path):
    plain = home.simulation / "batches" / batch.name
    plain.parent.mkdir(parents=True)
    pq.write_table(pq.read_table(batch).replace_schema_metadata(None), plain)
    (home.archive("batches") / batch.name).write_bytes(plain.read_bytes())
    assert sort_of_home(home) == SYNTHETIC
    (home.archive("batches") / real_file.name).write_bytes(real_file.read_bytes())
    assert sort_of_home(home) == REAL


def test_a_real_file_is_refused_at_the_door_of_a_home_of_made_up_people(home: Home, real_file: Path):
    claim(home, SYNTHETIC)
    said = poleng("submit", "batch", real_file, "--home", home.root)
    assert said.exit_code == 1
    assert "they must not be mixed" in said.output
    assert list(home.landing("batches").iterdir()) == []


def test_a_made_up_file_is_refused_at_the_door_of_a_home_of_real_people(home: Home, batch: Path):
    claim(home, REAL)
    said = poleng("submit", "batch", batch, "--home", home.root)
    assert said.exit_code == 1
    assert "has synthetic people" in said.output


def test_what_is_dropped_into_the_wrong_home_is_refused_with_its_reason(
    tmp_path: Path, made_up_files: Path, real_file: Path
):
    home = new_home(tmp_path / "home")
    claim(home, SYNTHETIC)
    (home.landing("field_studies") / "march.csv").write_bytes(real_file.read_bytes())
    with open_instance(home) as instance:
        HeadlessRunner(
            build_defs(home=home, settle_seconds=0.0), instance, lambda report: None
        ).run_until_idle()
    reason = (home.rejected("field_studies") / "march.csv.reason.txt").read_text()
    assert "they must not be mixed" in reason
    assert (home.rejected("field_studies") / "march.csv").read_bytes() == real_file.read_bytes()
    # It is not lost when the demo is cleared away.
    said = poleng("reset", "--confirm", "home", "--home", home.root)
    assert said.exit_code == 1
    assert "rejected/field_studies/march.csv" in said.output
    assert (home.rejected("field_studies") / "march.csv").exists()


@pytest.mark.parametrize("where", ["taken in", "waiting"])
def test_no_story_is_played_among_real_people(tmp_path: Path, real_file: Path, where: str):
    home = new_home(tmp_path / "home")
    if where == "taken in":
        claim(home, REAL)
    else:
        Landing(home, settle_seconds=0.0).submit("batches", real_file)
    said = poleng("simulate", "clean", "--home", home.root)
    assert said.exit_code == 1
    assert "No scenario can be played" in said.output
    assert not home.simulation.exists()
    assert not home.warehouse.exists()


def test_no_scenario_of_real_people_is_played_among_made_up_ones(tmp_path: Path, study: Study):
    home = new_home(tmp_path / "home")
    claim(home, SYNTHETIC)
    write_scenario_data(study, tmp_path / "survey", scale=0.002)
    said = poleng("simulate", "clean", "--data", tmp_path / "survey", "--home", home.root)
    assert said.exit_code == 1
    assert "they must not be mixed" in said.output
    assert list(home.landing("field_studies").iterdir()) == []


def test_a_scenario_is_not_played_where_other_real_files_wait(tmp_path: Path, study: Study, real_file: Path):
    home = new_home(tmp_path / "home")
    Landing(home, settle_seconds=0.0).submit("batches", real_file)
    write_scenario_data(study, tmp_path / "survey", scale=0.002)
    said = poleng("simulate", "clean", "--data", tmp_path / "survey", "--home", home.root)
    assert said.exit_code == 1
    assert "contains other people than" in said.output
    assert "landing/batches/march.csv" in said.output


def test_a_home_of_real_people_has_no_jobs_that_play_with_it_or_empty_it(tmp_path: Path, home: Home):
    assert jobs_of(home) >= GUARDED
    claim(home, REAL)
    assert jobs_of(home) & GUARDED == set()
    demo = Home(tmp_path / "demo").create()
    claim(demo, SYNTHETIC)
    assert jobs_of(demo) >= GUARDED


def test_the_jobs_want_the_name_of_the_home_typed(tmp_path: Path):
    home = new_home(tmp_path / "home")
    claim(home, SYNTHETIC)
    for typed in ({}, {"home": "hom"}):
        played = run_job(home, "simulate_clean", "play_clean", **typed)
        assert "type the name of this home, 'home'" in failure(played, "play_clean")
        emptied = run_job(home, "reset", "forget_everything", **typed)
        assert "Nothing was deleted: this home is named 'home'" in failure(emptied, "forget_everything")
    assert home.people.exists()
    assert run_job(home, "reset", "forget_everything", home="home").success
    assert sort_of_home(home) is None


def test_a_job_that_was_there_before_the_real_people_came_does_not_empty_their_home(tmp_path: Path):
    home = new_home(tmp_path / "home")
    defs = build_defs(home=home)
    claim(home, REAL)
    with open_instance(home) as instance:
        result = defs.resolve_job_def("reset").execute_in_process(
            instance=instance,
            run_config={"ops": {"forget_everything": {"config": {"home": "home"}}}},
            raise_on_error=False,
        )
    assert "this home contains real people" in failure(result, "forget_everything")
    assert sort_of_home(home) == REAL


@pytest.mark.parametrize(
    ("words", "typed", "code"),
    [
        ((), "home\n", 0),
        ((), "no\n", 1),
        ((), "y\n", 1),
        (("--confirm", "other"), "", 1),
        (("--confirm", "home"), "", 0),
        (("--yes",), "", 1),
    ],
)
def test_a_home_is_emptied_by_who_types_its_name(
    tmp_path: Path, words: tuple[str, ...], typed: str, code: int
):
    home = new_home(tmp_path / "home")
    (home.contact_lists / "march.csv").write_text("people")
    said = poleng("reset", *words, "--home", home.root, typed=typed)
    assert said.exit_code == code, said.output
    assert (home.contact_lists / "march.csv").exists() == bool(code)
