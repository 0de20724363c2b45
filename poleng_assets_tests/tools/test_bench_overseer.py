"""The bench of the overseer: its batches are what they say, and its figures are computed rightly."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from poleng_assets.study.schema import Study

TOOL = Path(__file__).parents[2] / "tools" / "bench_overseer.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_overseer", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its own module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def ground(bench: ModuleType, study: Study, people: pd.DataFrame, newcomers: pd.DataFrame) -> Any:
    crowded = pd.concat([newcomers] * 20, ignore_index=True)
    return bench.Ground(study, people, crowded, models={}, references={}, importances={}, chunked={})


@pytest.fixture
def made(bench: ModuleType, ground: Any):
    return lambda kind, number=0, rows=1000: bench.made(ground, bench.Task(kind, rows, number))


def test_the_same_task_makes_the_same_batch_and_another_number_another_one(bench: ModuleType, made: Any):
    for kind in bench.KINDS:
        pd.testing.assert_frame_equal(made(kind), made(kind))
        assert not made(kind).equals(made(kind, number=1))
        assert len(made(kind, rows=300)) == 300


def test_nobody_stands_twice_in_a_clean_batch(bench: ModuleType, study: Study, made: Any):
    assert made(bench.CLEAN)[study.id].is_unique


def test_changes_are_of_the_stated_size(bench: ModuleType, study: Study, people: pd.DataFrame, made: Any):
    whole = people.set_index(study.id)

    def changed(batch: pd.DataFrame, column: str) -> np.ndarray:
        before = whole.loc[batch[study.id], column].to_numpy(dtype=object)
        return before != batch[column].to_numpy(dtype=object)

    assert changed(made("interview mode changed for half"), bench.MODE).mean() == 0.5
    assert 0.15 < changed(made("education shifted by a level for 25 %"), bench.EDUCATION).mean() <= 0.25
    gone = made("a column 30 % missing")[study.feature_names].isna().mean()
    assert sorted(gone)[-2:] == [0, 0.3]
    swapped, column = made("professions 2 and 9 swapped"), bench.PROFESSION
    before = whole.loc[swapped[study.id], column].to_numpy()
    assert list(swapped[column]) == [{"2": "9", "9": "2"}.get(code, code) for code in before]
    assert (made("60 % of one sex")[bench.SEX] == bench.MORE_OF).mean() == 0.6


def test_a_country_is_drawn_twice_as_often(bench: ModuleType, people: pd.DataFrame, made: Any):
    usual = people[bench.COUNTRY].value_counts(normalize=True)
    batch = made("an old country twice as often", rows=3000)[bench.COUNTRY].value_counts(normalize=True)
    assert (batch / usual).max() == pytest.approx(2, abs=0.2)


def test_the_realised_auc_and_its_error(bench: ModuleType):
    rng = np.random.default_rng(1)

    def drawn() -> tuple[np.ndarray, np.ndarray]:
        target = rng.integers(0, 2, 400)
        return target, np.round(target + rng.normal(0, 1.2, 400), 1)

    target, score = drawn()
    auc, error = bench.realised_auc(target, score, range(400))
    assert auc == pytest.approx(roc_auc_score(target, score))
    many = [bench.realised_auc(*drawn(), range(400))[0] for _ in range(300)]
    assert error == pytest.approx(np.std(many), rel=0.15)
    # Who is drawn twice tells no more.
    twice = [np.tile(values, 2) for values in (target, score, np.arange(400))]
    assert bench.realised_auc(*twice) == pytest.approx((auc, error))


def test_a_bar_that_is_missed_is_told(bench: ModuleType, capsys: pytest.CaptureFixture[str]):
    def outcome(number: int, verdict: str) -> Any:
        return bench.Outcome(
            bench.Task(bench.CLEAN, 1000, number),
            verdict,
            held=False,
            named="education" if verdict == "drifted" else "",
            words="",
            effect=1.5,
            estimated=0.8,
            trusted=True,
            realised=0.75,
            error=0.01,
            nannyml=True,
            chi2=True,
            seed=False,
            seconds=1.0,
            score=np.array([0.9, 0.2, 0.4], np.float32),
            target=np.array([1, 0, 1], np.int8),
        )

    quiet = [outcome(n, "clear") for n in range(98)] + [outcome(98, "drifted"), outcome(99, "insufficient")]
    loud = [*quiet, outcome(100, "drifted"), outcome(101, "drifted")]
    for outcomes, met in ((quiet, True), (loud, False)):
        (row,) = [row for row in bench.rows_of_batches(outcomes) if row.bar]
        assert row.met is met
        assert row.beside == ("100%", "100%", "0%")
    literal, net = bench.rows_of_estimates(quiet)[-2:]
    assert (literal.met, net.met) == (False, True)
    bench.show([literal])
    assert "MISSED" in capsys.readouterr().out
