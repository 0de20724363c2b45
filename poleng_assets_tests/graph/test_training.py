"""A challenger is made of training rows alone, once for the same data, and whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run

from poleng_assets.core.promotion import holdout_evaluation
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.headless.runner import HeadlessRunner, RunReport
from poleng_assets.models.registry import CHALLENGER, CHAMPION, Registry
from poleng_assets.study.loading import load_study
from poleng_assets.study.policies import Budget
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.writes import replace_partition, transaction
from poleng_assets_tests.conftest import with_policies
from poleng_assets_tests.faults.quick_study import SHIPPED, half_of_the_features
from poleng_assets_tests.graph.conftest import Workshop, open_workshop

# Few features, few rounds and few trials: a training takes seconds.
SMALL = with_policies(
    half_of_the_features(load_study(SHIPPED)),
    training={
        "xgboost": {"rounds": 40, "learning_rate": 0.2},
        "candidates": ("xgboost", "logistic"),
        "quick": Budget(trials=2, minutes=5),
        "full": Budget(trials=3, minutes=5),
    },
)
JOB = "retrain_and_promote"


@dataclass(frozen=True)
class DiesOnce(Registry):
    """Is gone between the ledger and the alias of the champion, the first time."""

    alive: list[str] = field(default_factory=list)

    def set_alias(self, alias: str, version: int) -> None:
        if alias == CHAMPION and not self.alive:
            self.alive.append("from now on")
            raise ConnectionError("gone between the ledger and the alias")
        super().set_alias(alias, version)


@pytest.fixture(scope="module")
def survey_data(half_survey_data: Path) -> Path:
    """Half of the features are enough here."""
    return half_survey_data


def runner_of(workshop: Workshop, registry: Registry) -> HeadlessRunner:
    """Return a runner of this home for the small study."""
    defs = workshop.runner.defs
    resources = {
        **(defs.resources or {}),
        "warehouse": Warehouse(workshop.home.warehouse, SMALL),
        "registry": registry,
    }
    small = dg.Definitions(
        assets=defs.assets,
        asset_checks=defs.asset_checks,
        jobs=defs.jobs,
        sensors=defs.sensors,
        executor=defs.executor,
        resources=resources,
    )
    return HeadlessRunner(small, workshop.instance, show=lambda report: None)


@contextmanager
def open_small_workshop(folder: Path, data: Path) -> Iterator[Workshop]:
    with open_workshop(folder, data) as workshop:
        workshop.runner = runner_of(workshop, Registry(workshop.home, SMALL))
        yield workshop


@pytest.fixture
def founded(tmp_path: Path, survey_data: Path) -> Iterator[Workshop]:
    """A home of its own in which version 1 serves."""
    with open_small_workshop(tmp_path / "home", survey_data) as workshop:
        workshop.drop("field_studies", "founding_study")
        assert workshop.registry.champion().version == 1
        yield workshop


def retrain(workshop: Workshop, **challenger: Any) -> RunReport:
    """Ask for a retraining by hand, as the UI does."""
    ops = {
        "training_data": {"config": {"reason": "by hand"}},
        "challenger": {"config": challenger},
    }
    return workshop.runner.run(JOB, run_config={"ops": ops})


def mlflow_runs(workshop: Workshop) -> list[Run]:
    """Return all runs, the newest first."""
    client = mlflow.MlflowClient(workshop.home.mlflow_uri, workshop.home.mlflow_uri)
    experiment = client.get_experiment_by_name(SMALL.name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def parents(workshop: Workshop) -> list[Run]:
    return [run for run in mlflow_runs(workshop) if "mlflow.parentRunId" not in run.data.tags]


def trials_of(workshop: Workshop, parent: str) -> list[Run]:
    return [run for run in mlflow_runs(workshop) if run.data.tags.get("mlflow.parentRunId") == parent]


def scores(workshop: Workshop, version: int, people: pd.DataFrame) -> bytes:
    """Return the very bits of what a version says about some people."""
    return workshop.registry.model(workshop.registry.version(version)).score(people).tobytes()


def ledger(workshop: Workshop, kind: str) -> list[tuple[Any, ...]]:
    return workshop.query(
        "SELECT challenger_version, champion_version FROM decisions WHERE kind = ? ORDER BY decided_at", kind
    )


def log_of(workshop: Workshop) -> str:
    """Return what the newest retraining told its reader."""
    (run,) = workshop.instance.get_runs(dg.RunsFilter(job_name=JOB), limit=1)
    return "\n".join(entry.user_message for entry in workshop.instance.all_logs(run.run_id))


def cause_of_failure(workshop: Workshop) -> str:
    """Return why the newest retraining failed, as the UI shows it."""
    (run,) = workshop.instance.get_runs(dg.RunsFilter(job_name=JOB), limit=1)
    entries = workshop.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    return "\n".join(
        str(entry.dagster_event.step_failure_data.error) for entry in entries if entry.dagster_event
    )


# The same data


@dataclass
class Repeated:
    """A home that was asked three times to train on the same data, and what came of it each time."""

    workshop: Workshop
    second: RunReport
    versions_after_the_second: list[int]
    parents_after_the_second: list[str]
    third: RunReport


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory, survey_data: Path) -> Iterator[Repeated]:
    with open_small_workshop(tmp_path_factory.mktemp("repeated") / "home", survey_data) as workshop:
        workshop.drop("field_studies", "founding_study")
        second = retrain(workshop)
        versions = [one.version for one in workshop.registry.versions()]
        states = [run.info.status for run in parents(workshop)]
        yield Repeated(workshop, second, versions, states, retrain(workshop, again=True))


def test_the_same_data_are_not_trained_on_twice(repeated: Repeated):
    assert repeated.second.success, repeated.second.message
    assert repeated.versions_after_the_second == [1]
    assert "trained before on the same data" in repeated.second.metadata["challenger"]["taken_over"]
    assert repeated.second.metadata["challenger"]["version"] == 1
    assert repeated.second.metadata["champion"]["serving_version"] == 1
    assert ledger(repeated.workshop, "promote") == [(1, 1)]


def test_the_mlflow_run_of_a_retraining_that_had_nothing_to_do_is_ended_and_has_no_trials(repeated: Repeated):
    assert repeated.parents_after_the_second == ["FINISHED", "FINISHED"]
    second = sorted(parents(repeated.workshop), key=lambda run: run.info.start_time)[1]
    assert trials_of(repeated.workshop, second.info.run_id) == []


def test_training_again_on_demand_gives_the_same_model_bit_for_bit_and_it_is_rejected(repeated: Repeated):
    workshop = repeated.workshop
    assert repeated.third.success, repeated.third.message
    assert "taken_over" not in repeated.third.metadata["challenger"]
    assert repeated.third.metadata["challenger"]["version"] == 2
    people = workshop.synthetic("batches", "drift_batch_1")
    assert scores(workshop, 2, people) == scores(workshop, 1, people)
    first, second = (workshop.registry.version(version) for version in (1, 2))
    assert first.tags["recipe"] == second.tags["recipe"]
    pd.testing.assert_frame_equal(workshop.registry.reference(first), workshop.registry.reference(second))
    assert repeated.third.metadata["champion"]["promoted"] is False
    assert ledger(workshop, "reject") == [(2, 1)]
    ((evidence,),) = workshop.query("SELECT evidence FROM decisions WHERE kind = 'reject'")
    gains = [gate["figures"]["gain"] for gate in json.loads(evidence)["gates"] if "gain" in gate["figures"]]
    assert gains == [0.0, 0.0]  # of log-loss, and of AUC
    assert workshop.registry.champion().version == 1


def test_a_full_search_is_another_one_with_the_budget_of_its_own(repeated: Repeated):
    workshop = repeated.workshop
    report = retrain(workshop, mode="full")
    assert report.success, report.message
    assert "taken_over" not in report.metadata["challenger"]
    full = workshop.registry.version(report.metadata["challenger"]["version"])
    quick = workshop.registry.version(1)
    for version, mode, budget in ((quick, "quick", 2), (full, "full", 3)):
        client = mlflow.MlflowClient(workshop.home.mlflow_uri, workshop.home.mlflow_uri)
        told = client.get_run(version.run_id).data.params
        assert (told["mode"], told["trials"]) == (mode, str(budget))
        assert len(trials_of(workshop, version.run_id)) == budget
    assert "Trial 3 of 3" in log_of(workshop)
    assert "more minutes" in log_of(workshop)


def test_a_rejected_version_is_judged_again_only_when_another_champion_serves(repeated: Repeated):
    workshop = repeated.workshop

    def judge() -> dict[str, Any]:
        result = workshop.runner.defs.resolve_job_def(JOB).execute_in_process(
            instance=workshop.instance, asset_selection=[dg.AssetKey("champion")]
        )
        (event,) = result.get_asset_materialization_events()
        metadata = event.step_materialization_data.materialization.metadata
        return {name: value.value for name, value in metadata.items()}

    workshop.registry.set_alias(CHALLENGER, 2)
    before = workshop.decisions()
    told = judge()
    assert (told["promoted"], told["figures"]) == (False, {})
    assert workshop.decisions() == before

    workshop.drop("field_studies", "followup_study")
    report = retrain(workshop)
    better = report.metadata["challenger"]["version"]
    assert workshop.registry.champion().version == better, report.metadata["champion"]["reason"]
    workshop.registry.set_alias(CHALLENGER, 2)
    told = judge()
    assert told["promoted"] is False
    assert told["figures"]
    assert ledger(workshop, "reject")[-1] == (2, better)
    rejected = len(ledger(workshop, "reject"))
    judge()
    assert len(ledger(workshop, "reject")) == rejected
    assert workshop.registry.champion().version == better


# The holdout


def test_the_model_does_not_change_when_every_holdout_answer_is_poisoned(founded: Workshop):
    people = founded.synthetic("batches", "drift_batch_1")
    with founded.warehouse.connect() as con:
        held = con.execute("SELECT * FROM field_study_rows WHERE part = 'holdout' ORDER BY row_number").df()
        assert len(held) > 500
        poisoned = held.assign(**{SMALL.target.name: 1 - held[SMALL.target.name]})
        for number, name in enumerate(SMALL.feature_names, start=1):
            poisoned[name] = np.roll(held[name], number)
        with transaction(con):
            replace_partition(con, "field_study_rows", {"part": "holdout"}, poisoned)
    report = retrain(founded, again=True)
    assert report.success, report.message
    assert report.metadata["challenger"]["version"] == 2
    assert report.metadata["challenger"]["auc"] < 0.55  # the poison is there, and it is measured
    assert scores(founded, 2, people) == scores(founded, 1, people)
    training_rows = founded.synthetic("field_studies", "founding_study")[SMALL.feature_names]
    assert scores(founded, 2, training_rows) == scores(founded, 1, training_rows)
    first, second = (founded.registry.version(version).tags["recipe"] for version in (1, 2))
    assert first == second


# Interruptions


def test_an_interrupted_promotion_is_finished_by_the_next_run(workshop: Workshop):
    workshop.runner = runner_of(workshop, DiesOnce(workshop.home, SMALL))
    reports = workshop.drop("field_studies", "founding_study")
    assert [(report.job, report.success) for report in reports] == [
        ("ingest_field_study", True),
        (JOB, False),
        (JOB, True),
    ]
    assert workshop.registry.champion().version == 1
    assert ledger(workshop, "promote") == [(1, 1)]

    workshop.drop("field_studies", "followup_study")
    workshop.runner = runner_of(workshop, DiesOnce(workshop.home, SMALL))
    assert not retrain(workshop).success
    assert "gone between the ledger and the alias" in cause_of_failure(workshop)
    assert ledger(workshop, "promote") == [(1, 1), (2, 2)]
    assert workshop.registry.champion().version == 1
    report = retrain(workshop)
    assert report.success, report.message
    told = report.metadata["champion"]
    assert (told["promoted"], told["serving_version"]) == (True, 2)
    assert workshop.registry.champion().version == 2
    assert ledger(workshop, "promote") == [(1, 1), (2, 2)]
    assert [one.version for one in workshop.registry.versions()] == [1, 2]
    workshop.drop("batches", "clean_batch_1")
    assert [version for _, version in workshop.verdicts("clean_batch_1")] == [2]


def test_a_training_that_fails_half_way_loses_nothing_and_the_next_takes_its_trials_over(
    founded: Workshop, monkeypatch: pytest.MonkeyPatch
):
    founded.drop("field_studies", "followup_study")
    registry = founded.registry

    def kept() -> tuple[Any, ...]:
        aliases = [alias.version for alias in map(registry.alias, (CHAMPION, CHALLENGER)) if alias]
        reference = registry.reference(registry.champion()).to_csv()
        return aliases, reference, ledger(founded, "promote")

    def broken(*arguments: object, **named: object) -> None:
        raise OSError("the disk is full")

    before = kept()
    for place, name in ((holdout_evaluation, "evaluate_model"), (Registry, "log_page")):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, broken)
            report = retrain(founded)
        assert not report.success
        assert "the disk is full" in cause_of_failure(founded)
        assert kept() == before
        assert parents(founded)[0].info.status == "FAILED"
        assert {run.info.status for run in mlflow_runs(founded)} == {"FINISHED", "FAILED"}
        # The champion's own search, that a full one could go on with, and this one.
        assert len(list(founded.home.tuning.glob("*/trials.db"))) == 2

    report = retrain(founded)
    assert report.success, report.message
    assert log_of(founded).count("from an earlier run") == 2
    assert "Trial 1 of" not in log_of(founded)
    version = report.metadata["challenger"]["version"]
    assert registry.champion().version == version
    assert len(trials_of(founded, registry.champion().run_id)) == 2
    assert [folder.name for folder in founded.home.tuning.iterdir()] == [
        founded.registry.champion().tags["search"]
    ]
    # What failed before the registration, which is the last step, has left no version behind.
    assert version == 2
    assert registry.version_of_search(registry.version(2).tags["search"], "quick") == registry.version(2)
    assert [one.version for one in registry.versions()] == [1, 2]


def test_batches_can_be_scored_while_a_challenger_is_trained(repeated: Repeated):
    graph = repeated.workshop.runner.defs.resolve_job_def(JOB).graph
    pools = {
        node.name: node.definition.pool
        for node in graph.nodes
        if isinstance(node.definition, dg.OpDefinition)
    }
    assert pools == {"training_data": WAREHOUSE_POOL, "challenger": None, "champion": WAREHOUSE_POOL}
