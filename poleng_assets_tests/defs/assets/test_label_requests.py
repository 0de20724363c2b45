"""A request for interviews that was issued is not lost when another one is made."""

from pathlib import Path

from poleng_assets.defs.assets.label_requests import FILE, _write_request

HEAD = "subject_id,why\n"


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_an_earlier_request_stands_beside_the_new_one(tmp_path: Path):
    path = tmp_path / FILE
    anna, ben, carl = (f"{HEAD}{name},drawn\n" for name in ("anna", "ben", "carl"))
    for text in (anna, anna, ben, carl):
        assert _write_request(path, text) == path
    first, second = (f"field_study_request (request {number}).csv" for number in (1, 2))
    assert files(tmp_path) == {FILE: carl, first: anna, second: ben}


def test_a_request_for_nobody_leaves_the_earlier_one_beside_it(tmp_path: Path):
    path, anna, ben = tmp_path / FILE, f"{HEAD}anna,drawn\n", f"{HEAD}ben,drawn\n"
    _write_request(path, anna)
    _write_request(path, HEAD)
    first = "field_study_request (request 1).csv"
    assert files(tmp_path) == {FILE: HEAD, first: anna}
    # One that asked for nobody was no request: it is not kept.
    _write_request(path, ben)
    assert files(tmp_path) == {FILE: ben, first: anna}


def test_a_run_that_was_killed_in_between_keeps_no_second_copy(tmp_path: Path):
    path, anna, ben = tmp_path / FILE, f"{HEAD}anna,drawn\n", f"{HEAD}ben,drawn\n"
    _write_request(path, anna)
    (tmp_path / "field_study_request (request 1).csv").write_text(anna)
    _write_request(path, ben)
    assert files(tmp_path) == {FILE: ben, "field_study_request (request 1).csv": anna}
