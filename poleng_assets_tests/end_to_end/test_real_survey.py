"""The full scenario on the real survey, through the command line, measured against its bars.

`pytest poleng_assets_tests/end_to_end/test_real_survey.py -rP` prints every figure.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb
import mlflow
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from poleng_assets.storage.home import Home
from poleng_assets.study.loading import load_study
from poleng_assets_tests.end_to_end.conftest import poleng

pytestmark = [pytest.mark.slow, pytest.mark.timed]
STUDY = load_study()
CLEAN = [f"clean_batch_{number}" for number in (1, 2, 3)]
DRIFT = [f"drift_batch_{number}" for number in (1, 2, 3)]


@dataclass
class Played:
    home: Home
    data: Path
    seconds: float
    output: str

    def frame(self, sql: str) -> pd.DataFrame:
        with duckdb.connect(self.home.warehouse, read_only=True) as con:
            return con.sql(sql).df()

    def query(self, sql: str) -> list[tuple]:
        with duckdb.connect(self.home.warehouse, read_only=True) as con:
            return con.sql(sql).fetchall()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, real_survey: Path) -> Played:
    home = Home(tmp_path_factory.mktemp("real") / "home")
    started = time.monotonic()
    answer = poleng("simulate", "full", "--data", real_survey, "--home", home.root)
    seconds = time.monotonic() - started
    print(answer.stdout)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return Played(home, real_survey, seconds, answer.stdout)


def test_it_takes_no_more_than_two_minutes(played: Played):
    print(f"simulate full: {played.seconds:.0f} s")
    assert played.seconds <= 120


def test_clean_batches_are_clear_and_the_first_drifted_one_is_not(played: Played):
    verdicts = played.query("SELECT batch, model_version, verdict FROM drift_reports ORDER BY reported_at")
    print(verdicts)
    assert verdicts[:3] == [(batch, 1, "clear") for batch in CLEAN]
    assert verdicts[3][:2] == ("drift_batch_1", 1)
    assert verdicts[3][2] in ("drifted", "untrusted")


def test_the_batches_after_the_promotion_are_clear_and_none_is_held(played: Played):
    later = played.query(
        "SELECT batch, verdict, held FROM drift_reports WHERE model_version = 2 ORDER BY reported_at"
    )
    print(later)
    assert later[1:] == [("drift_batch_2", "clear", False), ("drift_batch_3", "clear", False)]
    assert not later[0][2]


def test_there_is_exactly_one_retraining_and_it_is_promoted(played: Played):
    decisions = played.query("SELECT kind, champion_version FROM decisions ORDER BY decided_at")
    print(decisions)
    assert [kind for kind, version in decisions if kind == "retrain" and version is not None] == ["retrain"]
    client = mlflow.MlflowClient(played.home.mlflow_uri, played.home.mlflow_uri)
    assert client.get_model_version_by_alias(STUDY.name, "champion").version in (2, "2")


def test_the_second_version_scores_every_drifted_batch(played: Played):
    versions = played.query("SELECT DISTINCT batch, model_version FROM current_predictions ORDER BY 1")
    assert versions == [(batch, 1) for batch in CLEAN] + [(batch, 2) for batch in DRIFT]


@pytest.mark.parametrize(("batches", "bar"), [(CLEAN, 0.772), (DRIFT, 0.775)])
def test_current_predictions_rank_people_well(played: Played, batches: list[str], bar: float):
    labels = pd.concat([pd.read_parquet(played.data / "outcomes" / f"{b}.parquet") for b in batches])
    scores = played.frame("SELECT * FROM current_predictions")
    known = labels.merge(scores, on=STUDY.id)
    assert len(known) == len(labels)
    auc = roc_auc_score(known[STUDY.target.name], known["score"])
    print(f"{batches[0][:5]} batches: AUC {auc:.4f}, bar {bar}")
    assert auc >= bar


def test_a_sensible_share_is_flagged_in_each_batch(played: Played):
    shares = played.query("SELECT batch, avg(contact::INT) FROM current_predictions GROUP BY 1 ORDER BY 1")
    print([(batch, round(share, 3)) for batch, share in shares])
    assert [batch for batch, share in shares if not 0.10 <= share <= 0.45] == []


def test_no_respondent_is_lost_and_every_flagged_one_is_listed(played: Played):
    for batch in CLEAN + DRIFT:
        sent = pd.read_parquet(played.data / "batches" / f"{batch}.parquet")[STUDY.id]
        current = played.frame(f"SELECT * FROM current_predictions WHERE batch = '{batch}'")
        assert sorted(current[STUDY.id]) == sorted(sent)
        listed = pd.read_csv(played.home.contact_lists / f"{batch}.csv", dtype=str)
        assert sorted(listed[STUDY.id]) == sorted(current.loc[current["contact"], STUDY.id])
        print(f"{batch}: {len(sent)} respondents, {len(current)} scored, {len(listed)} listed")


def test_every_mlflow_run_is_finished(played: Played):
    client = mlflow.MlflowClient(played.home.mlflow_uri, played.home.mlflow_uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    trials = [run.data.tags["mlflow.parentRunId"] for run in runs if run not in parents]
    states = [run.info.status for run in runs]
    print(states)
    assert set(states) == {"FINISHED"}
    assert len(parents) == 2
    assert sorted(trials) == sorted(
        run.info.run_id for run in parents for _ in range(STUDY.policies.training.quick.trials)
    )


def test_a_second_call_changes_nothing_and_says_so(played: Played):
    before = played.query("SELECT count(*), max(decided_at) FROM decisions")
    answer = poleng("simulate", "full", "--data", played.data, "--home", played.home.root)
    assert answer.returncode == 0
    assert "Nothing new" in answer.stdout
    assert played.query("SELECT count(*), max(decided_at) FROM decisions") == before


def test_the_table_at_the_end_has_a_row_for_each_scoring(played: Played):
    rows = re.findall(r"│ (\w+_batch_\d)\s+│ v(\d)", played.output)
    assert rows == [*((b, "1") for b in [*CLEAN, "drift_batch_1"]), *((b, "2") for b in DRIFT)]
