"""Nothing is computed while a run holds the warehouse, and nothing is written that is outdated by then."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import duckdb
import pytest

from poleng_assets.core.modeling.model import Model
from poleng_assets.defs.assets import promotion
from poleng_assets.models.registry import CHAMPION
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets_tests.faults.quick_study import quick_survey
from poleng_assets_tests.graph.conftest import Workshop, open_promoted
from poleng_assets_tests.graph.test_issued_lists import click, files

BATCH, OTHER = "clean_batch_1", "drift_batch_1"
# Where each is called from, and what must not be called while a run holds the file.
COMPUTING = (
    "Model.score",
    "Model.contributions",
    "core.monitoring.batch_report.measure_and_judge",
    "core.monitoring.realised_performance.measure_realised",
    "core.reports.drift_report.render_report",
    "core.reports.overview.render_overview",
    "core.contacts.workbook.write_workbook",
    "core.promotion.challenger_evaluation.evaluate_challenger",
    "core.monitoring.label_request.plan_request",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("short_holds")
    with quick_survey(folder) as data, open_promoted(folder / "home", data) as workshop:
        yield workshop


def owner_of(target: str) -> tuple[Any, str]:
    """Return the module, or the class of models, and the name of a function in it."""
    owner, name = target.rsplit(".", 1)
    return (Model if owner == "Model" else importlib.import_module(f"poleng_assets.{owner}")), name


def before_first_call(monkeypatch: pytest.MonkeyPatch, target: str, act: Callable[[], None]) -> list[str]:
    """Do something just before a function is first called; return a list that gets an entry for each call."""
    module, name = owner_of(target)
    original = getattr(module, name)
    calls: list[str] = []

    def acting(*args: Any, **named: Any) -> Any:
        calls.append(name)
        if len(calls) == 1:
            act()
        return original(*args, **named)

    monkeypatch.setattr(module, name, acting)
    return calls


def watching(function: Any, target: str, held: list[str], computed: set[str]) -> Any:
    """Return a function that must not be called while the warehouse is held, and is noted down."""

    def alone(*args: Any, **named: Any) -> Any:
        assert not held, target
        computed.add(target)
        return function(*args, **named)

    return alone


def somebody(workshop: Workshop, batch: str = BATCH) -> str:
    """Return a person of a batch whom the newest scores flag."""
    return str(
        workshop.query(
            "SELECT subject_id FROM current_predictions WHERE batch = ? AND contact ORDER BY score DESC",
            batch,
        )[0][0]
    )


def erase(workshop: Workshop, person: str) -> None:
    with workshop.warehouse.connect() as con:
        for table in ("batch_rows", "predictions", "contact_lists", "outcomes"):
            con.execute(f"DELETE FROM {table} WHERE subject_id = ?", [person])
        con.execute("UPDATE ingested_files SET rows_erased = rows_erased + 1 WHERE name = ?", [BATCH])


def mentions(workshop: Workshop, table: str, person: str) -> int:
    return int(workshop.query(f"SELECT count(*) FROM {table} WHERE subject_id = ?", person)[0][0])


def test_nothing_is_computed_while_the_warehouse_is_open_for_writing(
    home: Workshop, monkeypatch: pytest.MonkeyPatch
):
    held: list[str] = []
    computed: set[str] = set()
    connect = Warehouse.connect

    @contextmanager
    def watched(self: Warehouse) -> Iterator[duckdb.DuckDBPyConnection]:
        with connect(self) as con:
            held.append("")
            try:
                yield con
            finally:
                held.pop()

    monkeypatch.setattr(Warehouse, "connect", watched)
    for target in COMPUTING:
        module, name = owner_of(target)

        monkeypatch.setattr(module, name, watching(getattr(module, name), target, held, computed))
    monkeypatch.setattr(promotion, "_earlier_decision", lambda contest: None)
    list_again: dict[str, Any] = {"replace_issued_list": True}
    assert click(home, "predictions", "drift_report", "contact_list", **list_again).success
    assert all(report.success for report in home.drop("outcomes", BATCH))
    everything = home.runner.defs.resolve_implicit_global_asset_job_def()
    for asset in ("champion", "field_study_request"):
        job = everything.get_subset(asset_selection={dg.AssetKey(asset)})
        assert job.execute_in_process(instance=home.instance, raise_on_error=False).success
    assert computed == set(COMPUTING)


@pytest.mark.parametrize(
    ("asset", "computing"),
    [("predictions", "Model.score"), ("contact_list", "core.contacts.workbook.write_workbook")],
)
def test_who_is_erased_meanwhile_is_not_written_down_again(
    home: Workshop, monkeypatch: pytest.MonkeyPatch, asset: str, computing: str
):
    if asset == "contact_list":
        assert click(home, "predictions", "drift_report").success
        with home.warehouse.connect() as con:  # whichever version serves: the next list is another one
            con.execute("DELETE FROM contact_lists WHERE batch = ?", [BATCH])
    person = somebody(home)
    calls = before_first_call(monkeypatch, computing, lambda: erase(home, person))
    config: dict[str, Any] = {"replace_issued_list": True} if asset == "contact_list" else {}
    assert click(home, asset, **config).success
    assert len(calls) == 2
    assert [mentions(home, table, person) for table in ("predictions", "contact_lists")] == [0, 0]
    newest = max(files(home).items(), key=lambda item: (len(item[0]), item[0]))
    if asset == "contact_list":
        assert person.encode() not in newest[1]


def test_scores_are_of_the_version_that_serves_when_they_are_written(
    home: Workshop, monkeypatch: pytest.MonkeyPatch
):
    """A rollback in between does not list the batch among those to be scored again: it is not scored yet."""
    alias = home.registry.alias(CHAMPION)
    assert alias is not None
    serving, other = alias.version, 3 - alias.version

    def roll_back() -> None:
        with home.warehouse.connect() as con:
            record_decision(
                con,
                "rollback",
                "found wanting",
                evidence={"taken_back": serving, "score_again": []},
                champion_version=other,
                challenger_version=serving,
            )
        home.registry.appoint(other)

    calls = before_first_call(monkeypatch, "Model.score", roll_back)
    result = click(home, "predictions")
    assert result.success
    assert len(calls) == 2
    (event,) = (
        event
        for event in result.asset_materializations_for_node("predictions")
        if event.asset_key == dg.AssetKey("predictions")  # the other one tells of the rollback
    )
    assert event.metadata["model_version"].value == other
    ((newest,),) = home.query(
        "SELECT arg_max(model_version, scored_at) FROM predictions WHERE batch = ?", BATCH
    )
    assert newest == other


def test_two_reports_are_made_at_once_and_say_what_they_say_alone(
    home: Workshop, monkeypatch: pytest.MonkeyPatch
):
    if not home.query("SELECT 1 FROM predictions WHERE batch = ?", OTHER):
        home.drop("batches", OTHER)
    alone = {batch: click(home, "drift_report", batch=batch) for batch in (BATCH, OTHER)}
    beside: list[dg.ExecuteInProcessResult] = []
    before_first_call(
        monkeypatch,
        "core.monitoring.batch_report.measure_and_judge",
        lambda: beside.append(click(home, "drift_report", batch=OTHER)),
    )
    together = {BATCH: click(home, "drift_report"), OTHER: beside[0]}
    for batch in (BATCH, OTHER):
        verdicts = [
            result.asset_materializations_for_node("drift_report")[0].metadata["verdict"].value
            for result in (alone[batch], together[batch])
        ]
        assert verdicts[0] == verdicts[1]
