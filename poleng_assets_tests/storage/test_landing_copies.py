"""What is taken in is a copy of what was dropped: writers that pause, other disks, entries that stay."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from poleng_assets.storage import landing as module
from poleng_assets.storage.dropped_files import content_hash
from poleng_assets.storage.home import Home
from poleng_assets.storage.landing import FileChanged, Landing
from poleng_assets_tests.faults.disks import mounted, read_only

WHOLE = "a,b\n1,2\n3,4\n"


@pytest.fixture
def landing(home: Home) -> Landing:
    return Landing(home, settle_seconds=0.0)


def drop(landing: Landing, name: str = "march.csv", content: str = WHOLE) -> Path:
    path = landing.home.landing("batches") / name
    path.write_text(content)
    return path


def everything(home: Home) -> list[str]:
    return sorted(str(path.relative_to(home.root)) for path in home.root.rglob("*") if path.is_file())


def names(landing: Landing) -> list[str]:
    return [one.path.name for one in landing.dropped("batches")]


# Writers


def test_a_file_is_left_alone_while_somebody_has_it_open_for_writing(landing: Landing):
    path = drop(landing)
    with path.open("a") as writer:
        seen = landing.look("batches")
        assert seen.dropped == []
        assert "has it open for writing" in seen.waits["march.csv"]
        assert str(os.getpid()) in seen.waits["march.csv"]
        writer.write("5,6\n")
    assert names(landing) == ["march.csv"]


def test_nothing_is_copied_from_a_file_that_is_being_written(landing: Landing):
    path = drop(landing)
    with (
        path.open("a"),
        pytest.raises(FileChanged, match=r"open for writing"),
        landing.copied("batches", path),
    ):
        pass
    assert everything(landing.home) == ["landing/batches/march.csv"]


def test_a_file_without_an_end_of_its_last_line_is_waited_for_longer(home: Home):
    landing = Landing(home, settle_seconds=0.1)
    drop(landing, "cut.csv", WHOLE[:-1])
    drop(landing, "whole.csv")
    time.sleep(0.15)
    seen = landing.look("batches")
    assert [one.path.name for one in seen.dropped] == ["whole.csv"]
    assert seen.waits == {"cut.csv": "it looks incomplete"}
    assert 0 < seen.seconds <= 0.9
    time.sleep(seen.seconds)
    assert names(landing) == ["whole.csv", "cut.csv"] or names(landing) == ["cut.csv", "whole.csv"]


def test_what_this_process_dropped_whole_needs_no_time(home: Home, tmp_path: Path):
    landing = Landing(home, settle_seconds=60)
    file = tmp_path / "march.csv"
    file.write_text(WHOLE[:-1])
    landing.submit("batches", file)
    drop(landing, "of_somebody_else.csv")
    assert names(landing) == ["march.csv"]


# The copy


def test_the_copy_has_the_hash_and_the_content_and_no_link_to_the_original(landing: Landing):
    path = drop(landing)
    other = path.with_name("hard_link")
    os.link(path, other)
    with path.open("rb") as held, landing.copied("batches", path) as copy:
        assert (copy.digest, copy.path.read_text()) == (content_hash(path), WHOLE)
        place = landing.keep("batches", copy, "march")
        assert landing.remove(copy) == ""
        assert held.read().decode() == WHOLE
    assert not path.exists()
    with other.open("a") as late:
        late.write("5,6\n")
    assert place.read_text() == WHOLE
    assert place.stat().st_nlink == 1
    assert everything(landing.home) == ["archive/batches/march.csv", "landing/batches/hard_link"]


@pytest.mark.parametrize("how", ["more rows", "other rows of that size", "another file of that name"])
def test_what_changed_meanwhile_is_noticed_before_it_is_committed_and_stays(landing: Landing, how: str):
    path = drop(landing)
    with landing.copied("batches", path) as copy:
        copy.confirm()
        if how == "more rows":
            path.write_text(WHOLE + "5,6\n")
        elif how == "other rows of that size":
            path.write_text(WHOLE.replace("3", "9"))
            os.utime(path, ns=(copy.status.st_atime_ns, copy.status.st_mtime_ns))
        else:
            path.unlink()
            path.write_text(WHOLE.replace("3", "9"))
        later = path.read_text()
        with pytest.raises(FileChanged, match="changed during ingestion"):
            copy.confirm()
        assert "is ingested as a new version" in landing.remove(copy)
    assert path.read_text() == later
    assert everything(landing.home) == ["landing/batches/march.csv"]


def test_who_has_the_file_open_when_it_is_to_leave_keeps_it_there(landing: Landing):
    path = drop(landing)
    with landing.copied("batches", path) as copy, path.open("a") as writer:
        assert "stays in landing" in landing.remove(copy)
        writer.write("5,6\n")
    assert path.read_text() == WHOLE + "5,6\n"


def test_the_archived_copy_of_an_unknown_history_is_not_overwritten(landing: Landing):
    target = landing.home.archive("batches") / "march.csv"
    target.write_text("of a lost warehouse")
    with landing.copied("batches", drop(landing)) as copy:
        landing.keep("batches", copy, "march")
    assert target.read_text() == WHOLE
    (other,) = [path for path in target.parent.iterdir() if path != target]
    assert other.read_text() == "of a lost warehouse"


def test_what_a_killed_process_left_is_cleared_and_what_others_use_is_not(landing: Landing):
    path = drop(landing, "used.csv")
    left = landing._work / "left"
    left.mkdir(parents=True)
    (left / "march.csv").write_text("half")
    aside = drop(landing, ".april.csv.taken")
    os.utime(aside)
    with landing.copied("batches", path) as copy:
        landing.clear_leftovers("batches")
        assert copy.path.read_text() == WHOLE
        assert not left.exists()
    assert aside.exists()  # another process may be looking at it right now


def test_a_file_that_a_killed_process_set_aside_gets_its_name_back(landing: Landing):
    drop(landing, ".april.csv.taken")
    drop(landing, ".march.csv.taken", "old")
    drop(landing, "march.csv", "new")
    landing.clear_leftovers("batches")
    assert names(landing) == ["april.csv", "march.csv"]
    assert everything(landing.home) == [
        f"landing/batches/{name}" for name in (".march.csv.taken", "april.csv", "march.csv")
    ]


def test_what_a_killed_process_tried_a_landing_folder_out_with_is_removed(landing: Landing):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    for suffix in (".part", ".tmp"):
        drop(landing, f".poleng-{killed.pid}{suffix}", "x")
    drop(landing, f".poleng-{os.getpid()}.part", "x")
    drop(landing, ".poleng-of-a-person.csv")
    landing.clear_leftovers("batches")
    assert everything(landing.home) == [
        f"landing/batches/.poleng-{os.getpid()}.part",
        "landing/batches/.poleng-of-a-person.csv",
    ]


# Entries that nothing can be done with


def test_litter_and_unfinished_copies_are_named_and_not_touched(landing: Landing):
    for name in ("Thumbs.db", "desktop.ini", "people.csv~", ".forgotten.csv", ".DS_Store"):
        drop(landing, name)
    (landing.home.landing("batches") / "lost+found").mkdir()
    for name in ("a.csv.filepart", "b.csv.tmp", "~$c.xlsx"):
        drop(landing, name)
    drop(landing, "good.csv")
    seen = landing.look("batches")
    assert [one.path.name for one in seen.dropped] == ["good.csv"]
    assert sorted(seen.waits) == ["a.csv.filepart", "b.csv.tmp", "~$c.xlsx"]
    assert sorted(seen.left) == [".forgotten.csv", "Thumbs.db", "desktop.ini", "lost+found", "people.csv~"]
    assert [path.name for path in landing.waiting("batches")] == ["good.csv"]


def test_what_is_mounted_in_landing_is_left_alone(landing: Landing, tmp_path: Path):
    folder = landing.home.landing("batches")
    drop(landing, "good.csv")
    with mounted(folder / "disk", megabytes=1), read_only(drop(landing, "bound.csv")):
        seen = landing.look("batches")
        assert [one.path.name for one in seen.dropped] == ["good.csv"]
        assert {"disk", "bound.csv"} == set(seen.left)
        assert "mount point" in seen.left["bound.csv"]


def test_an_immutable_file_is_left_alone(landing: Landing):
    path = drop(landing, "fixed.csv")
    if not shutil.which("chattr") or subprocess.run(["chattr", "+i", path], check=False).returncode:
        pytest.skip("files cannot be made immutable here")
    try:
        drop(landing, "good.csv")
        seen = landing.look("batches")
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
    assert [one.path.name for one in seen.dropped] == ["good.csv"]
    assert "immutable" in seen.left["fixed.csv"]
    assert "fixed.csv" in names(landing)


def test_a_file_that_may_not_be_read_is_left_alone(landing: Landing, monkeypatch: pytest.MonkeyPatch):
    closed, opened = drop(landing, "closed.csv"), module._opened

    def refuse(path: Path):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path)

    drop(landing, "good.csv")
    monkeypatch.setattr(module, "_opened", refuse)
    seen = landing.look("batches")
    assert [one.path.name for one in seen.dropped] == ["good.csv"]
    assert "Permission denied" in seen.left["closed.csv"]


def test_a_landing_folder_that_may_not_be_written_is_told_at_start(landing: Landing):
    drop(landing)
    with read_only(landing.home.landing("batches")):
        words = landing.test_access("batches")
        assert "cannot be written (Read-only file system)" in words
        assert "is not writable" in landing.look("batches").left["march.csv"]
    assert landing.test_access("batches") == ""
    assert everything(landing.home) == ["landing/batches/march.csv"]


# Landing on another disk


def test_a_landing_folder_on_another_disk_works_as_any(landing: Landing):
    folder = landing.home.landing("batches")
    with mounted(folder, megabytes=4):
        assert landing.test_access("batches") == ""
        with landing.copied("batches", drop(landing)) as copy:
            kept = landing.keep("batches", copy, "march")
            assert landing.remove(copy) == ""
        refused = landing.reject("batches", drop(landing, "odd name.csv"), "odd")
        (folder / "link.csv").symlink_to("/nowhere")
        link = landing.reject("batches", folder / "link.csv", "no file")
        assert (kept.read_text(), refused.read_text(), str(link.readlink())) == (WHOLE, WHOLE, "/nowhere")
        assert list(folder.iterdir()) == []


def test_a_folder_or_socket_on_another_disk_stays_and_leaves_no_reason_behind(landing: Landing):
    folder = landing.home.landing("batches")
    with mounted(folder, megabytes=1):
        (folder / "folder").mkdir()
        with socket.socket(socket.AF_UNIX) as endpoint:
            endpoint.bind(str(folder / "socket"))
        for name in ("folder", "socket"):
            with pytest.raises(OSError, match="on another disk"):
                landing.reject("batches", folder / name, "no file")
    assert everything(landing.home) == []


def test_an_archive_on_another_disk_gets_whole_files(landing: Landing):
    archive = landing.home.archive("batches")
    with mounted(archive, megabytes=4):
        with landing.copied("batches", drop(landing)) as copy:
            kept = landing.keep("batches", copy, "march")
        assert kept.read_text() == WHOLE
        assert [path.name for path in archive.iterdir()] == ["march.csv"]
