"""The warehouse: one file, one writer, and a clear word when somebody else holds it."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from poleng_assets.defs.instance import open_instance
from poleng_assets.defs.resources.warehouse import RUN_PATIENCE_SECONDS, WAREHOUSE_POOL, warehouse_resource
from poleng_assets.storage.home import Home
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse, WarehouseBusy, WarehouseUnusable
from poleng_assets.warehouse.writes import transaction
from poleng_assets_tests.faults.disks import mounted

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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    with mounted(tmp_path / "disk", megabytes=8) as disk:
        yield disk


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
    assert "for more than 1 s" in str(caught.value)


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


class SteadyClock:
    """Time that passes while somebody sleeps, and not while a machine is busy."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def _steady_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the warehouse waits by a clock of its own."""
    monkeypatch.setattr("poleng_assets.warehouse.connection.time", SteadyClock())


@pytest.mark.usefixtures("_steady_time")
def test_whoever_waits_says_for_whom_and_how_long(
    warehouse: Warehouse, hold: Callable[[Path], Holder], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("poleng_assets.warehouse.connection.SAY_EVERY_SECONDS", 1.0)
    holder = hold(warehouse.path)
    said: list[str] = []
    with pytest.raises(WarehouseBusy), replace(warehouse, patience_seconds=3.5, say=said.append).connect():
        pass
    assert len(said) == 3
    assert all(f"(PID {holder.pid})" in words and str(warehouse.path) in words for words in said)
    assert " for 1 s." in said[0]
    assert " for 2 s." in said[1]
    assert "gives up after 4 s" in said[0]


def test_two_who_meet_for_a_moment_say_nothing(warehouse: Warehouse, hold: Callable[[Path], Holder]):
    holder = hold(warehouse.path)
    said: list[str] = []
    timer = threading.Timer(0.5, let_go, [holder])
    timer.start()
    with replace(warehouse, patience_seconds=20.0, say=said.append).connect() as con:
        assert count_decisions(con) == 0
    timer.join()
    assert said == []


def test_a_run_waits_a_quarter_of_an_hour_a_command_a_minute(home: Home, study: Study):
    assert RUN_PATIENCE_SECONDS == 900.0
    assert Warehouse(home.warehouse, study).patience_seconds == 60.0


@pytest.mark.usefixtures("_steady_time")
def test_a_run_that_waits_says_so_in_its_log_and_frees_its_place(
    home: Home, hold: Callable[[Path], Holder], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("poleng_assets.warehouse.connection.SAY_EVERY_SECONDS", 1.0)
    holder = hold(home.warehouse)

    @dg.op(pool=WAREHOUSE_POOL)
    def look(warehouse: dg.ResourceParam[Warehouse]) -> None:
        with warehouse.connect() as con:
            assert count_decisions(con) == 0

    @dg.job
    def looking():
        look()

    resource = warehouse_resource(home, patience_seconds=3.0)
    with open_instance(home) as instance:

        def run() -> dg.ExecuteInProcessResult:
            return looking.execute_in_process(
                resources={"warehouse": resource}, instance=instance, raise_on_error=False
            )

        busy = run()
        assert not busy.success
        logged = [entry.user_message for entry in instance.all_logs(busy.run_id)]
        assert any(f"(PID {holder.pid}) for 1 s." in words for words in logged)
        assert instance.event_log_storage.get_concurrency_info(WAREHOUSE_POOL).active_slot_count == 0
        let_go(holder)
        assert run().success


# Not to be used


def small_warehouse(warehouse: Warehouse) -> bytes:
    with warehouse.connect() as con:
        decide(con)
    return warehouse.path.read_bytes()


def of_another_duckdb(content: bytes, version: int) -> bytes:
    """Change the version in the first block, and its checksum: https://duckdb.org/docs/stable/internals/storage"""
    block = bytearray(content[:4096])
    block[12:20] = struct.pack("<Q", version)
    checksum = 5381
    for (word,) in struct.iter_unpack("<Q", block[8:]):
        checksum ^= word * 0xBF58476D1CE4E5B9 % 2**64
    block[:8] = struct.pack("<Q", checksum)
    return bytes(block) + content[4096:]


@pytest.mark.parametrize("way", ["connect", "read"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda content: of_another_duckdb(content, 2_000), "written by another version of DuckDB"),
        (lambda content: of_another_duckdb(content, 1), "written by another version of DuckDB"),
        (lambda content: b"this is no database " * 1_000, "damaged or not a DuckDB file"),
        (lambda content: b"", "damaged or not a DuckDB file"),
        (lambda content: content[: len(content) // 2], "damaged or not a DuckDB file"),
        (lambda content: content[:13_000] + b"?" + content[13_001:], "damaged or not a DuckDB file"),
    ],
    ids=["newer", "older", "no database", "empty", "cut in half", "one byte changed"],
)
def test_a_file_that_cannot_be_used_is_named_with_a_way_out_and_left_alone(
    warehouse: Warehouse, spoil: Callable[[bytes], bytes], words: str, way: str
):
    spoilt = spoil(small_warehouse(warehouse))
    warehouse.path.write_bytes(spoilt)
    with pytest.raises(WarehouseUnusable) as caught, getattr(warehouse, way)():
        pass
    assert words in str(caught.value)
    assert str(warehouse.path) in str(caught.value)
    assert "poleng restore" in str(caught.value) or "Install the release" in str(caught.value)
    assert warehouse.path.read_bytes() == spoilt


@pytest.mark.timed
def test_a_damaged_file_is_no_busy_one_whatever_its_folder_is_called(tmp_path: Path, warehouse: Warehouse):
    damaged = tmp_path / "No space left on device, could not set lock" / "warehouse.duckdb"
    damaged.parent.mkdir()
    damaged.write_text("this is no database " * 1_000)
    started = time.monotonic()
    with pytest.raises(WarehouseUnusable, match="is damaged"), replace(warehouse, path=damaged).connect():
        pass
    assert time.monotonic() - started < 0.9


def test_a_warehouse_whose_folder_is_gone_says_so(tmp_path: Path, warehouse: Warehouse):
    nowhere = replace(warehouse, path=tmp_path / "gone" / "warehouse.duckdb")
    with pytest.raises(WarehouseUnusable, match="Check that its folder exists"), nowhere.connect():
        pass


def test_a_fault_of_a_query_is_not_blamed_on_the_file(warehouse: Warehouse):
    with pytest.raises(duckdb.CatalogException, match="nobody"), warehouse.connect() as con:
        con.execute("FROM nobody")


def test_a_disk_that_fills_up_is_named_and_nothing_is_half_written(small_disk: Path, warehouse: Warehouse):
    on_it = replace(warehouse, path=small_disk / "warehouse.duckdb")
    with on_it.connect() as con:
        decide(con)
    many = """INSERT INTO decisions (decided_at, kind, reason, evidence)
        SELECT now(), 'hold', md5(range::VARCHAR), '{}' FROM range(2_000_000)"""
    with (
        pytest.raises(WarehouseUnusable, match="the disk is full") as caught,
        on_it.connect() as con,
        transaction(con),
    ):
        con.execute(many)
    assert str(on_it.path) in str(caught.value)
    with on_it.connect() as con:
        assert count_decisions(con) == 1
        decide(con)
        assert count_decisions(con) == 2


def test_a_disk_without_writing_can_be_read_and_is_named_for_writing(small_disk: Path, warehouse: Warehouse):
    on_it = replace(warehouse, path=small_disk / "warehouse.duckdb")
    small_warehouse(on_it)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with on_it.read() as con:
        assert count_decisions(con) == 1
    with pytest.raises(WarehouseUnusable, match="is not mounted read-only"), on_it.connect():
        pass
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    with on_it.connect() as con:
        assert count_decisions(con) == 1


# A process that died between a commit and the end of its connection leaves a log of last changes

DIES = """
import os, sys, duckdb
con = duckdb.connect(sys.argv[1])
for place in range(20):
    con.execute("INSERT INTO decisions (decided_at, kind, reason, evidence) SELECT now(), 'hold', '', '{}'")
os.kill(os.getpid(), 9)
"""


def log_of_a_killed_process(warehouse: Warehouse) -> Path:
    """Leave a warehouse with twenty decisions that stand in its log alone."""
    with warehouse.connect():
        pass
    subprocess.run([sys.executable, "-c", DIES, str(warehouse.path)], check=False)
    return Path(f"{warehouse.path}.wal")


def test_what_a_killed_process_had_committed_is_there(warehouse: Warehouse):
    assert log_of_a_killed_process(warehouse).stat().st_size > 0
    with warehouse.connect() as con:
        assert count_decisions(con) == 20


def test_a_log_whose_last_entry_was_not_written_whole_keeps_what_came_before(warehouse: Warehouse):
    log = log_of_a_killed_process(warehouse)
    log.write_bytes(log.read_bytes()[:-5])
    with warehouse.connect() as con:
        assert count_decisions(con) == 19
        decide(con)
    with warehouse.read() as con:
        assert count_decisions(con) == 20


def zeros_from_the_middle_on(content: bytes) -> bytes:
    """Zero what follows, from within an entry on: zeros that begin with one are taken for the end."""
    middle = content.index(b"hold", len(content) // 2)
    return content[:middle] + bytes(len(content) - middle)


@pytest.mark.parametrize("way", ["connect", "read"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:200] + bytes([content[200] ^ 255]) + content[201:],
        zeros_from_the_middle_on,
    ],
    ids=["a changed byte", "zeros from the middle on"],
)
def test_a_damaged_log_is_named_and_both_files_are_left_alone(
    warehouse: Warehouse, spoil: Callable[[bytes], bytes], way: str
):
    log = log_of_a_killed_process(warehouse)
    log.write_bytes(spoil(log.read_bytes()))
    before = warehouse.path.read_bytes(), log.read_bytes()
    with pytest.raises(WarehouseUnusable) as caught, getattr(warehouse, way)():
        pass
    assert "its log of last changes (the file beside it, ending in .wal) is damaged" in str(caught.value)
    assert "poleng restore" in str(caught.value)
    assert (warehouse.path.read_bytes(), log.read_bytes()) == before


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


def test_what_a_killed_process_had_put_beside_the_file_is_removed(warehouse: Warehouse):
    with warehouse.connect():
        pass
    left = Path(f"{warehouse.path}.tmp")
    left.mkdir()
    (left / "duckdb_temp_storage-0.tmp").write_text("answers of people")
    with warehouse.connect() as con:
        assert not left.exists()
        assert con.execute("SELECT count(*) FROM predictions").fetchall() == [(0,)]


def test_a_sort_larger_than_the_memory_limit_ends_and_leaves_nothing(warehouse: Warehouse):
    with warehouse.connect() as con:
        con.execute("SET memory_limit = '40MB'")
        con.execute("SET threads = 1")
        found = con.execute(
            """SELECT count(*), max(text) FROM (
                SELECT md5(range::VARCHAR) AS text FROM range(2000000) ORDER BY text LIMIT 1900000)"""
        ).fetchall()
    assert found[0][0] == 1_900_000
    assert not list(warehouse.path.parent.glob(f"{warehouse.path.name}.tmp/*"))


def test_a_run_keeps_its_history_open_until_its_end(home: Home):
    logs = home.dagster / "history" / "runs"

    @dg.asset(required_resource_keys={"warehouse"})
    def looks() -> list[str]:
        return sorted(path.name.removesuffix("-wal") for path in logs.glob("*-wal"))

    with open_instance(home) as instance:
        warehouse = warehouse_resource(home)
        result = dg.materialize([looks], instance=instance, resources={"warehouse": warehouse})
        assert result.output_for_node("looks") == sorted([f"{result.run_id}.db", "index.db"])
        assert not list(logs.glob("*-wal"))
