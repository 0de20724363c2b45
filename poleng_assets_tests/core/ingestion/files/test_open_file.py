"""The form of a dropped file: every data row is given out with its number, or the file is refused."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.core.ingestion.files import arrow_rows, delimited_text, parquet_file
from poleng_assets.core.ingestion.files.base import Malformed
from poleng_assets.core.ingestion.files.open_file import count_rows, open_file
from poleng_assets.storage.dropped_files import file_id, has_known_suffix

NEEDED = ["a", "c"]
PLAIN = "a,b,c\n1,x,2\n3,y,4\n"
READ = [(1, "1", "2"), (2, "3", "4")]
PLENTY = 2**30


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(content)
    return sink.getvalue().to_pybytes()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".csv": bytes,
    ".csv.gz": gzip.compress,
    ".csv.bz2": bz2.compress,
    ".csv.zst": zstd,
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes, str], Path]:
    def to(content: str | bytes, name: str = "drop.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return to


Write = Callable[..., Path]


@pytest.fixture(params=["whole", "in small blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Read in one go, and so that nearly every row, quote and line end stands at the edge of a block."""
    if request.param != "whole":
        monkeypatch.setattr(delimited_text, "_BLOCK", 13)
        monkeypatch.setattr(delimited_text, "MAX_RECORD", 64)
        for module in (parquet_file, delimited_text):
            monkeypatch.setattr(module, "CHUNK", 2)
    limit = csv.field_size_limit()  # of the whole process
    yield
    csv.field_size_limit(limit)


def everything(path: Path, **options: Any) -> tuple[list[tuple[Any, ...]], list[Malformed]]:
    """Return the rows of all chunks with their numbers, and the malformed ones."""
    rows: list[tuple[Any, ...]] = []
    malformed: list[Malformed] = []
    with open_file(path, NEEDED, **{"max_bytes": PLENTY} | options) as file:
        for chunk in file.chunks():
            assert chunk.rows.column_names == NEEDED
            assert chunk.row_numbers.dtype == np.int64
            values = zip(*chunk.rows.to_pydict().values(), strict=True)
            rows += [(int(n), *v) for n, v in zip(chunk.row_numbers, values, strict=True)]
            malformed += chunk.malformed
        total = len(rows) + len(malformed)
        assert total <= file.rows_at_most
    assert sorted([row[0] for row in rows] + [m.row_number for m in malformed]) == list(range(1, total + 1))
    assert count_rows(path, NEEDED, max_bytes=PLENTY) == total
    return rows, malformed


def refusal(path: Path, max_bytes: int = PLENTY) -> str:
    with pytest.raises(FileRefused) as caught:
        everything(path, max_bytes=max_bytes)
    return str(caught.value)


# Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("march.csv", "march"),
        ("march.csv.gz", "march"),
        ("march.csv.bz2", "march"),
        ("march.csv.zst", "march"),
        ("march.2024.parquet", "march.2024"),
        ("march@2.csv.gz", "march@2"),
        ("march.xlsx", "march.xlsx"),
        ("march.gz", "march.gz"),
        ("march", "march"),
    ],
)
def test_the_id_of_a_file_is_its_name_without_its_whole_suffix(name: str, expected: str):
    assert file_id(name) == expected
    assert has_known_suffix(name) is (expected != name)


def test_a_suffix_alone_is_no_name():
    assert not has_known_suffix(".csv.gz")


# Text that is read


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("suffix", PACKED)
def test_every_compression_gives_the_same_rows(write: Write, suffix: str):
    assert everything(write(PACKED[suffix](PLAIN.encode()), f"drop{suffix}")) == (READ, [])


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.bz2", ".csv.zst"])
def test_packed_parts_one_behind_the_other_are_one_text(write: Write, suffix: str):
    pack = PACKED[suffix]
    assert everything(write(pack(b"a,b,c\n1,x,2\n") + pack(b"3,y,4\n"), f"drop{suffix}")) == (READ, [])


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_every_delimiter_gives_the_same_rows(write: Write, delimiter: str):
    assert everything(write(PLAIN.replace(",", delimiter))) == (READ, [])


def test_the_delimiter_is_the_one_that_separates_the_needed_names(write: Write):
    assert everything(write('a;"b,b,b";c\n1;x,x,x;2\n3;y,y,y,y;4\n')) == (READ, [])


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_every_line_end_gives_the_same_rows(write: Write, line_end: str):
    text = 'a,b,c\n1,x,2\n3,"y\nz",4\n'.replace("\n", line_end)
    assert everything(write(text)) == (READ, [])


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-32-be", "cp1252"]
)
def test_every_encoding_gives_the_same_rows(write: Write, encoding: str):
    text = "a,größe,c\n1,ü,2\n3,€,4\n"
    mark = "\ufeff" if encoding.endswith("-be") else ""
    path = write((mark + text).encode(encoding))
    assert everything(path) == (READ, [])
    with open_file(path, NEEDED, max_bytes=PLENTY) as file:
        assert file.columns == ["a", "größe", "c"]
        assert file.ascii_only is (encoding == "cp1252")


def test_characters_that_windows_does_not_have_do_no_harm_in_what_is_not_needed(write: Write):
    assert everything(write(b"a,\x81,c\n1,\x8d,2\n3,\xff,4\n")) == (READ, [])


@pytest.mark.usefixtures("blocks")
def test_text_beyond_ascii_is_kept(write: Write):
    assert everything(write("a,b,c\nÅse-Ω-𝄞,x,2\n"))[0] == [(1, "Åse-Ω-𝄞", "2")]


def test_names_are_stripped_and_all_are_told(write: Write):
    path = write(' a ,"b","c", d,,\n1,x,2,3,,\n')
    with open_file(path, NEEDED, max_bytes=PLENTY) as file:
        assert file.columns == ["a", "b", "c", "d", "", ""]
    assert everything(path)[0] == [(1, "1", "2")]


def test_names_that_stand_twice_are_told_twice(write: Write):
    with open_file(write("a,x,c,x\n1,2,3,4\n"), NEEDED, max_bytes=PLENTY) as file:
        assert file.columns == ["a", "x", "c", "x"]


@pytest.mark.usefixtures("blocks")
def test_a_header_may_stand_behind_blank_lines(write: Write):
    assert everything(write("\n\r\n  \n" + PLAIN)) == (READ, [])


@pytest.mark.usefixtures("blocks")
def test_blank_lines_are_no_rows(write: Write):
    text = "a,b,c\n\n1,x,2\n\n   \n\r\n3,y\n \t \n5,z,6\n\n"
    rows, malformed = everything(write(text))
    assert rows == [(1, "1", "2"), (3, "5", "6")]
    assert [row.row_number for row in malformed] == [2]


@pytest.mark.usefixtures("blocks")
def test_a_row_of_empty_fields_is_a_row(write: Write):
    assert everything(write("a,b,c\n,,\n"))[0] == [(1, "", "")]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("last", ["\n", ""])
def test_the_last_row_needs_no_line_end(write: Write, last: str):
    assert everything(write(PLAIN.rstrip("\n") + last)) == (READ, [])


@pytest.mark.usefixtures("blocks")
def test_quotes_hold_delimiters_newlines_and_quotes(write: Write):
    rows, malformed = everything(write('a,b,c\n"1,5","x\ny\r\nz","say ""so"""\n"","",""\n'))
    assert (rows, malformed) == ([(1, "1,5", 'say "so"'), (2, "", "")], [])


@pytest.mark.usefixtures("blocks")
def test_a_quote_within_a_word_is_a_sign_like_any_other(write: Write):
    text = 'a,b,c\n1,5" pipe,2\n3, "y",4" \n'
    assert everything(write(text)) == ([(1, "1", "2"), (2, "3", '4" ')], [])


@pytest.mark.parametrize("sign", list("#%;'~=@/\\\"")[:-1])
def test_no_sign_begins_a_comment(write: Write, sign: str):
    assert everything(write(f"a,b,c\n{sign}1,x,2\n3,y,{sign}4\n"))[0] == [
        (1, f"{sign}1", "2"),
        (2, "3", f"{sign}4"),
    ]


@pytest.mark.parametrize("word", ["NA", "NULL", "null", "n/a", "-", "NaN", "true", "007", "2024-01-01"])
def test_values_are_given_out_as_they_were_written(write: Write, word: str):
    assert everything(write(f"a,b,c\n{word},{word},{word}\n"))[0] == [(1, word, word)]


def test_thousands_of_columns_are_read(write: Write):
    count = 5_000
    header = ",".join(["a", *(f"x{number}" for number in range(count)), "c"])
    row = ",".join(["1", *["7"] * count, "2"])
    rows, malformed = everything(write("\n".join([header, *[row] * 2_000])))
    assert (len(rows), rows[-1], malformed) == (2_000, (2_000, "1", "2"), [])


def test_a_field_of_a_megabyte_is_read(write: Write):
    long = "x" * 2**20
    assert everything(write(f"a,b,c\n1,{long},2\n3,y,4\n")) == (READ, [])
    assert everything(write(f'a,b,c\n1,5" {long},2\n3,y,4\n')) == (READ, [])


def test_chunks_are_of_a_bounded_number_of_rows(write: Write, monkeypatch: pytest.MonkeyPatch):
    for module in (parquet_file, delimited_text):
        monkeypatch.setattr(module, "CHUNK", 10)
    for begin in ("", '1,5" pipe,2\n'):  # read by Arrow, read by Python
        path = write("a,b,c\n" + begin + "1,x,2\n" * 35)
        with open_file(path, NEEDED, max_bytes=PLENTY) as file:
            assert max(chunk.rows.num_rows for chunk in file.chunks()) == 10
        assert len(everything(path)[0]) == 35 + bool(begin)


# Rows that are none


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("odd", ["x", '5" pipe'], ids=["read by Arrow", "read by Python"])
def test_a_row_with_more_or_fewer_fields_is_malformed_and_keeps_its_text(write: Write, odd: str):
    text = f'a,b,c\n1,{odd},2\n4,5\n6,7,8,"9"\n\n10\n3,"y\n",4\n11,12,13,\n'
    rows, malformed = everything(write(text))
    assert rows == [(1, "1", "2"), (5, "3", "4")]
    assert malformed == [
        Malformed(2, "has 2 fields, the header has 3", "4,5"),
        Malformed(3, "has 4 fields, the header has 3", '6,7,8,"9"'),
        Malformed(4, "has 1 field, the header has 3", "10"),
        Malformed(6, "has 4 fields, the header has 3", "11,12,13,"),
    ]


@pytest.mark.usefixtures("blocks")
def test_a_file_of_malformed_rows_only_gives_them_all(write: Write):
    rows, malformed = everything(write("a,b,c\n" + "1,2\n" * 50))
    assert (rows, len(malformed)) == ([], 50)


@pytest.mark.parametrize("odd", ["x", '5" pipe'], ids=["read by Arrow", "read by Python"])
def test_the_text_of_a_malformed_row_is_shortened(write: Write, odd: str):
    (row,) = everything(write(f"a,b,c\n1,{odd},2\n{'y' * 5_000}\n"))[1]
    assert row.line == "y" * 2_000


@pytest.mark.usefixtures("blocks")
def test_text_behind_a_closing_quote_breaks_its_row(write: Write):
    rows, malformed = everything(write('a,b,c\n1,x,2\n7,"q"r,8\n3,y,4\n'))
    assert rows == [(1, "1", "2"), (3, "3", "4")]
    assert malformed == [Malformed(2, "text stands behind a closing quote", '7,"q"r,8')]


def test_malformed_rows_without_end_do_not_fill_the_memory(write: Write, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arrow_rows, "_MAX_PENDING", 1_000)
    said = refusal(write("a,b,c\n1,x,2\n" + "4,5\n" * 1_000))
    assert "rows running are malformed; the first, row 2, has 2 fields" in said


def test_both_ways_of_reading_give_the_same_of_any_text(write: Write, monkeypatch: pytest.MonkeyPatch):
    parts = [*'12,,,"\n\n\r', "\r\n", "1,2,3\n", '"x\ny"', '""', '"a""b",', "   \n", "4,5\n", "é"]
    compared = 0
    for seed in range(1_500):
        draw = random.Random(seed)
        monkeypatch.setattr(delimited_text, "_BLOCK", draw.choice([7, 11, 4_096]))
        path = write("a,b,c\n" + "".join(draw.choices(parts, k=draw.randint(0, 40))))
        with open_file(path, NEEDED, max_bytes=PLENTY) as file:
            if not file._quotes_are_plain:  # type: ignore[attr-defined]
                continue
        found: list[Any] = []
        for plain in (True, False):
            with monkeypatch.context() as patch, open_file(path, NEEDED, max_bytes=PLENTY) as file:
                patch.setattr(file, "_quotes_are_plain", plain)
                try:
                    chunks = list(file.chunks())
                except FileRefused as refused:
                    found.append(("refused", str(refused)))
                    continue
                rows = [row for chunk in chunks for row in chunk.rows.to_pylist()]
                numbers = [int(number) for chunk in chunks for number in chunk.row_numbers]
                found.append((rows, numbers, [row for chunk in chunks for row in chunk.malformed]))
        assert found[0] == found[1], path.read_bytes()
        compared += 1
    assert compared > 200


# Text that is refused


@pytest.mark.parametrize("suffix", [*PACKED, ".parquet"])
def test_an_empty_file_is_refused(write: Write, suffix: str):
    assert "is empty" in refusal(write(b"", f"drop{suffix}"))


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.bz2", ".csv.zst"])
def test_a_packed_file_of_nothing_is_refused(write: Write, suffix: str):
    assert "is empty" in refusal(write(PACKED[suffix](b""), f"drop{suffix}"))


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.bz2", ".csv.zst"])
@pytest.mark.parametrize("lost", [1, 20])
def test_a_torn_packed_file_is_refused(write: Write, suffix: str, lost: int):
    packed = PACKED[suffix](PLAIN.encode())[:-lost]
    assert f"cannot be read as {suffix[1:]}, it is damaged or not whole" in refusal(
        write(packed, f"d{suffix}")
    )


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.bz2", ".csv.zst"])
def test_rubbish_behind_a_packed_text_refuses_the_file(write: Write, suffix: str):
    packed = PACKED[suffix](PLAIN.encode()) + b"rubbish" * 3
    assert "is damaged" in refusal(write(packed, f"drop{suffix}"))


def test_a_changed_byte_of_a_gzip_file_is_found(write: Write):
    packed = bytearray(gzip.compress(PLAIN.encode(), compresslevel=0))
    packed[packed.index(b"x")] = ord("z")
    assert "is damaged" in refusal(write(bytes(packed), "drop.csv.gz"))


def zipped(content: bytes) -> bytes:
    """Zip without the time of day: all processes that share the tests must find the same cases."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("drop.csv", b"PAR1....PAR1", "its content is a parquet file"),
        ("drop.csv", b"PK\x03\x04....", "a zip archive or an Excel workbook"),
        ("drop.csv", b"\xd0\xcf\x11\xe0....", "an old Excel workbook"),
        ("drop.csv", zipped(PLAIN.encode()), "its content is gzip"),
        ("drop.csv.gz", zipped(zipped(PLAIN.encode())), "its content is gzip"),
        ("drop.csv.gz", zipped(b"PK\x03\x04...."), "an Excel workbook"),
        ("drop.csv.gz", PLAIN.encode(), "cannot be read as csv.gz"),
        ("drop.csv.zst", zipped(PLAIN.encode()), "cannot be read as csv.zst"),
        ("drop.csv", b" \n<!DOCTYPE html><html><body>a,b,c</body></html>", "HTML or XML"),
        ("drop.csv", b"\xff\xfe" + "<html>".encode("utf-16-le"), "HTML or XML"),
        ("drop.parquet", PLAIN.encode(), "its content is something else"),
        ("drop.parquet", b"PK\x03\x04....PAR1", "its content is a zip archive"),
        ("drop.parquet", b"PARE........PARE", "is encrypted parquet"),
        ("drop.parquet", b"PAR1........PARE", "is encrypted parquet"),
        ("drop.xlsx", b"PK\x03\x04....", "is none of .parquet, .csv, .csv.gz, .csv.bz2, .csv.zst"),
    ],
)
def test_content_of_another_kind_is_refused_by_name(write: Write, name: str, content: bytes, said: str):
    assert said in refusal(write(content, name))


def test_what_is_no_regular_file_is_refused(tmp_path: Path, write: Write):
    (tmp_path / "link.csv").symlink_to(write(PLAIN))
    (tmp_path / "folder.csv").mkdir()
    for name in ("link.csv", "folder.csv"):
        assert refusal(tmp_path / name) == f"{name} is not a regular file"


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("place", ["a,b\0,c\n1,x,2\n", "a,b,c\n1,x\0,2\n", "a,b,c\n1,x,2\0"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_nul_refuses_the_file(write: Write, place: str, encoding: str):
    assert "holds NUL characters" in refusal(write(place.encode(encoding)))


def test_utf16_without_a_mark_is_refused_with_advice(write: Write):
    assert "UTF-16 without a mark. Save it as UTF-8" in refusal(write(PLAIN.encode("utf-16-le")))


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"\xef\xbb\xbfa,b,c\n1,\xe9,2\n", "UTF-8"),
        (PLAIN.encode("utf-16")[:-1], "UTF-16-LE"),
        (b"\xff\xfe\x00\x00" + b"abcdefgh", "UTF-32-LE"),
    ],
)
def test_text_that_is_not_what_its_mark_says_is_refused(write: Write, content: bytes, encoding: str):
    assert f"says that it is {encoding} and is not" in refusal(write(content))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('a,b,c\n1,x,2\n3,"y,4\n', 2),
        ('a,b,c\n"1,x,2\n3,y,4\n5,z,6\n', 1),
        ('a,b,c\n1,x,2\n3,y,"4\n', 2),
        ('a,b,c\n1,x,2\n\n3,y,4\n5,z,"', 3),
        ('a,b,c\n1,5" pipe,2\n3,"y,4\n', 2),
    ],
)
def test_a_quote_that_is_never_closed_refuses_the_file_and_names_its_row(write: Write, text: str, row: int):
    assert f"has a quote that is never closed, in row {row}:" in refusal(write(text))


@pytest.mark.usefixtures("blocks")
def test_a_quote_that_swallowed_rows_and_is_closed_by_another_refuses_the_file(write: Write):
    said = refusal(write('a,b,c\n1,"he said,2\n3,y,4\n5,"q",6\n'))
    assert "a quote in row 1 that is closed within a word, 2 lines later" in said


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("odd", ["x", '5" pipe'], ids=["read by Arrow", "read by Python"])
def test_a_text_that_breaks_off_within_a_row_is_refused(write: Write, odd: str):
    assert "breaks off within its last row" in refusal(write(f"a,b,c\n1,{odd},2\n3,y"))
    assert len(everything(write(f"a,b,c\n1,{odd},2\n3,y\n"))[1]) == 1
    assert len(everything(write(f"a,b,c\n1,{odd},2\n3,y,4,5"))[1]) == 1


@pytest.mark.parametrize("begin", ["1,x,2\n", '1,5" pipe,2\n'], ids=["read by Arrow", "read by Python"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_row_without_end_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch, begin: str, quote: str):
    monkeypatch.setattr(delimited_text, "MAX_RECORD", 2**16)
    long = "\n".join(["y" * 1_000] * 300) if quote else "y" * 300_000
    assert "has a row of more than" in refusal(write(f"a,b,c\n{begin}3,{quote}{long}{quote},4\n"))


def test_a_header_without_end_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(delimited_text, "_BLOCK", 100)
    assert "the header of drop.csv is longer than 100 bytes" in refusal(write(f"a,{'b' * 200},c\n1,x,2\n"))


def test_a_header_whose_quote_is_never_closed_is_refused(write: Write):
    assert "has no header row that can be read" in refusal(write('a,"b,c\n1,x,2\n'))


@pytest.mark.parametrize("suffix", PACKED)
def test_a_text_that_grows_beyond_what_is_allowed_is_refused(write: Write, suffix: str):
    path = write(PACKED[suffix](b"a,b,c\n" + b"1,x,2\n" * 400_000), f"drop{suffix}")
    assert "holds more than 2 MB when it is unpacked" in refusal(path, max_bytes=2 * 2**20)
    assert len(everything(path, max_bytes=3 * 2**20)[0]) == 400_000


def test_a_needed_column_that_does_not_stand_there_once_refuses_the_rows_and_they_can_be_counted(
    write: Write,
):
    for header in ("a,b,d", "a,c,c"):
        path = write(f"{header}\n1,x,2\n3,y\n5,z,6\n")
        assert "the column c stands" in refusal(path)
        assert count_rows(path, NEEDED, max_bytes=PLENTY) == 3
    assert count_rows(write("x,y\n1,2\n"), NEEDED, max_bytes=PLENTY) == 1


@pytest.mark.parametrize("text", ["a,b,c\n", "a,b,c", "a,b,c\n\n  \n\r\n"])
def test_a_header_without_rows_has_none(write: Write, text: str):
    assert everything(write(text)) == ([], [])


# Parquet


def parquet(folder: Path, table: pa.Table, name: str = "drop.parquet", **options: Any) -> Path:
    pq.write_table(table, folder / name, **options)
    return folder / name


SOME = pa.table({"c": pa.array(["2", None, "4"]), "b": [[1], [], None], "a": [1, 2, 3]})


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli"])
def test_a_parquet_file_gives_its_needed_columns_as_they_are_typed(tmp_path: Path, compression: str):
    path = parquet(tmp_path, SOME, compression=compression)
    assert everything(path) == ([(1, 1, "2"), (2, 2, None), (3, 3, "4")], [])
    with open_file(path, NEEDED, max_bytes=PLENTY) as file:
        assert file.columns == ["c", "b", "a"]
        assert next(file.chunks()).rows.schema.types == [pa.int64(), pa.string()]


def test_rows_of_parquet_are_numbered_over_chunks_and_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for module in (parquet_file, delimited_text):
        monkeypatch.setattr(module, "CHUNK", 10)
    table = pa.table({"a": range(95), "c": range(95)})
    rows, _ = everything(parquet(tmp_path, table, row_group_size=37))
    assert rows == [(number + 1, number, number) for number in range(95)]


def test_names_of_parquet_are_stripped_and_one_that_stands_twice_is_told_twice(tmp_path: Path):
    table = pa.table([[1], [2], [3], [4]], names=[" a", "c\t", "x", "x"])
    path = parquet(tmp_path, table)
    with open_file(path, NEEDED, max_bytes=PLENTY) as file:
        assert file.columns == ["a", "c", "x", "x"]
    assert everything(path)[0] == [(1, 1, 2)]


def test_a_needed_column_of_parquet_that_stands_twice_refuses_the_rows(tmp_path: Path):
    path = parquet(tmp_path, pa.table([[1], [2], [3]], names=["a", "c", "c"]))
    assert "the column c stands 2 times" in refusal(path)


def test_a_parquet_file_without_rows_has_none(tmp_path: Path):
    assert everything(parquet(tmp_path, SOME.slice(0, 0))) == ([], [])


def test_a_torn_parquet_file_is_refused(tmp_path: Path):
    path = parquet(tmp_path, SOME)
    path.write_bytes(path.read_bytes()[:-10])
    assert "its end is missing" in refusal(path)


def test_a_parquet_file_whose_description_is_damaged_is_refused(tmp_path: Path):
    path = parquet(tmp_path, SOME)
    content = bytearray(path.read_bytes())
    content[-60:-12] = bytes(48)
    path.write_bytes(content)
    assert "cannot be read as parquet" in refusal(path)


def test_a_parquet_file_with_a_damaged_page_is_refused(tmp_path: Path):
    table = pa.table({"a": range(10_000), "c": range(10_000)})
    path = parquet(tmp_path, table, write_page_checksum=True, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[20_000] ^= 1
    path.write_bytes(content)
    assert "cannot be read as parquet, it is damaged" in refusal(path)


def test_text_of_parquet_that_is_no_utf8_refuses_the_file(tmp_path: Path):
    broken = pa.Array.from_buffers(pa.string(), 1, [None, *pa.array([b"\xff"]).buffers()[1:]])
    path = parquet(tmp_path, pa.table({"a": broken, "c": ["1"]}))
    assert "cannot be read as parquet" in refusal(path)


def test_a_parquet_file_of_a_few_bytes_that_holds_very_many_rows_is_refused(tmp_path: Path):
    table = pa.table({"a": pa.repeat(1, 3_000_000), "c": pa.repeat(1, 3_000_000)})
    path = parquet(tmp_path, table)
    assert path.stat().st_size < 100_000
    for limit in (2**20, 20 * 2**20):  # seen by the number of rows, seen while they are read
        assert "when it is unpacked" in refusal(path, max_bytes=limit)


@pytest.mark.parametrize(
    ("group", "chunks", "kept_once"),
    [
        (150_000, [100_000, 50_000], True),
        (90_000, [90_000, 10_000, 50_000], True),
        (7_000, [100_000, 50_000], False),
    ],
)
def test_a_text_that_a_parquet_file_keeps_once_for_many_rows_is_read_once(
    tmp_path: Path, group: int, chunks: list[int], kept_once: bool
):
    answers = [None if number % 7 == 0 else f" {number % 5} " for number in range(150_000)]
    table = pa.table({"a": [f"person {number}" for number in range(150_000)], "c": answers})
    with open_file(parquet(tmp_path, table, row_group_size=group), NEEDED, max_bytes=PLENTY) as file:
        found = list(file.chunks())
    assert [chunk.rows.num_rows for chunk in found] == chunks
    assert {pa.types.is_dictionary(chunk.rows["c"].type) for chunk in found} == {kept_once}
    assert {chunk.rows["a"].type for chunk in found} == {pa.string()}
    assert [answer for chunk in found for answer in chunk.rows["c"].to_pylist()] == answers
    assert [person for chunk in found for person in chunk.rows["a"].to_pylist()] == table["a"].to_pylist()


def test_a_long_text_that_is_kept_once_counts_for_every_row_that_has_it(tmp_path: Path):
    table = pa.table({"a": range(20_000), "c": pa.array(["x" * 1_000] * 20_000)})
    path = parquet(tmp_path, table)
    assert path.stat().st_size < 1_000_000
    assert "when it is unpacked" in refusal(path, max_bytes=15_000_000)
    assert len(everything(path, max_bytes=25_000_000)[0]) == 20_000


def test_a_csv_reader_of_the_standard_library_finds_the_same_rows(write: Write):
    draw = random.Random(5)
    words = ["", "1", " 2 ", "x,y", 'say "so"', "two\nlines", "ü", "007", "NA"]
    table = [[draw.choice(words) for _ in range(3)] for _ in range(3_000)]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["a", "b", "c"], *table])
    rows, malformed = everything(write(text.getvalue()))
    assert rows == [(n, a, c) for n, (a, _, c) in enumerate(table, 1)]
    assert malformed == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_a_short_last_row_is_only_a_broken_row_when_its_line_has_an_end(write: Write, encoding: str):
    short = f"{PLAIN}anna\n"
    _, faults = everything(write(short.encode(encoding)))
    assert faults
    assert "breaks off within its last row" in refusal(write(short.rstrip("\n").encode(encoding)))
