"""What the command line says when the machine fails beneath it."""

from __future__ import annotations

import errno
import io
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from poleng_assets.cli.console import PlainConsole, explain_fault, styled
from poleng_assets.cli.run_lines import show_run
from poleng_assets.headless.runner import RunReport
from poleng_assets.models.artifacts import ModelUnusable
from poleng_assets.models.store import RegistryUnusable
from poleng_assets.warehouse.connection import WarehouseBusy, WarehouseUnusable


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "list.csv"), "The disk is full. Free some space"),
        (sqlite3.OperationalError("database or disk is full"), "The disk is full. Free some space"),
        (OSError(errno.EROFS, "Read-only file system", "list.csv"), "The home folder is not writable"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "is not writable"),
        (sqlite3.OperationalError("database is locked"), "Close the program that uses it"),
        (sqlite3.DatabaseError("file is not a database"), "poleng restore"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_fault_of_the_machine_is_told_with_what_to_do(error: Exception, words: str):
    told = explain_fault(error)
    assert words in told
    assert str(error) in told


@pytest.mark.parametrize("kind", [WarehouseBusy, WarehouseUnusable, RegistryUnusable, ModelUnusable])
def test_what_says_itself_what_to_do_is_told_as_it_is(kind: type[Exception]):
    assert explain_fault(kind("close the shell")) == "close the shell"


@pytest.mark.parametrize("error", [ValueError("no space for doubt"), KeyError("disk"), RuntimeError("")])
def test_a_fault_of_the_code_is_not_blamed_on_the_machine(error: Exception):
    assert explain_fault(error) == ""


def test_the_words_name_the_file_that_could_not_be_written(tmp_path: Path):
    told = explain_fault(OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "list.csv")))
    assert str(tmp_path / "list.csv") in told


def printed(*parts: Any, **how: Any) -> str:
    console = PlainConsole(file=io.StringIO(), width=80, color_system=None, soft_wrap=True)
    console.print(*parts, **how)
    return console.file.getvalue()  # type: ignore[attr-defined]


HOSTILE = "[/refused] [bold]x[/bold] :smile: \x1b[31m\u202e\udcff \\[a]"
SHOWN = "[/refused] [bold]x[/bold] :smile: \\x1b[31m\\u202e\\udcff \\[a]"


def test_what_is_printed_is_never_markup():
    assert printed(f"Waiting: {HOSTILE}") == f"Waiting: {SHOWN}\n"
    assert printed(styled("red", HOSTILE), HOSTILE) == f"{SHOWN} {SHOWN}\n"
    assert printed(styled("red", "a"), ": b", sep="") == "a: b\n"


def test_cells_heads_and_titles_of_tables_are_never_markup():
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    lines = printed(table).splitlines()
    assert sum(SHOWN in line for line in lines) == 3
    assert len({len(line) for line in lines[1:]}) == 1


def test_a_run_that_failed_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch):
    console = PlainConsole(file=io.StringIO(), width=200, color_system=None, soft_wrap=True)
    monkeypatch.setattr("poleng_assets.cli.run_lines.console", console)
    show_run(RunReport("ingest", "march", 1.0, False, f"refused: {HOSTILE}", {}))
    assert console.file.getvalue() == f"  ingest march failed: refused: {SHOWN}\n"  # type: ignore[attr-defined]
