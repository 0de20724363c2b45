"""The pages in a real browser: anybody can read them, with any screen, by keyboard, and without a network."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from poleng_assets_tests.pages.conftest import NARROW, PAGES, WIDE, Visitor

# https://www.w3.org/TR/WCAG21/ at level AA, and what Deque calls good practice beyond it.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
UNFOLD = "document.querySelectorAll('details').forEach(folded => folded.open = true)"
every_page = pytest.mark.parametrize("name", PAGES)
every_scheme = pytest.mark.parametrize("scheme", ["light", "dark"])


def violations(page: Page) -> list[str]:
    """Return what axe finds, with the element, on the page as it is now."""
    found: dict[str, Any] = Axe().run(page, options={"runOnly": RULES}).response
    assert len(found["passes"]) > 20  # it has looked
    return [f"{one['id']}: {node['html']}" for one in found["violations"] for node in one["nodes"]]


@every_page
@every_scheme
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_axe_finds_nothing(visitor: Visitor, name: str, scheme: str, width: int):
    page = visitor.open(name, width, scheme).page
    page.evaluate(UNFOLD)
    assert violations(page) == []


@every_page
@every_scheme
def test_what_a_narrow_screen_hides_has_contrast_too(visitor: Visitor, name: str, scheme: str):
    page = visitor.open(name, 4_000, scheme).page
    # Axe does not judge what is scrolled out of sight: everything is laid open beside each other.
    page.add_style_tag(content=".wide { overflow: visible } body { max-width: none }")
    page.evaluate(UNFOLD)
    found = Axe().run(page, options={"runOnly": {"type": "rule", "values": ["color-contrast"]}}).response
    unjudged = [node["html"] for one in found["incomplete"] for node in one["nodes"]]
    assert (found["violations"], unjudged) == ([], [])


@pytest.mark.parametrize("name", [*PAGES, "long_overview"])
@pytest.mark.parametrize("width", [320, NARROW, 700, 1_010, WIDE])
def test_no_page_is_wider_than_the_screen(visitor: Visitor, name: str, width: int):
    page = visitor.open(name, width).page
    page.evaluate(UNFOLD)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [320, NARROW, 700])
def test_the_shares_beside_the_bars_are_in_sight_on_any_screen(visitor: Visitor, width: int):
    page = visitor.open("drift_report", width).page
    page.evaluate(UNFOLD)
    # A long name in brackets is the widest that a study's labels hold.
    page.locator(".bars th[scope=row]").evaluate_all(
        "(labels) => labels.forEach(one => one.append(' (' + 'x'.repeat(40) + ')'))"
    )
    hidden = page.locator(".bars").evaluate_all(
        "(found) => found.map(one => one.scrollWidth - one.parentElement.clientWidth)"
    )
    assert len(hidden) > 2
    assert max(hidden) <= 0


@pytest.mark.parametrize("name", [*PAGES, "long_overview"])
def test_a_page_asks_for_nothing_and_complains_of_nothing(visitor: Visitor, name: str):
    visit = visitor.open(name)
    visit.page.wait_for_load_state("networkidle")
    assert visit.complaints == []
    asked = [address for address in visit.requests if not address.startswith("data:")]
    assert asked == [visit.page.url]
    assert visit.page.locator("script").count() == 0


@every_page
def test_all_that_can_be_used_is_reached_by_tab_in_order_and_seen(visitor: Visitor, name: str):
    page = visitor.open(name, NARROW).page
    wanted = page.locator("a[href], summary, [tabindex='0']").evaluate_all(
        "(found) => found.filter(one => one.checkVisibility()).map((one, n) => one.dataset.place = String(n))"
    )
    assert len(wanted) > 5
    reached = []
    for _ in wanted:
        page.keyboard.press("Tab")
        focus = page.evaluate(
            """() => { const one = document.activeElement, style = getComputedStyle(one);
            const box = one.getBoundingClientRect();
            return [one.dataset.place, style.outlineStyle, parseFloat(style.outlineWidth),
                    box.bottom > 0 && box.top < innerHeight] }"""
        )
        reached.append(focus[0])
        assert focus[1:] == ["solid", pytest.approx(2.88, abs=1), True], focus
    assert reached == wanted


@every_page
def test_every_table_that_is_too_wide_can_be_scrolled_by_keyboard(visitor: Visitor, name: str):
    page = visitor.open(name, NARROW).page
    page.evaluate(UNFOLD)
    stuck = page.evaluate(
        """() => [...document.querySelectorAll('main *')].filter(one => one.scrollWidth > one.clientWidth + 1
            && ['auto', 'scroll'].includes(getComputedStyle(one).overflowX) && one.tabIndex < 0).length"""
    )
    assert stuck == 0


@every_page
def test_the_first_stop_leads_past_the_head_of_the_page(visitor: Visitor, name: str):
    page = visitor.open(name).page
    page.keyboard.press("Tab")
    skip = page.locator("a:focus")
    expect(skip).to_be_in_viewport()
    expect(skip).to_contain_text("Skip to")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


@every_page
def test_every_picture_has_a_text_of_its_own(visitor: Visitor, name: str):
    page = visitor.open(name).page
    names = page.locator("[role=img], img").evaluate_all("all => all.map(one => one.ariaLabel ?? one.alt)")
    assert names
    assert all(len(words) > 20 for words in names)
    assert len(set(names)) == len(names)


def test_signs_stand_inside_their_picture_on_every_screen(visitor: Visitor):
    for width in (NARROW, WIDE):
        page = visitor.open("overview", width).page
        outside = page.evaluate(
            """() => [...document.querySelectorAll('svg[role=img]')].flatMap(svg => {
                const whole = svg.getBoundingClientRect();
                return [...svg.querySelectorAll('use, rect')].filter(one => {
                    const box = one.getBoundingClientRect();
                    return !box.width || box.left < whole.left - 12 || box.right > whole.right + 12
                        || box.top < whole.top - 12 || box.bottom > whole.bottom + 12 }) }).length"""
        )
        assert outside == 0
        assert page.locator("svg[role=img] use").count() > 20


@pytest.mark.parametrize(("width", "labels"), [(NARROW, 3), (WIDE, 6)])
def test_dates_below_a_picture_do_not_run_into_each_other(visitor: Visitor, width: int, labels: int):
    page = visitor.open("long_overview", width).page
    boxes = page.locator(".columns").first.locator("span").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect()).filter(box => box.width)"
        ".map(box => [box.left, box.right])"
    )  # fmt: skip
    assert len(boxes) == labels
    assert all(left[1] < right[0] for left, right in pairwise(boxes))


def test_many_signs_are_smaller_than_few(visitor: Visitor):
    few, many = (
        visitor.open(name).page.locator("svg[role=img] use.clear").first.bounding_box()
        for name in ("overview", "long_overview")
    )
    assert few is not None
    assert many is not None
    assert many["width"] < 0.8 * few["width"]


def test_a_link_on_the_page_leads_to_its_heading(visitor: Visitor):
    page = visitor.open("drift_report").page
    page.get_by_role("link", name="Data quality").click()
    expect(page.get_by_role("heading", name="Data quality")).to_be_in_viewport()


@every_page
@every_scheme
def test_paper_is_white_and_has_all_of_the_page(visitor: Visitor, name: str, scheme: str):
    page = visitor.open(name, scheme=scheme).page
    page.emulate_media(media="print")
    style = "(one, what) => getComputedStyle(document.querySelector(one))[what]"
    assert page.evaluate(f"({style})('body', 'backgroundColor')") == "rgb(255, 255, 255)"
    assert page.evaluate(f"({style})('body', 'color')") == "rgb(30, 41, 59)"
    assert not page.locator("nav").is_visible()
    folded = page.locator("details").evaluate_all("all => all.map(one => one.lastElementChild.offsetHeight)")
    assert all(folded)
    assert page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize(("name", "most"), [("drift_report", 100), ("overview", 100), ("long_overview", 700),
                                            ("model_card", 500)])  # fmt: skip
def test_a_page_can_be_mailed(visitor: Visitor, name: str, most: int):
    assert (visitor.folder / name / "page.html").stat().st_size < 1_000 * most
