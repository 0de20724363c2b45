"""The landing folders: at no moment does a dropped file exist nowhere, and none is seen half-written."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from poleng_assets.storage.dropped_files import content_hash
from poleng_assets.storage.home import KINDS, Home, Kind
from poleng_assets.storage.landing import Landing


@pytest.fixture
def landing(home: Home) -> Landing:
    """A landing in which every file has settled at once."""
    return Landing(home, settle_seconds=0.0)


def drop(landing: Landing, name: str, content: str = "x", kind: Kind = "batches") -> Path:
    path = landing.home.landing(kind) / name
    path.write_text(content)
    return path


def seen(landing: Landing, kind: Kind = "batches") -> list[str]:
    return [dropped.path.name for dropped in landing.dropped(kind)]


def problems(landing: Landing) -> dict[str, str]:
    return {dropped.path.name: dropped.problem for dropped in landing.dropped("batches")}


def everything(home: Home) -> list[str]:
    return sorted(str(p.relative_to(home.root)) for p in home.root.rglob("*") if not p.is_dir())


# What is seen


@pytest.mark.parametrize("kind", KINDS)
def test_a_dropped_file_is_seen_in_its_own_folder_only(landing: Landing, kind: Kind):
    drop(landing, "spring.parquet", kind=kind)
    assert {other: seen(landing, other) for other in KINDS} == {
        other: ["spring.parquet"] if other == kind else [] for other in KINDS
    }


def test_a_file_gives_its_name_to_what_it_becomes(landing: Landing):
    drop(landing, "spring.2024.parquet")
    (dropped,) = landing.dropped("batches")
    assert (dropped.name, dropped.kind, dropped.problem) == ("spring.2024", "batches", "")


def test_the_name_of_a_packed_file_is_without_its_whole_suffix(landing: Landing):
    drop(landing, "march.csv.gz")
    assert [dropped.name for dropped in landing.dropped("batches")] == ["march"]


def test_files_come_oldest_first(landing: Landing):
    for name, age in [("b.csv", 20), ("a.csv", 10), ("c.csv", 30)]:
        os.utime(drop(landing, name), (1e9 - age, 1e9 - age))
    assert seen(landing) == ["c.csv", "b.csv", "a.csv"]


def test_files_of_the_same_age_come_by_name(landing: Landing):
    for name in ("b.csv", "c.csv", "a.csv"):
        os.utime(drop(landing, name), (1e9, 1e9))
    assert seen(landing) == ["a.csv", "b.csv", "c.csv"]


def test_a_file_that_was_just_touched_is_not_seen(home: Home):
    landing = Landing(home, settle_seconds=60)
    drop(landing, "spring.csv")
    assert seen(landing) == []


def test_a_file_is_seen_once_it_has_settled(home: Home):
    landing = Landing(home, settle_seconds=0.4)
    drop(landing, "spring.csv")
    assert seen(landing) == []
    time.sleep(0.5)
    assert seen(landing) == ["spring.csv"]


def test_a_copy_that_brings_an_old_date_must_settle_too(home: Home):
    landing = Landing(home, settle_seconds=60)
    os.utime(drop(landing, "spring.csv"), (1e9, 1e9))
    assert seen(landing) == []


@pytest.mark.parametrize("name", [".spring.csv", ".spring.csv.part", "spring.csv.part", ".DS_Store"])
def test_hidden_and_part_files_are_not_seen(landing: Landing, name: str):
    drop(landing, name)
    drop(landing, "seen.csv")
    assert seen(landing) == ["seen.csv"]


def test_a_home_without_folders_has_nothing_dropped(tmp_path: Path):
    assert seen(Landing(Home(tmp_path / "nowhere"))) == []


def test_a_stamp_stays_while_the_file_does(landing: Landing):
    drop(landing, "spring.csv")
    stamps = {next(landing.dropped("batches")).stamp for _ in range(2)}
    assert len(stamps) == 1


def test_a_stamp_changes_when_the_same_content_is_dropped_again(landing: Landing):
    drop(landing, "spring.csv")
    before = next(landing.dropped("batches")).stamp
    time.sleep(0.02)
    drop(landing, "spring.csv")
    assert next(landing.dropped("batches")).stamp != before


def test_files_that_come_and_go_meanwhile_do_no_harm(landing: Landing):
    drop(landing, "stays.csv")
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            paths = [drop(landing, f"{number}.csv") for number in range(50)]
            for path in paths:
                path.unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    looks: list[list[str]] = []
    give_up = time.monotonic() + 30
    try:
        # On a busy machine the other thread may not get its turn between the first looks.
        while len(looks) < 150 or (max(map(len, looks)) == 1 and time.monotonic() < give_up):
            looks.append(seen(landing))
    finally:
        over.set()
        thread.join()
    assert all("stays.csv" in look for look in looks)
    assert max(len(look) for look in looks) > 1


def test_a_file_waits_from_the_moment_it_is_dropped_until_it_leaves(home: Home):
    landing = Landing(home, settle_seconds=60)
    path = drop(landing, "spring.csv")
    drop(landing, ".hidden.csv")
    drop(landing, "copying.csv.part")
    assert (landing.waiting("batches"), seen(landing)) == ([path], [])
    landing.archive("batches", path, "spring")
    assert landing.waiting("batches") == []


def test_in_a_home_without_folders_nothing_waits(tmp_path: Path):
    assert Landing(Home(tmp_path / "nowhere")).waiting("batches") == []


# What can never be taken in


@pytest.mark.parametrize(
    "name",
    [
        "with space.csv",
        "-begins-with-a-dash.csv",
        "ümlaut.csv",
        "semi;colon.csv",
        "two..dots.csv",
        "ends-with-a-dot.csv.",
        "quote'.csv",
        "line\nbreak.csv",
        f"{'x' * 97}.csv",
    ],
)
def test_an_odd_name_is_a_problem(landing: Landing, name: str):
    drop(landing, name)
    assert "its name may contain only letters, digits" in problems(landing)[name]


@pytest.mark.parametrize(
    "name",
    [
        "a.csv",
        "A-1_b.2024.parquet",
        "7.csv",
        f"{'x' * 96}.csv",
        "a.csv.gz",
        "a.csv.bz2",
        "a.csv.zst",
        "console.csv",
        "com10.csv",
    ],
)
def test_a_plain_name_is_no_problem(landing: Landing, name: str):
    drop(landing, name)
    assert problems(landing) == {name: ""}


@pytest.mark.parametrize("name", ["CON.csv", "nul.parquet", "Lpt9.csv.gz", "com1.march.csv", "aux.csv"])
def test_the_name_of_a_windows_device_is_a_problem(landing: Landing, name: str):
    drop(landing, name)
    assert "is a device name on Windows" in problems(landing)[name]


@pytest.mark.parametrize("name", ["people.xlsx", "people", "people.csv.xz", "people.CSV", "people.gz"])
def test_another_suffix_is_a_problem(landing: Landing, name: str):
    drop(landing, name)
    said = "its name ends in none of .parquet, .csv, .csv.gz, .csv.bz2, .csv.zst"
    assert problems(landing) == {name: said}


def test_a_link_is_a_problem_wherever_it_leads(landing: Landing, tmp_path: Path):
    target = tmp_path / "secret.csv"
    target.write_text("x")
    folder = landing.home.landing("batches")
    (folder / "good.csv").symlink_to(target)
    (folder / "dangling.csv").symlink_to(tmp_path / "nowhere")
    assert problems(landing) == dict.fromkeys(("good.csv", "dangling.csv"), "it is not a regular file")


def test_a_folder_is_a_problem(landing: Landing):
    (landing.home.landing("batches") / "folder.csv").mkdir()
    assert problems(landing) == {"folder.csv": "it is not a regular file"}


def test_a_pipe_is_a_problem(landing: Landing):
    os.mkfifo(landing.home.landing("batches") / "pipe.csv")
    assert problems(landing) == {"pipe.csv": "it is not a regular file"}


# Submitting


def test_a_submitted_file_lands_whole_and_its_original_stays(landing: Landing, tmp_path: Path):
    file = tmp_path / "spring.csv"
    file.write_text("content")
    place = landing.submit("batches", file)
    assert place == landing.home.landing("batches") / "spring.csv"
    assert (place.read_text(), file.read_text()) == ("content", "content")
    assert everything(landing.home) == ["landing/batches/spring.csv"]


def test_a_large_file_is_never_visible_in_part(landing: Landing, tmp_path: Path):
    file = tmp_path / "large.csv"
    size = 100_000_000
    with file.open("wb") as sparse:
        sparse.truncate(size)
    folder = landing.home.landing("batches")
    thread = threading.Thread(target=landing.submit, args=("batches", file))
    sizes, unfinished = set(), 0
    thread.start()
    while thread.is_alive():
        unfinished += (folder / ".large.csv.part").exists() and not seen(landing)
        sizes |= {dropped.path.stat().st_size for dropped in landing.dropped("batches")}
    thread.join()
    assert unfinished > 0, "the copy was too quick to be watched"
    assert sizes <= {size}
    assert (folder / "large.csv").stat().st_size == size


@pytest.mark.parametrize("what", ["missing", "folder"])
def test_a_file_that_cannot_be_copied_leaves_nothing_to_be_seen(landing: Landing, tmp_path: Path, what: str):
    file = tmp_path / "spring.csv"
    if what == "folder":
        file.mkdir()
    with pytest.raises(OSError, match=r"spring\.csv"):
        landing.submit("batches", file)
    assert seen(landing) == []


def test_a_file_that_waits_is_not_overwritten(landing: Landing, tmp_path: Path):
    drop(landing, "spring.csv", "first")
    file = tmp_path / "spring.csv"
    file.write_text("second")
    with pytest.raises(FileExistsError, match="is already waiting for ingestion"):
        landing.submit("batches", file)
    assert (landing.home.landing("batches") / "spring.csv").read_text() == "first"


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o777


def test_a_submitted_file_is_readable_by_its_owner_only(landing: Landing, tmp_path: Path):
    file = tmp_path / "spring.csv"
    file.write_text("content")
    file.chmod(0o644)
    (landing.home.landing("batches") / ".spring.csv.part").touch(0o644)  # of a process that was killed
    assert mode(landing.submit("batches", file)) == 0o600
    assert mode(file) == 0o644


def test_a_submission_that_fails_leaves_nothing_behind(landing: Landing, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        landing.submit("batches", tmp_path / "missing.csv")
    assert everything(landing.home) == []


# Archiving


def test_an_archived_and_a_rejected_file_are_readable_by_their_owner_only(landing: Landing):
    for name in ("kept.csv", "refused.csv"):
        drop(landing, name).chmod(0o664)
    folder = landing.home.landing("batches")
    assert mode(landing.archive("batches", folder / "kept.csv", "kept")) == 0o600
    place = landing.reject("batches", folder / "refused.csv", "odd")
    assert mode(place) == mode(place.with_name("refused.csv.reason.txt")) == 0o600


def test_an_archived_file_leaves_landing(landing: Landing):
    place = landing.archive("batches", drop(landing, "spring.csv", "content"), "spring")
    assert place.read_text() == "content"
    assert everything(landing.home) == ["archive/batches/spring.csv"]


def test_archiving_again_does_nothing(landing: Landing):
    path = drop(landing, "spring.csv")
    place = landing.archive("batches", path, "spring")
    assert landing.archive("batches", path, "spring") == landing.archive("batches", place, "spring") == place
    assert everything(landing.home) == ["archive/batches/spring.csv"]


def test_the_same_content_under_the_same_name_is_archived_once(landing: Landing):
    for _ in range(2):
        landing.archive("batches", drop(landing, "spring.csv", "same"), "spring")
    assert everything(landing.home) == ["archive/batches/spring.csv"]


def test_a_new_version_is_kept_beside_the_earlier_one(landing: Landing):
    landing.archive("batches", drop(landing, "spring.csv", "first"), "spring")
    landing.archive("batches", drop(landing, "spring.csv", "second"), "spring@2")
    kept = {path.name: path.read_text() for path in landing.home.archive("batches").iterdir()}
    assert kept == {"spring.csv": "first", "spring@2.csv": "second"}
    assert landing.archived("batches", "spring@2") == landing.home.archive("batches") / "spring@2.csv"
    assert landing.archived("batches", "summer") is None


def test_a_copy_of_an_archived_file_does_not_replace_it(landing: Landing):
    landing.archive("batches", drop(landing, "spring.csv", "whole"), "spring")
    (landing.home.archive("batches") / "spring.csv").write_text("without a person who was forgotten")
    place = landing.archive("batches", drop(landing, "spring.csv", "whole"), "spring")
    assert place.read_text() == "without a person who was forgotten"
    assert everything(landing.home) == ["archive/batches/spring.csv"]


def test_other_content_that_was_dropped_meanwhile_stays_in_landing(landing: Landing):
    path = drop(landing, "spring.csv", "taken in")
    digest = content_hash(path)
    drop(landing, "spring.csv", "dropped meanwhile")
    landing.archive("batches", path, "spring", digest)
    assert everything(landing.home) == ["landing/batches/spring.csv"]
    drop(landing, "spring.csv", "taken in")
    assert landing.archive("batches", path, "spring", digest).read_text() == "taken in"
    drop(landing, "spring.csv", "dropped later")
    landing.archive("batches", path, "spring", digest)
    assert path.read_text() == "dropped later"


# Rejecting


def test_a_rejected_file_has_its_reason_beside_it(landing: Landing):
    place = landing.reject("batches", drop(landing, "spring.csv", "content"), "1 column is missing: sex")
    assert everything(landing.home) == [
        "rejected/batches/spring.csv",
        "rejected/batches/spring.csv.reason.txt",
    ]
    assert place.read_text() == "content"
    note = place.with_name("spring.csv.reason.txt").read_text()
    assert "spring.csv was refused." in note
    assert "Why: 1 column is missing: sex" in note
    assert "landing/batches" in note


def test_two_rejections_of_one_name_keep_both_files_and_reasons(landing: Landing):
    for number in ("one", "two", "three"):
        landing.reject("batches", drop(landing, "spring.csv", number), f"reason {number}")
    folder = landing.home.rejected("batches")
    kept = {
        path.read_text(): path.with_name(f"{path.name}.reason.txt").read_text()
        for path in folder.glob("*.csv")
    }
    assert {content: f"Why: reason {content}" in note for content, note in kept.items()} == {
        "one": True,
        "two": True,
        "three": True,
    }


def test_the_second_rejection_of_a_packed_file_keeps_its_whole_suffix(landing: Landing):
    for _ in range(2):
        place = landing.reject("batches", drop(landing, "march.csv.gz"), "odd")
    assert place.name == "march.2.csv.gz"


def test_rejecting_a_link_leaves_the_mode_of_what_it_leads_to(landing: Landing, tmp_path: Path):
    target = tmp_path / "theirs.csv"
    target.touch(0o644)
    target.chmod(0o644)
    link = landing.home.landing("batches") / "link.csv"
    link.symlink_to(target)
    landing.reject("batches", link, "not a file")
    assert mode(target) == 0o644


def test_a_folder_is_rejected_with_all_that_is_in_it(landing: Landing):
    folder = landing.home.landing("batches") / "folder.csv"
    folder.mkdir()
    (folder / "inner.csv").write_text("x")
    landing.reject("batches", folder, "not a file")
    assert everything(landing.home) == [
        "rejected/batches/folder.csv.reason.txt",
        "rejected/batches/folder.csv/inner.csv",
    ]


def test_a_rejected_link_leaves_what_it_leads_to_alone(landing: Landing, tmp_path: Path):
    target = tmp_path / "secret.csv"
    target.write_text("secret")
    link = landing.home.landing("batches") / "link.csv"
    link.symlink_to(target)
    place = landing.reject("batches", link, "not a file")
    assert (place.is_symlink(), target.read_text(), seen(landing)) == (True, "secret", [])


def test_two_dangling_links_of_one_name_keep_both_reasons(landing: Landing, tmp_path: Path):
    link = landing.home.landing("batches") / "link.csv"
    for number in ("one", "two"):
        link.symlink_to(tmp_path / "nowhere")
        landing.reject("batches", link, f"reason {number}")
    notes = [path.read_text() for path in landing.home.rejected("batches").glob("*.txt")]
    assert sorted(note.count("reason one") for note in notes) == [0, 1]
    assert sorted(note.count("reason two") for note in notes) == [0, 1]


@pytest.mark.parametrize("length", [240, 255])
def test_a_name_as_long_as_the_file_system_allows_can_be_rejected_twice(landing: Landing, length: int):
    name = f"{'x' * (length - 4)}.csv"
    places = [landing.reject("batches", drop(landing, name, n), f"reason {n}") for n in ("one", "two")]
    assert [place.read_text() for place in places] == ["one", "two"]
    notes = [place.with_name(f"{place.name}.reason.txt").read_text() for place in places]
    assert ["reason one" in notes[0], "reason two" in notes[1]] == [True, True]
    assert all(name in note for note in notes)


def test_a_name_that_is_no_text_can_be_rejected(landing: Landing):
    path = landing.home.landing("batches") / os.fsdecode(b"\xff.csv")
    path.write_text("content")
    place = landing.reject("batches", path, "odd name")
    assert place.read_text() == "content"
    assert "Why: odd name" in place.with_name(f"{place.name}.reason.txt").read_text()
    assert seen(landing) == []
