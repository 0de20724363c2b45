"""Dagster's history in a home: there whole, or not at all."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from poleng_assets.defs.instance import dagster_home, history_kept_open, open_instance
from poleng_assets.storage.home import Home

OPEN = """
import sys
from pathlib import Path
from poleng_assets.storage.home import Home
from poleng_assets.defs.instance import dagster_home, open_instance
print("begin", flush=True)
with open_instance(Home(Path(sys.argv[1]))):
    print("made", flush=True)
"""


def assert_it_works(home: Home) -> None:
    with open_instance(home) as instance:
        assert list(home.dagster.glob(".*")) == []
        instance.add_dynamic_partitions("batch", ["march"])
        assert instance.get_dynamic_partitions("batch") == ["march"]
        assert list(instance.get_runs()) == []
        assert instance.all_instigator_state() == []


def test_settings_name_the_folder_whatever_is_in_its_name(tmp_path: Path):
    home = Home(tmp_path / "a b #c: d'e\"f & ü 100%").create()
    assert_it_works(home)
    with open_instance(home) as instance:
        assert instance.root_directory == str(home.dagster)
        assert not instance.telemetry_enabled
    assert [path.name for path in tmp_path.iterdir()] == [home.root.name]


def test_a_history_is_made_whole_and_nothing_is_left_beside_it(home: Home):
    assert_it_works(home)
    assert str(home.dagster) in (home.dagster / "dagster.yaml").read_text()


@pytest.mark.parametrize("delay", [0.05, 0.15, 0.3])
def test_a_history_whose_making_was_killed_is_made_again(tmp_path: Path, delay: float):
    home = Home(tmp_path / "home").create()
    with subprocess.Popen(
        [sys.executable, "-c", OPEN, str(home.root)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
    assert_it_works(home)


def test_the_threads_of_a_process_make_the_history_once(home: Home):
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: dagster_home(home), range(4)))
    assert set(made) == {home.dagster}
    assert not list(home.dagster.glob(".history.*"))


def test_a_history_of_which_a_part_was_moved_in_is_finished(home: Home):
    with open_instance(home):
        pass
    (home.dagster / "history").rename(home.root / "aside")
    assert_it_works(home)


def test_a_history_that_is_kept_open_is_written_through_at_the_end_and_not_at_each_event(home: Home):
    log = home.dagster / "history" / "runs" / "index.db-wal"
    with open_instance(home) as instance:
        instance.add_dynamic_partitions("batch", ["march"])
        assert not log.exists()
        with history_kept_open(instance):
            instance.add_dynamic_partitions("batch", ["april"])
            assert log.stat().st_size > 0
        assert not log.exists()
        assert instance.get_dynamic_partitions("batch") == ["march", "april"]


def test_a_history_that_is_kept_open_locks_nobody_out(home: Home):
    with open_instance(home) as instance, history_kept_open(instance):
        instance.add_dynamic_partitions("batch", ["march"])
        with closing(sqlite3.connect(home.dagster / "history" / "runs" / "index.db", timeout=0)) as other:
            other.execute("DELETE FROM dynamic_partitions")
            other.commit()
            (busy, _, _) = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert not busy
            other.execute("VACUUM")
        assert instance.get_dynamic_partitions("batch") == []
