"""Who writes to a file, and whether it ends as a whole one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from poleng_assets.storage import writers
from poleng_assets.storage.writers import ends_early, is_open_for_writing, name_writers


def is_written(path: Path) -> bool:
    with path.open("rb") as file:
        return is_open_for_writing(file.fileno())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "march.csv"
    path.write_text("a,b\n1,2\n")
    return path


@pytest.fixture(params=["by the kernel", "by looking through processes"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "by the kernel":
        monkeypatch.setattr(writers, "_on_network", lambda device: True)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("mode", ["a", "r+", "w"])
def test_whoever_has_a_file_open_for_writing_is_seen_until_it_is_closed(path: Path, mode: str):
    assert not is_written(path)
    with path.open(mode):
        assert is_written(path)
    assert not is_written(path)


@pytest.mark.usefixtures("_way")
def test_readers_are_no_writers(path: Path):
    with path.open():
        assert not is_written(path)


def test_another_process_is_named(path: Path):
    script = "import sys; f = open(sys.argv[1], 'a'); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        assert is_written(path)
        assert f"({process.pid})" in name_writers(path)
        process.communicate("")
    assert not is_written(path)
    assert name_writers(path) == "another process"


def test_who_opens_the_file_while_it_is_asked_about_is_let_in(path: Path):
    """The kernel tells of them by a signal, which must not end this process."""
    with path.open("rb") as file:
        for _ in range(200):
            assert not is_open_for_writing(file.fileno())
            os.close(os.open(path, os.O_WRONLY))


@pytest.mark.parametrize(
    ("name", "content", "early"),
    [
        ("a.csv", b"a,b\n1,2\n", False),
        ("a.csv", b"a,b\r\n1,2\r\n", False),
        ("a.csv", b"a,b\r1,2\r", False),
        ("a.csv", b"a,b\n1,2\n\x1a", False),
        ("a.csv", "a,b\n1,2\n".encode("utf-16"), False),
        ("a.csv", "a,b\n1,2\n".encode("utf-32"), False),
        ("a.csv", b"a,b\n1,2", True),
        ("a.csv", "a,b\n1,2".encode("utf-16"), True),
        ("a.csv", b"a header alone", False),
        ("a.csv", b"", False),
        ("a.parquet", b"PAR1....PAR1", False),
        ("a.parquet", b"PAR1........", True),
        ("a.parquet", b"no parquet", False),
        ("a.csv.gz", b"\x1f\x8b", False),
    ],
)
def test_a_file_ends_early_when_a_whole_one_would_not_end_so(
    tmp_path: Path, name: str, content: bytes, early: bool
):
    path = tmp_path / name
    path.write_bytes(content)
    assert ends_early(path) is early


def test_what_is_mounted_is_read_with_blanks_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told = tmp_path / "mountinfo"
    told.write_text(
        "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        "40 22 0:50 / /data/my\\040landing rw - nfs4 server:/x rw\n"
    )
    monkeypatch.setattr(writers, "_MOUNTS", told)
    assert writers.mount_points() == {"/", "/data/my landing"}
    assert writers._on_network(os.makedev(0, 50))
    assert not writers._on_network(os.makedev(8, 1))
