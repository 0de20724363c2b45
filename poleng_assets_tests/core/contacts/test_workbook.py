"""The contact list as a workbook: read back by openpyxl and LibreOffice, as a contact centre would."""

from __future__ import annotations

import re
import shutil
import subprocess
import tracemalloc
import zipfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
from openpyxl.worksheet.worksheet import Worksheet

from poleng_assets.core.contacts.contact_list import as_csv, contact_list, read_list
from poleng_assets.core.contacts.workbook import (
    ABOUT_SHEET,
    LIST_SHEET,
    NOBODY,
    AboutList,
    about_list,
    first_cells,
    write_workbook,
)
from poleng_assets.core.data.spreadsheet_safety import unescape_formula
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.writes import insert
from poleng_assets_tests.conftest import with_policies

ABOUT = AboutList("march", datetime(2026, 10, 4, 14, 5, tzinfo=UTC), model_version=3, asked=12)
SOFFICE = shutil.which("soffice")


def listed_people(study: Study, ids: list[str], remark: str = "", **columns: Any) -> pd.DataFrame:
    """Return a contact list of as many people as there are ids, the strongest first."""
    rows: dict[str, Any] = {study.id: ids}
    rows |= {name: [None] * len(ids) for name in study.contact_list}
    rows |= {
        "score": [0.9 - number / (2 * len(ids)) for number in range(len(ids))],
        "contact": [True] * len(ids),
        "reasons": ["Employment: Student; Sex: Female"] * len(ids),
        **columns,
    }
    return contact_list(pd.DataFrame(rows).astype({"contact": bool}), study, remark)


def written(folder: Path, listed: pd.DataFrame, study: Study, **options: Any) -> openpyxl.Workbook:
    write_workbook(folder / "march.xlsx", listed, study, options.pop("about", ABOUT), **options)
    return openpyxl.load_workbook(folder / "march.xlsx")


def cells(sheet: Worksheet) -> list[list[Any]]:
    return [list(row) for row in sheet.iter_rows(min_row=2, values_only=True)]


def about_in(workbook: openpyxl.Workbook) -> dict[str, str]:
    return {row[0]: row[1] for row in workbook[ABOUT_SHEET].iter_rows(min_row=3, values_only=True)}


@pytest.fixture
def listed(study: Study) -> pd.DataFrame:
    return listed_people(
        study,
        ["a-1", "b-2", "c-3"],
        remark="take the order with caution",
        country=["276", None, "999"],
        sex=["1", "2", "1"],
        education=[1, 4, 9],
        citizenship=["1", "2", "1"],
        score=[0.91234567, 0.75, 0.5],
    )


def test_it_says_what_the_csv_says(tmp_path: Path, study: Study, listed: pd.DataFrame):
    rows = cells(written(tmp_path, listed, study)[LIST_SHEET])
    for row, meant in zip(rows, listed.itertuples(index=False), strict=True):
        told = [cell.replace("\n", "; ") if isinstance(cell, str) else cell or "" for cell in row]
        assert told[:-2] == list(meant)
        assert row[-2:] == ["march", datetime(2026, 10, 4)]


def test_the_header_is_words_of_the_study_and_no_names_of_columns(
    tmp_path: Path, study: Study, listed: pd.DataFrame
):
    header = [cell.value for cell in written(tmp_path, listed, study)[LIST_SHEET][1]]
    assert header == [
        "Person (id)",
        f"Score: probability of “{study.target.codes[1]}”",
        *(study.feature(name).title for name in study.contact_list),
        "Why this person",
        "Remark",
        "Batch",
        "List made on",
    ]


def test_the_header_stays_in_sight_and_filters_every_contact(
    tmp_path: Path, study: Study, listed: pd.DataFrame
):
    sheet = written(tmp_path, listed, study)[LIST_SHEET]
    assert sheet.freeze_panes == "B2"
    assert sheet.auto_filter.ref == sheet.dimensions == "A1:J4"


def test_a_score_is_a_percentage_and_a_day_is_a_day(tmp_path: Path, study: Study, listed: pd.DataFrame):
    sheet = written(tmp_path, listed, study)[LIST_SHEET]
    assert (sheet["B2"].value, sheet["B2"].number_format) == (0.9123, "0%")
    assert sheet["J2"].is_date
    assert sheet["J2"].number_format == "d mmm yyyy"


def test_columns_are_as_wide_as_their_texts_and_rows_as_high(tmp_path: Path, study: Study):
    ids = ["3fa85f64-5717-4562-b3fc-2c963f66afa6", "b"]
    long = "Profession: Sales (for example: sales manager, shop owner, shop assistant, insurance agent)"
    sheet = written(tmp_path, listed_people(study, ids, reasons=["", f"{long}; {long}"]), study)[LIST_SHEET]
    widths = {letter: one.width for letter, one in sheet.column_dimensions.items()}
    assert widths["A"] > len(ids[0])
    assert all(10 < width < 62 for width in widths.values())
    assert sheet.row_dimensions[2].height < 20
    assert sheet.row_dimensions[3].height > 4 * 14
    assert sheet["G3"].alignment.wrap_text


def test_on_paper_it_is_as_wide_as_the_page_with_the_header_and_a_number_on_each(
    tmp_path: Path, study: Study, listed: pd.DataFrame
):
    workbook = written(tmp_path, listed, study)
    sheet = workbook[LIST_SHEET]
    assert sheet.page_setup.orientation == "landscape"
    assert sheet.page_setup.fitToWidth in (None, 1)  # one page is the default
    assert sheet.page_setup.fitToHeight == 0
    assert sheet.sheet_properties.pageSetUpPr.fitToPage
    assert sheet.print_title_rows == "$1:$1"
    for one in workbook.worksheets:
        assert one.oddHeader.left.text == f"{study.title}: contact list of batch march"
        assert one.oddHeader.right.text == "4 October 2026"
        assert "personal data" in one.oddFooter.left.text
        assert one.oddFooter.right.text == "Page &P of &N"


def test_a_long_name_with_an_ampersand_stands_in_the_header_of_a_page(tmp_path: Path, study: Study):
    about = AboutList("R&D" + "x" * 300, ABOUT.made_at, 1, 1)
    sheet = written(tmp_path, listed_people(study, ["a"]), study, about=about)[LIST_SHEET]
    assert "R&&Dxxx" in sheet.oddHeader.left.text
    assert sheet["I2"].value == about.batch


HOSTILE = ["=1+1", "+49", "@SUM(A1)", '=HYPERLINK("http://x")', "  =1+1", "'=1", "http://x.org/", "<r>1</r>"]
PLAIN = ["007", "1e5", "TRUE", "a & <b>", '"q"', "Žižková", "_x0041_", "mail@x.org", "#REF!", "{=1}"]


@pytest.mark.parametrize("text", [*HOSTILE, *PLAIN], ids=repr)
def test_every_text_is_a_text_as_it_is_meant(tmp_path: Path, study: Study, text: str):
    about = AboutList(text, ABOUT.made_at, 1, 1)
    listed = listed_people(study, [text], remark=text, reasons=[text])
    sheet = written(tmp_path, listed, study, about=about)[LIST_SHEET]
    for cell in (sheet["A2"], sheet["G2"], sheet["H2"], sheet["I2"]):
        assert cell.data_type in ("s", "inlineStr")
        assert openpyxl.utils.escape.unescape(cell.value).rstrip() == text
        assert cell.hyperlink is None
    assert list(first_cells(tmp_path / "march.xlsx"))[1].rstrip() == text  # type: ignore[attr-defined]


def test_nothing_in_it_runs_links_or_tells_who_made_it(tmp_path: Path, study: Study):
    ids = ["=1+1", "http://x.org/", "007"]
    workbook = written(tmp_path, listed_people(study, ids), study)
    with zipfile.ZipFile(tmp_path / "march.xlsx") as packed:
        parts = {name: packed.read(name).decode() for name in packed.namelist()}
    assert not [name for name in parts if re.search("vba|macro|external|embed|calc|printerSettings", name)]
    assert not re.search(r"<f>|<f |<hyperlink|r:link", "".join(parts.values()))
    assert 'TargetMode="External"' not in "".join(parts.values())
    told = workbook.properties
    assert (told.creator or "", told.lastModifiedBy or "") == ("", "")
    assert told.created == told.modified == datetime(2026, 10, 4, 14, 5)
    assert str(Path.home()) not in "".join(parts.values())
    assert 'numberStoredAsText="1"' in parts["xl/worksheets/sheet1.xml"]


def test_a_text_that_is_too_long_for_a_cell_is_cut_and_not_left_out(tmp_path: Path, study: Study):
    sheet = written(tmp_path, listed_people(study, ["a" * 40_000]), study)[LIST_SHEET]
    assert sheet["A2"].value == "a" * 32_766 + "…"


def test_the_second_sheet_tells_what_a_reader_must_know(tmp_path: Path, study: Study, listed: pd.DataFrame):
    workbook = written(tmp_path, listed, study)
    told = about_in(workbook)
    assert workbook.sheetnames == [LIST_SHEET, ABOUT_SHEET]
    assert told["Batch"] == "march"
    assert told["Made on"] == "4 October 2026, 14:05 UTC"
    assert told["Made by"].startswith("Model version 3")
    assert told["People"] == (
        "12 people answered; 3 of them (25%) are on the list. The lowest score on the list is 50%."
    )
    assert study.target.codes[1] in told["Score"]
    assert told["Remark"].startswith("take the order with caution.")
    assert "special-category" in told["Personal data"]
    assert "by 4 October 2027 at the latest" in told["Delete it"]
    assert "whoever gave you this list" in told["Questions"]


def test_what_is_kept_for_ever_has_no_last_day(tmp_path: Path, study: Study, listed: pd.DataFrame):
    kept = with_policies(study, retention={"contact_list_files": None})
    assert "sets no deadline" in about_in(written(tmp_path, listed, kept))["Delete it"]


def test_a_moment_of_another_zone_is_told_in_utc(tmp_path: Path, study: Study, listed: pd.DataFrame):
    late = datetime(2026, 10, 4, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    workbook = written(tmp_path, listed, study, about=AboutList("march", late, 1, 3))
    assert about_in(workbook)["Made on"] == "5 October 2026, 04:30 UTC"
    assert workbook[LIST_SHEET]["J2"].value == datetime(2026, 10, 5)


def test_a_list_of_nobody_says_so(tmp_path: Path, study: Study):
    workbook = written(tmp_path, listed_people(study, []), study)
    assert workbook[LIST_SHEET]["A2"].value == NOBODY
    assert about_in(workbook)["People"] == f"12 people answered. {NOBODY}"


def test_a_list_that_is_longer_than_a_sheet_goes_on_in_the_next(tmp_path: Path, study: Study):
    ids = [f"person-{number}" for number in range(7)]
    workbook = written(tmp_path, listed_people(study, ids), study, most=3)
    assert workbook.sheetnames == ["Contacts 1", "Contacts 2", "Contacts 3", ABOUT_SHEET]
    assert [row[0] for sheet in workbook.worksheets[:3] for row in cells(sheet)] == ids
    assert "Contacts 1, Contacts 2, Contacts 3" in about_in(workbook)["Sheets"]
    for sheet in workbook.worksheets[:3]:
        assert sheet["A1"].value == "Person (id)"
        assert sheet.freeze_panes == "B2"


def test_the_same_list_gives_the_same_bytes_and_leaves_nothing_beside_it(
    tmp_path: Path, study: Study, listed: pd.DataFrame
):
    first, second = tmp_path / "first.xlsx", tmp_path / "second.xlsx"
    left = tmp_path / "second.xlsx.rows.part"
    left.mkdir()
    (left / "of a killed process").write_text("a-1")
    for path in (first, second):
        write_workbook(path, listed, study, ABOUT)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.xlsx", "second.xlsx"]


def test_a_disk_that_is_full_is_told_as_the_disk_tells_it(study: Study, listed: pd.DataFrame, tmp_path: Path):
    (tmp_path / "march.xlsx").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        write_workbook(tmp_path / "march.xlsx", listed, study, ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == ["march.xlsx"]


def test_a_csv_is_read_back_as_the_list_that_it_was(tmp_path: Path, study: Study):
    ids = ["=1", "007", 'a "b"', "c;d,e", "two\nlines", "", "NA"]
    listed = listed_people(study, ids, remark="-")
    (tmp_path / "march.csv").write_text(as_csv(listed), encoding="utf-8")
    pd.testing.assert_frame_equal(read_list(tmp_path / "march.csv"), listed)
    assert [unescape_formula(one) for one in read_list(tmp_path / "march.csv")[study.id]] == ids


@pytest.mark.parametrize(
    "content", ["", "a,b\n1,2\n", "a,prediction\nx\n", "a,prediction\nx,much\n", 'a,prediction\n"x'], ids=repr
)
def test_a_csv_that_was_changed_by_hand_is_no_list(tmp_path: Path, content: str):
    (tmp_path / "march.csv").write_text(content)
    with pytest.raises(ValueError, match=r"march\.csv is not a valid contact list"):
        read_list(tmp_path / "march.csv")


def test_a_list_of_an_earlier_study_keeps_its_columns(tmp_path: Path, study: Study, listed: pd.DataFrame):
    before = listed.rename(columns={"citizenship": "shoe_size"})
    header = [cell.value for cell in written(tmp_path, before, study)[LIST_SHEET][1]]
    assert "shoe_size" in header


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04....", b"an old letter"], ids=repr)
def test_what_is_no_workbook_is_said_to_be_none(tmp_path: Path, content: bytes):
    (tmp_path / "march.xlsx").write_bytes(content)
    with pytest.raises(ValueError, match=r"march\.xlsx is not a workbook"):
        list(first_cells(tmp_path / "march.xlsx"))


def test_a_workbook_that_was_kept_by_another_program_tells_its_ids_too(
    tmp_path: Path, study: Study, listed: pd.DataFrame
):
    workbook = written(tmp_path, listed, study)
    workbook[LIST_SHEET]["A5"] = 1007
    workbook.save(tmp_path / "march.xlsx")
    assert list(first_cells(tmp_path / "march.xlsx"))[1:] == ["a-1", "b-2", "c-3", 1007]


def test_the_warehouse_knows_what_the_newest_list_was_about(con: Any, study: Study):
    first, second = (datetime(2026, month, 1, tzinfo=UTC) for month in (3, 4))
    scored = pd.DataFrame({"batch": "march", study.id: ["a", "b", "c"], "score": 0.7, "contact": True})
    for version, moment in ((1, first), (2, second)):
        insert(con, "predictions", scored.assign(model_version=version, scored_at=moment, audit=False))
        one = pd.DataFrame({"batch": ["march"], study.id: "a", "model_version": version, "score": 0.7})
        insert(con, "contact_lists", one.assign(created_at=moment, remark="", reasons=""))
    assert about_list(con, study, "march") == AboutList("march", second, 2, asked=3)
    assert about_list(con, study, "march", without=["a", "x"]) == AboutList("march", second, 2, asked=2)
    assert about_list(con, study, "april") is None


@pytest.mark.skipif(SOFFICE is None, reason="LibreOffice is not installed")
@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_libreoffice_opens_the_list_and_shows_the_same_people(tmp_path: Path, study: Study, kind: str):
    ids = ["007", "=1+1", "Žižková", "'x"]
    listed = listed_people(study, ids, remark="with caution")
    (tmp_path / "march.csv").write_text(as_csv(listed), encoding="utf-8")
    write_workbook(tmp_path / "march.xlsx", listed, study, ABOUT)
    # Comma, quote, UTF-8, from the first line on, cells as they are shown.
    subprocess.run(
        [str(SOFFICE), "--headless", f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}",
         *(["--infilter=CSV:44,34,76,1,,0,true"] if kind == "csv" else []),
         "--convert-to", "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true,false,false,false,1",
         "--outdir", str(tmp_path / "seen"), str(tmp_path / f"march.{kind}")],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    (shown,) = (tmp_path / "seen").iterdir()
    seen = pd.read_csv(shown, dtype=str, keep_default_na=False)
    assert seen.iloc[:, 0].tolist() == (ids if kind == "xlsx" else listed[study.id].tolist())
    assert seen.iloc[0, 1] == ("90%" if kind == "xlsx" else "0.9")
    assert not seen.map(lambda cell: cell.startswith(("#", "Err:"))).to_numpy().any()


def test_a_long_list_does_not_pass_through_memory(tmp_path: Path, study: Study):
    def peak(contacts: int) -> int:
        listed = listed_people(study, [f"person-{number:08}" for number in range(contacts)])
        tracemalloc.start()
        write_workbook(tmp_path / "march.xlsx", listed, study, ABOUT)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)  # what is imported and remembered once
    per_contact = (peak(4_000) - peak(1_000)) / 3_000
    assert per_contact < 500  # bytes: the height of its row, and what is packed; its cells alone take more
