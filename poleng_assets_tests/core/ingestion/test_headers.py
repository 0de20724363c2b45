"""Headers as people's programs write them: the names that anybody sees there are there."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poleng_assets.core.ingestion.contract import FileRefused, check_columns, required_columns
from poleng_assets.core.ingestion.files.open_file import open_file
from poleng_assets.core.ingestion.headers import plain_name
from poleng_assets.study.schema import Study
from poleng_assets.text.plain_text import wrapped

ROWS = b"1,2,3\n4,5,6\n"
HEADERS = {
    "two marks": b"\xef\xbb\xbf\xef\xbb\xbfa,b,c\n",
    "three marks and quotes": b'\xef\xbb\xbf\xef\xbb\xbf\xef\xbb\xbf"a","b","c"\n',
    "a mark behind a quote": b'"\xef\xbb\xbfa","b","c"\n',
    "a mark taken for letters": "\u00ef\u00bb\u00bfa,b,c\n".encode(),
    "a mark before each name": "\ufeffa,\ufeffb,\ufeffc\n".encode(),
    "a mark on a line of its own": b"\xef\xbb\xbf\xef\xbb\xbf\na,b,c\n",
    "blanks around names": b"  a , b\t, c \n",
    "no-break blanks": "\u00a0a\u00a0,b\u202f,\u3000c\n".encode(),
    "invisible signs": "\u200ba,b\u200d,\u202ac\u202c\n".encode(),
    "blanks before quotes": b'"a", "b", "c"\n',
    "blanks before and in quotes": b'" a ", " b" , "c "\n',
    "quotes of one stroke": b"'a','b','c'\n",
    "quotes of a word processor": "\u201ca\u201d,\u201eb\u201c,\u00abc\u00bb\n".encode(),
}


def read(path: Path) -> list[dict[str, object]]:
    with open_file(path, ["a", "b", "c"], max_bytes=2**20) as file:
        assert file.columns == ["a", "b", "c"]
        return [row for chunk in file.chunks() for row in chunk.rows.to_pylist()]


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_a_name_is_read_without_what_stands_around_it(tmp_path: Path, header: bytes):
    path = tmp_path / "drop.csv"
    path.write_bytes(header + ROWS)
    assert read(path) == [{"a": "1", "b": "2", "c": "3"}, {"a": "4", "b": "5", "c": "6"}]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_two_marks_of_a_wide_encoding_are_none_of_a_name(tmp_path: Path, encoding: str):
    path = tmp_path / "drop.csv"
    path.write_bytes(("\ufeff\ufeffa,b,c\n" + ROWS.decode()).encode(encoding))
    assert len(read(path)) == 2


def test_parquet_names_are_read_so_too(tmp_path: Path):
    path = tmp_path / "drop.parquet"
    pq.write_table(pa.table({"\ufeffa": ["1"], ' "b"': ["2"], "c\u00a0": ["3"]}), path)
    assert read(path) == [{"a": "1", "b": "2", "c": "3"}]


def test_quotes_behind_blanks_are_read_in_rows_as_in_the_header(tmp_path: Path):
    path = tmp_path / "drop.csv"
    path.write_text('"a", "b", "c"\n"1, 2", "x ""y""", 3\n4,  "5",6\n"7", "8\n9", ""\n')
    assert read(path) == [
        {"a": "1, 2", "b": 'x "y"', "c": "3"},
        {"a": "4", "b": "5", "c": "6"},
        {"a": "7", "b": "8\n9", "c": ""},
    ]


def test_without_such_a_header_a_quote_behind_a_blank_is_a_sign(tmp_path: Path):
    path = tmp_path / "drop.csv"
    path.write_text('a,b,c\n1, "2",3\n')
    assert read(path) == [{"a": "1", "b": ' "2"', "c": "3"}]


@pytest.mark.parametrize("name", ["a", "Größe", "a b", "it's", 'a"b', "q1_2", "'"])
def test_a_plain_name_stays_as_it_is(name: str):
    assert plain_name(name) == name


# Missing columns


def refusal(columns: list[str], study: Study) -> str:
    with pytest.raises(FileRefused) as caught:
        check_columns(columns, study, "batches")
    return str(caught.value)


def test_a_refusal_names_what_was_found_and_the_nearest_names(study: Study):
    names = {"country": "Country", "education": "educaton", "religion": "faith"}
    said = refusal([names.get(name, name) for name in required_columns(study, "batches")], study)
    assert said.startswith("3 columns are missing: country, ")
    assert "Country for country" in said
    assert "educaton for education" in said
    assert "for religion" not in said
    assert "It has: " in said
    assert "faith" in said


def test_a_header_in_other_letters_is_named_and_not_guessed(study: Study):
    said = refusal([name.upper() for name in required_columns(study, "batches")], study)
    assert said.startswith("none of the needed columns is there")
    assert "COUNTRY for country" in said
    assert "It has: SUBJECT_ID, " in said


def test_a_persons_answers_in_the_first_row_are_not_repeated(study: Study):
    said = refusal(["p-000777", "276", "1", "2", "8"], study)
    assert "does the file have a header row" in said
    assert "777" not in said
    assert "276" not in said


def test_a_refusal_of_a_wide_survey_stays_short_and_its_lines_too(study: Study):
    said = refusal([f"question_number_{place}_of_this_survey" for place in range(400)] + [study.id], study)
    assert "and 361 more" in said
    assert len(said) < 3_500
    lines = wrapped(said).splitlines()
    assert max(map(len, lines)) <= 140
    assert " ".join(lines) == said
