"""Names of files: ids, copies that are not whole, litter."""

from __future__ import annotations

import pytest

from poleng_assets.storage.file_names import (
    clash_problem,
    is_system_file,
    is_temporary,
    may_be_meant,
    name_problem,
)


@pytest.mark.parametrize(
    "name",
    [
        *("a.csv.part", "a.csv.part3", "a.csv.filepart", "a.csv.FilePart", "a.csv.tmp", "a.parquet.partial"),
        *("Unconfirmed 1234.crdownload", "a.csv.upload", "a.csv.incomplete", "a.csv._COPYING_", "a.csv.swp"),
        *("~$a.xlsx", "#a.csv#", "a.csv.9f8E7d6c", "a.parquet.00000000", "_temporary", "a.csv.lock"),
    ],
)
def test_what_programs_have_not_finished_is_told_by_its_name(name: str):
    assert is_temporary(name)
    assert not is_system_file(name)


@pytest.mark.parametrize(
    "name", ["march.csv", "part.csv", "a.part.csv", "tmp.parquet", "a.csv.bz2", "lock.csv"]
)
def test_a_file_of_people_is_neither_unfinished_nor_litter(name: str):
    assert not is_temporary(name)
    assert not is_system_file(name)
    assert name_problem(name) == ""


@pytest.mark.parametrize(
    "name", ["Thumbs.db", "THUMBS.DB", "desktop.ini", "lost+found", "$RECYCLE.BIN", "@eaDir", "a.csv~"]
)
def test_litter_of_systems_and_editors_is_told_by_its_name(name: str):
    assert is_system_file(name)


def test_of_hidden_files_only_those_that_look_like_data_are_worth_a_word():
    assert [
        name for name in (".a.csv", "._a.csv", ".~a.csv", ".DS_Store", ".a.csv.x1Y2z3") if may_be_meant(name)
    ] == [".a.csv"]


@pytest.mark.parametrize("name", ["com0.csv", "LPT0.parquet", "Prn.2024.csv", "nul.csv.gz", "AUX.csv"])
def test_devices_of_windows_are_told_whatever_follows_their_names(name: str):
    assert "is a device name on Windows" in name_problem(name)


@pytest.mark.parametrize(
    "name", ["models.csv", "overview.html.csv", "overview.csv", "batches.csv", "con-1.csv"]
)
def test_names_of_pages_and_names_like_devices_are_plain_names(name: str):
    assert name_problem(name) == ""


def test_names_that_differ_by_capitals_only_clash():
    assert "'March' differs from the existing 'march'" in clash_problem("March", ["april", "march"])
    assert clash_problem("march", ["april", "march"]) == ""
    assert clash_problem("marches", ["march"]) == ""


def test_where_two_such_names_stand_already_each_goes_on():
    assert clash_problem("March", ["march", "March"]) == clash_problem("march", ["march", "March"]) == ""
