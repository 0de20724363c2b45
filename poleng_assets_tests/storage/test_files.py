"""A file that somebody opens is whole, and its owner's alone."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from poleng_assets.storage.files import in_place_of, write_atomically
from poleng_assets_tests.faults.disks import mounted, read_only


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def open_umask():
    """A shell that makes files which everybody may read and write."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_the_text_is_written_and_the_place_returned(tmp_path: Path):
    path = tmp_path / "list.csv"
    assert write_atomically(path, "name\r\nŽižková, “čtyři”\n") == path
    assert path.read_bytes() == "name\r\nŽižková, “čtyři”\n".encode()


def test_missing_folders_are_made(tmp_path: Path):
    path = tmp_path / "reports" / "models" / "version_1.html"
    assert write_atomically(path, "page").read_text() == "page"


@pytest.mark.usefixtures("open_umask")
def test_only_its_owner_may_read_it_whatever_the_shell_allows(tmp_path: Path):
    path = tmp_path / "list.csv"
    assert mode_of(write_atomically(path, "first")) == 0o600
    path.chmod(0o666)
    assert mode_of(write_atomically(path, "second")) == 0o600


@pytest.mark.usefixtures("open_umask")
def test_what_a_killed_process_left_beside_it_is_written_over(tmp_path: Path):
    path = tmp_path / "list.csv"
    (tmp_path / ".list.csv.part").write_text("half of a very long lis")
    assert mode_of(write_atomically(path, "whole")) == 0o600
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_who_has_the_old_file_open_reads_it_to_its_end(tmp_path: Path):
    path = write_atomically(tmp_path / "list.csv", "old " * 10_000)
    with path.open() as reader:
        assert reader.read(4) == "old "
        write_atomically(path, "new")
        assert reader.read() == "old " * 9_999
    assert path.read_text() == "new"


def test_nobody_ever_opens_half_of_it(tmp_path: Path):
    path = tmp_path / "list.csv"
    texts = ["a" * 2_000_000, "b" * 1_000_000]
    write_atomically(path, texts[0])
    over = threading.Event()

    def write() -> None:
        for number in range(60):
            write_atomically(path, texts[number % 2])
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while not over.is_set():
        assert path.read_text() in texts
        seen += 1
    writer.join()
    assert seen > 0


@pytest.mark.parametrize("text", ["half of it is fine \ud800 and then not"], ids=["no UTF-8"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, text: str):
    path = write_atomically(tmp_path / "list.csv", "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, text)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_move_that_fails_leaves_what_is_there_and_nothing_beside_it(tmp_path: Path):
    taken = tmp_path / "list.csv"
    (taken / "somebody's").mkdir(parents=True)
    with pytest.raises(OSError, match=r"list\.csv"):
        write_atomically(taken, "text")
    assert (taken / "somebody's").is_dir()
    assert list(tmp_path.iterdir()) == [taken]


def test_a_disk_that_is_full_is_named_with_the_file_and_keeps_the_old_one(tmp_path: Path):
    with mounted(tmp_path / "disk", megabytes=1) as disk:
        path = write_atomically(disk / "list.csv", "old")
        with pytest.raises(OSError, match=r"No space left on device: '.*/list\.csv'"):
            write_atomically(path, "x" * 3_000_000)
        assert path.read_text() == "old"
        assert list(disk.iterdir()) == [path]


def test_a_disk_that_may_not_be_written_is_named_with_the_file(tmp_path: Path):
    path = write_atomically(tmp_path / "lists" / "list.csv", "old")
    with (
        read_only(path.parent),
        pytest.raises(OSError, match=r"Read-only file system: '.*/\.list\.csv\.part'"),
    ):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_of_two_files_that_belong_together_neither_is_in_its_place_before_both_are_whole(tmp_path: Path):
    workbook, table = (
        write_atomically(tmp_path / "list.xlsx", "old"),
        write_atomically(tmp_path / "list.csv", "old"),
    )
    (tmp_path / ".list.csv.part").mkdir()  # where the second one cannot be written
    with pytest.raises(IsADirectoryError), in_place_of(workbook) as part:
        part.write_text("new")
        write_atomically(table, "new")
    assert (workbook.read_text(), table.read_text()) == ("old", "old")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".list.csv.part", "list.csv", "list.xlsx"]
