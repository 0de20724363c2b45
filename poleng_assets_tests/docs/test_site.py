"""The site is built without a warning, and loads nothing from anywhere else."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from poleng_assets.storage.home import CHECKOUT
from poleng_assets_tests.docs.pages import DOCS, README, blocks, pages

# What a browser loads by itself; a link that a reader may follow is none of it.
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}


class _Loaded(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.headings: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in LOADED and named.get(LOADED[tag]) and named.get("rel") != "canonical":
            self.found.append(str(named[LOADED[tag]]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=CHECKOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    yield folder


def test_every_page_is_built(site: Path):
    for page in pages():
        if page != README:
            assert (site / page.relative_to(DOCS).with_suffix(".html")).is_file()


def test_every_block_is_shown_as_one(site: Path):
    for page in pages():
        if page != README:
            text = (site / page.relative_to(DOCS).with_suffix(".html")).read_text(encoding="utf-8")
            assert text.count("<pre>") == len(blocks(page)), page
            assert "```" not in page.read_text(encoding="utf-8").replace("\n```", "\n"), page


def test_the_site_loads_nothing_from_a_network(site: Path):
    for page in site.rglob("*.html"):
        loaded = _Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert loaded.found, page
        assert [place for place in loaded.found if re.match(r"(?:\w+:)?//", place)] == [], page
    for style in site.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", style.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//[^)'\"]+", text) == [], style


def test_everything_that_a_page_loads_is_there(site: Path):
    for page in site.rglob("*.html"):
        loaded = _Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        for place in loaded.found:
            path = re.split(r"[?#]", place)[0]
            inside = site / path.lstrip("/") if path.startswith("/") else page.parent / path
            assert inside.exists(), f"{page}: {place}"


def test_the_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(([^)\s]+)\)", README.read_text(encoding="utf-8"))
    inside = [link for link in links if not link.startswith("http")]
    assert len(inside) > 20
    for link in inside:
        path, _, anchor = link.partition("#")
        target = CHECKOUT / path
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
