"""The warehouse: one file, one writer, and a clear word when somebody else holds it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from poleng_assets.resources.warehouse import Warehouse, WarehouseBusy

HOLD = """
import sys, duckdb
con = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""
Holder = subprocess.Popen[str]


def let_go(holder: Holder) -> None:
    with suppress(BrokenPipeError):
        holder.communicate(timeout=20)


@pytest.fixture
def hold() -> Iterator[Callable[[Path], Holder]]:
    """Start another Python that opens a DuckDB file and keeps it until it is let go."""
    holders = []

    def start(path: Path) -> Holder:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        holders.append(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        return holder

    yield start
    for holder in holders:
        if holder.poll() is None:
            let_go(holder)


def count_decisions(con: duckdb.DuckDBPyConnection) -> int:
    return con.execute("SELECT count(*) FROM decisions").fetchall()[0][0]


def decide(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("INSERT INTO decisions (decided_at, kind, reason, evidence) VALUES (now(), 'hold', '', '{}')")


def test_the_tables_are_there_when_a_connection_is_handed_out(warehouse: Warehouse):
    with warehouse.connect() as con:
        assert count_decisions(con) == 0


def test_what_is_written_is_there_the_next_time(warehouse: Warehouse):
    with warehouse.connect() as con:
        decide(con)
    with warehouse.connect() as con:
        assert count_decisions(con) == 1


def test_the_file_is_let_go_afterwards(warehouse: Warehouse, hold: Callable[[Path], Holder]):
    with warehouse.connect():
        pass
    assert hold(warehouse.path).poll() is None


def test_the_file_is_let_go_when_the_work_fails(warehouse: Warehouse, hold: Callable[[Path], Holder]):
    with pytest.raises(ZeroDivisionError), warehouse.connect():
        _ = 1 / 0
    assert hold(warehouse.path).poll() is None


def test_a_closed_connection_cannot_be_used(warehouse: Warehouse):
    with warehouse.connect() as con:
        pass
    with pytest.raises(duckdb.ConnectionException):
        con.execute("SELECT 1")


# Held by another process


@pytest.mark.parametrize("way", ["connect", "read"])
def test_a_warehouse_that_is_held_is_reported_busy_in_bounded_time(
    warehouse: Warehouse, hold: Callable[[Path], Holder], way: str
):
    holder = hold(warehouse.path)
    started = time.monotonic()
    with pytest.raises(WarehouseBusy) as caught, getattr(warehouse, way)():
        pass
    waited = time.monotonic() - started
    assert 1.0 <= waited < 3.0
    assert f"(PID {holder.pid})" in str(caught.value)
    assert str(warehouse.path) in str(caught.value)
    assert "not let go within 1 s" in str(caught.value)


def test_a_warehouse_that_was_let_go_can_be_opened(warehouse: Warehouse, hold: Callable[[Path], Holder]):
    holder = hold(warehouse.path)
    with pytest.raises(WarehouseBusy), warehouse.connect():
        pass
    let_go(holder)
    with warehouse.connect() as con:
        decide(con)
        assert count_decisions(con) == 1


def test_whoever_waits_gets_in_as_soon_as_it_is_let_go(warehouse: Warehouse, hold: Callable[[Path], Holder]):
    holder = hold(warehouse.path)
    patient = replace(warehouse, patience_seconds=20.0)
    timer = threading.Timer(0.6, let_go, [holder])
    timer.start()
    started = time.monotonic()
    with patient.connect() as con:
        waited = time.monotonic() - started
        decide(con)
    timer.join()
    assert 0.5 < waited < 10


def test_a_killed_holder_does_not_hold_for_ever(warehouse: Warehouse, hold: Callable[[Path], Holder]):
    holder = hold(warehouse.path)
    holder.kill()
    holder.wait(timeout=20)
    with warehouse.connect() as con:
        assert count_decisions(con) == 0


def test_a_damaged_file_is_no_busy_one_whatever_its_folder_is_called(tmp_path: Path, warehouse: Warehouse):
    damaged = tmp_path / "locksmiths" / "warehouse.duckdb"
    damaged.parent.mkdir()
    damaged.write_text("this is no database " * 1_000)
    started = time.monotonic()
    with (
        pytest.raises(duckdb.IOException, match="not a valid DuckDB"),
        replace(warehouse, path=damaged).connect(),
    ):
        pass
    assert time.monotonic() - started < 0.9


# Reading only


def test_reading_sees_what_was_written(warehouse: Warehouse):
    with warehouse.connect() as con:
        decide(con)
    with warehouse.read() as con:
        assert count_decisions(con) == 1


def test_reading_cannot_write(warehouse: Warehouse):
    with warehouse.connect():
        pass
    with warehouse.read() as con, pytest.raises(duckdb.InvalidInputException, match="read-only"):
        decide(con)


def test_reading_does_not_make_a_warehouse(warehouse: Warehouse):
    with pytest.raises(FileNotFoundError), warehouse.read():
        pass
    assert not warehouse.path.exists()
