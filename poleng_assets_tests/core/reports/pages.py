"""Reads a page as its reader does: what is written on it, its tags, and the rows of its tables."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

_VOID = ("meta", "link", "img", "br")
_UNSEEN = {"style", "script"}


class Page(HTMLParser):
    """Collects what a reader sees, and every tag with its attributes; closing another tag fails."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and _UNSEEN.isdisjoint(self.open):
            self.words.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(self.words)


def row_of(page: str, head: str) -> list[str]:
    """Return the cells of the table row with this head."""
    found = re.search(rf'<tr[^>]*><th scope="row"[^>]*>{re.escape(head)}</th>(.*?)</tr>', page, re.DOTALL)
    assert found is not None, head
    return re.findall(r"<td[^>]*>(.*?)</td>", found[1], re.DOTALL)


def section(page: str, head: str) -> str:
    """Return what stands under a heading, up to the next one of its kind."""
    found = re.split(r"<h2[^>]*>", page)
    return next(part for part in found if part.startswith(f"{head}</h2>"))
