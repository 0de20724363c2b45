"""The reference says neither more nor less than the code."""

from __future__ import annotations

import ast
import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
import dagster as dg
import duckdb
import pytest
import yaml

from poleng_assets.cli import main
from poleng_assets.definitions import build_defs
from poleng_assets.defs.asset_tags import WINDOWS
from poleng_assets.storage.home import CHECKOUT, OWN, Home
from poleng_assets.study.loading import STUDIES
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets_tests.docs.pages import DOCS, blocks, names, pages, tables
from poleng_assets_tests.docs.schema import fields
from tools.make_cli_reference import PAGE, help_of, page_of_commands

REFERENCE = DOCS / "reference"
CODE = CHECKOUT / "poleng_assets"


# --- configuration -------------------------------------------------------------------------------------


def _configuration() -> dict[tuple[str, str], dict[str, str]]:
    found = {}
    for heading, rows in tables(REFERENCE / "configuration.md").items():
        section = "study" if heading == "The study" else heading
        for row in rows:
            found[section, names(row["key"])[0]] = row
    return found


def test_every_key_of_a_study_is_described_with_what_it_may_be():
    told = {where: row["type"] for where, row in _configuration().items()}
    assert told == {(one.section, one.name): one.words for one in fields()}


def test_the_shipped_values_are_those_of_the_shipped_study():
    shipped = yaml.safe_load((STUDIES / "political_engagement.yaml").read_text(encoding="utf-8"))
    for (section, name), row in _configuration().items():
        value = shipped
        for part in [] if section in ("study", "features") else section.split("."):
            value = value[part]
        if section == "features" or name == "codes":
            assert row["shipped"] == ""
        else:
            assert json.loads(names(row["shipped"])[0]) == value[name], f"{section}.{name}"


def test_every_key_has_its_meaning():
    assert [where for where, row in _configuration().items() if len(row["meaning"]) < 4] == []


# --- environment ---------------------------------------------------------------------------------------


def test_every_variable_that_the_code_reads_is_told():
    sources = [*CODE.rglob("*.py"), *(CHECKOUT / "poleng_assets_tests").rglob("*.py")]
    read = {
        name
        for path in sources
        for name in re.findall(r"\bPOLENG_[A-Z_]+\b", path.read_text(encoding="utf-8"))
        if "docs" not in path.parts
    }
    told = set(re.findall(r"`(POLENG_[A-Z_]+)`", (REFERENCE / "environment.md").read_text(encoding="utf-8")))
    # Between a test and the processes that it starts.
    assert read - told <= {"POLENG_COUNTED", "POLENG_WATCHED", "POLENG_TESTS_HOMES"}
    assert told <= read


def test_what_is_said_to_be_set_is_set():
    text = (REFERENCE / "environment.md").read_text(encoding="utf-8").split("## What the project sets")[1]
    source = (CODE / "__init__.py").read_text(encoding="utf-8")
    for name in re.findall(r"environ\.setdefault\(\"(\w+)\"", source):
        assert f"`{name}`" in text
        assert name in os.environ


# --- commands ------------------------------------------------------------------------------------------


def test_the_page_of_commands_is_what_their_help_says():
    assert PAGE.read_text(encoding="utf-8") == page_of_commands(), "run: python -m tools.make_cli_reference"


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        if command.hidden:  # a name of earlier releases
            continue
        found.append((*path, name))
        if isinstance(command, click.Group):
            found += _commands(command, (*path, name))
    return found


def test_every_command_is_on_the_page_with_every_option():
    page = PAGE.read_text(encoding="utf-8")
    for path in _commands(main.main):
        assert f"## `poleng {' '.join(path)}`" in page
        assert help_of(path) in page
        command: Any = main.main
        for name in path:
            command = command.commands[name]
        for option in (one for one in command.params if isinstance(one, click.Option)):
            assert option.help or option.is_flag or option.show_default, f"{path}: {option.opts} has no help"


def _spoken_of(program: str) -> list[tuple[str, list[str]]]:
    """Return every call of a program that stands in a sentence, a table or a block, with its page."""
    found = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        calls = re.findall(rf"`({program} [^`\n]+)`", text) + re.findall(
            rf"^ *\$ ({program} .+)$", text, re.M
        )
        found += [(f"{page.name}: {call}", call.split("#")[0].split()[1:]) for call in calls]
    return found


def test_every_command_that_is_spoken_of_is_there_with_its_options():
    calls = _spoken_of("poleng")
    assert len(calls) > 60
    for where, words in calls:
        command: Any = main.main
        while words and isinstance(command, click.Group) and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        if words and words[0].isupper():
            continue  # `poleng COMMAND --help`
        assert not isinstance(command, click.Group) or set(words) <= {"--help"}, where
        options = {name for one in command.params for name in one.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= options, where


def test_every_target_of_make_that_is_spoken_of_is_there():
    targets = set(re.findall(r"^([\w-]+):", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.M))
    calls = _spoken_of("make")
    assert len(calls) > 10
    for where, words in calls:
        assert words[0] in {*targets, ".venv/.installed"}, where


# --- tables --------------------------------------------------------------------------------------------


def test_every_table_and_column_of_the_warehouse_is_told(warehouse: Warehouse, study: Study):
    with warehouse.connect() as con:
        found = con.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
    there = {(table, column, type_) for table, column, type_ in found if column not in study.feature_names}
    told = {
        (table, names(row["column"])[0], names(row["type"])[0])
        for table, rows in tables(REFERENCE / "tables.md").items()
        for row in rows
    }
    assert told == there


def test_questions_are_stored_as_the_page_says(warehouse: Warehouse, study: Study):
    with warehouse.connect() as con:
        found = con.execute(
            """SELECT table_name, column_name, data_type FROM duckdb_columns()
            WHERE NOT internal AND list_contains(?, column_name)""",
            [study.feature_names],
        ).fetchall()
    assert {table for table, _, _ in found} == {"field_study_rows", "batch_rows"}
    assert {type_ for _, _, type_ in found} == {"INTEGER"}


def test_every_kind_of_decision_is_told():
    told = next(
        row for row in tables(REFERENCE / "tables.md")["decisions"] if names(row["column"]) == ["kind"]
    )
    written: set[str] = set()
    for path in CODE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "record_decision":
                values = [one.value for one in ast.walk(node.args[1]) if isinstance(one, ast.Constant)]
                written |= {value for value in values if isinstance(value, str)}
    assert written == set(names(told["meaning"]))


# --- graph ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> dg.RepositoryDefinition:
    return build_defs(home=Home(tmp_path_factory.mktemp("graph") / "home")).get_repository_def()


def _first(heading: str, column: str) -> list[str]:
    return [name for row in tables(REFERENCE / "graph.md")[heading] for name in names(row[column])]


def test_every_asset_is_told_with_its_group_and_partitions(repository: dg.RepositoryDefinition):
    graph = repository.asset_graph
    there = {
        key.to_user_string(): (graph.get(key).group_name, getattr(graph.get(key).partitions_def, "name", ""))
        for key in graph.get_all_asset_keys()
    }
    told = {
        names(row["asset"])[0]: (row["group"], row["partitions"].strip("`"))
        for row in tables(REFERENCE / "graph.md")["Assets"]
    }
    assert told == there


def test_every_check_is_told(repository: dg.RepositoryDefinition):
    there = {(key.asset_key.to_user_string(), key.name) for key in repository.asset_graph.asset_check_keys}
    told = {
        (asset, names(row["check"])[0])
        for row in tables(REFERENCE / "graph.md")["Checks"]
        for asset in names(row["asset"])
    }
    assert told == there


def test_every_job_sensor_and_schedule_is_told(repository: dg.RepositoryDefinition):
    jobs = {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")}
    assert set(_first("Jobs", "job")) == jobs
    sensors = {one.name: one.minimum_interval_seconds for one in repository.sensor_defs}
    told = {names(row["sensor"])[0]: row["every"] for row in tables(REFERENCE / "graph.md")["Sensors"]}
    assert told == {name: f"{seconds} s" for name, seconds in sensors.items()}
    schedules = {one.name: one.cron_schedule for one in repository.schedule_defs}
    when = tables(REFERENCE / "graph.md")["Schedules"]
    assert {names(row["schedule"])[0]: names(row["when (UTC)"])[0] for row in when} == schedules


def test_every_asset_is_told_with_its_tags(repository: dg.RepositoryDefinition):
    graph = repository.asset_graph
    there = {
        key.to_user_string(): {name: graph.get(key).tags[name] for name in ("read_by", "personal_data")}
        for key in graph.get_all_asset_keys()
    }
    told = {
        names(row["asset"])[0]: {name: row[f"`{name}`"] for name in ("read_by", "personal_data")}
        for row in tables(REFERENCE / "graph.md")["Tags"]
    }
    assert told == there


def test_freshness_is_told_in_days():
    told = {
        names(row["asset"])[0]: (int(row["warns after"]), int(row["fails after"]))
        for row in tables(REFERENCE / "graph.md")["Freshness"]
    }
    assert told == WINDOWS


def test_every_gate_is_told():
    told = {row["gate"] for row in tables(DOCS / "concepts" / "models.md")["Promotion gates"]}
    tree = ast.parse((CODE / "core" / "promotion" / "gates.py").read_text(encoding="utf-8"))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert told <= texts
    assert len(told) == 10


def test_what_is_to_be_typed_into_the_launchpad_is_accepted(repository: dg.RepositoryDefinition):
    (block,) = [one for one in blocks(DOCS / "how-to" / "held-batch.md") if one.language == "yaml"]
    typed = yaml.safe_load("\n".join(block.lines))
    accepted = dg.validate_run_config(repository.get_job("release_batch"), typed)
    assert accepted["ops"]["contact_list"]["config"]["release"] == "the calls begin at nine"


# --- home ----------------------------------------------------------------------------------------------


def test_every_path_of_the_home_is_told():
    rows = next(iter(tables(REFERENCE / "home.md").values()))
    assert {names(row["path"])[0].rstrip("/") for row in rows} == set(OWN)


def test_the_study_of_the_how_to_is_a_whole_study(tmp_path: Path):
    from poleng_assets.study.loading import load_study

    page = DOCS / "how-to" / "own-survey.md"
    (block,) = [one for one in blocks(page) if one.file]
    content = yaml.safe_load((STUDIES / "political_engagement.yaml").read_text(encoding="utf-8"))
    changes = yaml.safe_load("\n".join(block.lines))
    for name, policy in changes.pop("policies").items():
        content["policies"][name] |= policy
    (tmp_path / block.file).write_text(yaml.safe_dump(content | changes, sort_keys=False), encoding="utf-8")
    study = load_study(tmp_path / block.file)
    # What the page leaves as it ships, policies aside, would be another survey's.
    assert set(changes) == set(Study.model_fields) - {"policies"}
    assert study.name == "my_survey"


# --- incidents -----------------------------------------------------------------------------------------


@lru_cache
def _messages() -> str:
    """Return all texts of the code, with a mark where a value stands."""
    told: list[str] = []
    for path in CODE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [one.value if isinstance(one, ast.Constant) else "\0" for one in node.values]
                told.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                told.append(node.value)
    return "\n".join(told)


def test_every_message_that_heads_an_incident_is_one_of_the_projects():
    page = (DOCS / "operations" / "incidents.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## `(.+)`$", page, re.MULTILINE)
    assert len(headings) > 15
    for heading in headings:
        for part in re.split(r"\.\.\.|\bN\b", heading):
            assert part.strip(" ,") in _messages(), f"{heading}: no message of the project has {part!r}"


def test_a_real_warehouse_has_what_the_pages_ask_it(warehouse: Warehouse):
    with warehouse.connect() as con:
        for page in DOCS.rglob("*.md"):
            for statement in re.findall(r"\.sql\(\\?['\"](.+?)\\?['\"]\)", page.read_text(encoding="utf-8")):
                try:
                    con.execute(statement).fetchall()
                except duckdb.Error as error:
                    pytest.fail(f"{page}: {statement}: {error}")
