"""Rows of people in events of earlier releases are taken out once, and the events can still be read."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import dagster as dg

from poleng_assets.defs.instance import open_instance
from poleng_assets.storage.home import Home
from poleng_assets.warehouse.event_previews import PREVIEWS, erase_previews, erase_previews_once


def test_previews_are_erased_at_the_first_start_and_nothing_else_is(home: Home):
    preview = {PREVIEWS[0]: dg.MetadataValue.md("| prediction | Country |\n| 0.7312 | Germany |")}
    with open_instance(home) as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization("contact_list", partition="march", metadata={"contacts": 5, **preview})
        )
        instance.report_runless_asset_event(dg.AssetMaterialization("overview", metadata={"batches": 1}))
    assert holding(home, b"0.7312") != []
    (home.dagster / "previews_erased").unlink()
    with open_instance(home) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("contact_list"))
        other = instance.get_latest_materialization_event(dg.AssetKey("overview"))
    assert holding(home, b"0.7312") == []
    assert event is not None
    assert event.asset_materialization is not None
    assert set(event.asset_materialization.metadata) == {"contacts"}
    assert other is not None
    assert other.asset_materialization is not None
    assert other.asset_materialization.metadata["batches"].value == 1
    assert erase_previews(home.dagster) == 0


def test_a_history_that_was_cleaned_is_not_read_again(tmp_path: Path):
    (tmp_path / "history").mkdir()
    erase_previews_once(tmp_path)
    broken = tmp_path / "history" / "index.db"
    with closing(sqlite3.connect(broken)) as con:
        con.execute("CREATE TABLE event_logs (event TEXT)")
        con.execute("INSERT INTO event_logs VALUES ('first_five_without_ids, and no JSON')")
        con.commit()
    erase_previews_once(tmp_path)


def holding(home: Home, word: bytes) -> list[Path]:
    return [path for path in home.dagster.rglob("*") if path.is_file() and word in path.read_bytes()]
