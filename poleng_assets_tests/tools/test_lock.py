"""The lock: what is installed is what was resolved, and nothing that no module needs."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parents[2]
RUN, TOOLS = CHECKOUT / "constraints.txt", CHECKOUT / "constraints-dev.txt"
LINUX = {**default_environment(), "sys_platform": "linux", "platform_machine": "x86_64"}
MACOS = {**default_environment(), "sys_platform": "darwin", "platform_machine": "arm64"}


def entries(file: Path) -> list[str]:
    """Return what a file installs, an entry a line, without comments."""
    lines = re.sub(r"\s*\\\n\s*", " ", file.read_text()).splitlines()
    return [line for line in lines if not line.startswith("#")]


def locked(file: Path, environment: Mapping[str, Any]) -> dict[str, str]:
    """Return the version of each distribution that a file installs on a platform."""
    pins = [Requirement(entry.split("--hash")[0]) for entry in entries(file)]
    return {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in pins
        if pin.marker is None or pin.marker.evaluate(environment)
    }


@pytest.mark.parametrize("file", [RUN, TOOLS], ids=lambda file: file.name)
def test_each_entry_is_one_version_with_the_hashes_of_its_files(file):
    for entry in entries(file):
        assert re.fullmatch(r"[a-z0-9-]+==[^ ]+( ; .*?)?( --hash=sha256:[0-9a-f]{64})+", entry), entry


@pytest.mark.parametrize("file", [RUN, TOOLS], ids=lambda file: file.name)
def test_no_index_and_no_path_is_named(file):
    assert not re.search(r"https?://|file:|--index|--find-links|(^|\s)/", file.read_text(), re.MULTILINE)


@pytest.mark.parametrize("platform", [LINUX, MACOS], ids=["Linux", "macOS"])
def test_all_that_the_project_asks_for_is_locked(platform):
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    run, tools = locked(RUN, platform), locked(TOOLS, platform)
    other_build = {"xgboost": "xgboost-cpu"}

    for text in project["project"]["dependencies"] + project["build-system"]["requires"]:
        asked = Requirement(text)
        version = run.get(asked.name) or run[other_build[asked.name]]
        assert asked.specifier.contains(version), text
    for text in project["project"]["optional-dependencies"]["dev"]:
        asked = Requirement(text)
        assert asked.specifier.contains(tools[canonicalize_name(asked.name)]), text
    assert run.items() <= tools.items()


def test_nothing_for_graphics_processors_and_no_browser_is_installed_on_linux():
    run = locked(RUN, LINUX)

    assert run["xgboost-cpu"] == "2.1.4"
    assert not {"xgboost", "kaleido", "playwright"} & run.keys()
    assert not [name for name in run if name.startswith("nvidia")]


def test_where_there_is_no_such_build_xgboost_itself_is_installed():
    run = locked(RUN, MACOS)

    assert run["xgboost"] == "2.1.4"
    assert "xgboost-cpu" not in run
