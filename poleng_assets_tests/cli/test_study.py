"""``poleng init`` and ``poleng study``: a home gets its study, and another one when a person wants it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from poleng_assets.cli.main import main
from poleng_assets.storage.home import Home
from poleng_assets.storage.home_study import study_of
from poleng_assets.study.loading import load_study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets_tests.faults.quick_study import SHIPPED, shipped, write_study

Content = dict[str, Any]


@pytest.fixture(autouse=True)
def _no_study_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLENG_STUDY", raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def poleng(home: Home, *arguments: str | Path, answer: str = "") -> tuple[int, str]:
    said = CliRunner().invoke(main, [*map(str, arguments), "--home", str(home.root)], input=answer)
    return said.exit_code, said.output


def changed(path: Path, change: Callable[[Content], object]) -> Path:
    content = shipped()
    change(content)
    return write_study(content, path)


def another_id(content: Content) -> None:
    content["id"] = "person"


def another_target(content: Content) -> None:
    content["target"]["name"] = "engaged"


def another_name(content: Content) -> None:
    content["name"] = "other"


def another_question(content: Content) -> None:
    content["features"][-1] |= {"name": "brand_new", "title": "Brand new"}
    content["protected"] = ["sex"]
    content["policies"]["overseer"]["min_rows"] = 50
    content["features"][2]["codes"][6] = "Hamlet"


def test_init_copies_the_study_into_a_new_home(home: Home, tmp_path: Path):
    file = changed(tmp_path / "mine.yaml", another_id)
    code, said = poleng(home, "init", file)
    assert (code, f"{home.root} is a home for" in said) == (0, True)
    assert home.study_file.read_bytes() == file.read_bytes()
    assert poleng(home, "init", file)[0] == 0
    assert "id, " not in poleng(home, "study", "show")[1]


@pytest.mark.parametrize("named", [(), ("political_engagement",)], ids=["by default", "by its name"])
def test_init_takes_the_study_that_ships(home: Home, named: tuple[str, ...]):
    assert poleng(home, "init", *named)[0] == 0
    assert home.study_file.read_bytes() == SHIPPED.read_bytes()


def test_init_with_another_study_names_the_fields_and_changes_nothing(home: Home, tmp_path: Path):
    poleng(home, "init")
    code, said = poleng(home, "init", changed(tmp_path / "mine.yaml", another_id))
    assert code == 1
    assert "differs in id" in said
    assert "poleng study change" in said
    assert home.study_file.read_bytes() == SHIPPED.read_bytes()


@pytest.mark.parametrize(
    "command", [("status",), ("run-pending",), ("decisions",), ("submit", "batch", SHIPPED)]
)
def test_a_command_with_another_study_is_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str | Path, ...]
):
    poleng(home, "init")
    monkeypatch.setenv("POLENG_STUDY", str(changed(tmp_path / "mine.yaml", another_question)))
    code, said = poleng(home, *command)
    assert code == 1
    assert "differs in" in said
    assert "policies.overseer.min_rows" in said
    assert not home.warehouse.exists()


def test_status_of_a_new_home_says_at_once_that_the_study_file_is_wrong(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wrong = tmp_path / "wrong.yaml"
    monkeypatch.setenv("POLENG_STUDY", str(wrong))
    code, said = poleng(home, "status")
    assert code == 1
    assert f"{wrong}: cannot be read: No such file or directory" in said
    assert "POLENG_STUDY is set to it: correct it" in said
    wrong.write_text(SHIPPED.read_text(encoding="utf-8").replace("kind: ordinal", "kind: ordered"))
    code, said = poleng(home, "status")
    assert code == 1
    assert ": line " in said
    assert "features.3.kind" in said
    assert not home.root.exists()


def test_the_option_goes_before_the_variable(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POLENG_STUDY", str(tmp_path / "missing.yaml"))
    assert poleng(home, "settle", "--study", SHIPPED)[0] == 0
    assert home.study_file.read_bytes() == SHIPPED.read_bytes()


def test_a_change_is_told_and_done_only_when_it_is_wanted(home: Home, tmp_path: Path):
    poleng(home, "init")
    with Warehouse(home.warehouse, study_of(home)).connect():
        pass
    file = changed(tmp_path / "mine.yaml", another_question)
    code, said = poleng(home, "study", "change", file, answer="n\n")
    assert code == 1
    assert "Added columns, empty for existing people: brand_new" in said
    assert f"kept for existing people: {shipped()['features'][-1]['name']}" in said
    assert "policies.overseer.min_rows: 100 becomes 50" in said
    assert "features.settlement.codes.6: new, 'Hamlet'" in said
    assert "protected: " in said
    assert "poleng retrain" in said
    assert home.study_file.read_bytes() == SHIPPED.read_bytes()

    assert poleng(home, "study", "change", file, "--yes")[0] == 0
    assert home.study_file.read_bytes() == file.read_bytes()
    with Warehouse(home.warehouse, study_of(home)).read() as con:
        ((kind, evidence),) = con.execute("SELECT kind, evidence FROM decisions").fetchall()
        assert con.execute("SELECT brand_new FROM batch_rows").fetchall() == []
    assert kind == "study"
    assert json.loads(evidence)["fields"]["policies.overseer.min_rows"] == {"before": 100, "after": 50}
    code, said = poleng(home, "study", "change", file)
    assert (code, "nothing was changed" in said) == (0, True)


@pytest.mark.parametrize(
    ("change", "field"), [(another_id, "id"), (another_target, "target.name"), (another_name, "name")]
)
def test_what_rows_and_models_are_bound_to_cannot_be_changed(
    home: Home, tmp_path: Path, change: Callable[[Content], None], field: str
):
    poleng(home, "init")
    file = changed(tmp_path / "mine.yaml", change)
    with Warehouse(home.warehouse, study_of(home)).connect():
        pass
    code, said = poleng(home, "study", "change", file, "--yes")
    assert code == 1
    assert f"depends on {field} " in said
    assert home.study_file.read_bytes() == SHIPPED.read_bytes()
    home.warehouse.unlink()
    assert poleng(home, "study", "change", file, "--yes")[0] == 0
    assert load_study(home.study_file) == load_study(file)


def test_reset_keeps_the_study(home: Home, tmp_path: Path):
    file = changed(tmp_path / "mine.yaml", another_id)
    poleng(home, "init", file)
    assert poleng(home, "reset", "--confirm", home.root.name)[0] == 0
    assert home.study_file.read_bytes() == file.read_bytes()


def test_the_study_that_ships_is_taken_over_by_its_name(home: Home, tmp_path: Path):
    poleng(home, "init", changed(tmp_path / "mine.yaml", another_question))
    assert poleng(home, "study", "change", "political_engagement", "--yes")[0] == 0
    assert home.study_file.read_bytes() == SHIPPED.read_bytes()


def test_comments_are_no_change(home: Home, tmp_path: Path):
    poleng(home, "init")
    bare = tmp_path / "bare.yaml"
    bare.write_text(yaml.safe_dump(shipped(), allow_unicode=True), encoding="utf-8")
    assert "nothing was changed" in poleng(home, "study", "change", bare)[1]
