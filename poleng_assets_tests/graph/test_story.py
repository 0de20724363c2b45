"""The whole loop, from a dropped file to a list, and from drift to a better model."""

import base64
import json
import re
import stat
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import dagster as dg
import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run

from poleng_assets.core.reports.holdout_charts import CAPTIONS
from poleng_assets.simulation.player import play_scenario
from poleng_assets.study.loading import load_study
from poleng_assets_tests.graph.conftest import Workshop, open_workshop

STUDY = load_study()


@pytest.fixture(scope="module")
def told(tmp_path_factory, survey_data):
    """The full scenario, played once."""
    with open_workshop(tmp_path_factory.mktemp("told") / "home", survey_data) as workshop:
        ending = play_scenario(
            "full",
            survey_data,
            workshop.landing,
            workshop.warehouse,
            lambda drop: workshop.seen.extend(workshop.runner.run_until_idle()),
        )
        assert list(ending.faults) == []
        yield workshop


def test_every_run_ended_well(told: Workshop):
    assert [(report.job, report.message) for report in told.seen if not report.success] == []


def test_clean_batches_are_clear_under_the_first_version(told: Workshop):
    for number in (1, 2, 3):
        assert told.verdicts(f"clean_batch_{number}") == [("clear", 1)]


def test_the_first_drifted_batch_is_scored_again_by_the_second_version(told: Workshop):
    assert [version for _, version in told.verdicts("drift_batch_1")] == [1, 2]
    assert told.verdicts("drift_batch_1")[0][0] == "untrusted"


def test_later_batches_are_scored_by_the_second_version_only(told: Workshop):
    assert [version for _, version in told.verdicts("drift_batch_2")] == [2]
    assert [version for _, version in told.verdicts("drift_batch_3")] == [2]


def test_one_drift_asks_for_one_retraining(told: Workshop):
    assert told.decisions().count("retrain") == 2  # the first model, and the one after the drift
    assert told.decisions().count("promote") == 2


def test_the_ledger_says_why_in_order(told: Workshop):
    kinds = [kind for kind in told.decisions() if kind in ("retrain", "promote", "hold")]
    assert kinds == ["retrain", "promote", "hold", "retrain", "promote"]
    ((reason,),) = told.query("SELECT reason FROM decisions WHERE kind = 'retrain' AND champion_version = 1")
    assert "drift_batch_1" in reason
    assert "followup_study" in reason


def test_no_respondent_is_lost(told: Workshop):
    for name in ("clean_batch_1", "drift_batch_1"):
        sent = set(told.synthetic("batches", name)[STUDY.id])
        scored = told.query(f"SELECT {STUDY.id} FROM current_predictions WHERE batch = ?", name)
        assert {one for (one,) in scored} == sent
        assert len(scored) == len(sent)


def test_every_flagged_person_stands_in_the_list_of_the_batch(told: Workshop):
    for (batch,) in told.query("SELECT DISTINCT batch FROM batch_rows"):
        flagged = told.query(
            f"SELECT {STUDY.id} FROM current_predictions WHERE batch = ? AND contact ORDER BY score DESC, 1",
            batch,
        )
        assert [one for (one,) in flagged] == told.contact_list(batch)[STUDY.id].tolist()


def test_earlier_scores_are_kept_when_a_batch_is_scored_again(told: Workshop):
    counted = told.query(
        "SELECT model_version, count(*) FROM predictions WHERE batch = 'drift_batch_1' GROUP BY 1 ORDER BY 1"
    )
    rows = len(told.synthetic("batches", "drift_batch_1"))
    assert counted == [(1, rows), (2, rows)]


def test_every_mlflow_run_is_finished_and_linked_to_its_dagster_run(told: Workshop):
    client = mlflow.MlflowClient(told.home.mlflow_uri)
    experiment = client.get_experiment_by_name(STUDY.name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    nested: dict[str, list[Run]] = {
        run.info.run_id: [] for run in runs if "mlflow.parentRunId" not in run.data.tags
    }
    assert set(nested) == {version.run_id for version in told.registry.versions()}
    assert len(nested) == 2
    for run in runs:
        linked = told.instance.get_run_by_id(run.data.tags["dagster_run_id"])
        assert linked is not None
        assert linked.job_name == "retrain_and_promote"
        if run.info.run_id not in nested:
            nested[run.data.tags["mlflow.parentRunId"]].append(run)
    policy = STUDY.policies.training
    for parent, trials in nested.items():
        assert len(trials) == policy.quick.trials
        assert {run.data.params["candidate"] for run in trials} == set(policy.candidates)
        assert all(0 < run.data.metrics["cv_log_loss"] < 1 for run in trials)
        own = client.get_run(parent).data
        assert {run.data.tags["dagster_run_id"] for run in trials} == {own.tags["dagster_run_id"]}
        assert (own.params["mode"], own.params["trials"]) == ("quick", str(policy.quick.trials))


def challenger_metadata(told: Workshop) -> dict[str, Any]:
    """Return what the UI shows of the newest challenger."""
    (record,) = told.instance.fetch_materializations(dg.AssetKey("challenger"), limit=1).records
    assert record.asset_materialization is not None
    return {name: value.value for name, value in record.asset_materialization.metadata.items()}


def lines(table: str) -> list[list[str]]:
    """Return the cells of a markdown table, its head first."""
    head, _, *rows = table.splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (head, *rows)]


def test_the_ui_gets_the_comparison_of_all_candidates(told: Workshop):
    head, chosen, *tried = lines(challenger_metadata(told)["comparison"])
    assert head == ["candidate", "log_loss", "seconds", "state", "parameters"]
    assert chosen[0] == "chosen"
    assert {row[0].split()[0] for row in tried} == set(STUDY.policies.training.candidates)
    losses = [float(row[1]) for row in tried]
    assert losses == sorted(losses)
    assert float(chosen[1]) <= losses[0] + 1e-3


def test_the_ui_gets_every_figure_with_its_interval_and_those_of_the_groups(told: Workshop):
    metadata = challenger_metadata(told)
    client = mlflow.MlflowClient(told.home.mlflow_uri)
    kept = client.get_run(metadata["mlflow_run_id"]).data.metrics
    head, *figures = lines(metadata["metrics"])
    assert head == ["figure", "training rows", "holdout", "95 %"]
    for name, learned, held, interval in figures:
        value, low, high = (float(cell.replace(",", "")) for cell in (held, *interval.split(" to ")))
        rounding = 5e-5 if value < 100 else 0.5
        assert value == pytest.approx(kept[f"test_{name}"], abs=rounding)
        assert low == pytest.approx(kept[f"test_{name}_lower"], abs=rounding)
        assert low <= value <= high
        assert (learned != "") == (f"train_{name}" in kept)
    assert metadata["auc"] == pytest.approx(kept["test_auc"], abs=5e-5)
    _, *groups = lines(metadata["protected_groups"])
    assert {row[0] for row in groups} == {STUDY.feature(name).title for name in STUDY.protected}
    _, *populations = lines(metadata["populations"])
    assert ["Field study", "founding_study"] in [row[:2] for row in populations]
    assert ["Field study", "followup_study"] in [row[:2] for row in populations]


def test_the_ui_gets_every_plot_as_a_picture(told: Workshop):
    metadata = challenger_metadata(told)
    pictures = dict(
        re.findall(
            r"!\[([^\]]*)\]\(data:image/svg\+xml;base64,([^)]+)\)", metadata["plots"] + metadata["importance"]
        )
    )
    assert list(pictures) == [*CAPTIONS, "Importance"]
    for title, content in pictures.items():
        assert ElementTree.fromstring(base64.b64decode(content, validate=True)).tag.endswith("svg"), title


def test_each_version_has_its_model_card_in_the_home_and_in_its_mlflow_run(told: Workshop, tmp_path: Path):
    client = mlflow.MlflowClient(told.home.mlflow_uri)
    assert challenger_metadata(told)["model_card"] == str(told.home.model_card(2))
    for version in told.registry.versions():
        path = told.home.model_card(version.version)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        page = path.read_text()
        assert f"Model version {version.version}" in page
        for words in (version.run_id, version.tags["dagster_run_id"], version.training_data_hash):
            assert words in page
        (kept,) = client.list_artifacts(version.run_id, "model_card")
        assert Path(client.download_artifacts(version.run_id, kept.path, str(tmp_path))).read_text() == page


def test_the_run_holds_the_six_metrics_of_the_seed_and_the_usual_ones(told: Workshop):
    client = mlflow.MlflowClient(told.home.mlflow_uri)
    metrics = client.get_run(told.registry.champion().run_id).data.metrics
    seed = {f"{part}_{name}" for part in ("train", "test") for name in ("auc", "log_loss", "rmse")}
    usual = {
        f"test_{name}" for name in ("accuracy", "precision", "recall", "f1", "brier", "average_precision")
    }
    assert seed | usual <= set(metrics)
    assert metrics["test_auc"] < metrics["train_auc"]


def test_what_is_kept_of_a_model_is_the_same_on_every_machine(told: Workshop):
    # Before anybody loads it with MLflow: Python compiles a script beside it, with time and place in it.
    assert [path.name for path in told.home.artifacts.rglob("*.pyc")] == []


def test_mlflow_serves_the_champion_with_plain_codes_and_the_same_scores(told: Workshop):
    mlflow.set_tracking_uri(told.home.mlflow_uri)
    served = mlflow.pyfunc.load_model(f"models:/{STUDY.name}@champion")
    batch = told.synthetic("batches", "drift_batch_2")
    scores = dict(
        told.query(f"SELECT {STUDY.id}, score FROM current_predictions WHERE batch = 'drift_batch_2'")
    )
    answered = served.predict(batch[STUDY.feature_names])
    assert answered["score"].tolist() == batch[STUDY.id].map(scores).tolist()
    as_numbers = batch[STUDY.feature_names].astype(int)
    assert served.predict(as_numbers)["score"].tolist() == answered["score"].tolist()


def test_the_model_is_kept_as_code_without_a_pickle(told: Workshop):
    files = [path for path in told.home.artifacts.rglob("*") if path.is_file()]
    kept = {path.suffix for path in files}
    assert ".py" in kept
    assert kept.isdisjoint({".pkl", ".pickle", ".cloudpickle", ".joblib"})
    # Whatever its name: this is how a pickle begins and ends.
    pickled = [
        path.name for path in files if re.match(rb"\x80[\x02-\x05].*\.$", path.read_bytes(), re.DOTALL)
    ]
    assert pickled == []


def test_holdout_people_stay_held_out_and_make_the_reference(told: Workshop):
    held = told.query("SELECT count(*) FROM field_study_rows WHERE part = 'holdout'")[0][0]
    reference = told.registry.reference(told.registry.champion())
    assert len(reference) == held
    assert STUDY.id not in reference.columns
    split = told.query("SELECT DISTINCT part FROM field_study_rows ORDER BY 1")
    assert split == [("holdout",), ("train",)]


def test_outcomes_give_realised_performance_for_every_version_that_scored(told: Workshop):
    found = told.query(
        """SELECT model_version, value, lower, upper FROM performance
        WHERE kind = 'realised' AND metric = 'auc' AND batch = 'drift_batch_1' ORDER BY 1"""
    )
    assert [version for version, *_ in found] == [1, 2]
    for _, value, lower, upper in found:
        assert lower < value < upper
    assert found[1][1] > found[0][1]


def test_the_list_is_in_words(told: Workshop):
    listed = told.contact_list("drift_batch_1")
    for name in STUDY.contact_list:
        assert set(listed[name]) <= set(STUDY.feature(name).codes.values())
    assert pd.to_numeric(listed["prediction"]).is_monotonic_decreasing


def test_the_ui_gets_the_verdict_as_metadata_of_the_partition(told: Workshop):
    record = told.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey("drift_report"), asset_partitions=["drift_batch_3"]),
        limit=1,
    ).records[0]
    assert record.asset_materialization is not None
    metadata = record.asset_materialization.metadata
    assert metadata["verdict"].value == "clear"
    assert "data:image/svg+xml;base64," in str(metadata["distances"].value)


def test_playing_the_same_scenario_again_changes_nothing(told: Workshop, survey_data):
    before = (
        told.query("SELECT count(*) FROM decisions"),
        told.query("SELECT max(scored_at) FROM predictions"),
    )
    runs = told.instance.get_runs_count()
    ending = play_scenario(
        "full", survey_data, told.landing, told.warehouse, lambda drop: pytest.fail("nothing is new")
    )
    assert ending.dropped == 0
    assert list(ending.faults) == []
    assert told.runner.run_until_idle() == []
    after = told.query("SELECT count(*) FROM decisions"), told.query("SELECT max(scored_at) FROM predictions")
    assert (after, told.instance.get_runs_count()) == (before, runs)


def test_sensors_that_start_afresh_do_nothing_twice(told: Workshop):
    told.runner._cursors.clear()
    assert told.runner.run_until_idle() == []


def test_evidence_of_the_promotion_names_every_gate(told: Workshop):
    ((evidence,),) = told.query(
        "SELECT evidence FROM decisions WHERE kind = 'promote' AND challenger_version = 2"
    )
    gates = json.loads(evidence)["gates"]
    assert len(gates) == 10
    assert all(gate["figures"] and gate["words"] for gate in gates)
    assert all(gate["passed"] for gate in gates)
