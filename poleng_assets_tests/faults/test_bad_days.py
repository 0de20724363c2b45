"""Bad days: disks, files, stores and clocks that fail while the project works, each of them for real.

Each time: a clear word (what, where, what to do), nothing lost, and when the cause is mended the next
``settle`` ends as if nothing had been.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import duckdb
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from poleng_assets.cli.main import main
from poleng_assets.defs.jobs import RETRAIN_JOB
from poleng_assets.defs.rollback import ROLLBACK_JOB
from poleng_assets.defs.run_history import reset_failures
from poleng_assets.headless.runner import RunReport
from poleng_assets.models.artifacts import ModelUnusable
from poleng_assets.models.registry import CHAMPION, Registry
from poleng_assets.simulation.population import synthesise
from poleng_assets.study.loading import load_study
from poleng_assets.study.schema import StudyError
from poleng_assets.warehouse import connection
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets_tests.faults.disks import filled, mounted, read_only
from poleng_assets_tests.faults.quick_study import give_study, quick_survey
from poleng_assets_tests.graph.conftest import Workshop, open_workshop

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The study with quick policies in force; the folder of its synthetic data."""
    folder = tmp_path_factory.mktemp("quick")
    with quick_survey(folder) as data:
        yield data


@pytest.fixture(scope="module")
def shop(quick: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A home on a small disk of its own, Dagster's history on another; its first champion serves.

    Shared: each test injects its fault, mends it, and leaves a home that works.
    """
    folder = tmp_path_factory.mktemp("bad_days") / "home"
    with mounted(folder, megabytes=300), mounted(folder / "dagster", megabytes=100):
        before = os.umask(0)  # a shell that makes files which everybody may read
        with open_workshop(folder, quick) as opened:
            first = opened.drop("field_studies", "founding_study")
            assert all(report.success for report in first), first
            yield opened
        os.umask(before)


@pytest.fixture(autouse=True)
def _one_failure_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is left alone at once: that it is tried three times is seen in graph/test_versions.py."""
    monkeypatch.setattr("poleng_assets.defs.run_history.FAILURES_BEFORE_A_PAUSE", 1)


def new_batch(shop: Workshop, name: str, rows: int = 120) -> pd.DataFrame:
    """Return people of the founding population whom nobody has seen."""
    study = load_study()
    people = synthesise(study, rows=rows, seed=crc32(name.encode()), part="clean")
    people[study.id] = [f"{name}-{number}" for number in range(rows)]
    return people.drop(columns=study.target.name)


def put(shop: Workshop, name: str, rows: int = 120) -> None:
    """Drop a new batch; nothing reacts yet."""
    file = shop.home.root / f"{name}.parquet"
    new_batch(shop, name, rows).to_parquet(file, index=False)
    shop.landing.submit("batches", file)
    file.unlink()


def settle(shop: Workshop) -> list[RunReport]:
    """As ``poleng run-pending`` does: a run by hand means that the cause is fixed."""
    reset_failures(shop.instance)
    return shop.runner.run_until_idle()


def failures(reports: list[RunReport]) -> list[str]:
    return [report.message for report in reports if not report.success]


def run(shop: Workshop, job: str, **ops: dict[str, object]) -> RunReport:
    config = {"ops": {name: {"config": values} for name, values in ops.items()}}
    return shop.runner.run(job, run_config=config)


def assert_dealt_with(shop: Workshop, batch: str, rows: int = 120) -> None:
    """The batch goes all the way, once: as if nothing had been."""
    assert failures(settle(shop)) == []
    key = load_study().id
    serving = shop.registry.champion().version
    count = 'SELECT count(*), count(DISTINCT "{}") FROM {} WHERE batch = ?'
    assert shop.query(count.format(key, "batch_rows"), batch) == [(rows, rows)]
    assert shop.query(count.format(key, "current_predictions"), batch) == [(rows, rows)]
    assert [version for _, version in shop.verdicts(batch)][-1] == serving
    ((flagged,),) = shop.query(
        "SELECT count(*) FROM current_predictions WHERE batch = ? AND contact AND model_version = ?",
        batch,
        serving,
    )
    assert len(shop.contact_list(batch)) == flagged
    assert shop.home.report(batch, serving).exists()
    assert (shop.home.archive("batches") / f"{batch}.parquet").exists()
    assert list(shop.home.landing("batches").iterdir()) == []
    assert not list(shop.home.root.glob("**/*.part"))
    assert shop.instance.event_log_storage.get_concurrency_info("warehouse").active_slot_count == 0


def poleng(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("poleng")
    return subprocess.run(
        [str(script), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def status(shop: Workshop) -> dict[str, Any]:
    answer = CliRunner().invoke(main, ["status", "--json", "--home", str(shop.home.root)])
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)


def test_everything_written_is_its_owners_alone(shop: Workshop):
    put(shop, "privacy")
    assert_dealt_with(shop, "privacy")
    everything = [shop.home.root, *shop.home.root.rglob("*")]
    open_to_others = [path for path in everything if stat.S_IMODE(path.lstat().st_mode) & 0o077]
    assert len(everything) > 80
    assert open_to_others == []


# Disks


FULL = {
    "core.ingestion.ingest.ingest": "the disk is full. Free some space",
    "defs.assets.scoring.replace_predictions": "the disk is full. Free some space",
    "core.monitoring.batch_report.save_report": "the disk is full. Free some space",
    "defs.assets.monitoring.write_atomically": "No space left on device",
    "defs.assets.scoring.write_atomically": "No space left on device",
}


# These write in a transaction of their caller: the disk is full when that commits.
AT_COMMIT = ("defs.assets.scoring.replace_predictions", "core.monitoring.batch_report.save_report")


def test_a_disk_that_is_full_at_every_step_of_a_batch(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    """One step after the other finds it full; some space is freed each time, and the work goes on."""
    put(shop, "full")
    reached: list[str] = []
    to_commit: list[str] = []
    transaction = connection.transaction

    @contextmanager
    def full_at_commit(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
        with ExitStack() as stack, transaction(con):
            yield
            if to_commit:
                to_commit.clear()
                stack.enter_context(filled(shop.home.root))

    monkeypatch.setattr(connection, "transaction", full_at_commit)
    for moment, words in FULL.items():
        module, function = f"poleng_assets.{moment}".rsplit(".", 1)
        original = getattr(importlib.import_module(module), function)

        def fill_first(*args: object, moment: str = moment, original: Any = original, **named: object) -> Any:
            reached.append(moment)
            if moment in AT_COMMIT:
                to_commit.append(moment)
                return original(*args, **named)
            with filled(shop.home.root):
                return original(*args, **named)

        reset_failures(shop.instance)
        with monkeypatch.context() as patch:
            patch.setattr(f"{module}.{function}", fill_first)
            failed = failures(shop.runner.run_until_idle())
        assert failed, moment
        assert all(words in message for message in failed), failed
        assert all(str(shop.home.root) in message for message in failed), failed
    assert list(dict.fromkeys(reached)) == list(FULL)  # each is tried again, in vain
    assert_dealt_with(shop, "full")


def test_a_disk_that_is_full_while_a_model_is_kept(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    before = shop.registry.versions()
    original = Registry.log_model

    def fill_first(*args: object, **kwargs: object) -> object:
        with filled(shop.home.root):
            return original(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "log_model", fill_first)
        report = run(shop, RETRAIN_JOB, challenger={"again": True})
    assert not report.success
    assert re.search("No space left on device|disk is full", report.message), report.message
    assert shop.registry.versions() == before
    assert shop.registry.champion().version == before[-1].version
    assert run(shop, RETRAIN_JOB, challenger={"again": True}).success
    assert len(shop.registry.versions()) == len(before) + 1


def test_a_disk_that_is_full_when_a_command_begins(tmp_path: Path):
    with mounted(tmp_path / "home", megabytes=8) as disk:
        assert poleng("run-pending", "--home", disk).returncode == 0
        with filled(disk):
            told = poleng("run-pending", "--home", disk)
        assert told.returncode == 1
        assert re.search("The disk is full|No space left", told.stderr), told.stderr
        assert "Traceback" not in told.stderr
        assert poleng("run-pending", "--home", disk).returncode == 0


def test_a_folder_that_may_not_be_written(shop: Workshop):
    put(shop, "closed")
    for folder in ("reports", "contact_lists"):
        reset_failures(shop.instance)
        with read_only(shop.home.root / folder):
            failed = failures(shop.runner.run_until_idle())
        assert failed, folder
        assert all("Read-only file system" in words and f"/{folder}/" in words for words in failed), failed
    assert_dealt_with(shop, "closed")


# The model registry


def test_a_registry_that_is_locked(shop: Workshop):
    put(shop, "locked")
    other = sqlite3.connect(shop.home.root / "mlflow.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        failed = failures(shop.runner.run_until_idle())
    finally:
        other.rollback()
        other.close()
    assert failed
    assert all("mlflow.db is locked by another process" in words for words in failed), failed
    assert_dealt_with(shop, "locked")


def model_files(shop: Workshop, version: int) -> list[Path]:
    folder = shop.registry.model_folder(shop.registry.version(version))
    return sorted(path for path in folder.rglob("*") if path.is_file())


@contextmanager
def spoilt(file: Path, spoil: Callable[[bytes], bytes] | None) -> Iterator[None]:
    """Change a file, or take it away, until the end of the block."""
    content = file.read_bytes()
    file.unlink()
    if spoil is not None:
        file.write_bytes(spoil(content))
    yield
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda content: content[: len(content) // 2], "was changed or truncated"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "was changed or truncated"),
        (None, "is missing"),
    ],
    ids=["cut in half", "one bit", "missing"],
)
def test_every_damaged_file_of_a_model_is_named(shop: Workshop, spoil: Callable[[bytes], bytes], words: str):
    serving = shop.registry.champion()
    for file in model_files(shop, serving.version):
        with spoilt(file, spoil), pytest.raises(ModelUnusable) as caught:
            shop.registry.model(serving)
        assert f"version {serving.version}" in str(caught.value)
        assert f"{file} " in str(caught.value)
        assert words in str(caught.value)
        assert "poleng rollback" in str(caught.value)
        assert "poleng retrain" in str(caught.value)
    assert shop.registry.validation_error(serving) == ""


def test_a_damaged_champion_is_replaced_by_a_retraining(shop: Workshop):
    damaged = shop.registry.champion()
    booster = next(path for path in model_files(shop, damaged.version) if path.name == "booster.ubj")
    put(shop, "damaged")
    with spoilt(booster, lambda content: content[:500]):
        failed = failures(shop.runner.run_until_idle())
        assert failed
        assert all(f"version {damaged.version} cannot be used: {booster}" in one for one in failed), failed
        # The same data, and no word that it has to be again: the damage is noticed.
        report = run(shop, RETRAIN_JOB)
        assert report.success, report.message
        assert shop.registry.champion().version == damaged.version + 1
        (why,) = shop.query("SELECT reason FROM decisions ORDER BY decided_at DESC LIMIT 1")[0]
        assert "judged without a champion, because the files of version" in why
        assert_dealt_with(shop, "damaged")


def test_an_alias_that_was_deleted_is_put_back(shop: Workshop):
    serving = shop.registry.champion().version
    shop.registry._client().delete_registered_model_alias(shop.registry.model_name, CHAMPION)
    put(shop, "deleted")
    told = status(shop)
    assert told["champion_version"] is None
    assert f"version {serving} serves" in told["champion_in_doubt"]
    assert f"`poleng rollback --to {serving}` restores it" in told["champion_in_doubt"]
    assert_dealt_with(shop, "deleted")
    assert shop.registry.champion().version == serving
    told = status(shop)
    assert (told["champion_version"], told["champion_in_doubt"]) == (serving, "")


def a_version_nobody_decided_on(shop: Workshop) -> int:
    serving = shop.registry.champion()
    client = shop.registry._client()
    known = client.get_model_version(shop.registry.model_name, str(serving.version))
    made = client.create_model_version(
        shop.registry.model_name, known.source, run_id=known.run_id, tags=known.tags, model_id=known.model_id
    )
    return int(made.version)


def test_an_alias_that_was_moved_by_hand_serves_nobody(shop: Workshop):
    serving, stranger = shop.registry.champion().version, a_version_nobody_decided_on(shop)
    shop.registry.set_alias(CHAMPION, stranger)
    put(shop, "moved")
    failed = failures(shop.runner.run_until_idle())
    assert failed
    for words in failed:
        assert f"the ledger says that version {serving} serves" in words
        assert f"'champion' points to version {stranger}, without a decision" in words
        assert f"`poleng rollback --to {serving}` restores it" in words
    assert shop.query("SELECT count(*) FROM predictions WHERE model_version = ?", stranger) == [(0,)]
    assert run(shop, ROLLBACK_JOB, put_back={"to": serving}).success
    assert shop.registry.champion().version == serving
    assert_dealt_with(shop, "moved")


def test_a_registry_that_is_gone_is_named_and_no_version_is_counted_anew(shop: Workshop):
    serving = shop.registry.champion().version
    store = shop.home.root / "mlflow.db"
    aside = store.rename(shop.home.root / "aside.db")
    told = poleng("status", "--home", shop.home.root)
    trained = poleng("retrain", "--home", shop.home.root)
    aside.replace(store)
    assert trained.returncode == 1
    assert f"version {serving} serves, but the registry has no such version" in trained.stdout
    assert shop.registry.champion().version == serving
    assert f"version {serving} serves, but the model registry {store} is missing" in told.stdout.replace(
        "\n", " "
    )
    assert "poleng restore" in told.stdout


def test_artifacts_that_are_gone_are_named(shop: Workshop):
    put(shop, "no_artifacts")
    aside = shop.home.artifacts.rename(shop.home.root / "aside")
    try:
        failed = failures(shop.runner.run_until_idle())
    finally:
        shutil.rmtree(shop.home.artifacts, ignore_errors=True)
        aside.rename(shop.home.artifacts)
    assert failed
    assert all("cannot be used" in words and str(shop.home.artifacts) in words for words in failed), failed
    assert_dealt_with(shop, "no_artifacts")


# The study


def test_a_question_that_is_asked_no_more(shop: Workshop, quick: Path, monkeypatch: pytest.MonkeyPatch):
    put(shop, "smaller-before")
    assert_dealt_with(shop, "smaller-before")
    old = shop.registry.champion().version
    smaller = yaml.safe_load((quick.parent / "quick.yaml").read_text())
    (dropped,) = [
        one["name"] for one in smaller["features"] if one["name"] not in named_in_policies(smaller)
    ][:1]
    smaller["features"] = [one for one in smaller["features"] if one["name"] != dropped]
    (quick.parent / "smaller.yaml").write_text(yaml.safe_dump(smaller, sort_keys=False))
    with monkeypatch.context() as patch:
        patch.setenv("POLENG_STUDY", str(quick.parent / "smaller.yaml"))
        give_study(shop.home)
        put(shop, "smaller")
        failed = failures(shop.runner.run_until_idle())
        assert failed
        assert all(
            f"version {old} was trained with another study: with {dropped} that" in words for words in failed
        ), failed
        assert all("poleng retrain" in words for words in failed)
        assert run(shop, RETRAIN_JOB).success
        assert shop.registry.champion().version > old
        assert_dealt_with(shop, "smaller")
    give_study(shop.home)
    # Asked again: what people of before said is there.
    ((kept,),) = shop.query(f'SELECT count("{dropped}") FROM batch_rows WHERE batch = ?', "smaller-before")
    assert kept > 0
    put(shop, "larger")
    failed = failures(shop.runner.run_until_idle())
    assert failed
    assert all(f"without {dropped} that it has now" in words for words in failed), failed
    assert run(shop, RETRAIN_JOB).success
    assert_dealt_with(shop, "larger")


def named_in_policies(study: dict[str, Any]) -> str:
    """Everything of a study but its questions, as text: what is named there is needed."""
    return json.dumps({key: value for key, value in study.items() if key != "features"}, default=str)


def test_a_question_that_is_new_is_empty_for_the_people_of_before(tmp_path: Path):
    study = load_study()
    new = study.features[0].model_copy(update={"name": "brand_new"})
    larger = study.model_copy(update={"features": [*study.features, new]})
    with Warehouse(tmp_path / "warehouse.duckdb", study).connect() as con:
        con.execute(f"INSERT INTO batch_rows (batch, row_number, \"{study.id}\") VALUES ('march', 1, 'a')")
    for _ in range(2):
        with Warehouse(tmp_path / "warehouse.duckdb", larger).connect() as con:
            assert con.execute("SELECT batch, brand_new FROM batch_rows").fetchall() == [("march", None)]


@pytest.mark.parametrize("what", ["id", "target"])
def test_an_id_or_a_target_with_another_name_is_refused_in_words(tmp_path: Path, what: str):
    study = load_study()
    renamed = study.model_copy(
        update={"id": "person"}
        if what == "id"
        else {"target": study.target.model_copy(update={"name": "person"})}
    )
    with Warehouse(tmp_path / "warehouse.duckdb", study).connect():
        pass
    before = (tmp_path / "warehouse.duckdb").read_bytes()
    with (
        pytest.raises(StudyError, match=f"the study calls its {what} person, and the warehouse was made"),
        Warehouse(tmp_path / "warehouse.duckdb", renamed).connect(),
    ):
        pass
    assert (tmp_path / "warehouse.duckdb").read_bytes() == before


# The clock


def test_a_clock_that_goes_back_changes_no_order(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    put(shop, "before")
    assert_dealt_with(shop, "before")
    if len(shop.registry.versions()) == 1:
        shop.drop("field_studies", "followup_study")
        assert run(shop, RETRAIN_JOB).success
    serving = shop.registry.champion().version
    promoted = shop.query("SELECT DISTINCT challenger_version FROM decisions WHERE kind = 'promote'")
    other = next(
        version
        for (version,) in promoted
        if version != serving and not shop.registry.validation_error(shop.registry.version(version))
    )
    decided = shop.decisions()
    with monkeypatch.context() as patch:
        earlier = datetime.now(UTC) - timedelta(days=400)
        patch.setattr("poleng_assets.warehouse.writes.now", lambda: earlier)
        put(shop, "after")
        assert_dealt_with(shop, "after")
        report = run(shop, ROLLBACK_JOB, put_back={"to": other, "score_again": True})
        assert report.success, report.message
        taken = shop.registry.champion().version
        assert taken == other
        for batch in ("before", "after"):
            assert_dealt_with(shop, batch)
            current = shop.query(
                "SELECT DISTINCT model_version FROM current_predictions WHERE batch = ?", batch
            )
            assert current == [(taken,)]
        assert shop.decisions()[: len(decided)] == decided
        assert "rollback" in shop.decisions()[len(decided) :]
    names = "SELECT name FROM ingested_files WHERE kind = 'batches' ORDER BY ingested_at DESC LIMIT 2"
    assert shop.query(names) == [("after",), ("before",)]
    put(shop, "corrected")
    assert_dealt_with(shop, "corrected")
