"""Twenty people in every form that a home can hold them in, and a search of its own for what is left of them.

The search shares no code with the project: it opens every file with the libraries that made it and compares
ids, answers and scores as they are.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import sqlite3
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import duckdb
import openpyxl
import pandas as pd
import pyarrow as pa

from poleng_assets.notifications.outbox import open_outbox
from poleng_assets.operations.erase_person import erase_person
from poleng_assets.simulation.population import write_scenario_data
from poleng_assets.study.loading import load_study
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.outbox import Message
from poleng_assets_tests.graph.conftest import Workshop, open_founded

PEOPLE = 20


@dataclass(frozen=True)
class Erasure:
    """How the erasure of everybody went.

    Attributes:
        people: who were forgotten.
        traces_before: places and rows in which the search found them.
        places: the files among them.
        told: traces, and files that could not be looked into, as the command itself tells them.
        left: what the search found afterwards.
        others_lost: ids of other people who were on the list, and are no more.
        seconds: of the processor, for all of them.
    """

    people: int
    traces_before: int
    places: tuple[str, ...]
    told: tuple[str, ...]
    left: tuple[str, ...]
    others_lost: set[str]
    seconds: float


@contextmanager
def crowded_home(folder: Path) -> Iterator[Workshop]:
    """Make a home below a folder in which a batch of a compressed CSV was scored and listed."""
    write_scenario_data(load_study(), folder / "data", scale=0.05)
    with open_founded(folder / "home", folder / "data") as workshop:
        people = workshop.synthetic("batches", "clean_batch_1")
        march = folder / "march.csv.gz"
        march.write_bytes(gzip.compress(people.to_csv(index=False).encode()))
        workshop.drop_file("batches", march)
        yield workshop


def erase_everybody(workshop: Workshop) -> Erasure:
    """Spread people over a home in every form, forget one after the other, and search for them."""
    study = load_study()
    people = listed_people(workshop, study)
    listed = workshop.contact_list("march")
    spread(workshop, study, people, listed)
    before = traces(workshop.home.root, study, people)
    told: list[str] = []
    began = time.process_time()
    for who in people[study.id]:
        proof = erase_person(workshop.home, study, workshop.warehouse, workshop.registry, who).proof
        told += [*proof.traces, *proof.closed]
    seconds = time.process_time() - began
    others = set(listed[study.id]) - set(people[study.id])
    return Erasure(
        len(people),
        len(before),
        tuple(sorted({one.rpartition(": ")[0] for one in before})),
        tuple(told),
        tuple(traces(workshop.home.root, study, people)),
        others - set(workshop.contact_list("march")[study.id]),
        seconds,
    )


def listed_people(workshop: Workshop, study: Study) -> pd.DataFrame:
    """Return people of the list whose answers nobody else gave, with their scores."""
    answered = workshop.synthetic("batches", "clean_batch_1").drop_duplicates(study.feature_names, keep=False)
    scored = workshop.query(f"SELECT {study.id}, score FROM predictions WHERE contact")
    people = answered.merge(pd.DataFrame(scored, columns=[study.id, "score"]), on=study.id)
    return people.sort_values("score", ascending=False).dropna().head(PEOPLE).reset_index(drop=True)


def spread(workshop: Workshop, study: Study, people: pd.DataFrame, listed: pd.DataFrame) -> None:
    """Put rows of people into refused files of every kind, into events, logs and artifacts.

    Args:
        workshop: a home in which they were scored.
        study: names the columns.
        people: id, answers and ``score`` of each, 20 rows.
        listed: rows of the contact list, as earlier releases showed them in an event.
    """
    home, rejected = workshop.home, workshop.home.rejected("batches")

    def table(first: int, last: int) -> bytes:
        return people.iloc[first:last][[study.id, *study.feature_names]].to_csv(index=False).encode()

    whole = gzip.compress(table(0, 4) + b"\n" + base64.b64encode(bytes(range(256))) * 40)
    (rejected / "cut_off.csv.gz").write_bytes(whole[:-40])
    (rejected / "export.csv.xz").write_bytes(lzma.compress(table(4, 6)))
    (rejected / "export.csv.bz2").write_bytes(bz2.compress(table(6, 7)))
    (rejected / "old.zip").write_bytes(_zipped("in.zip", _zipped("people.csv", table(7, 9))))
    (rejected / "all.tar.gz").write_bytes(gzip.compress(_tarred("people.csv", table(9, 10))))
    packed = base64.encodebytes(gzip.compress(table(10, 12))).decode()
    (rejected / "mail.csv.reason.txt").write_text(f"mail.csv was refused. It was:\n{packed}\n")
    (rejected / "notes.txt").write_bytes(table(12, 13).decode().encode("utf-16"))
    (rejected / "notes_without_a_mark.dat").write_bytes(table(13, 14).decode().encode("utf-16-le"))
    people.iloc[14:15].to_excel(rejected / "sheet.xlsx", index=False)
    with closing(sqlite3.connect(rejected / "people.db")) as con:
        people.iloc[15:16].to_sql("people", con, index=False)
    nameless = people.iloc[16:18][study.feature_names]
    nameless.to_csv(rejected / "nameless.csv", index=False)
    nameless[study.feature_names[::-1]].to_parquet(rejected / "nameless.parquet", index=False)
    blank = people.iloc[18:19][[study.id, *study.feature_names[::-1]]].assign(**{study.id: " "})
    blank.to_csv(rejected / "blank.csv", index=False)
    with pa.CompressedOutputStream(str(rejected / "export.csv.zst"), "zstd") as stream:
        stream.write(table(18, 20))
    scores = [repr(score) for score in people["score"]]
    log = home.dagster / "storage" / "a_run" / "compute_logs" / "step.err"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"scored {people[study.id].iloc[19]}\nthe highest is {scores[3]}\nall is well\n")
    answers = people.iloc[5][study.feature_names].astype(int).to_dict()
    example = home.artifacts / "by_hand" / "example.json"
    example.parent.mkdir(parents=True, exist_ok=True)
    example.write_text(json.dumps({"people": [answers, {"score": float(people["score"].iloc[6])}]}))
    with open_outbox(home.outbox, study.policies.notifications) as outbox:
        assert outbox is not None
        outbox.keep([Message("key", "cause", "failed", "A run failed", f"look at {scores[7]}", 0.0)])
    preview = listed.drop(columns=[study.id]).head(5)
    workshop.instance.report_runless_asset_event(
        dg.AssetMaterialization(
            "contact_list",
            partition="march",
            metadata={
                "contacts": len(listed),
                "first_five_without_ids": dg.MetadataValue.md(preview.to_markdown(index=False)),
            },
        )
    )
    row = people.iloc[8:9][study.feature_names].to_markdown(index=False)
    workshop.instance.report_runless_asset_event(
        dg.AssetObservation("overview", metadata={"odd": dg.MetadataValue.md(row), "score": scores[9]})
    )


def traces(root: Path, study: Study, people: pd.DataFrame) -> list[str]:
    """Return every place below a folder where an id, the answers or the exact score of the people stand."""
    found: list[str] = []
    ids, scores = set(people[study.id]), set(people["score"])
    answers = {tuple(map(int, row)) for row in people[study.feature_names].to_numpy()}
    words = [one.encode(code) for one in ids for code in ("utf-8", "utf-16-le")]
    words += [repr(score)[:9].encode() for score in scores]
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        for content in _unpacked(path.read_bytes()):
            if any(word in content for word in words):
                found.append(f"{path.relative_to(root)}: a word")
            for frame in _frames(path, content):
                frame.columns = [str(name).strip() for name in frame.columns]
                if set(study.feature_names) <= set(frame.columns):
                    rows = frame[study.feature_names].apply(pd.to_numeric, errors="coerce").dropna()
                    if answers & {tuple(map(int, row)) for row in rows.to_numpy()}:
                        found.append(f"{path.relative_to(root)}: answers")
                if "score" in frame and scores & set(pd.to_numeric(frame["score"], errors="coerce")):
                    found.append(f"{path.relative_to(root)}: a score")
    return found


def _unpacked(content: bytes, depth: int = 0) -> Iterator[bytes]:
    yield content
    if depth > 4:
        return
    inner: list[bytes] = []
    if content.startswith(b"\x1f\x8b"):
        inner.append(zlib.decompressobj(31).decompress(content))
    elif content.startswith(b"BZh"):
        inner.append(bz2.decompress(content))
    elif content.startswith(b"\xfd7zXZ"):
        inner.append(lzma.decompress(content))
    elif content.startswith(b"\x28\xb5\x2f\xfd"):
        inner.append(pa.input_stream(io.BytesIO(content), compression="zstd").read())
    elif content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            inner += [packed.read(name) for name in packed.namelist()]
    elif content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as packed:
            inner += [file.read() for one in packed if (file := packed.extractfile(one))]
    elif content.startswith(b"mail.csv was refused"):
        letters = b"".join(line for line in content.split(b"\n") if b" " not in line)
        if b"[erased]" not in letters:
            inner.append(base64.b64decode(letters + b"=="))
    for one in inner:
        yield from _unpacked(one, depth + 1)


def _frames(path: Path, content: bytes) -> Iterator[pd.DataFrame]:
    """Yield the tables in a file's content."""
    if content.startswith(b"PAR1"):
        yield pd.read_parquet(io.BytesIO(content))
    elif content.startswith(b"SQLite format 3"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as con:
            for (table,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                yield pd.read_sql(f'SELECT * FROM "{table}"', con)
    elif content[8:12] == b"DUCK":
        with duckdb.connect(str(path), read_only=True) as con:
            for (table,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                yield con.table(table).df()
    elif path.suffix == ".xlsx" and content.startswith(b"PK"):
        for sheet in openpyxl.load_workbook(io.BytesIO(content), read_only=True):
            header, *rows = [*sheet.iter_rows(values_only=True)] or [()]
            yield pd.DataFrame(rows, columns=[str(name) for name in header])
    elif content[:1].isalpha() and b"," in content[:2000]:
        try:
            yield pd.read_csv(io.BytesIO(content), sep=None, engine="python", on_bad_lines="skip")
        except (ValueError, UnicodeDecodeError, pd.errors.ParserError):
            return


def _zipped(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(name, content)
    return out.getvalue()


def _tarred(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as packed:
        header = tarfile.TarInfo(name)
        header.size = len(content)
        packed.addfile(header, io.BytesIO(content))
    return out.getvalue()
