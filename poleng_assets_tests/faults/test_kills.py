"""Work that is killed at any moment is finished by the next start, and ends as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from poleng_assets.defs.instance import open_instance
from poleng_assets.models.registry import HASHES_TAG, Registry
from poleng_assets.models.version_files import read_version_file, write_version_file
from poleng_assets.storage.home import Home
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets.warehouse.writes import replace_partition
from poleng_assets_tests.faults.end_state import State, differences, end_state
from poleng_assets_tests.faults.killing import FAMILIES, run_kills
from poleng_assets_tests.homes import new_home

pytestmark = pytest.mark.slow

# Two of each way.
KILLS = 4


def test_killed_work_ends_as_if_nothing_had_happened(tmp_path: Path):
    """Of the first training, and of a study and batches that are dropped together.

    ``make test-faults`` kills in every chapter of a longer story, and the daemon.
    """
    result = run_kills(
        KILLS,
        seed=7,
        data=None,
        out=tmp_path / "kills",
        workers=1,
        daemon=0,
        chapters=("founding", "study and batches"),
        checked=False,
    )
    assert result.unequal == [], result.summary()
    assert len(result.ended) == KILLS
    injected = [one.last_point for one in result.ended if one.kill.how == "injected"]
    assert len({point.split(":")[0] for point in injected} & set(FAMILIES)) == len(injected) == 2


def test_a_chapter_that_no_story_has_is_refused_at_once(tmp_path: Path):
    with pytest.raises(ValueError, match="no story has the chapters outcomes, retraining"):
        run_kills(1, seed=7, data=None, out=tmp_path, chapters=("outcomes", "retraining"))


@pytest.fixture
def people(study: Study) -> pd.DataFrame:
    return pd.DataFrame({study.id: ["anna", "ben"], "score": [0.25, 0.75], "contact": [False, True]})


@pytest.fixture
def home(tmp_path: Path, study: Study, people: pd.DataFrame) -> Home:
    """A home with two people scored, one on a list, a decision, and two versions of an empty model."""
    home = new_home(tmp_path / "home")
    with Warehouse(home.warehouse, study).connect() as con:
        score(con, people)
        record_decision(con, "hold", "drift", evidence={"seconds": 3, "causes": ["a"]}, dagster_run_id="1")
    (home.contact_lists / "march.csv").write_text("anna\nben\n", encoding="utf-8")
    (home.overview).write_text("<p>Made 2026-11-21 13:48 UTC.</p><p>one batch</p>", encoding="utf-8")
    return home


def score(con: duckdb.DuckDBPyConnection, people: pd.DataFrame, version: int = 1) -> None:
    scored = people.assign(scored_at=pd.Timestamp.now("UTC"))
    replace_partition(con, "predictions", {"batch": "march", "model_version": version}, scored)


def changed(home: Home, study: Study, change: Callable[[duckdb.DuckDBPyConnection], object]) -> list[str]:
    """Return what the comparison says about a change of the warehouse."""
    before = end_state(home)
    with Warehouse(home.warehouse, study).connect() as con:
        change(con)
    return differences(before, end_state(home))


def test_the_same_work_at_another_time_by_another_run_is_no_difference(home: Home, study: Study, people):
    def again(con: duckdb.DuckDBPyConnection) -> None:
        score(con, people)
        con.execute("UPDATE decisions SET decided_at = now(), dagster_run_id = '2'")
        con.execute("""UPDATE decisions SET evidence = '{"causes": ["a"], "seconds": 9}'""")

    assert changed(home, study, again) == []
    before = end_state(home)
    home.overview.write_text("<p>Made 2027-01-02 03:04 UTC.</p><p>one batch</p>", encoding="utf-8")
    assert differences(before, end_state(home)) == []


@pytest.mark.parametrize(
    ("change", "section"),
    [
        ("DELETE FROM predictions WHERE score < 0.5", "table predictions: missing: "),
        (
            "UPDATE predictions SET score = score + 5e-16 WHERE score > 0.5",
            "table predictions: not expected: ",
        ),
        ("INSERT INTO decisions SELECT * FROM decisions", "table decisions: not expected: "),
        ("UPDATE decisions SET evidence = '{}'", "table decisions: missing: "),
        ("CREATE TABLE forgotten AS SELECT 1 AS one", "table forgotten: not expected: one=1"),
    ],
)
def test_a_difference_in_the_warehouse_is_seen(home: Home, study: Study, change: str, section: str):
    found = changed(home, study, lambda con: con.execute(change))
    assert any(line.startswith(section) for line in found), found


def held_then_listed(con: duckdb.DuckDBPyConnection, *kinds_and_batches: tuple[str, str]) -> None:
    con.execute("DELETE FROM decisions")
    for kind, batch in kinds_and_batches:
        record_decision(con, kind, "drift", evidence={}, champion_version=1, batch=batch)


def test_batches_that_were_dropped_together_may_change_places_and_the_steps_of_one_may_not(
    home: Home, study: Study
):
    steps = [("hold", "april"), ("skip", "april"), ("hold", "may"), ("skip", "may")]
    with Warehouse(home.warehouse, study).connect() as con:
        held_then_listed(con, *steps)
    assert changed(home, study, lambda con: held_then_listed(con, *steps[2:], *steps[:2])) == []
    found = changed(home, study, lambda con: held_then_listed(con, steps[1], steps[0], *steps[2:]))
    assert found == [
        "ledger in order: missing: april: hold/1 skip/1",
        "ledger in order: not expected: april: skip/1 hold/1",
    ]


def test_another_scoring_that_is_current_is_seen(home: Home, study: Study, people):
    with Warehouse(home.warehouse, study).connect() as con:
        score(con, people, version=2)
    found = changed(home, study, lambda con: score(con, people, version=1))
    assert {line.split(":")[0] for line in found} == {"table current_predictions"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("contact_lists/march.csv", "anna\n", "files: missing: contact_lists/march.csv"),
        ("contact_lists/.march.csv.part", "an", "files that wait or were left: not expected: contact_lists/"),
        (
            "landing/batches/april.csv",
            "id\n",
            "files that wait or were left: not expected: landing/batches/april",
        ),
        (
            "reports/overview.html",
            "<p>Made 2026-11-21 13:48 UTC.</p>",
            "files: missing: reports/overview.html",
        ),
        (
            "tuning/one/model/reference.parquet",
            "",
            "files that wait or were left: not expected: tuning/model",
        ),
    ],
)
def test_a_difference_in_the_files_is_seen(home: Home, name: str, content: str, words: str):
    before = end_state(home)
    (home.root / name).parent.mkdir(parents=True, exist_ok=True)
    (home.root / name).write_text(content, encoding="utf-8")
    found = differences(before, end_state(home))
    assert any(line.startswith(words) for line in found), found


def test_rows_of_people_left_among_temporary_files_are_seen(home: Home, tmp_path: Path):
    (tmp_path / "tmp" / "x").mkdir(parents=True)
    before = end_state(home, tmp_path / "tmp")
    (tmp_path / "tmp" / "x" / "reference.parquet").touch()
    assert differences(before, end_state(home, tmp_path / "tmp")) == [
        "files that wait or were left: not expected: people's rows outside the home: reference.parquet"
    ]


@pytest.fixture
def registered(home: Home, study: Study) -> Iterator[tuple[Home, object, State]]:
    """The home with two versions, of which the second is the champion; its client; its end state."""
    client = Registry(home, study)._client()
    client.create_registered_model(study.name)
    experiment = client.get_experiment_by_name(study.name)
    for number in ("1", "2"):
        run = client.create_run(experiment.experiment_id)
        model = client.create_logged_model(experiment.experiment_id, "served_model")
        client.log_text(run.info.run_id, f"of {number}", "reference/reference.txt")
        client.set_terminated(run.info.run_id)
        client.finalize_logged_model(model.model_id, "READY")
        folder = Path(model.artifact_location.removeprefix("file://")) / "artifacts" / "model"
        folder.mkdir(parents=True)
        (folder / "booster").write_text(number)
        client.create_model_version(
            study.name,
            model.artifact_location,
            run_id=run.info.run_id,
            model_id=model.model_id,
            tags={"mode": "quick"},
        )
    client.set_registered_model_alias(study.name, "champion", "2")
    registry = Registry(home, study)
    for version in registry.versions():
        registry.model_folder(version)  # writes down what a training does
    yield home, client, end_state(home)


def test_an_alias_that_moved_is_seen(registered, study: Study):
    home, client, before = registered
    client.set_registered_model_alias(study.name, "champion", "1")
    assert differences(before, end_state(home)) == [
        "aliases: missing: champion -> 2",
        "aliases: not expected: champion -> 1",
    ]


def test_a_version_more_another_tag_and_a_run_that_never_ended_are_seen(registered, study: Study):
    home, client, before = registered
    client.set_model_version_tag(study.name, "2", "mode", "full")
    one = client.get_model_version(study.name, "1")
    client.create_model_version(study.name, one.source, run_id=one.run_id)
    client.create_run(client.get_experiment_by_name(study.name).experiment_id)
    sections = {line.split(":")[0] for line in differences(before, end_state(home))}
    assert sections == {"model versions", "model files", "MLflow runs in progress"}


def sealed(home: Home, client, study: Study, day: str) -> Path:
    """Give version 2 a file that MLflow sealed on a day, with its hash among the tags; return the file."""
    folder = next(path for path in home.artifacts.rglob("booster") if path.read_text() == "2").parents[2]
    file = folder / "MLmodel"
    file.write_text(f"utc_time_created: '{day} 12:00:00.5'\n")
    hashes = {"MLmodel": hashlib.sha256(file.read_bytes()).hexdigest()}
    client.set_model_version_tag(study.name, "2", HASHES_TAG, json.dumps(hashes))
    return file


def test_a_file_that_mlflow_seals_may_have_another_time_and_no_other_hash_than_is_registered(
    registered, study: Study
):
    home, client, _ = registered
    sealed(home, client, study, "2026-11-21")
    before = end_state(home)
    file = sealed(home, client, study, "2026-11-22")
    assert differences(before, end_state(home)) == []
    file.write_text("utc_time_created: '2026-11-23 12:00:00.5'\n")
    found = differences(before, end_state(home))
    assert [line.split(": version 2")[0] for line in found] == [
        "model versions: missing",
        "model versions: not expected",
    ]


def test_what_the_project_keeps_of_a_version_is_compared_with_the_other_home_and_with_mlflow(
    registered, study: Study
):
    home, _, _ = registered
    with Warehouse(home.warehouse, study).connect() as con:
        Registry(home, study).require_serving_version(con)
    before = end_state(home)
    kept = read_version_file(home.artifacts, 2)
    assert kept is not None
    assert not [line for line in before["model versions"] if "not MLflow's" in line]
    write_version_file(home.artifacts, replace(kept, tags={}, reference="other/reference"))
    found = differences(before, end_state(home))
    assert "model versions: not expected: kept of version 2: {}" in found
    assert "model versions: not expected: kept of version 2: not MLflow's reference" in found
    (home.artifacts / "versions" / "2.json").unlink()
    assert differences(before, end_state(home)) == [
        'model versions: missing: kept of version 2: {"mode": "quick"}'
    ]


def test_other_bytes_of_a_model_and_of_a_reference_are_seen(registered):
    home, _, before = registered
    next(home.artifacts.rglob("booster")).write_text("other")
    next(home.artifacts.rglob("reference.txt")).write_text("other")
    found = differences(before, end_state(home))
    assert [line.split(" ")[:3] for line in found].count(["model", "files:", "missing:"]) == 2


def test_a_partition_more_and_a_step_that_waits_for_the_pool_are_seen(home: Home):
    before = end_state(home)
    with open_instance(home) as instance:
        instance.add_dynamic_partitions("batch", ["march"])
        instance.event_log_storage.initialize_concurrency_limit_to_default("warehouse")
        instance.event_log_storage.claim_concurrency_slot("warehouse", "a-run", "a-step")
    found = differences(before, end_state(home))
    assert "partitions: not expected: batches: march" in found
    assert "pool: not expected: waiting: 1" in found
