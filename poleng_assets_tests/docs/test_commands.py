"""Every command of the documentation is run, page by page, in one home.

The pages are one story: what a page does, the next one finds done.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from poleng_assets.storage.home import CHECKOUT
from poleng_assets_tests.docs.desk import Desk, laid_out
from poleng_assets_tests.docs.pages import DOCS, blocks, pages

# Blocks that are no commands: data to look at, texts, and sessions that another test runs.
NO_COMMANDS = {"json", "yaml", "text"}
# Programs of others, which need a network, an installation or a server.
OTHERS = {"git", "pip", "python3.11", "mlflow", "apt", "prometheus", "export"}
INSTALLS = (["make", ".venv"],)
SESSIONS = {DOCS / "how-to" / "python.md": "test_api.py"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with laid_out(tmp_path_factory.mktemp("docs") / "desk") as laid:
        yield laid


def _name(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_the_commands_of_a_page_do_what_it_says(desk: Desk, page: Path):
    desk.exported.clear()
    for block in blocks(page):
        if block.file:
            desk.write(block)
        if block.language != "console" or block.not_run:
            continue
        commands = block.commands()
        for command in commands:
            code, said = desk.run(command.text)
            expected = block.exit_code if command is commands[-1] else 0
            assert code == expected, f"{block.where}: {command.text}\n{said}"
            assert "Traceback" not in said, f"{block.where}: {command.text}\n{said}"
            for line in command.output:
                assert line in said, f"{block.where}: {command.text}\n{said}"


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_a_command_that_is_not_run_here_names_the_test_that_runs_it(page: Path):
    for block in blocks(page):
        if block.not_run is None:
            assert not block.remark.startswith("not run"), f"{block.where}: {block.remark}"
            continue
        test = block.not_run["test"]
        text = (CHECKOUT / "poleng_assets_tests" / test).read_text(encoding="utf-8") if test else ""
        for command in block.commands():
            words = re.findall(r"[\w.]+", re.sub(r"^(?:[A-Z_]+=\S+ )+", "", command.text.split("  #")[0]))
            others = command.text.startswith(". ") or words[0] in OTHERS or words[:2] in INSTALLS
            named = [word for word in words[1:] if len(word) > 2 and word in text]
            assert others or named, f"{block.where}: {test or 'no test'} does not run: {command.text}"


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_no_command_hides_in_another_kind_of_block(page: Path):
    others = NO_COMMANDS | ({"pycon"} if page in SESSIONS else set())
    for block in blocks(page):
        assert block.language in {"console", *others}, f"{block.where}: what is {block.language!r}?"
        if block.language == "console":
            assert block.commands(), f"{block.where}: no line begins with $"


def test_sessions_of_python_are_run_by_another_test():
    for page, test in SESSIONS.items():
        assert page.name in (CHECKOUT / "poleng_assets_tests" / test).read_text(encoding="utf-8")


def test_every_page_stands_in_the_navigation():
    assert {page for page in pages() if page.is_relative_to(DOCS)} == set(DOCS.rglob("*.md"))
