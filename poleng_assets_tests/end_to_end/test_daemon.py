"""``poleng dev`` as a process: its own sensors do everything, and it can be stopped at any time."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from poleng_assets.defs.instance import open_instance
from poleng_assets.defs.partitions import PARTITIONS
from poleng_assets.headless.dagster_processes import daemons
from poleng_assets.storage.home import Home
from poleng_assets_tests.end_to_end.conftest import Served, poleng, serve, wait_until
from poleng_assets_tests.end_to_end.foreign_pages import (
    ADD,
    JSON,
    PARTITION,
    another_page,
    carried_out,
    foreign_requests,
    send,
)
from poleng_assets_tests.faults.crowd import Crowd, let_a_crowd_come
from poleng_assets_tests.faults.quick_study import ask_for_a_long_training, give_study

pytestmark = pytest.mark.slow

# Of boosting: a training that lasts until something has happened meanwhile.
ROUNDS = 5000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, small_survey: Path) -> Iterator[Served]:
    """A daemon that was given a clean batch and a study, died in its training, and was started again.

    That training takes long, until it was interrupted.
    """
    home = Home(tmp_path_factory.mktemp("daemon") / "home")
    study = small_survey.parent / "quick.yaml"
    quick = study.read_text(encoding="utf-8")
    ask_for_a_long_training(study, ROUNDS)
    with serve(home) as served:
        served.landing.submit("batches", small_survey / "batches" / "clean_batch_1.parquet")
        served.landing.submit("field_studies", small_survey / "field_studies" / "founding_study.parquet")
        wait_until("a training runs", lambda: _training_has_begun(served), 120)
        served.press_ctrl_c()
        assert served.champion() is None
    study.write_text(quick, encoding="utf-8")
    give_study(home)
    with serve(home) as served:
        wait_until(
            "the clean batch, which came first, has its list", lambda: served.has_list("clean_batch_1"), 300
        )
        assert served.champion() == 1
        yield served


@pytest.fixture(scope="module")
def crowd(served: Served, small_survey: Path) -> Crowd:
    """A follow-up study and a drifted batch came, and many batches at once while a challenger was trained."""
    return let_a_crowd_come(served, small_survey, batches=3, held_seconds=5, patience=300, rounds=ROUNDS)


@pytest.fixture(scope="module")
def moved(served: Served, crowd: Crowd) -> Served:
    """The daemon after the crowd."""
    wait_until("the drifted batch has its list", lambda: served.has_list("drift_batch_1"), 300)
    return served


def test_a_crowd_is_dealt_with_in_order_and_whole(crowd: Crowd):
    """``make test-faults`` drops a hundred."""
    assert crowd.faults == []
    assert crowd.listed == 3


def test_the_daemons_own_sensors_move_the_champion_from_1_to_2(moved: Served):
    assert moved.champion() == 2
    assert [run.status for run in _trainings(moved)[1:]] == [dg.DagsterRunStatus.SUCCESS] * 2


def test_of_all_runs_only_the_training_that_ctrl_c_interrupted_failed(moved: Served):
    ended_badly = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
    with open_instance(moved.home) as instance:
        failed = [run.run_id for run in instance.get_runs(ended_badly)]
    assert failed == [_trainings(moved)[0].run_id]


def test_every_list_is_there_and_opens_in_a_spreadsheet(moved: Served):
    for batch in ("clean_batch_1", "drift_batch_1"):
        with (moved.home.contact_lists / f"{batch}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) > 10
        assert float(rows[0]["prediction"]) >= float(rows[-1]["prediction"]) >= 0.5


def test_a_second_driver_on_the_same_home_is_refused_in_words(moved: Served):
    answer = poleng("simulate", "clean", "--home", moved.home.root)
    assert answer.returncode != 0
    assert "A Dagster daemon runs on" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_status_tells_machines_and_people_the_same(moved: Served):
    facts = json.loads(poleng("status", "--json", "--home", moved.home.root).stdout)
    assert facts["champion_version"] == 2
    assert [row["model_version"] for row in facts["batches"] if row["batch"] == "drift_batch_1"] == [1, 2]
    assert "drift_batch_1" in poleng("status", "--home", moved.home.root).stdout


@pytest.fixture
def page(moved: Served) -> Iterator[Page]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no browser: install chromium to look at the UI")
    quiet = [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", *quiet]
        )
        yield browser.new_page(viewport={"width": 1700, "height": 900}, base_url=moved.url)
        browser.close()


def test_the_ui_shows_the_graph_and_the_drift_report(page: Page, tmp_path: Path):
    pictures = Path(os.environ.get("POLENG_SCREENSHOTS") or tmp_path)
    pictures.mkdir(parents=True, exist_ok=True)
    page.goto("/asset-groups")
    nodes = page.locator("foreignObject")
    for group in ("arrivals", "model", "scoring", "performance"):
        nodes.get_by_text(group, exact=True).click()
        page.wait_for_timeout(1_000)
        page.reload()  # what was unfolded stays so, and the graph is fitted into the window anew
    for asset in ("batches", "predictions", "drift_report", "contact_list", "champion", "outcomes"):
        expect(nodes.get_by_text(asset, exact=True)).to_be_visible(timeout=20_000)
    page.wait_for_timeout(2_000)  # it glides into its place
    page.screenshot(path=pictures / "asset_graph.png")
    page.goto("/assets/drift_report?view=partitions&partition=drift_batch_1")
    expect(page.get_by_text("share_outside_support")).to_be_visible(timeout=20_000)
    expect(page.get_by_text("reports/batches/drift_batch_1/version_2.html")).to_be_visible()
    page.screenshot(path=pictures / "drift_report.png")
    assert (pictures / "asset_graph.png").stat().st_size > 20_000


def test_nothing_that_other_pages_ask_for_is_carried_out(moved: Served, page: Page):
    before = carried_out(moved.home)
    requests = foreign_requests(moved.url)
    answers = [send(moved.url, request) for request in requests]
    assert len(answers) >= 30
    assert {status for status, _ in answers} <= {400, 403, 405, 415}
    assert not [name for _, headers in answers for name in headers if name.startswith("access-control")]
    with another_page(moved.url) as address:
        page.goto(address)
        page.wait_for_function("document.title.startsWith('done')", timeout=30_000)
        assert page.title() == "done: websocket refused"
    assert carried_out(moved.home) == before
    # A program may, and so each of them would have been.
    assert send(moved.url, ("POST", "/graphql", JSON, json.dumps({"query": ADD})))[0] == 200
    assert set(carried_out(moved.home)["partitions"]) - set(before["partitions"]) == {PARTITION}
    with open_instance(moved.home) as instance:
        instance.delete_dynamic_partition(PARTITIONS["batches"].name or "", PARTITION)


def test_a_run_is_launched_from_the_ui(moved: Served, page: Page):
    before = carried_out(moved.home)["runs"]
    page.goto("/assets/overview")
    page.get_by_role("button", name="Materialize").first.click()
    sure = page.get_by_role("button", name="Confirm")

    def launched() -> bool:
        if sure.is_visible():
            sure.click()
        return len(carried_out(moved.home)["runs"]) == len(before) + 1

    wait_until("a run is launched", launched, 60)
    wait_until("it has ended", lambda: not moved.running("__ASSET_JOB"), 120)


def test_the_one_process_that_was_started_ends_the_others_when_it_is_asked_to(moved: Served):
    """Last of all: nothing runs any more."""
    assert moved.running("retrain_and_promote") == []
    moved.ask_to_end()
    assert daemons(moved.home) == []


def _trainings(served: Served) -> list[dg.DagsterRun]:
    """Return the runs of training and promotion, oldest first."""
    with open_instance(served.home) as instance:
        return list(reversed(instance.get_runs(dg.RunsFilter(job_name="retrain_and_promote"))))


def _training_has_begun(served: Served) -> bool:
    runs = served.running("retrain_and_promote")
    if not runs:
        return False
    with open_instance(served.home) as instance:
        steps = instance.all_logs(runs[0].run_id, of_type=dg.DagsterEventType.STEP_START)
    return any(event.step_key == "challenger" for event in steps)
