"""What the command line says when the machine fails beneath it."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest

from poleng_assets.core.warehouse import WarehouseBusy, WarehouseUnusable
from poleng_assets.resources.registry import ModelUnusable, RegistryUnusable
from poleng_assets.terminal import fault_in_words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "list.csv"), "The disk is full. Free some space"),
        (sqlite3.OperationalError("database or disk is full"), "The disk is full. Free some space"),
        (OSError(errno.EROFS, "Read-only file system", "list.csv"), "The home folder may not be written"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "may not be written"),
        (sqlite3.OperationalError("database is locked"), "Close what has it open"),
        (sqlite3.DatabaseError("file is not a database"), "poleng restore"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_fault_of_the_machine_is_told_with_what_to_do(error: Exception, words: str):
    told = fault_in_words(error)
    assert words in told
    assert str(error) in told


@pytest.mark.parametrize("kind", [WarehouseBusy, WarehouseUnusable, RegistryUnusable, ModelUnusable])
def test_what_says_itself_what_to_do_is_told_as_it_is(kind: type[Exception]):
    assert fault_in_words(kind("close the shell")) == "close the shell"


@pytest.mark.parametrize("error", [ValueError("no space for doubt"), KeyError("disk"), RuntimeError("")])
def test_a_fault_of_the_code_is_not_blamed_on_the_machine(error: Exception):
    assert fault_in_words(error) == ""


def test_the_words_name_the_file_that_could_not_be_written(tmp_path: Path):
    told = fault_in_words(OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "list.csv")))
    assert str(tmp_path / "list.csv") in told
