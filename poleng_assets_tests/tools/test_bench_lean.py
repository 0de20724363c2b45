from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from poleng_assets.simulation.scenarios import drops
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import with_policies
from tools.bench.lean import LeanScript, bare_calculators
from tools.bench.processes import Finished, middle_cpu, middle_cpu_ratio
from tools.bench.tasks import nannyml_clock


@pytest.fixture
def few_folds(quick_study: Study) -> Study:
    return with_policies(quick_study, training={"folds": 2})


@pytest.mark.slow
def test_a_lean_script_trains_again_on_drift_and_writes_a_list_of_each_batch(
    people: pd.DataFrame, newcomers: pd.DataFrame, few_folds: Study, tmp_path: Path
) -> None:
    target = few_folds.target.name
    files = {
        "field_studies/founding_study": people.iloc[:3_000],
        "field_studies/later_study": newcomers.iloc[:300],
        "batches/known": people.iloc[3_000:].drop(columns=target),
        "batches/drift_of_others": newcomers.iloc[300:].drop(columns=target),
        "outcomes/known": people.iloc[3_000:][[few_folds.id, target]],
    }
    for name, rows in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        rows.to_parquet(tmp_path / f"{name}.parquet", index=False)
    parts = pd.concat(
        rows[[few_folds.id]].assign(
            field_study=name.rpartition("/")[2],
            part=["holdout" if row % 5 == 0 else "train" for row in range(len(rows))],
        )
        for name, rows in files.items()
        if name.startswith("field_studies")
    )
    out = tmp_path / "out"
    out.mkdir()
    script = LeanScript(few_folds, parts, out)

    script.play(drops(tmp_path, "full"))

    assert script.trainings == 2
    assert script.aucs["known"] > 0.7
    assert {path.name for path in out.iterdir()} == {
        "known.csv",
        "known.xlsx",
        "drift_of_others.csv",
        "drift_of_others.xlsx",
    }
    listed = pd.read_csv(out / "known.csv")
    assert listed["prediction"].is_monotonic_decreasing
    assert set(listed[few_folds.id]) < set(people[few_folds.id].iloc[3_000:])


@pytest.mark.slow
def test_nannymls_calculators_run_bare_on_what_a_report_is_made_of_and_are_timed(
    reference: pd.DataFrame, study: Study
) -> None:
    scored = reference.head(400).drop(columns=study.target.name)

    with nannyml_clock() as clock:
        distance = bare_calculators(study, reference, scored)

    assert 0 < distance < 0.1
    assert clock.seconds > 0


def test_computing_is_compared_turn_by_turn() -> None:
    ours, theirs = (
        [Finished(1.0, cpu, 0.1, {}) for cpu in seconds] for seconds in ([3.0, 30.0, 4.0], [2.0, 10.0, 1.0])
    )

    assert middle_cpu(ours) == 4.0
    assert middle_cpu_ratio(ours, theirs) == 3.0
