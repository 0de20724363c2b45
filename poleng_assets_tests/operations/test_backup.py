"""Backups that can be trusted: whole or not there, read back, and refused when they were changed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from click.testing import CliRunner
from dagster._daemon.types import DaemonHeartbeat

from poleng_assets.cli.backup import backup, restore
from poleng_assets.defs.instance import daemon_is_running, open_instance
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.defs.run_history import runs_in_progress
from poleng_assets.operations.backup import make as making
from poleng_assets.operations.backup import snapshot
from poleng_assets.operations.backup.archive import FORMAT, ArchiveBroken, read_archive
from poleng_assets.operations.backup.make import Backup, backups_made, make_backup
from poleng_assets.operations.backup.snapshot import BackupRefused, exclusive_folder
from poleng_assets.operations.backup.state import MANIFEST, SUMS
from poleng_assets.operations.restore import HomeNotEmpty, restore_backup
from poleng_assets.storage.files import write_atomically
from poleng_assets.storage.home import CHECKOUT, Home
from poleng_assets.storage.landing import ASIDE, Landing
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets_tests.conftest import table_counts
from poleng_assets_tests.faults.disks import filled, mounted

NO_TEXT = os.fsdecode(b"m\xe4rz.csv")


@pytest.fixture
def furnished(home: Home, warehouse: Warehouse) -> Home:
    """A home with a file of each kind, and a ledger with one row."""
    files = {
        "archive/batches/march.csv": "subject_id\n1\n",
        "rejected/batches/märz (1).csv": "not text at all",
        f"rejected/batches/{NO_TEXT}": "a name that is no text",
        "contact_lists/march.csv": "1\n",
        "reports/batches/march/version_1.html": "<p>march</p>",
        "contact_lists/march (list 2).csv": "2\n",
        "requests/field_study_request (request 1).csv": "3\n",
        "mlartifacts/models/m-1/artifacts/model.json": "{}",
        "mlartifacts/versions/1.json": "{}",
        "people.json": "{}",
        "clock.json": "{}",
        "dagster/storage/run/compute_logs/step.out": "said",
    }
    for name, text in files.items():
        path = home.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with warehouse.connect() as con:
        con.execute(
            """INSERT INTO decisions BY NAME
            SELECT now() AS decided_at, 'promote' AS kind, 'first' AS reason, '{}' AS evidence"""
        )
    return home


@pytest.fixture
def made(furnished: Home, warehouse: Warehouse, tmp_path: Path) -> Backup:
    return make_backup(furnished, warehouse, tmp_path / "home.tar.gz")


def empty_home(tmp_path: Path) -> Home:
    return Home(tmp_path / "restored").create()


def drop_settled(home: Home, name: str, text: str) -> Path:
    path = home.landing("batches") / name
    path.write_text(text)
    time.sleep(2.1)
    return path


def take_in(con: duckdb.DuckDBPyConnection, batch: str) -> None:
    """Have the warehouse know a file, as it does before its run has told Dagster."""
    con.execute(
        """INSERT INTO ingested_files BY NAME SELECT 'batches' AS kind, ? AS name, 'hash' AS content_hash,
        1 AS rows_read, 1 AS rows_kept, 0 AS rows_quarantined, '' AS ignored_columns, now() AS ingested_at""",
        [batch],
    )


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# What is in it


def test_what_is_restored_is_what_was_there(furnished: Home, made: Backup, tmp_path: Path):
    old = furnished.root / "archive/batches/march.csv"
    target = empty_home(tmp_path)
    restore_backup(made.path, target)
    own = {"warehouse.duckdb", "last_backup.json"}
    before, after = everything_in(furnished.root), everything_in(target.root)
    plain = {name for name in before if not name.startswith("dagster/") and name not in own}
    assert {name: after[name] for name in plain} == {name: before[name] for name in plain}
    assert f"rejected/batches/{NO_TEXT}" in after
    assert (target.root / "archive/batches/march.csv").stat().st_mtime_ns == old.stat().st_mtime_ns
    with duckdb.connect(target.warehouse, read_only=True) as con:
        assert table_counts(con)["decisions"] == 1
        assert con.execute("SELECT count(*) FROM current_predictions").fetchall() == [(0,)]


def test_archive_and_restored_home_are_their_owners_alone(made: Backup, tmp_path: Path):
    target = Home(tmp_path / "restored")
    restore_backup(made.path, target)
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    others = [path for path in (target.root, *target.root.rglob("*")) if path.stat().st_mode & 0o077]
    assert others == []


def test_the_manifest_tells_what_the_archive_is(furnished: Home, made: Backup):
    manifest = read_archive(made.path)
    assert manifest == made.manifest
    assert manifest.format == FORMAT
    assert manifest.home == str(furnished.root)
    assert manifest.rows["decisions"] == 1
    assert set(manifest.versions) == {"python", "poleng_assets", "dagster", "duckdb", "mlflow"}
    assert set(manifest.hashes) > {"warehouse.duckdb", "contact_lists/march.csv"}


def test_tar_and_sha256sum_understand_the_archive(furnished: Home, warehouse: Warehouse, tmp_path: Path):
    """Whoever has no release of this project at hand gets at every file, and sees that it is intact."""
    names = {NO_TEXT, "märz (1).csv", "two\nlines.csv", "back\\slash.csv", f"{'long ' * 30}.csv"}
    for name in names:
        (furnished.root / "rejected" / "batches" / name).write_text("refused")
    made = make_backup(furnished, warehouse, tmp_path / "home.tar.gz")
    folder = tmp_path / "unpacked"
    folder.mkdir()
    listed = subprocess.run(["tar", "-tf", made.path], check=True, capture_output=True)
    subprocess.run(["tar", "-xf", made.path], check=True, cwd=folder)
    checked = subprocess.run(["sha256sum", "-c", SUMS], check=True, cwd=folder, capture_output=True)
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    assert files > names
    assert len(checked.stdout.splitlines()) == len(made.manifest.hashes) + 1  # the manifest's too
    assert all(line.endswith(b": OK") for line in checked.stdout.splitlines())
    assert len(listed.stdout.splitlines()) == len(made.manifest.hashes) + 2
    archived = furnished.root / "archive/batches/march.csv"
    assert (folder / "archive/batches/march.csv").stat().st_mtime_ns == archived.stat().st_mtime_ns
    assert read_archive(made.path) == made.manifest


def test_an_archive_of_the_first_format_is_restored(made: Backup, tmp_path: Path):
    def as_then(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        about = json.loads(members[0][1])
        del about["size"]
        listed = [
            {"name": i.name, "sha256": made.manifest.hashes[i.name], "size": i.size, "modified_ns": 0}
            for i, _ in members[2:]
        ]
        content = json.dumps(about | {"format": 1, "members": listed}).encode()
        members[:2] = [(members[0][0], content)]

    restored = restore_backup(repacked(made.path, as_then), empty_home(tmp_path))
    assert restored.manifest.hashes == made.manifest.hashes
    assert restored.manifest.size == made.manifest.size


def test_half_written_files_and_locks_stay_out(furnished: Home, warehouse: Warehouse, tmp_path: Path):
    for name in (
        "landing/batches/.march.csv.part",
        "landing/batches/april.csv.part",
        ".lock",
        "mlflow.db-wal",
    ):
        (furnished.root / name).write_text("half")
    os.mkfifo(furnished.root / "landing/batches/pipe.csv")
    made = make_backup(furnished, warehouse, tmp_path / "home.tar.gz")
    names = list(made.manifest.hashes)
    assert not [n for n in names if "part" in n or ".lock" in n or "wal" in n or "pipe" in n or "last_" in n]
    assert "pipe.csv: skipped, it is not a regular file" in " ".join(made.remarks)


def test_a_file_that_is_still_being_written_is_left_out_and_named(
    furnished: Home, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(snapshot, "LANDING_SECONDS", 0.5)
    drop_settled(furnished, "whole.csv", "subject_id\n1\n")
    done = threading.Event()

    def write_slowly() -> None:
        with (furnished.landing("batches") / "april.csv").open("w") as file:
            while not done.wait(0.1):
                file.write("1\n")
                file.flush()

    writer = threading.Thread(target=write_slowly)
    writer.start()
    made = make_backup(furnished, warehouse, tmp_path / "home.tar.gz")
    done.set()
    writer.join()
    landed = [name for name in made.manifest.hashes if name.startswith("landing/")]
    assert landed == ["landing/batches/whole.csv"]
    assert [remark for remark in made.remarks if "april.csv: skipped, it is still being written" in remark]


def test_a_file_that_has_just_been_dropped_is_waited_for(
    furnished: Home, warehouse: Warehouse, tmp_path: Path
):
    (furnished.landing("batches") / "april.csv").write_text("subject_id\n1\n")
    made = make_backup(furnished, warehouse, tmp_path / "home.tar.gz")
    assert "landing/batches/april.csv" in made.manifest.hashes


def test_what_is_kept_of_versions_is_no_newer_than_the_store_that_registers_them(
    furnished: Home, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A version that is trained meanwhile would be counted, and be in no store."""
    copy_warehouse = snapshot.copy_database

    def train_meanwhile(con: duckdb.DuckDBPyConnection, copy: Path) -> dict[str, int]:
        (furnished.artifacts / "versions" / "2.json").write_text("{}")
        return copy_warehouse(con, copy)

    monkeypatch.setattr(snapshot, "copy_database", train_meanwhile)
    made = make_backup(furnished, warehouse, tmp_path / "home.tar.gz")
    kept = [name for name in made.manifest.hashes if name.startswith("mlartifacts/versions/")]
    assert kept == ["mlartifacts/versions/1.json"]


def test_a_reference_goes_with_its_hash_while_somebody_is_erased_from_it(
    furnished: Home, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Who erases waits for the warehouse: what is copied of both then belongs together."""
    version = furnished.artifacts / "versions" / "1.json"
    reference = furnished.artifacts / "1" / "run" / "artifacts" / "reference" / "reference.parquet"
    for path in (version, reference):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "everybody")
    held = warehouse.connect

    @contextmanager
    def erase_behind() -> Iterator[duckdb.DuckDBPyConnection]:
        with held() as con:
            yield con
        for path in (version, reference):
            write_atomically(path, "all but one")

    monkeypatch.setattr(type(warehouse), "connect", lambda _: erase_behind())
    made = make_backup(furnished, warehouse, tmp_path / "home.tar.gz")
    restored = restore_backup(made.path, empty_home(tmp_path))
    home = Home(tmp_path / "restored")
    assert restored.manifest == made.manifest
    for path in (version, reference):
        assert (home.root / path.relative_to(furnished.root)).read_text() == "everybody"


def test_a_file_that_a_killed_run_had_set_aside_comes_back(
    furnished: Home, warehouse: Warehouse, tmp_path: Path
):
    drop_settled(furnished, f".april.csv{ASIDE}", "subject_id\n1\n")
    made = make_backup(furnished, warehouse, tmp_path / "home.tar.gz")
    restore_backup(made.path, empty_home(tmp_path))
    landing = Landing(Home(tmp_path / "restored"))
    landing.clear_leftovers("batches")
    assert [path.name for path in landing.waiting("batches")] == ["april.csv"]


def test_rows_that_were_deleted_are_not_in_the_archive(furnished: Home, warehouse: Warehouse, tmp_path: Path):
    with warehouse.connect() as con:
        con.execute(
            """INSERT INTO decisions BY NAME SELECT now() AS decided_at, 'skip' AS kind, '{}' AS evidence,
            md5(range::VARCHAR) AS reason FROM range(100_000)"""
        )
        con.execute("CHECKPOINT")
        con.execute("DELETE FROM decisions WHERE kind = 'skip'")
    made = make_backup(furnished, warehouse, tmp_path / "home.tar.gz")
    with tarfile.open(made.path) as archive:
        copy = archive.getmember("warehouse.duckdb").size
    # 100,000 hashes are 3 MB however they are packed: they are in the one file, and not in the other.
    assert furnished.warehouse.stat().st_size - copy > 2_000_000


def test_a_file_that_dagster_does_not_know_yet_is_waited_for(
    furnished: Home, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(snapshot, "EVENT_SECONDS", 60.0)
    with warehouse.connect() as con:
        take_in(con, "march")

    def tell() -> None:
        time.sleep(1.0)
        with open_instance(furnished) as instance:
            instance.report_runless_asset_event(dg.AssetMaterialization("batches", partition="march"))

    teller = threading.Thread(target=tell)
    teller.start()
    made = make_backup(furnished, warehouse, tmp_path / "home.tar.gz")
    teller.join()
    assert made.remarks == ()
    restore_backup(made.path, empty_home(tmp_path))
    with open_instance(Home(tmp_path / "restored")) as instance:
        assert instance.get_materialized_partitions(dg.AssetKey("batches")) == {"march"}


def test_a_file_that_dagster_never_hears_of_is_named(
    furnished: Home, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(snapshot, "EVENT_SECONDS", 0.3)
    with warehouse.connect() as con:
        take_in(con, "march")
    made = make_backup(furnished, warehouse, tmp_path / "home.tar.gz")
    assert [remark for remark in made.remarks if remark.startswith("batches/march: in the warehouse")]


# Where it may be written


def test_a_backup_is_refused_where_it_would_do_harm(furnished: Home, warehouse: Warehouse, tmp_path: Path):
    there = tmp_path / "there.tar.gz"
    there.write_text("precious")
    inside = tmp_path / "link"
    inside.symlink_to(furnished.root, target_is_directory=True)
    for target, words in (
        (there, "already exists"),
        (furnished.root / "home.tar.gz", "is inside the home"),
        (inside / "home.tar.gz", "is inside the home"),
        (tmp_path, "is a folder"),
        (tmp_path / "nowhere" / "home.tar.gz", "create it first"),
    ):
        with pytest.raises(BackupRefused, match=words):
            make_backup(furnished, warehouse, target)
    assert there.read_text() == "precious"
    make_backup(furnished, warehouse, there, force=True)
    assert read_archive(there).home == str(furnished.root)


def test_an_empty_home_is_not_backed_up(tmp_path: Path):
    for home in (tmp_path / "missing", Home(tmp_path / "empty").create().root):
        done = CliRunner().invoke(backup, [str(tmp_path / "home.tar.gz"), "--home", str(home)])
        assert done.exit_code == 1
        assert "there is nothing to back up" in done.output
    assert not (tmp_path / "missing").exists()


def test_an_archive_that_cannot_be_read_back_is_not_kept(
    furnished: Home, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write = making.write_archive

    def write_on_a_broken_disk(part: Path, *rest: Any) -> None:
        write(part, *rest)
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        part.write_bytes(content)

    monkeypatch.setattr(making, "write_archive", write_on_a_broken_disk)
    with pytest.raises(BackupRefused, match="cannot be read back"):
        make_backup(furnished, warehouse, tmp_path / "home.tar.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
    assert not (furnished.root / ".backup").exists()
    assert not (furnished.root / "last_backup.json").exists()


def test_a_full_disk_leaves_no_half_archive(furnished: Home, tmp_path: Path):
    with mounted(tmp_path / "disk", megabytes=1) as disk, filled(disk, leave_bytes=8192):
        done = CliRunner().invoke(backup, [str(disk / "home.tar.gz"), "--home", str(furnished.root)])
        left = [path.name for path in disk.iterdir() if path.name != ".ballast"]
    assert done.exit_code == 1
    assert "No space left on device" in done.output
    assert left == []
    assert not (furnished.root / ".backup").exists()


def test_one_backup_at_a_time(furnished: Home, warehouse: Warehouse, tmp_path: Path):
    with (
        exclusive_folder(furnished.root / ".backup"),
        pytest.raises(BackupRefused, match="another backup or restore uses"),
    ):
        make_backup(furnished, warehouse, tmp_path / "home.tar.gz")


def test_what_a_killed_backup_left_is_removed_by_the_next(
    furnished: Home, warehouse: Warehouse, tmp_path: Path
):
    (furnished.root / ".backup" / "archive").mkdir(parents=True)
    (furnished.root / ".backup" / "archive" / "left.csv").write_text("left")
    made = make_backup(furnished, warehouse, tmp_path / "home.tar.gz")
    assert "archive/left.csv" not in made.manifest.hashes
    assert not (furnished.root / ".backup").exists()


# A run holds the warehouse

HOLD = """
import sys, time, duckdb
con = duckdb.connect(sys.argv[1])
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def hold(path: Path, seconds: float) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_backup_waits_for_a_run_and_says_so(furnished: Home, warehouse: Warehouse, tmp_path: Path):
    told: list[str] = []
    with hold(furnished.warehouse, 600.0) as holder:

        def end_the_run(words: str) -> None:
            told.append(words)
            holder.kill()

        patient = replace(warehouse, patience_seconds=60.0, say=end_the_run)
        made = make_backup(furnished, patient, tmp_path / "home.tar.gz")
    assert f"PID {holder.pid}" in told[0]
    assert read_archive(made.path).rows["decisions"] == 1


def test_a_warehouse_that_is_held_too_long_is_no_backup(furnished: Home, tmp_path: Path):
    with hold(furnished.warehouse, 600.0) as holder:
        done = CliRunner().invoke(
            backup, [str(tmp_path / "home.tar.gz"), "--home", str(furnished.root), "--wait", "1"]
        )
        holder.kill()
    assert done.exit_code == 1
    assert "No backup was made" in done.output
    assert f"PID {holder.pid}" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
    assert not (furnished.root / ".backup").exists()


# Archives that are not what was written


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_an_archive_cut_short_is_refused(made: Backup, tmp_path: Path, share: float):
    content = made.path.read_bytes()
    made.path.write_bytes(content[: int(len(content) * share)])
    refuse(made.path, tmp_path, "is not a complete backup|does not start with")


def test_an_archive_without_its_last_byte_is_refused(made: Backup, tmp_path: Path):
    made.path.write_bytes(made.path.read_bytes()[:-1])
    refuse(made.path, tmp_path, "is not a complete backup")


@pytest.mark.parametrize("share", [0.01, 0.2, 0.4, 0.6, 0.8, 0.9999])
def test_an_archive_with_another_bit_is_refused(made: Backup, tmp_path: Path, share: float):
    content = made.path.read_bytes()
    made.path.write_bytes(with_another_bit(content, int(len(content) * share)))
    refuse(made.path, tmp_path, "is not a complete backup|cannot be restored")


def with_another_bit(packed: bytes, place: int) -> bytes:
    """Change a bit from a place on that matters: what is alike can be packed in more than one way."""
    changed = bytearray(packed)
    changed[place] ^= 4
    try:
        means_the_same = gzip.decompress(changed) == gzip.decompress(packed)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        means_the_same = False
    return with_another_bit(packed, place + 1) if means_the_same else bytes(changed)


def refuse(archive: Path, tmp_path: Path, words: str) -> None:
    """See that an archive is refused in words, and that the home stays as empty as it was."""
    target = empty_home(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ArchiveBroken, match=words):
        restore_backup(archive, target)
    assert sorted(tmp_path.rglob("*")) == before


Change = Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]


def repacked(archive: Path, change: Change) -> Path:
    """Write an archive anew, with members as somebody who means harm would have them."""
    with tarfile.open(archive) as old:
        members = [(info, old.extractfile(info).read()) for info in old]  # type: ignore[union-attr]
    change(members)
    with tarfile.open(archive, "w:gz") as new:
        for info, content in members:
            info.size = len(content) if info.isreg() else 0
            new.addfile(info, io.BytesIO(content))
    return archive


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def listed(members: list[tuple[tarfile.TarInfo, bytes]], name: str, content: bytes) -> None:
    """Add a member to the list of hashes too, with its true one, and to the size of all."""
    about = json.loads(members[0][1])
    rewritten(members, about | {"size": about["size"] + len(content)})
    line = f"{hashlib.sha256(content).hexdigest()}  {name}\n"
    members[1] = (members[1][0], members[1][1] + line.encode())


def rewritten(members: list[tuple[tarfile.TarInfo, bytes]], about: dict[str, Any]) -> None:
    """Put another manifest into an archive, and its hash into the list."""
    content = json.dumps(about).encode()
    _, behind = members[1][1].split(b"\n", 1)
    sums = f"{hashlib.sha256(content).hexdigest()}  {MANIFEST}\n".encode() + behind
    members[:2] = [(members[0][0], content), (members[1][0], sums)]


@pytest.mark.parametrize(
    "name",
    ["../evil", "/tmp/evil", "archive/../../evil", "./evil", "archive//evil", ".lock", "dagster/.x/y", ""],
)
@pytest.mark.parametrize("in_manifest", [True, False])
def test_a_member_that_would_leave_the_home_is_refused(
    made: Backup, tmp_path: Path, name: str, in_manifest: bool
):
    def add(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members.append((entry(name), b"evil"))
        if in_manifest:
            listed(members, name, b"evil")

    refuse(
        repacked(made.path, add),
        tmp_path,
        "which is not possible in a backup|is not a complete backup|has no hash",
    )
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
)
def test_links_devices_and_folders_are_refused(made: Backup, tmp_path: Path, kind: bytes):
    def add(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members.append((entry("contact_lists/april.csv", kind, "/etc/passwd"), b""))
        listed(members, "contact_lists/april.csv", b"")

    refuse(repacked(made.path, add), tmp_path, "which is not a regular file")


def test_a_member_with_other_content_is_refused(made: Backup, tmp_path: Path):
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        place = next(n for n, (info, _) in enumerate(members) if info.name == "contact_lists/march.csv")
        members[place] = (members[place][0], b"2\n")

    refuse(repacked(made.path, change), tmp_path, "contact_lists/march.csv was changed")


def header_of(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = entry(name, kind)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def bomb(made: Backup, tmp_path: Path, begin: Callable[[], bytes], zeros: int) -> Path:
    """Write an archive of few bytes whose first two members are followed by what begins so, and by zeros."""
    path = tmp_path / "bomb.tar.gz"
    with tarfile.open(made.path) as old, gzip.open(path, "wb", compresslevel=9) as packed:
        for name in (MANIFEST, SUMS):
            content = old.extractfile(name).read()  # type: ignore[union-attr]
            padding = -len(content) % tarfile.BLOCKSIZE
            packed.write(header_of(name, len(content)) + content + bytes(padding))
        packed.write(begin())
        for _ in range(zeros // 2**20):
            packed.write(bytes(2**20))
    return path


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("a member", "It claims"),
        ("a long name", "a name in it has"),
        ("a setting", "a name in it has"),
        ("a sparse file", "which is not a regular file"),
    ],
)
def test_a_header_that_announces_more_than_was_backed_up_is_refused_before_a_byte_of_it(
    made: Backup, tmp_path: Path, what: str, words: str
):
    kinds = {
        "a member": tarfile.REGTYPE,
        "a long name": tarfile.GNUTYPE_LONGNAME,
        "a setting": tarfile.XHDTYPE,
        "a sparse file": tarfile.GNUTYPE_SPARSE,
    }
    size = 64 * 2**20
    path = bomb(made, tmp_path, lambda: header_of(min(made.manifest.hashes), size, kinds[what]), size)
    assert path.stat().st_size < 2**20
    into = tmp_path / "into"
    into.mkdir()
    tracemalloc.start()
    with pytest.raises(ArchiveBroken, match=words):
        read_archive(path, into)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 * 2**20
    assert sum(one.stat().st_size for one in into.rglob("*") if one.is_file()) == 0


def test_what_goes_on_behind_the_end_is_refused(made: Backup, tmp_path: Path):
    path = tmp_path / "long.tar.gz"
    path.write_bytes(made.path.read_bytes() + gzip.compress(bytes(8 * 2**20)))
    with pytest.raises(ArchiveBroken, match="has data after its end"):
        read_archive(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda about, sums: (about | {"size": -1}, sums), "a size is not a number of bytes"),
        (lambda about, sums: (about, sums + sums.splitlines(keepends=True)[-1]), "a name occurs twice"),
        (lambda about, sums: (about, sums + b"no hash\n"), "a line has no hash"),
        (lambda about, sums: (about, sums + b"".join(b"%064d  %d\n" % (0, n) for n in range(11_000))),
         "files, too many for its size"),
        (lambda about, sums: (about | {"study": " " * 2**23}, sums), "bytes, which is not possible"),
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_is_refused(made: Backup, tmp_path: Path, change: Any, words: str):
    def rewrite(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        about, sums = change(json.loads(members[0][1]), members[1][1])
        members[1] = (members[1][0], sums)
        rewritten(members, about)

    with pytest.raises(ArchiveBroken, match=words):
        read_archive(repacked(made.path, rewrite))


def test_a_manifest_that_was_changed_is_refused(made: Backup, tmp_path: Path):
    def rename(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members[0] = (members[0][0], members[0][1].replace(b'"study"', b'"study" '))

    with pytest.raises(ArchiveBroken, match=f"{MANIFEST} was changed"):
        read_archive(repacked(made.path, rename))


def test_settings_before_settings_without_end_are_refused(made: Backup, tmp_path: Path):
    settings = (
        header_of("x", 12, tarfile.XHDTYPE) + b"12 path=ab\n\0".ljust(tarfile.BLOCKSIZE, b"\0")
    ) * 20_000
    with pytest.raises(ArchiveBroken, match="is not a complete backup"):
        read_archive(bomb(made, tmp_path, lambda: settings, 0))


def test_the_backups_that_were_made_are_remembered(furnished: Home, warehouse: Warehouse, tmp_path: Path):
    first, second = tmp_path / "first.tar.gz", tmp_path / "second.tar.gz"
    for target in (first, second):
        make_backup(furnished, warehouse, target)
    make_backup(furnished, warehouse, first, force=True)
    second.unlink()
    newest, before = backups_made(furnished.root)
    assert newest.startswith(f"{first}, made ")
    assert before.startswith(f"{second}, made ")
    assert "no longer exists there" in before


def test_a_member_that_comes_twice_or_not_at_all_is_refused(made: Backup, tmp_path: Path):
    whole = made.path.read_bytes()
    refuse(
        repacked(made.path, lambda members: members.append(members[-1])),
        tmp_path,
        "which is not possible in a backup",
    )
    made.path.write_bytes(whole)
    refuse(repacked(made.path, lambda members: members.pop() and None), tmp_path, "1 files are missing")


def test_an_archive_of_a_later_release_is_refused(made: Backup, tmp_path: Path):
    def later(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        rewritten(members, json.loads(members[0][1]) | {"format": FORMAT + 1, "something": "new"})

    refuse(repacked(made.path, later), tmp_path, f"it has format {FORMAT + 1}")


def test_a_file_that_is_no_backup_is_refused(tmp_path: Path):
    file = tmp_path / "file.tar.gz"
    file.write_text("no archive at all")
    refuse(file, tmp_path, "is not a complete backup")
    with tarfile.open(file, "w:gz") as other:
        other.addfile(entry("something"), io.BytesIO())
    refuse(file, tmp_path, f"does not start with {MANIFEST}")


# Where it may be restored


def test_a_home_that_holds_something_is_never_written_over(made: Backup, tmp_path: Path):
    target = empty_home(tmp_path)
    precious = target.landing("batches") / ".april.csv.part"  # somebody copies a file there right now
    precious.write_text("precious")
    done = CliRunner().invoke(restore, [str(made.path), "--home", str(target.root)])
    assert done.exit_code == 1
    assert "is not empty, it has landing/batches/.april.csv.part" in done.output
    assert "poleng reset" in done.output
    assert precious.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "home.tar.gz", "restored"]


def test_a_file_dropped_while_the_archive_is_read_is_not_lost(
    made: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = empty_home(tmp_path)
    dropped = target.landing("batches") / "april.csv"

    def drop_and_go_on(stage: Path) -> None:
        dropped.write_text("precious")

    monkeypatch.setattr("poleng_assets.operations.restore._make_private", drop_and_go_on)
    with pytest.raises(HomeNotEmpty, match=r"landing/batches/april\.csv"):
        restore_backup(made.path, target)
    assert dropped.read_text() == "precious"


def test_the_readme_of_the_checkout_stays(made: Backup, tmp_path: Path):
    target = empty_home(tmp_path)
    (target.root / "README.md").write_text("About this folder")
    done = CliRunner().invoke(restore, [str(made.path), "--home", str(target.root)])
    assert done.exit_code == 0, done.output
    assert (target.root / "README.md").read_text() == "About this folder"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "home.tar.gz", "restored"]


@pytest.mark.parametrize("archived", [True, False], ids=["archive with a study", "archive of before"])
def test_a_home_that_has_only_its_study_counts_as_empty(
    furnished: Home, warehouse: Warehouse, tmp_path: Path, archived: bool
):
    if archived:
        furnished.study_file.write_text("of the archive")
    archive = make_backup(furnished, warehouse, tmp_path / "home.tar.gz").path
    target = empty_home(tmp_path)
    target.study_file.write_text("of the home")
    restore_backup(archive, target)
    assert target.study_file.read_text() == ("of the archive" if archived else "of the home")


def test_the_root_of_a_disk_is_refused_in_words(made: Backup, tmp_path: Path):
    with (
        mounted(tmp_path / "disk", megabytes=1) as disk,
        pytest.raises(HomeNotEmpty, match="is a mount point"),
    ):
        restore_backup(made.path, Home(disk))


def test_too_little_space_is_said_before_anything_is_unpacked(made: Backup, tmp_path: Path):
    with (
        mounted(tmp_path / "disk", megabytes=1) as disk,
        filled(disk, leave_bytes=8192),
        pytest.raises(ArchiveBroken, match=r"bytes, but .* has only .* free"),
    ):
        restore_backup(made.path, Home(disk / "home"))


KILLED = """
import os, sys
from pathlib import Path
from poleng_assets.operations import restore
from poleng_assets.storage.home import Home

where = sys.argv[1]
def die(*args, **kwargs):
    os._exit(9)
if where == "between the two renames":
    rename, seen = Path.rename, []
    def renamed(self, target):
        seen.append(self)
        return die() if len(seen) == 2 else rename(self, target)
    Path.rename = renamed
elif where == "before the end":
    restore.shutil.rmtree = lambda path, *a, **k: die() if "empty" in str(path) else None
else:
    setattr(restore, where, die)
restore.restore_backup(Path(sys.argv[2]), Home(Path(sys.argv[3])))
"""


@pytest.mark.parametrize("where", ["_check_warehouse", "_make_private", "between the two renames"])
def test_a_killed_restore_leaves_the_home_empty_and_can_be_run_again(
    made: Backup, tmp_path: Path, where: str
):
    target = empty_home(tmp_path)
    (target.root / "README.md").write_text("About this folder")
    killed(where, made.path, target)
    if target.root.exists():
        assert everything_in(target.root) == {"README.md": b"About this folder"}
    again(made, target, tmp_path)


def test_a_restore_that_is_killed_at_its_very_end_is_done(made: Backup, tmp_path: Path):
    target = empty_home(tmp_path)
    killed("before the end", made.path, target)
    assert (target.root / "contact_lists/march.csv").read_text() == "1\n"
    with pytest.raises(HomeNotEmpty):
        restore_backup(made.path, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "home.tar.gz", "restored"]


def killed(where: str, archive: Path, target: Home) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, where, str(archive), str(target.root)],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 9, done.stderr


def again(made: Backup, target: Home, tmp_path: Path) -> None:
    restore_backup(made.path, target)
    assert (target.root / "contact_lists/march.csv").read_text() == "1\n"
    assert (target.root / "README.md").read_text() == "About this folder"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "home.tar.gz", "restored"]


# Runs that were under way


def test_no_run_of_then_is_alive_and_no_daemon_is_seen(furnished: Home, warehouse: Warehouse, tmp_path: Path):
    @dg.op
    def wait() -> None: ...

    @dg.job
    def long() -> None:
        wait()

    with open_instance(furnished) as instance:
        # Executed by a process that lives: this one. Nobody but the restore can know that it is not theirs.
        for status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED):
            run = instance.create_run_for_job(long, status=status)
        events = instance.event_log_storage
        events.initialize_concurrency_limit_to_default(WAREHOUSE_POOL)
        assert events.claim_concurrency_slot(WAREHOUSE_POOL, run.run_id, "wait").is_claimed
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "here", []))
        assert daemon_is_running(instance)
        made = make_backup(furnished, warehouse, tmp_path / "home.tar.gz")
    assert restore_backup(made.path, empty_home(tmp_path)).failed_runs == 2
    with open_instance(Home(tmp_path / "restored")) as instance:
        assert runs_in_progress(instance) == []
        assert instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])) == 2
        assert not daemon_is_running(instance)
        slots = instance.event_log_storage.get_concurrency_info(WAREHOUSE_POOL)
        assert slots.active_run_ids == set()
        assert slots.pending_run_ids == set()
