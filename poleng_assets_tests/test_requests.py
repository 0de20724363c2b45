"""A request for interviews that was issued is not lost when another one is made."""

from pathlib import Path

from poleng_assets.assets.requests import FILE, _write_request


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_an_earlier_request_stands_beside_the_new_one(tmp_path: Path):
    path = tmp_path / FILE
    for text in ("anna\n", "anna\n", "ben\n", "carl\n"):
        assert _write_request(path, text, interviews=1) == path
    first, second = (f"field_study_request (request {number}).csv" for number in (1, 2))
    assert files(tmp_path) == {FILE: "carl\n", first: "anna\n", second: "ben\n"}


def test_a_request_for_nobody_takes_nothing_away(tmp_path: Path):
    path = tmp_path / FILE
    _write_request(path, "anna\n", interviews=1)
    _write_request(path, "", interviews=0)
    assert files(tmp_path) == {FILE: "anna\n"}


def test_a_run_that_was_killed_in_between_keeps_no_second_copy(tmp_path: Path):
    path = tmp_path / FILE
    _write_request(path, "anna\n", interviews=1)
    (tmp_path / "field_study_request (request 1).csv").write_text("anna\n")
    _write_request(path, "ben\n", interviews=1)
    assert files(tmp_path) == {FILE: "ben\n", "field_study_request (request 1).csv": "anna\n"}
