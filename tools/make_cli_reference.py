"""Write the page of commands (``docs/reference/cli.md``) from what each command says of itself.

python -m tools.make_cli_reference
"""

from __future__ import annotations

from copy import copy
from typing import Any

import click

from poleng_assets.cli.main import main
from poleng_assets.storage.home import CHECKOUT

PAGE = CHECKOUT / "docs" / "reference" / "cli.md"
WIDTH = 78  # what click takes of a terminal with 80

_BEGIN = """# Commands

`poleng` is in the virtual environment: `. .venv/bin/activate`. This page is generated from
`poleng COMMAND --help`.

- `--home FOLDER` selects another [home](home.md) than `POLENG_HOME` or `data/`.
- Exit code 0: success. 1: failure, with the reason. 2: invalid usage.
- Only one process at a time may work on a home. `submit`, `retry`, `rollback`, `withdraw`,
  `quarantine`, `backup`, `serve` and commands that only read work while a daemon runs.
"""


def page_of_commands() -> str:
    """Return the whole page."""
    return "\n".join([_BEGIN, *(_section(path) for path in _paths(main, ()))])


def help_of(path: tuple[str, ...]) -> str:
    """Return what ``--help`` says of a command; ``path``: its names from the outermost on."""
    context = click.Context(main, info_name="poleng", terminal_width=WIDTH, **main.context_settings)
    command: Any = main
    for name in path:
        # A copy: click keeps the option of the first help that a command was asked for, in whatever context.
        command = copy(command.commands[name])
        command._help_option = None
        context = click.Context(command, info_name=name, parent=context)
    return "\n".join(line.rstrip() for line in command.get_help(context).splitlines())


def _paths(group: click.Group, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    paths = []
    for name in group.list_commands(click.Context(group)):
        command = group.commands[name]
        if command.hidden:
            continue
        paths.append((*path, name))
        if isinstance(command, click.Group):
            paths += _paths(command, (*path, name))
    return paths


def _section(path: tuple[str, ...]) -> str:
    return f"## `poleng {' '.join(path)}`\n\n```text\n{help_of(path)}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page_of_commands(), encoding="utf-8")
