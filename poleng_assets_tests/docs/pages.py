"""Reading the documentation: its pages, the commands on them, and the tables of the reference."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from poleng_assets.storage.home import CHECKOUT

DOCS = CHECKOUT / "docs"
README = CHECKOUT / "README.md"

_FENCE = re.compile(r"^(?P<marks>`{3,})(?P<language>[\w-]*) *$")
_REMARK = re.compile(r"^ *<!-- (?P<words>.*?) -->$")
_NOT_RUN = re.compile(r"not run: (?P<why>[^;]+)(?:; see (?P<test>[\w/]+\.py))?")
_EXIT_CODE = re.compile(r"exit code (?P<code>\d+)")
_FILE = re.compile(r"belongs into (?P<file>[\w./]+)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the remark in the HTML comment above it.

    The remarks that count are ``<!-- not run: WHY; see TEST -->`` (without a test only for programs of
    others), ``<!-- exit code N -->`` (of its last command) and ``<!-- belongs into FILE -->`` (YAML, written
    over what the file has).
    """

    page: Path
    line: int
    language: str
    lines: tuple[str, ...]
    remark: str = ""

    @property
    def not_run(self) -> re.Match[str] | None:
        return _NOT_RUN.fullmatch(self.remark)

    @property
    def exit_code(self) -> int:
        found = _EXIT_CODE.fullmatch(self.remark)
        return int(found["code"]) if found else 0

    @property
    def file(self) -> str:
        found = _FILE.fullmatch(self.remark)
        return found["file"] if found else ""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(CHECKOUT)}:{self.line}"

    def commands(self) -> list[Command]:
        """Return what stands behind each ``$``, with the lines of output that follow it."""
        found: list[Command] = []
        for line in self.lines:
            if line.startswith("$ "):
                found.append(Command(line[2:]))
            elif found and found[-1].text.endswith("\\"):
                found[-1].text = f"{found[-1].text[:-1]} {line.strip()}"
            elif found and line.strip() not in ("", "..."):
                found[-1].output.append(line.strip())
        return found


@dataclass
class Command:
    text: str
    output: list[str] = field(default_factory=list)


def pages() -> list[Path]:
    """Return the README, then every page in the order of the navigation."""
    config = yaml.safe_load((CHECKOUT / "mkdocs.yml").read_text(encoding="utf-8"))
    return [README, *(DOCS / name for name in _leaves(config["nav"]))]


def _leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for below in nav.values():
            yield from _leaves(below)
    else:
        for below in nav:
            yield from _leaves(below)


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence is None:
            number += 1
            continue
        end = next(
            n for n in range(number + 1, len(lines)) if lines[n].strip() == fence["marks"]
        )  # a fence that is never closed has no end, and fails here
        inside = tuple(lines[number + 1 : end])
        above = next((line for line in reversed(lines[:number]) if line.strip()), "")
        remark = _REMARK.match(above)
        found.append(Block(page, number + 1, fence["language"], inside, remark["words"] if remark else ""))
        number = end + 1
    return found


@lru_cache
def tables(page: Path) -> dict[str, list[dict[str, str]]]:
    """Return the rows of the tables under each heading of a page, as dicts by the words of the header."""
    found: dict[str, list[dict[str, str]]] = {}
    heading = ""
    header: list[str] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading, header = line.lstrip("# ").strip("`"), []
        elif not line.startswith("|"):
            header = []
        elif not header:
            header = _cells(line)
        elif not set(line) <= set("|-: "):
            found.setdefault(heading, []).append(dict(zip(header, _cells(line), strict=True)))
    return found


def _cells(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
    return [cell.strip().replace("\\|", "|") for cell in cells]


def names(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)
