"""Reading, computing and writing: the file is let go between, and nothing is written on what has changed."""

from __future__ import annotations

from dataclasses import replace

import duckdb
import pytest

from poleng_assets.warehouse import connection
from poleng_assets.warehouse.connection import Warehouse, WarehouseChanged
from poleng_assets.warehouse.decisions import record_decision

Connection = duckdb.DuckDBPyConnection


def reasons(con: Connection) -> list[str]:
    return [reason for (reason,) in con.execute("SELECT reason FROM decisions ORDER BY ALL").fetchall()]


def decide(con: Connection, reason: str) -> None:
    record_decision(con, "hold", reason, evidence={})


def read_by_all(warehouse: Warehouse) -> list[str]:
    with warehouse.read() as con:
        return reasons(con)


@pytest.fixture
def made(warehouse: Warehouse) -> Warehouse:
    with warehouse.connect() as con:
        decide(con, "first")
    return warehouse


def test_others_may_write_while_something_is_computed(made: Warehouse):
    def compute(known: list[str]) -> str:
        with made.connect() as con:
            con.execute("DELETE FROM refused_files")
        return f"{len(known)} known"

    assert made.read_compute_write(reasons, reasons, compute, decide) == "1 known"
    assert read_by_all(made) == ["1 known", "first"]


def test_what_is_computed_from_what_changed_meanwhile_is_computed_again(made: Warehouse):
    computed: list[list[str]] = []

    def compute(known: list[str]) -> str:
        computed.append(known)
        if len(computed) == 1:
            with made.connect() as con:
                decide(con, "second")
        return f"{len(known)} known"

    assert made.read_compute_write(reasons, reasons, compute, decide) == "2 known"
    assert computed == [["first"], ["first", "second"]]
    assert read_by_all(made) == ["2 known", "first", "second"]


def test_what_others_never_cease_to_change_is_given_up_and_nothing_is_written(made: Warehouse):
    computed: list[str] = []

    def compute(known: list[str]) -> str:
        computed.append("again")
        with made.connect() as con:
            decide(con, f"change {len(computed)}")
        return "never written"

    with pytest.raises(WarehouseChanged, match="nothing was written"):
        made.read_compute_write(reasons, reasons, compute, decide)
    assert len(computed) == connection.ATTEMPTS
    assert "never written" not in read_by_all(made)


def test_a_write_that_fails_leaves_nothing_of_it(made: Warehouse):
    def write(con: Connection, reason: str) -> None:
        decide(con, reason)
        raise RuntimeError("no space left")

    with pytest.raises(RuntimeError, match="no space left"):
        made.read_compute_write(reasons, reasons, lambda known: "half", write)
    assert read_by_all(made) == ["first"]


def test_who_reads_is_looked_at_like_who_writes(made: Warehouse):
    def refuse(con: Connection) -> None:
        raise RuntimeError("an older copy")

    guarded = replace(made, guard=refuse)
    with pytest.raises(RuntimeError, match="an older copy"), guarded.read():
        pass


def test_who_waits_for_this_very_process_is_patient_too(made: Warehouse):
    """DuckDB refuses to open a file for reading that the same process has open for writing."""
    with made.connect(), pytest.raises(connection.WarehouseBusy), made.read():
        pass
    assert read_by_all(made) == ["first"]
