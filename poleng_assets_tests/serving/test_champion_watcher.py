"""Who answers, as the graph decides it: promotions, hands on the registry, and things that break."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from poleng_assets.core.data.asset_events import DriftReport
from poleng_assets.defs.instance import open_instance
from poleng_assets.models.registry import CHAMPION
from poleng_assets.serving.champion_watcher import (
    ASK_LEDGER_AGAIN_SECONDS,
    HISTORY_SECONDS,
    LOAD_AGAIN_SECONDS,
    Watch,
)
from poleng_assets.serving.version_choice import NO_CHAMPION
from poleng_assets.storage.home import Home
from poleng_assets.study.schema import Study
from poleng_assets_tests.serving.conftest import LATER_BATCH, Served


@pytest.fixture
def hours() -> list[float]:
    """A clock that a test moves on: ``hours[0]`` is the time of day in seconds."""
    return [1_800_000_000.0]


@pytest.fixture
def following(copied: Served, hours: list[float]) -> Iterator[Watch]:
    watch = Watch(copied.home, copied.study, clock=lambda: hours[0])
    watch.look()
    assert watch.seen.failed == ""
    yield watch
    watch.stop()


def version(watch: Watch) -> int | None:
    return watch.seen.champion.version if watch.seen.champion else None


@contextmanager
def held_by_another_process(home: Home) -> Iterator[None]:
    """Keep the warehouse open for writing in another process, as a run does that scores a batch."""
    code = "import duckdb, sys; con = duckdb.connect(sys.argv[1]); print(1, flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(home.warehouse)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        yield
    finally:
        holder.communicate()


def test_an_empty_home_has_nobody_to_answer_and_is_left_as_it_is(tmp_path: Path, study: Study):
    home = Home(tmp_path / "home").create()
    watch = Watch(home, study)
    watch.look()
    assert (watch.seen.champion, watch.seen.doubt, watch.seen.failed) == (None, NO_CHAMPION, "")
    assert not (home.root / "mlflow.db").exists()
    assert not home.warehouse.exists()
    watch.stop()


def test_the_champion_is_loaded_and_the_newest_figures_are_read(watch: Watch, served: Served):
    seen = watch.seen
    assert seen.champion is not None
    assert (seen.champion.version, seen.doubt, seen.reloads) == (1, "", 1)
    assert seen.history is not None and seen.history.report is not None and seen.history.overview is not None
    ((verdict, drifted, auc),) = served.query(
        """SELECT verdict, drifted_columns, estimated_auc FROM drift_reports WHERE batch = ?
        ORDER BY reported_at DESC LIMIT 1""",
        LATER_BATCH,
    )
    report = seen.history.report.event
    assert (report.verdict, report.drifted_columns) == (verdict, drifted)
    assert report.estimated_auc == pytest.approx(auc, abs=1e-4)
    assert sum(seen.history.overview.event.batches_by_verdict().values()) == 2


def test_a_row_is_scored_in_one_thread(watch: Watch):
    assert watch.seen.champion is not None
    (boosting,) = [one for one in watch.seen.champion.model.blend.members if one.kind == "xgboost"]
    assert '"nthread":"1"' in boosting.booster.save_config()  # type: ignore[attr-defined]


def test_a_promotion_is_followed_and_a_request_under_way_keeps_its_version(copied: Served, following: Watch):
    before = following.seen.champion
    assert before is not None
    other = dataclasses.replace(before.model, rule=dataclasses.replace(before.model.rule, threshold=0.25))
    second = copied.register(other)
    following.look()
    assert version(following) == 1  # registered is not promoted
    copied.promote(second)
    following.look()
    after = following.seen.champion
    assert after is not None and after is not before
    assert (after.version, after.model.rule.threshold, following.seen.doubt) == (2, 0.25, "")
    assert (before.version, before.model.rule.threshold) == (1, 0.5)
    assert after.facts["figures"]["auc"]["value"] == 0.75
    copied.registry.set_alias(CHAMPION, 1)
    copied.tell(1)
    following.look()
    assert version(following) == 1


def test_the_ledger_decides_while_a_promotion_is_told_step_by_step(copied: Served, following: Watch):
    assert following.seen.champion is not None
    second = copied.register(following.seen.champion.model)
    copied.decide(second)
    following.look()
    assert version(following) == 1  # the alias follows in a moment
    copied.registry.set_alias(CHAMPION, second)
    following.look()
    assert (version(following), following.seen.doubt) == (2, "")
    copied.tell(second)
    following.look()
    assert (version(following), following.seen.doubt, following.seen.reloads) == (2, "", 2)


def test_an_alias_moved_by_hand_is_not_served_and_is_told(
    copied: Served, following: Watch, hours: list[float]
):
    assert following.seen.champion is not None
    second = copied.register(following.seen.champion.model)
    copied.registry.set_alias(CHAMPION, second)
    following.look()
    assert version(following) == 1
    assert "without a decision" in following.seen.doubt
    # Asked once: what the server sees does not keep opening the warehouse.
    with held_by_another_process(copied.home):
        following.look()
        assert "without a decision" in following.seen.doubt
        hours[0] += ASK_LEDGER_AGAIN_SECONDS
        following.look()
        assert version(following) == 1
        assert "the ledger, which decides, cannot be read now" in following.seen.doubt
    copied.registry.set_alias(CHAMPION, 1)
    following.look()
    assert following.seen.doubt == ""


def test_a_warehouse_that_a_run_holds_changes_nothing(copied: Served):
    with held_by_another_process(copied.home):
        watch = Watch(copied.home, copied.study)
        watch.look()
        assert (version(watch), watch.seen.doubt, watch.seen.failed) == (1, "", "")
        assert watch.seen.history is not None and watch.seen.history.report is not None
    watch.stop()


def test_a_version_that_cannot_be_loaded_leaves_the_one_before_and_is_tried_again(
    copied: Served, following: Watch, hours: list[float]
):
    assert following.seen.champion is not None
    second = copied.register(following.seen.champion.model)
    registry = copied.registry
    rule = registry.model_folder(registry.version(second)) / "model.json"
    sound = rule.read_text()
    rule.write_text(sound.replace("0.5", "0.1"))
    copied.promote(second)
    following.look()
    assert version(following) == 1
    assert "version 2 should serve but cannot be loaded, version 1 stays in use" in following.seen.doubt
    assert "was changed or truncated" in following.seen.doubt
    rule.write_text(sound)
    hours[0] += LOAD_AGAIN_SECONDS
    following.look()
    assert (version(following), following.seen.doubt) == (2, "")


def test_a_history_that_cannot_be_read_is_told_and_read_again(copied: Served, following: Watch):
    index = next((copied.home.dagster / "history").rglob("index.db"))
    aside = index.with_name("aside")
    for path in index.parent.glob("index.db*"):
        path.rename(path.with_name(path.name.replace("index.db", "aside")))
    index.write_bytes(b"this is no database" * 1000)
    following.look()
    assert version(following) == 1
    assert following.seen.failed
    index.unlink()
    for path in aside.parent.glob("aside*"):
        path.rename(path.with_name(path.name.replace("aside", "index.db")))
    following.look()
    assert (version(following), following.seen.failed) == (1, "")


def test_a_home_made_anew_under_the_server_is_not_served_as_if_it_were_the_old_one(
    copied: Served, following: Watch
):
    store = copied.home.root / "mlflow.db"
    again = store.with_name("copy")
    again.write_bytes(store.read_bytes())
    again.replace(store)
    following.look()
    assert (following.seen.champion, following.seen.replaced) == (None, True)
    assert "restart `poleng serve`" in following.seen.doubt
    store.unlink()
    following.look()
    assert following.seen.replaced
    assert not store.exists()


def test_a_history_without_a_champion_has_nobody_to_answer(copied: Served, following: Watch):
    import dagster as dg

    with open_instance(copied.home) as instance:
        instance.wipe_assets([dg.AssetKey("champion")])
    following.look()
    assert (following.seen.champion, following.seen.doubt) == (None, NO_CHAMPION)


def test_figures_of_batches_are_read_now_and_then(copied: Served, following: Watch, hours: list[float]):
    import dagster as dg

    with open_instance(copied.home) as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization("drift_report", partition="later", metadata={"verdict": "clear"})
        )
    following.look()
    assert following.seen.history is not None and following.seen.history.report is not None
    assert following.seen.history.report.partition != "later"
    hours[0] += HISTORY_SECONDS
    following.look()
    assert following.seen.history.report.event == DriftReport(verdict="clear")
