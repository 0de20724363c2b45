"""A person forgotten in the workbooks of contact lists: those that were made, kept with notes, or torn."""

from __future__ import annotations

import shutil
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest

from poleng_assets.core.contacts.contact_list import as_csv, contact_list
from poleng_assets.core.contacts.workbook import (
    ABOUT_SHEET,
    LIST_SHEET,
    AboutList,
    about_list,
    first_cells,
    write_workbook,
)
from poleng_assets.models.registry import Registry
from poleng_assets.operations.erase_person import ErasureReport, erase_person, locate_person
from poleng_assets.storage.files import in_place_of, write_atomically
from poleng_assets.storage.home import Home
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.writes import insert
from poleng_assets_tests.storage.test_files import mode_of

LONG, SHORT, HOSTILE, MARKED = "person-12", "7", "=1+cmd-12345", 'a&b"<c>_x0041_'
MADE = datetime(2026, 10, 4, 14, 5, tzinfo=UTC)


@pytest.fixture
def book(home: Home, study: Study, warehouse: Warehouse) -> Path:
    """The workbook of a list of six people, with its CSV beside it and its rows in the warehouse."""
    ids = [LONG, SHORT, HOSTILE, MARKED, "person-123", "77"]
    scored = pd.DataFrame({study.id: ids, "score": 0.7, "contact": True, "reasons": "Sex: Female"})
    scored[list(study.contact_list)] = None
    listed = contact_list(scored, study)
    rows = scored[[study.id, "score"]].assign(batch="march", model_version=1)
    with warehouse.connect() as con:
        insert(con, "contact_lists", rows.assign(created_at=MADE, remark="", reasons=""))
        insert(con, "predictions", rows.assign(contact=True, scored_at=MADE, audit=False))
    path = home.contact_lists / "march.xlsx"
    write_atomically(path.with_suffix(".csv"), as_csv(listed))
    with in_place_of(path) as part:
        write_workbook(part, listed, study, AboutList("march", MADE, 1, asked=6))
    return path


def done(home: Home, study: Study, warehouse: Warehouse, who: str) -> ErasureReport:
    return erase_person(home, study, warehouse, Registry(home, study), who)


def people_in(path: Path) -> set[str]:
    return {str(cell) for cell in first_cells(path)} - {"Person (id)"}


def inside(path: Path) -> bytes:
    with zipfile.ZipFile(path) as packed:
        return b"".join(map(packed.read, packed.namelist()))


@pytest.mark.parametrize("who", [LONG, SHORT, HOSTILE, MARKED])
def test_the_workbook_is_made_anew_without_the_person(
    book: Path, home: Home, study: Study, warehouse: Warehouse, who: str
):
    before = people_in(book)
    assert locate_person(home, study, warehouse, who)["contact_lists/march.xlsx"] == 1

    result = done(home, study, warehouse, who)

    assert result.proof.traces == ()
    assert [(one.path, one.rows, one.removed) for one in result.files] == [
        (book.with_suffix(".csv"), 1, False),
        (book, 1, False),
    ]
    assert people_in(book) == before - {who}
    assert mode_of(book) == 0o600
    about = openpyxl.load_workbook(book)[ABOUT_SHEET]
    words = {row[0]: row[1] for row in about.iter_rows(min_row=3, values_only=True)}
    assert words["People"].startswith("5 people answered; 5 of them (100%) are on the list.")
    assert words["Made on"] == "4 October 2026, 14:05 UTC"


def test_no_byte_of_the_person_is_left_in_it(book: Path, home: Home, study: Study, warehouse: Warehouse):
    assert f">{LONG}<".encode() in inside(book)
    done(home, study, warehouse, LONG)
    assert f">{LONG}<".encode() not in inside(book)
    assert b">person-123<" in inside(book)


def test_who_stands_in_no_list_leaves_every_byte_of_it(
    book: Path, home: Home, study: Study, warehouse: Warehouse
):
    before = book.read_bytes()
    assert not done(home, study, warehouse, "person-1").any
    assert not done(home, study, warehouse, "1").any
    assert book.read_bytes() == before


def test_one_that_was_kept_with_notes_is_made_anew(
    book: Path, home: Home, study: Study, warehouse: Warehouse
):
    workbook = openpyxl.load_workbook(book)
    workbook[LIST_SHEET]["K3"] = f"call {LONG} again"
    workbook[LIST_SHEET].delete_rows(2)
    workbook.save(book)
    result = done(home, study, warehouse, LONG)
    assert result.proof.traces == ()
    assert LONG not in people_in(book)
    assert openpyxl.load_workbook(book)[LIST_SHEET]["K3"].value is None


@pytest.mark.parametrize("who", [LONG, SHORT])
def test_a_copy_that_somebody_put_there_is_removed_if_it_holds_the_person(
    book: Path, home: Home, study: Study, warehouse: Warehouse, who: str
):
    copy = book.with_name("my copy.xlsx")
    shutil.copy(book, copy)
    assert done(home, study, warehouse, "person-1").files == []
    result = done(home, study, warehouse, who)
    assert result.proof.traces == ()
    assert [one.path for one in result.files if one.removed] == [copy]
    assert not copy.exists()


def test_one_whose_list_was_changed_by_hand_is_removed(
    book: Path, home: Home, study: Study, warehouse: Warehouse
):
    table = book.with_suffix(".csv")
    table.write_text(table.read_text().replace('"prediction"', '"score"'))
    result = done(home, study, warehouse, LONG)
    assert result.proof.traces == ()
    assert not book.exists()
    assert LONG not in table.read_text().replace("person-123", "")


def test_one_that_is_torn_is_removed_if_it_may_hold_the_person(
    book: Path, home: Home, study: Study, warehouse: Warehouse
):
    book.write_bytes(f"PK {LONG}".encode())
    assert any("march.xlsx cannot be read" in note for note in done(home, study, warehouse, SHORT).notes)
    assert done(home, study, warehouse, LONG).proof.traces == ()
    assert not book.exists()


@pytest.mark.parametrize(
    "place",
    [
        "core.privacy.home_files.read_list",
        "core.privacy.home_files.in_place_of",
        "operations.erase_person.compact",
        "operations.erase_person.verify_erasure",
    ],
)
def test_killed_and_run_again_it_ends_the_same(
    book: Path, home: Home, study: Study, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, place: str
):
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"poleng_assets.{place}", killed)
        with pytest.raises(KeyboardInterrupt):
            done(home, study, warehouse, SHORT)
    assert done(home, study, warehouse, SHORT).proof.traces == ()
    assert people_in(book) == {LONG, HOSTILE, MARKED, "person-123", "77"}
    with warehouse.connect() as con:
        known = about_list(con, study, "march")
    assert known is not None
    assert known.asked == 5
