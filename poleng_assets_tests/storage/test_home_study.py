"""A home knows its study: who begins it gives it one, and nobody works on it with another."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from poleng_assets.storage.home import Home
from poleng_assets.storage.home_study import OtherStudy, open_home, study_of
from poleng_assets.study.loading import STUDIES, load_study
from poleng_assets.study.schema import Study, StudyError
from poleng_assets_tests.conftest import with_policies

SHIPPED = STUDIES / "political_engagement.yaml"


@pytest.fixture(autouse=True)
def _no_study_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLENG_STUDY", raising=False)


def other_study(path: Path, **overseer: object) -> Path:
    """Write the shipped study with other policies of the overseer."""
    content = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    content["policies"]["overseer"] |= overseer
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def test_a_home_that_work_begins_in_keeps_a_copy_of_the_study_that_ships(tmp_path: Path, study: Study):
    home = Home(tmp_path / "home")
    assert study_of(home) == study
    assert not home.root.exists()
    assert open_home(home) == study
    assert home.study_file.read_text(encoding="utf-8") == SHIPPED.read_text(encoding="utf-8")


def test_a_new_home_takes_the_study_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    named = other_study(tmp_path / "named.yaml", min_rows=50)
    monkeypatch.setenv("POLENG_STUDY", str(named))
    home = Home(tmp_path / "home")
    assert open_home(home).policies.overseer.min_rows == 50
    monkeypatch.delenv("POLENG_STUDY")
    assert study_of(home).policies.overseer.min_rows == 50
    named.unlink()
    assert study_of(home).policies.overseer.min_rows == 50


def test_a_study_that_is_given_goes_before_the_one_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: Study
):
    monkeypatch.setenv("POLENG_STUDY", str(tmp_path / "missing.yaml"))
    home = Home(tmp_path / "home")
    assert open_home(home, SHIPPED) == study
    given = with_policies(study, overseer={"min_rows": 50})
    other = Home(tmp_path / "other")
    assert open_home(other, given) == given
    assert load_study(other.study_file) == given


@pytest.mark.parametrize("by_environment", [True, False], ids=["environment", "argument"])
def test_a_process_with_another_study_is_refused_by_the_names_of_the_fields_before_it_touches_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool
):
    home = Home(tmp_path / "home")
    open_home(home)
    (home.root / "outbox").mkdir()
    home.requests.rmdir()
    before = everything_in(home.root)
    named = other_study(tmp_path / "named.yaml", min_rows=50, seed=24)
    if by_environment:
        monkeypatch.setenv("POLENG_STUDY", str(named))
    with pytest.raises(OtherStudy, match=r"overseer\.min_rows, policies\.overseer\.seed") as refused:
        open_home(home, None if by_environment else named)
    assert str(named) in str(refused.value)
    assert "poleng study change" in str(refused.value)
    assert everything_in(home.root) == before


def test_comments_blanks_and_the_order_of_fields_are_no_difference(tmp_path: Path, study: Study):
    home = Home(tmp_path / "home")
    open_home(home)
    sorted_and_bare = other_study(tmp_path / "same.yaml")
    assert "#" not in sorted_and_bare.read_text(encoding="utf-8")
    assert open_home(home, sorted_and_bare) == study


def test_a_wrong_study_of_a_home_is_named_with_its_line_and_what_to_do(tmp_path: Path):
    home = Home(tmp_path / "home")
    open_home(home)
    text = home.study_file.read_text(encoding="utf-8")
    home.study_file.write_text(text.replace("min_rows: 100", "min_rows: many"), encoding="utf-8")
    line = text[: text.index("min_rows: 100")].count("\n") + 1
    with pytest.raises(StudyError, match=f"line {line}: policies.overseer.min_rows") as wrong:
        open_home(home)
    assert str(home.study_file) in str(wrong.value)
    assert "restore it from a backup" in str(wrong.value)


def test_a_missing_study_file_is_named_before_a_home_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POLENG_STUDY", str(tmp_path / "missing.yaml"))
    with pytest.raises(StudyError, match=r"missing\.yaml: cannot be read.*\nPOLENG_STUDY is set to it"):
        open_home(Home(tmp_path / "home"))
    assert list(tmp_path.iterdir()) == []
