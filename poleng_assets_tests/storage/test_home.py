"""The home folder: its folders are made, and are its owner's alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from poleng_assets.cli.main import main
from poleng_assets.storage.home import KINDS, LONGEST_ROOT, OWN, Home, HomeRefused


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A shell that makes files which everybody may read and write."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def of_an_earlier_release(tmp_path: Path) -> Home:
    """A home whose root and files others may read, as earlier releases left them."""
    home = Home(tmp_path / "home").create()
    deep = home.artifacts / "1" / "models"
    deep.mkdir(parents=True)
    files = [home.warehouse, home.root / "warehouse.duckdb.wal", home.root / "mlflow.db", deep / "model.json"]
    for file in files:
        file.write_text("people")
        file.chmod(0o644)
    for folder in (home.root, home.artifacts / "1", deep):
        folder.chmod(0o755)
    return home


@pytest.mark.usefixtures("open_umask")
def test_whatever_the_shell_allows_only_the_owner_may_look_in(tmp_path: Path):
    home = Home(tmp_path / "deep" / "home").create()
    assert mode_of(home.root) == 0o700
    assert {mode_of(path) for path in home.root.rglob("*")} == {0o700}


@pytest.mark.usefixtures("open_umask")
def test_what_this_process_writes_from_then_on_is_its_owners_alone(tmp_path: Path):
    home = Home(tmp_path / "home").create()
    (home.root / "by a library").write_text("people")
    assert mode_of(home.root / "by a library") == 0o600


def test_all_folders_of_all_kinds_are_there_and_known_as_own(tmp_path: Path):
    home = Home(tmp_path / "home").create()
    for kind in KINDS:
        assert all(place(kind).is_dir() for place in (home.landing, home.archive, home.rejected))
    assert {path.name for path in home.root.iterdir()} <= set(OWN)


def test_making_it_again_changes_nothing(home: Home):
    (home.contact_lists / "march.csv").write_text("people")
    before = {path: path.stat().st_mtime_ns for path in home.root.rglob("*")}
    home.create()
    assert {path: path.stat().st_mtime_ns for path in home.root.rglob("*")} == before


def test_files_of_an_earlier_release_are_closed(of_an_earlier_release: Home):
    of_an_earlier_release.create()
    everything = [of_an_earlier_release.root, *of_an_earlier_release.root.rglob("*")]
    assert [path for path in everything if mode_of(path) & 0o077] == []
    assert of_an_earlier_release.warehouse.read_text() == "people"


def test_they_are_looked_for_only_once(of_an_earlier_release: Home):
    of_an_earlier_release.create()
    of_an_earlier_release.warehouse.chmod(0o640)  # by somebody who means it
    of_an_earlier_release.create()
    assert mode_of(of_an_earlier_release.warehouse) == 0o640


def test_what_is_not_ours_keeps_its_rights(of_an_earlier_release: Home):
    theirs = of_an_earlier_release.root / "photographs"
    theirs.mkdir()
    theirs.chmod(0o755)
    of_an_earlier_release.create()
    assert mode_of(theirs) == 0o755


def test_links_are_not_followed(of_an_earlier_release: Home, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    outside.chmod(0o644)
    (of_an_earlier_release.landing("batches") / "march.csv").symlink_to(outside)
    of_an_earlier_release.create()
    assert mode_of(outside) == 0o644


@pytest.mark.parametrize("mode", [0o1777])
def test_a_folder_that_all_use_stays_open(tmp_path: Path, mode: int):
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(mode)
    home = Home(shared).create()
    assert mode_of(shared) == mode
    assert mode_of(home.contact_lists) == 0o700


def test_the_folder_of_a_user_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tmp_path.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    Home(tmp_path).create()
    assert mode_of(tmp_path) == 0o755


def test_reports_of_an_earlier_release_move_to_the_folder_of_the_batches(home: Home):
    written = {}
    for name in ("march", "batches", "overview.html.2", "march@2"):
        old = home.reports / name / "version_1.html"
        old.parent.mkdir(exist_ok=True)
        old.write_text(name)
        written[name] = home.report(name, 1)
    card = home.model_card(1)
    card.parent.mkdir()
    card.write_text("card")
    home.overview.write_text('<a href="./march/version_1.html">, <a href="./march%402/version_1.html">')
    home.create()
    assert {name: page.read_text() for name, page in written.items()} == {name: name for name in written}
    assert card.read_text() == "card"
    assert sorted(path.name for path in home.reports.iterdir()) == ["batches", "models", "overview.html"]
    pages = ["./batches/march/version_1.html", "./batches/march%402/version_1.html"]
    assert home.overview.read_text() == ", ".join(f'<a href="{page}">' for page in pages)


def test_whatever_a_batch_is_called_its_report_is_no_other_page(home: Home):
    others = {home.overview, home.model_card(1)}
    assert not others & {home.report(name, 1) for name in ("models", "overview.html", "overview", "batches")}


@pytest.mark.parametrize(
    ("name", "sign"),
    [
        ("a%20b", "%20"),
        ("a%3Fb", "%3F"),
        ("what?", "?"),
        ("all*", "*"),
        ("[x]", "["),
        ("{x}", "{"),
        ("a\\b", "\\"),
        ("two\nlines", "\\n"),
        ("esc\x1b[31m", "\\x1b"),
        ("list\u202evsc", "\\u202e"),
        ("no\udcfftext", "\\udcff"),
    ],
)
def test_a_folder_that_a_database_cannot_be_opened_in_is_refused_with_the_sign_that_is_in_the_way(
    tmp_path: Path, name: str, sign: str
):
    with pytest.raises(HomeRefused, match="cannot be a home folder: its path contains") as refused:
        Home(tmp_path / name / "home")
    assert sign in str(refused.value).partition("its path contains")[2]
    assert not set("\n\x1b\u202e\udcff") & set(str(refused.value))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["a b", "x#y", "it's", 'say "hi"', "a;b&c", "100%", "Zürich 日本", "-a", "$(x)`"]
)
def test_blanks_quotes_and_letters_of_any_language_are_no_obstacle(tmp_path: Path, name: str):
    assert Home(tmp_path / name).create().landing("batches").is_dir()


def test_a_path_is_as_long_as_databases_allow(tmp_path: Path):
    def folder(length: int) -> Path:
        root = tmp_path
        while (left := length - len(str(root)) - 1) > 100:
            root /= "l" * 99
        return root / ("l" * left)

    assert Home(folder(LONGEST_ROOT)).create().dagster.is_dir()
    with pytest.raises(HomeRefused, match=f"path has {LONGEST_ROOT + 1} bytes"):
        Home(folder(LONGEST_ROOT + 1))
    with pytest.raises(HomeRefused, match="longer than 255 bytes"):
        Home(tmp_path / ("l" * 256))
    with pytest.raises(HomeRefused, match="255 bytes"):
        Home(tmp_path / ("ü" * 128))


def test_a_file_is_no_home(tmp_path: Path):
    (tmp_path / "home").touch()
    with pytest.raises(HomeRefused, match="it is a file"):
        Home(tmp_path / "home").create()


@pytest.mark.parametrize("words", ["status", "decisions", "run-pending", "retry", "mlflow",
                                   "submit batch {file}", "restore {file}", "backup {file}", "why x",
                                   "forget x --yes"])  # fmt: skip
def test_every_command_refuses_such_a_folder_before_a_file_is_made(tmp_path: Path, words: str):
    file = tmp_path / "march.csv"
    file.write_text("a\n1\n")
    told = [one.format(file=file) for one in words.split()]
    result = CliRunner().invoke(main, [*told, "--home", str(tmp_path / "a%20b?")])
    assert result.exit_code == 1
    assert "cannot be a home folder: its path contains %20 ?" in result.output
    assert list(tmp_path.iterdir()) == [file]
