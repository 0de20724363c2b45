"""A person is found in whatever their rows are packed in, and what stays closed is named."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pytest

from poleng_assets.core.privacy import packed_files
from poleng_assets.core.privacy.packed_files import look_inside, without_hidden
from poleng_assets.core.privacy.quasi_identifiers import ERASED, Marks
from poleng_assets.core.privacy.subject import Person
from poleng_assets.study.schema import Study

WHO, OTHER = "person-12", "person-123"
SCORE = 0.7312098741531372


@pytest.fixture
def codes(study: Study) -> dict[str, int]:
    return {feature.name: max(feature.codes) for feature in study.features}


@pytest.fixture
def marked(study: Study, codes: dict[str, int]) -> Person:
    marks = Marks(study, (tuple(codes.values()),), {SCORE: 6}, lambda _names, _codes: True)
    return Person(WHO, study.id, marks=marks)


def zipped(content: bytes, name: str = "a.csv", kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as packed:
        packed.writestr(name, content)
    return out.getvalue()


def tarred(content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as packed:
        header = tarfile.TarInfo("a.csv")
        header.size = len(content)
        packed.addfile(header, io.BytesIO(content))
    return out.getvalue()


def zstd(content: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(content)
    return out.getvalue().to_pybytes()


def as_parquet(content: bytes) -> bytes:
    out = io.BytesIO()
    pd.read_csv(io.BytesIO(content), dtype=str).to_parquet(out)
    return out.getvalue()


def as_feather(content: bytes) -> bytes:
    out = io.BytesIO()
    pd.read_csv(io.BytesIO(content), dtype=str).to_feather(out)
    return out.getvalue()


def as_sqlite(content: bytes) -> bytes:
    with closing(sqlite3.connect(":memory:")) as con:
        pd.read_csv(io.BytesIO(content), dtype=str).to_sql("rows", con, index=False)
        return con.serialize()


def as_json(content: bytes) -> bytes:
    return pd.read_csv(io.BytesIO(content), dtype=str).to_json(orient="records").encode()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "as it is": bytes,
    "gzip": gzip.compress,
    "gzip cut off": lambda content: gzip.compress(content + os.urandom(40).hex().encode())[:-30],
    "two gzips in one": lambda content: gzip.compress(b"subject_id\n") + gzip.compress(content),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
    "zstd": zstd,
    "zip": zipped,
    "zip with lzma": lambda content: zipped(content, kind=zipfile.ZIP_LZMA),
    "zip cut off": lambda content: zipped(content)[:-60],
    "zip in zip": lambda content: zipped(zipped(content), "inner.zip"),
    "tar.gz": lambda content: gzip.compress(tarred(content)),
    "zip of gzip": lambda content: zipped(gzip.compress(content), "a.csv.gz"),
    "base64": base64.b64encode,
    "base64 in lines": base64.encodebytes,
    "base64 for addresses": base64.urlsafe_b64encode,
    "base64 of gzip in a text": lambda content: b"it was:\n" + base64.encodebytes(gzip.compress(content)),
    "base64 in JSON": lambda content: json.dumps({"row": base64.encodebytes(content).decode()}).encode(),
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "UTF-16 without a mark": lambda content: content.decode().encode("utf-16-be"),
    "Parquet": as_parquet,
    "Feather": as_feather,
    "SQLite": as_sqlite,
    "JSON": as_json,
}


@pytest.mark.parametrize("how", PACKED)
def test_an_id_is_found_in_everything_that_is_packed(how: str, marked: Person, study: Study):
    def holds(who: str) -> packed_files.Inside:
        rows = f"{study.id},country\nsomebody-1,276\n{who},276\n".encode()
        return look_inside(PACKED[how](rows), replace(marked, marks=None), "a")

    assert holds(WHO).holds
    assert not holds(OTHER).holds


@pytest.mark.parametrize("how", [how for how in PACKED if "cut off" not in how])
def test_answers_that_nobody_else_gave_are_found_without_an_id(
    how: str, marked: Person, codes: dict[str, int]
):
    other = {**codes, "income_scale": codes["income_scale"] - 1}
    # In another order than the study has them, so that they are told by the names of the columns.
    for row, there in ((codes, True), (other, False)):
        content = pd.DataFrame([row])[list(codes)[::-1]].to_csv(index=False).encode()
        assert look_inside(PACKED[how](content), marked, "a").holds is there, row


def test_answers_are_found_without_a_header_and_under_a_blank_id(
    marked: Person, codes: dict[str, int], study: Study
):
    line = ";".join(map(str, codes.values()))
    assert look_inside(f"it failed at: {line}".encode(), marked, "a").holds
    for who, there in ((" ", True), ("somebody-else", False)):
        frame = pd.DataFrame([{study.id: who, **dict(reversed(codes.items()))}])
        assert look_inside(frame.to_csv(index=False).encode(), marked, "a").holds is there


@pytest.mark.parametrize(
    ("text", "there"),
    [
        (repr(SCORE), True),
        (f"score={SCORE:.6f};", True),
        (f"{SCORE:.9f}", True),
        (f'{{"score": {SCORE}}}', True),
        (f"{SCORE:.4f}", False),
        ("0.7312091", False),
        ("10.731209874", False),
        ("0.73120987415313729", True),
    ],
)
def test_the_exact_score_is_found_and_a_rounded_one_is_anybodys(marked: Person, text: str, there: bool):
    assert look_inside(text.encode(), marked, "a").holds is there
    assert look_inside(text.encode("utf-16"), marked, "a").holds is there


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"7z\xbc\xaf\x27\x1c" + bytes(range(256)), "of a kind that cannot be looked into"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(range(256)), "of a kind that cannot be looked into"),
        (gzip.compress(b"a", mtime=0)[:10] + b"\xff" * 50, "damaged"),
        (bz2.compress(b"a,b\n" * 100)[:-20], "cut off within a block"),
        (b"PAR1" + bytes(100), "damaged"),
        (b"PK\x03\x04" + bytes(100), "damaged"),
        (zipped(b"7z\xbc\xaf\x27\x1c" + bytes(range(256)), "in.7z"), "a/in.7z: of a kind"),
    ],
)
def test_what_cannot_be_looked_into_is_named(marked: Person, content: bytes, why: str):
    inside = look_inside(content, marked, "a")
    assert not inside.holds
    assert [one for one in inside.closed if why in one], inside.closed


def test_an_encrypted_archive_is_named(marked: Person):
    content = bytearray(zipped(b"a,b\n1,2\n"))
    for begin in (content.find(b"PK\x03\x04") + 6, content.find(b"PK\x01\x02") + 8):
        content[begin] |= 1
    assert look_inside(bytes(content), marked, "a").closed == ["a/a.csv: it is encrypted"]


def test_a_bomb_is_named_before_it_fills_the_memory(marked: Person, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packed_files, "LIMIT", 2**20)
    for content in (gzip.compress(bytes(2**23)), zipped(bytes(2**23)), zstd(bytes(2**23))):
        inside = look_inside(content, marked, "a")
        assert [one for one in inside.closed if "holds more than" in one], inside.closed


def test_a_short_id_is_found_in_the_column_of_ids_of_a_packed_table(study: Study):
    short = Person("7", study.id)
    for who, there in (("7", True), ("77", False)):
        content = lzma.compress(f"{study.id},country\n{who},7\n".encode())
        assert look_inside(content, short, "a.csv.xz").holds is there


def test_what_is_packed_in_a_text_goes_and_the_text_stays(marked: Person):
    packed = base64.encodebytes(gzip.compress(f"{WHO}\n{OTHER}\n".encode() * 30)).decode()
    assert without_hidden(f"It was:\n{packed}\nThat is all.", marked) == f"It was:\n{ERASED}\n\nThat is all."
    other = base64.b64encode(f"{OTHER} and {OTHER}".encode()).decode()
    assert without_hidden(f"It was {other}.", marked) == f"It was {other}."


def test_lines_objects_and_numbers_of_a_person_go_and_the_others_stay(
    marked: Person, codes: dict[str, int], study: Study
):
    marks = marked.marks
    assert marks is not None
    other = {**codes, "income_scale": codes["income_scale"] - 1}
    table = pd.DataFrame([codes, other]).to_csv(index=False)
    header, mine, theirs = table.splitlines()
    assert marks.redact(table) == f"{header}\n{ERASED}\n{theirs}\n"
    content = {"rows": [codes, other], "score": SCORE, "text": f"scored {SCORE}", "batch": "march"}
    left = json.loads(marks.redact(json.dumps(content)))
    assert left == {"rows": [{}, other], "score": None, "text": ERASED, "batch": "march"}
    assert marks.redact(theirs) == theirs
    assert mine != theirs


def test_answers_to_a_few_questions_count_only_when_nobody_else_gave_them(
    study: Study, codes: dict[str, int]
):
    asked: list[tuple[str, ...]] = []

    def alone(names: tuple[str, ...], _codes: object) -> bool:
        asked.append(names)
        return len(names) > 20

    marks = Marks(study, (tuple(codes.values()),), {}, alone)
    names = list(codes)
    for count, there in ((3, False), (18, False), (24, True), (len(names), True)):
        assert marks.is_row({name: codes[name] for name in names[:count]}) is there
    assert [len(one) for one in asked] == [18, 24]
