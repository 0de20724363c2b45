"""What strangers write is shown as it is, in terminals, Markdown and pages."""

from __future__ import annotations

import ast
from pathlib import Path

import pandas as pd
import pytest

import poleng_assets
from poleng_assets.core.reports.pages import _templates
from poleng_assets.text.markdown import escaped, frame_as_table, points, table, unescaped
from poleng_assets.text.plain_text import in_one_line, visible

SOURCES = sorted(Path(poleng_assets.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (
            "Zürich, ελ, 日本, \u0646\u200c\u0627, 👩\u200d🔬",
            "Zürich, ελ, 日本, \u0646\u200c\u0627, 👩\u200d🔬",
        ),
        ("a\x1b[31mred\x1b]8;;http://x\x07", "a\\x1b[31mred\\x1b]8;;http://x\\x07"),
        ("back\b\rover", "back\\x08\\rover"),
        ("list\u202evsc.exe\u2066", "list\\u202evsc.exe\\u2066"),
        ("zero\u200bwidth\ufeff\u00ad", "zero\\u200bwidth\\ufeff\\xad"),
        ("one\u2028two\x85\x9b", "one\\u2028two\\x85\\x9b"),
        ("no\udcfftext", "no\\udcfftext"),
        ("two\nlines\tkept", "two\nlines\tkept"),
    ],
)
def test_what_steers_or_hides_is_written_out(text: str, seen: str):
    assert visible(text) == seen
    assert visible(seen) == seen


def test_a_name_cannot_begin_a_line_of_its_own():
    assert in_one_line("a\nChampion: version 9\t\x1b") == "a\\nChampion: version 9\\t\\x1b"


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("[x](http://evil)", "\\[x\\](http\\://evil)"),
        ("<script>a && b</script>", "\\<script\\>a \\&\\& b\\</script\\>"),
        ("a|b `c` *d* ~~e~~ _f_ field_studies", "a\\|b \\`c\\` \\*d\\* \\~\\~e\\~\\~ \\_f\\_ field_studies"),
        ("www.evil.org a@b.org", "www\\.evil.org a\\@b.org"),
        ("# head", "\\# head"),
        ("- point", "\\- point"),
        ("12. point", "12\\. point"),
        ("---", "\\---"),
        ("===", "\\==="),
        ("> said", "\\> said"),
        ("    code\n\n# head", "code # head"),
        ("-0.25 to 1.5 (95 %)", "-0.25 to 1.5 (95 %)"),
        ("1.5", "1.5"),
        ("\x1b[0m\\", "\\\\x1b\\[0m\\\\"),
        ("", ""),
    ],
)
def test_markdown_shows_the_very_text(text: str, markdown: str):
    assert escaped(text) == markdown
    assert unescaped(markdown) == " ".join(visible(text).split())


def test_a_cell_of_a_table_stays_its_cell():
    made = table(["batch", "[a]"], [("x|y\n| z", 3), ("<b>", None)])
    assert made.splitlines() == [
        "| batch | \\[a\\] |",
        "| --- | --- |",
        "| x\\|y \\| z | 3 |",
        "| \\<b\\> | None |",
    ]


def test_a_code_in_a_frame_is_not_read_as_a_number():
    frame = pd.DataFrame({"co|de": ["032", "1e5", "[/x]", None], "share": [0.5, 0.25, 0.125, 1.0]})
    lines = [[cell.strip() for cell in line.split(" | ")] for line in frame_as_table(frame).splitlines()]
    assert [line[0].removeprefix("| ").strip() for line in lines] == [
        "co\\|de", lines[1][0], "032", "1e5", "\\[/x\\]", "|",
    ]  # fmt: skip
    assert "0.125" in lines[4][1]


def test_points_are_one_line_each():
    assert points(["a\n- b", "<i>"]) == "- a - b\n- \\<i\\>"


def test_a_page_shows_text_as_text():
    page = _templates().from_string("{{ name }} {{ number }}").render(name="<b>\x1b\u202e", number=3)
    assert page == "&lt;b&gt;\\x1b\\u202e 3"


def _calls(tree: ast.AST, method: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method
    ]


def _outside(*names: str) -> list[tuple[Path, ast.AST]]:
    kept = [path for path in SOURCES if path.name not in names]
    assert len(kept) > 80
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in kept]


def test_only_one_module_makes_consoles_and_styles():
    """A second console, ``Text.from_markup`` or ``print`` would read text as markup, or let it steer."""
    for path, tree in _outside("console.py"):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich"):
                assert node.module == "rich.table", f"{path}: {node.module}"
            if isinstance(node, ast.Import):
                assert not any(one.name.startswith("rich") for one in node.names), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path}:{node.lineno}"


def test_nothing_printed_is_written_as_markup():
    for path, tree in _outside():
        for call in _calls(tree, "print"):
            for node in ast.walk(call):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    assert "[/" not in node.value, f"{path}:{node.lineno} prints {node.value!r}; use styled()"
            assert not any(word.arg in ("markup", "emoji") for word in call.keywords), path


def test_only_one_module_makes_markdown_of_frames():
    for path, tree in _outside("markdown.py"):
        assert _calls(tree, "to_markdown") == [], path


def test_whatever_the_command_line_echoes_is_json_or_made_visible():
    allowed = {"dumps", "visible", "in_one_line"}
    for path, tree in _outside():
        for call in _calls(tree, "echo"):
            made_by = {
                getattr(node.func, "attr", getattr(node.func, "id", ""))
                for node in ast.walk(call)
                if isinstance(node, ast.Call)
            }
            assert made_by & allowed, f"{path}:{call.lineno}"


def test_markdown_metadata_is_made_by_what_escapes():
    """``MetadataValue.md`` takes what a function made, never a string put together there."""
    for path, tree in _outside():
        for call in _calls(tree, "md"):
            assert not isinstance(call.args[0], ast.JoinedStr), f"{path}:{call.lineno}"
