"""A list that was issued stands, whatever is materialised by hand; another one stands beside it."""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from poleng_assets.cli.main import main
from poleng_assets.core.contacts.contact_history import history_of
from poleng_assets.core.contacts.contact_list import read_list
from poleng_assets.core.contacts.workbook import first_cells
from poleng_assets.defs.checks import list_differences
from poleng_assets.defs.rollback import ROLLBACK_JOB
from poleng_assets.operations.erase_person import erase_person
from poleng_assets.study.loading import load_study
from poleng_assets.warehouse.contact_lists import file_stem
from poleng_assets_tests.faults.quick_study import quick_survey
from poleng_assets_tests.graph.conftest import Workshop, open_promoted

BATCH = "clean_batch_1"  # its list was made by version 1, and version 2 serves


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("issued_lists")
    with quick_survey(folder) as data, open_promoted(folder / "home", data) as workshop:
        yield workshop


def click(workshop: Workshop, *assets: str, batch: str = BATCH, **config: Any) -> dg.ExecuteInProcessResult:
    """Materialise assets of a batch as the UI's button does, in an unnamed job."""
    return (
        workshop.runner.defs.resolve_implicit_global_asset_job_def()
        .get_subset(asset_selection={dg.AssetKey(one) for one in assets})
        .execute_in_process(
            instance=workshop.instance,
            partition_key=batch,
            run_config={"ops": {"contact_list": {"config": config}}} if config else None,
            raise_on_error=False,
        )
    )


def words_of(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.asset_materializations_for_node("contact_list")
    return str(event.metadata["what_happened"].value)


def launched(workshop: Workshop) -> list[str]:
    """Return what the sensors have done now, but for the page of all batches, which may be drawn anew."""
    return [report.job for report in workshop.runner.run_until_idle() if report.job != "draw_overview"]


def files(workshop: Workshop) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in workshop.home.contact_lists.glob(f"{BATCH}*")}


@pytest.mark.parametrize("asset", ["predictions", "drift_report", "contact_list"])
def test_the_ui_calls_nothing_unsynced_because_another_version_serves(promoted: Workshop, asset: str):
    graph = promoted.runner.defs.get_repository_def().asset_graph
    context = LoadingContextForTest(promoted.instance)
    resolver = CachingStaleStatusResolver(promoted.instance, graph, context)
    assert resolver.get_status(dg.AssetKey(asset), BATCH) == StaleStatus.FRESH


def test_a_click_on_materialize_all_leaves_the_issued_list_as_it_is(promoted: Workshop):
    before, decided = files(promoted), promoted.decisions()
    assert sorted(before) == [f"{BATCH}.csv", f"{BATCH}.xlsx"]

    result = click(promoted, "batches", "predictions", "drift_report", "contact_list")

    assert result.success
    assert files(promoted) == before
    assert promoted.decisions() == decided
    words = words_of(result)
    assert f"list 1 of {BATCH} (model version 1" in words
    assert "was issued and is kept" in words
    assert "replace_issued_list: true" in words
    (event,) = result.asset_materializations_for_node("contact_list")
    assert event.metadata["model_version"].value == 1
    assert promoted.query("SELECT DISTINCT model_version FROM contact_lists WHERE batch = ?", BATCH) == [(1,)]
    # The overseer takes a click for no new batch: it neither scores it again nor waits for its list.
    assert launched(promoted) == []


@pytest.mark.parametrize("assets", [("batches",), ("predictions",), ("drift_report",), ("contact_list",)])
def test_a_click_on_any_one_asset_changes_no_list_and_starts_nothing(
    promoted: Workshop, assets: tuple[str, ...]
):
    before, decided = files(promoted), promoted.decisions()
    assert click(promoted, *assets).success
    assert launched(promoted) == []
    assert (files(promoted), promoted.decisions()) == (before, decided)
    assert list_differences(promoted.warehouse, promoted.landing, BATCH) == (set(), set())


def test_status_and_history_name_the_version_that_the_list_came_from(promoted: Workshop):
    click(promoted, "predictions", "drift_report")
    told = CliRunner().invoke(main, ["status", "--json", "--home", str(promoted.home.root)])
    rows = {row["model_version"]: row for row in json.loads(told.stdout)["batches"] if row["batch"] == BATCH}
    assert {row["list_from_version"] for row in rows.values()} == {1}
    shown = CliRunner().invoke(main, ["status", "--home", str(promoted.home.root)]).stdout
    assert f"{rows[1]['contacts']} (list stays valid)" in shown
    assert "list of v1 stays valid" in shown
    ids = promoted.contact_list(BATCH)[load_study().id]
    with promoted.warehouse.read() as con:
        history = history_of(con, load_study(), ids[0])
    assert [(one.model_version, one.list_stands) for one in history] == [(1, True), (2, False)]
    assert "which is still valid; " not in history[1].in_words()
    assert "put on the contact list" in history[0].in_words()


def test_a_list_that_is_asked_for_stands_beside_the_issued_one(promoted: Workshop):
    before = files(promoted)
    click(promoted, "predictions", "drift_report")

    result = click(promoted, "contact_list", replace_issued_list=True, reason="the old one was lost")

    assert result.success
    after = files(promoted)
    assert {name: after[name] for name in before} == before
    assert sorted(set(after) - set(before)) == [f"{BATCH} (list 2).csv", f"{BATCH} (list 2).xlsx"]
    ((reason, evidence, run),) = promoted.query(
        "SELECT reason, evidence, dagster_run_id FROM decisions WHERE kind = 'reissue'"
    )
    told = json.loads(evidence)
    assert "the old one was lost" in reason
    assert run == result.run_id
    old, new = (
        set(read_list(promoted.home.contact_lists / f"{stem}.csv")[load_study().id])
        for stem in (BATCH, f"{BATCH} (list 2)")
    )
    assert (told["added"], told["dropped"]) == (len(new - old), len(old - new))
    assert (told["before"]["model_version"], told["contacts"]) == (1, len(new))
    listed = promoted.query(
        """SELECT list_number, model_version, count(*) FROM contact_lists WHERE batch = ?
        GROUP BY ALL ORDER BY 1""",
        BATCH,
    )
    assert listed == [(1, 1, len(old)), (2, 2, len(new))]
    assert list_differences(promoted.warehouse, promoted.landing, BATCH) == (set(), set())
    assert launched(promoted) == []


def test_the_same_list_asked_for_again_changes_nothing(promoted: Workshop):
    before, decided = files(promoted), promoted.decisions()
    result = click(promoted, "contact_list", replace_issued_list=True, reason="once more")
    assert "the current scores flag the same people" in words_of(result)
    assert (files(promoted), promoted.decisions()) == (before, decided)


def test_a_person_who_is_forgotten_goes_from_every_list(promoted: Workshop):
    study = load_study()
    both = [read_list(path) for path in sorted(promoted.home.contact_lists.glob(f"{BATCH}*.csv"))]
    who = min(set.intersection(*(set(listed[study.id]) for listed in both)))
    result = erase_person(promoted.home, study, promoted.warehouse, promoted.registry, who)
    assert result.proof.traces == ()
    books = sorted(promoted.home.contact_lists.glob(f"{BATCH}*.xlsx"))
    assert len(books) == 2
    for book, listed in zip(books, both, strict=True):
        assert {str(cell) for cell in list(first_cells(book))[1:]} == set(listed[study.id]) - {who}
    assert list_differences(promoted.warehouse, promoted.landing, BATCH) == (set(), set())


def test_a_rollback_that_has_a_batch_scored_again_asks_for_another_list(promoted: Workshop):
    batch = "drift_batch_1"
    before = (promoted.home.contact_lists / f"{batch}.csv").read_bytes()
    settings = {"to": 1, "reason": "complaints", "score_again": True}
    promoted.runner.run(ROLLBACK_JOB, run_config={"ops": {"put_back": {"config": settings}}})
    promoted.runner.run_until_idle()
    assert (promoted.home.contact_lists / f"{batch}.csv").read_bytes() == before
    assert (promoted.home.contact_lists / f"{batch} (list 2).csv").exists()
    ((reason,),) = promoted.query("SELECT reason FROM decisions WHERE kind = 'reissue' AND batch = ?", batch)
    assert "complaints" in reason


@pytest.mark.parametrize("batch", ["march", "march@2", "v1.2", "a_(b"])
def test_the_name_of_a_list_tells_its_batch_and_is_no_name_of_a_batch(batch: str):
    assert file_stem(batch, 1) == batch
    assert file_stem(batch, 12) == f"{batch} (list 12)"
