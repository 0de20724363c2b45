"""The layout of the package: who imports whom, where SQL and Dagster stand, and how long code may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import poleng_assets

PACKAGE = Path(poleng_assets.__file__).parent

# From the ground up: a room imports those that stand before it, never one beside or after it.
FLOORS = (
    {"text"},
    {"study"},
    {"storage"},
    {"warehouse"},
    {"core"},
    {"models"},
    {"defs"},
    {"api", "headless", "notifications", "serving"},
    {"operations"},
    {"simulation"},
    {"definitions"},
    {"cli"},
)
CORE_FLOORS = (
    {"data", "features"},
    {"contacts", "statistics"},
    {"ingestion", "modeling"},
    {"monitoring", "privacy", "promotion"},
    {"reports"},
)
DAGSTER_OUTSIDE_DEFS = {
    "definitions",
    "headless.runner",
    "notifications.sensor",
    "operations.restore",
    "operations.reset",
    "operations.retention",
    "serving.dagster_ui",
    "serving.dev",
    "simulation.scenario_jobs",
}
LONGEST_FUNCTION = 60
LONGEST_ASSET_BODY = 40
MOST_COMPLEX = 15
Function = ast.FunctionDef | ast.AsyncFunctionDef

TREES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): ast.parse(path.read_text("utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}
MODULES = {f"poleng_assets.{name.removesuffix('.__init__')}" for name in TREES}


def _imports(name: str) -> Iterator[str]:
    """Give the modules of the package that a module imports, wherever in it, without the package's name."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield module if module in MODULES else str(node.module)


def _functions() -> Iterator[tuple[str, Function]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield f"{name}.{node.name}", node


def _floor_of(floors: tuple[set[str], ...], room: str) -> int:
    places = [number for number, rooms in enumerate(floors) if room in rooms]
    assert places, f"the room {room} stands on no floor: give it one here and in docs/rooms.svg"
    return places[0]


@pytest.mark.parametrize(("floors", "depth"), [(FLOORS, 1), (CORE_FLOORS, 2)], ids=["package", "core"])
def test_a_room_imports_only_those_below_it(floors: tuple[set[str], ...], depth: int):
    upwards = []
    for name in TREES:
        parts = ["poleng_assets", *name.split(".")]
        if (parts[-1] == "__init__" and len(parts) <= depth + 1) or (depth == 2 and parts[1] != "core"):
            continue
        for imported in _imports(name):
            others = imported.split(".")
            if len(others) <= depth or others[:depth] != parts[:depth] or others[depth] == parts[depth]:
                continue
            if _floor_of(floors, others[depth]) >= _floor_of(floors, parts[depth]):
                upwards.append(f"{name} imports {imported}")
    assert upwards == []


def test_dagster_is_imported_in_its_own_room():
    outside = {
        name
        for name in TREES
        for imported in _imports(name)
        if imported.split(".")[0].startswith("dagster") and not name.startswith("defs.")
    }
    assert outside <= DAGSTER_OUTSIDE_DEFS


def test_sql_is_executed_in_the_warehouse_room():
    statements = {"execute", "executemany", "executescript", "sql"}
    outside = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in statements
        and not name.startswith("warehouse.")
    }
    assert outside == set()


def test_no_function_is_longer_than_a_page():
    long = {name for name, node in _functions() if (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION}
    assert long == set()


def test_the_body_of_an_asset_reads_as_a_story():
    long = {
        name
        for name, node in _functions()
        if any("asset" in ast.unparse(decorator) for decorator in node.decorator_list)
        and (node.end_lineno or 0) - node.body[0].lineno >= LONGEST_ASSET_BODY
    }
    assert long == set()


def _complexity(function: Function) -> int:
    """Count the ways through a function, as https://radon.readthedocs.io/en/latest/intro.html does."""
    loops = ast.For | ast.AsyncFor | ast.While
    branches = loops | ast.If | ast.IfExp | ast.ExceptHandler | ast.Assert | ast.match_case
    count = 1
    for node in ast.walk(function):
        if isinstance(node, branches):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
        if isinstance(node, loops | ast.Try) and node.orelse:
            count += 1
    return count


def test_no_function_has_more_ways_through_it_than_can_be_followed():
    complex_ones = {
        name: _complexity(node) for name, node in _functions() if _complexity(node) > MOST_COMPLEX
    }
    assert complex_ones == {}


def test_nobody_asks_for_metadata_of_an_event_by_a_string():
    """``core/data/asset_events.py`` spells the keys of what assets tell; all others read its dataclasses."""
    asked = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            match node:
                case ast.Subscript(value=value, slice=ast.Constant(value=str()), ctx=ast.Load()):
                    pass
                case ast.Call(
                    func=ast.Attribute(value=value, attr="get"), args=[ast.Constant(value=str()), *_]
                ):
                    pass
                case _:
                    continue
            if ast.unparse(value).rpartition(".")[2] == "metadata" and name != "core.data.asset_events":
                asked.append(f"{name}:{node.lineno}")
    assert asked == []


def test_the_picture_of_the_rooms_shows_each_of_them():
    picture = (PACKAGE.parent / "docs" / "rooms.svg").read_text(encoding="utf-8")
    rooms = {"core"}.union(*FLOORS, *CORE_FLOORS)
    assert {room for room in rooms if f">{room}<" not in picture} == set()
