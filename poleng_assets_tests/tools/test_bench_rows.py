from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.bench import history
from tools.bench.ground import state_of
from tools.bench.parts import BARS, FULL, PARTS, QUICK, USUAL, measure
from tools.bench.processes import MeasurementFailed, run_command, run_task
from tools.bench.rows import Bar, Row, as_markdown, failed, in_unit, missed

AT_MOST = Bar("at most", 1.15, "x")
AT_LEAST = Bar("at least", 0.6, "%")


def row(figure: float | None, bar: Bar | None = AT_MOST, not_judged: str = "") -> Row:
    return Row("key", "what", "measured", "rival", "ratio", figure, bar, not_judged)


@pytest.mark.parametrize(
    ("bar", "figure", "met"),
    [
        (AT_MOST, 1.15, True),
        (AT_MOST, 1.16, False),
        (AT_LEAST, 0.6, True),
        (AT_LEAST, 0.59, False),
    ],
)
def test_a_figure_on_the_bar_meets_it(bar: Bar, figure: float, met: bool) -> None:
    assert row(figure, bar).met is met


def test_a_line_without_a_bar_or_a_figure_or_at_a_small_size_is_neither_met_nor_missed() -> None:
    lines = [row(9.0, None), row(None), row(9.0, not_judged="5,000 rows only")]

    assert [line.met for line in lines] == [None, None, None]
    assert missed(lines) == []


def test_a_measurement_that_failed_counts_as_missed_and_says_why() -> None:
    line = failed("load", "the part load", "exit code 1")

    assert missed([line, row(1.0)]) == [line]
    assert "exit code 1" in line.measured


def test_the_table_is_markdown_with_one_line_for_each_row_whatever_stands_in_a_cell() -> None:
    table = as_markdown([row(1.0), failed("load", "the part load", "first line\nsecond | line")])

    lines = table.splitlines()
    assert len(lines) == 4
    assert {line.replace("\\|", "").count("|") for line in lines} == {7}
    assert lines[2].rstrip(" |").endswith("yes")
    assert lines[3].rstrip(" |").endswith("**no**")


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.604, "%", "60%"),
        (2.5, "x", "2.50 ×"),  # noqa: RUF001
        (1_234_567, "rows/s", "1,234,567 rows/s"),
        (12.34, "s", "12.3 s"),
        (299.6, "ms", "300 ms"),
    ],
)
def test_a_figure_is_written_in_its_unit(value: float, unit: str, words: str) -> None:
    assert in_unit(value, unit) == words


def test_bars_are_those_of_the_issue() -> None:
    assert {key: bar.in_words() for key, bar in BARS.items()} == {
        "limit": "≥ 60%",
        "rows_per_second": "≥ 100,000 rows/s",
        "encoding": "≥ 20.0 ×",  # noqa: RUF001
        "seeds_way": "≥ 3.00 ×",  # noqa: RUF001
        "memory": "≤ 1.20 GB",
        "memory_growth": "≤ 1.15 ×",  # noqa: RUF001
        "report": "≤ 1.15 ×",  # noqa: RUF001
        "load": "≤ 1.50 s",
        "tick": "≤ 300 ms",
        "latency": "≤ 20.0 s",
        "simulation": "≤ 1.60 ×",  # noqa: RUF001
        "tests": "≤ 12.0 min",
    }


def test_only_a_million_rows_are_judged_as_a_million_rows() -> None:
    assert (USUAL.few, FULL.few) == ("", "")
    assert QUICK.few == "50,000 rows only"
    assert FULL.many_rows == 10 * USUAL.rows


def test_the_history_gives_back_the_runs_of_one_mode_on_one_survey_and_overlooks_a_line_that_was_cut_off(
    tmp_path: Path,
) -> None:
    path = tmp_path / "history.jsonl"
    for commit, mode, figure in (("aaa", "usual", 2.0), ("bbb", "quick", 3.0), ("ccc", "usual", 1.0)):
        history.append(
            path, {"commit": commit, "mode": mode, "data": "wvs"}, [row(figure), row(5.0, None), row(None)]
        )
    with path.open("a") as file:
        file.write('{"commit": "ddd", "mode": "us')

    history.append(path, {"commit": "eee", "mode": "usual", "data": "other"}, [row(7.0)])

    found = history.series(history.read(path, "usual", "wvs"))

    assert [(commit, line["figure"], line["met"]) for commit, line in found["key"]] == [
        ("aaa", 2.0, False),
        ("ccc", 1.0, True),
    ]
    assert history.read(tmp_path / "none.jsonl", "usual", "wvs") == []


def test_the_picture_has_a_panel_for_each_figure_with_a_bar(tmp_path: Path) -> None:
    from tools.bench.plot import draw

    path = tmp_path / "history.jsonl"
    history.append(path, {"commit": "aaa", "mode": "usual", "data": "wvs"}, [row(2.0)])
    draw(history.series(history.read(path, "usual", "wvs")), "title", tmp_path / "bench.png")

    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert [one.name for one in tmp_path.iterdir() if one.name.endswith(".part")] == []


def test_a_command_that_fails_is_told_with_its_last_words() -> None:
    with pytest.raises(MeasurementFailed, match=r"exit code 3 .*it went wrong"):
        run_command(["sh", "-c", "echo it went wrong; exit 3"])


def test_a_command_that_takes_too_long_is_killed() -> None:
    with pytest.raises(MeasurementFailed, match="exit code -9"):
        run_command(["sleep", "60"], at_most=0.2)


def test_the_memory_of_a_process_is_its_own() -> None:
    holds = "x = bytearray(300_000_000); x[::4096] = b'1' * len(x[::4096])"
    measures = (
        "import sys; from tools.bench import __main__; from tools.bench.processes import run_command as run;"
        f"print(run(['true']).peak_gb, run([sys.executable, '-c', {holds!r}]).peak_gb)"
    )
    # In a process like the bench's own: this one is large, and its children would begin where it stands.
    told = subprocess.run([sys.executable, "-c", measures], capture_output=True, text=True, check=True)

    small, large = (float(word) for word in told.stdout.split())
    assert small < 0.1
    assert 0.3 < large < 0.4


def test_a_part_that_fails_is_a_line_of_the_table_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(ground: object, sizes: object) -> list[Row]:
        raise MeasurementFailed("the daemon did not start")

    monkeypatch.setitem(PARTS, "latency", breaks)

    (line,) = measure("latency", ground=None, sizes=QUICK)  # type: ignore[arg-type]

    assert line.met is False
    assert "the daemon did not start" in line.measured


def test_the_ground_is_another_one_when_data_change(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("1")
    before = state_of(tmp_path)
    again = state_of(tmp_path)
    (tmp_path / "rows.csv").write_text("2")

    assert before == again
    assert state_of(tmp_path) != before


def test_people_are_repeated_under_new_ids_until_there_are_enough(tmp_path: Path, small_data: Path) -> None:
    import pandas as pd

    from poleng_assets.study.loading import load_study

    study = load_study()
    file = tmp_path / "people.parquet"
    run_task("write_people", data=small_data, rows=3_000, file=file)

    people = pd.read_parquet(file)
    assert list(people.columns) == [study.id, *study.feature_names]
    assert len(people) == people[study.id].nunique() == 3_000
    assert people.drop(columns=study.id).duplicated().any()


@pytest.fixture(scope="module")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from poleng_assets.simulation.population import write_scenario_data
    from poleng_assets.study.loading import load_study

    folder = tmp_path_factory.mktemp("small")
    write_scenario_data(load_study(), folder, scale=0.05)
    return folder
