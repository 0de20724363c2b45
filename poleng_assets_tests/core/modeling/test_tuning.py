"""Tuning: the same search gives the same configuration, whatever happened to it on the way."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pyarrow as pa
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from poleng_assets.core.modeling import tuning
from poleng_assets.core.modeling.candidates.blend import KINDS
from poleng_assets.core.modeling.candidates.boosting import Boosting
from poleng_assets.core.modeling.candidates.logistic import Logistic
from poleng_assets.core.modeling.decision_rule import ContactRule
from poleng_assets.core.modeling.folds import fold_of
from poleng_assets.core.modeling.model import train
from poleng_assets.core.modeling.tuning import Trial, TuningResult, search_name, tune
from poleng_assets.core.statistics.calibration import Calibration
from poleng_assets.simulation.population import synthesise
from poleng_assets.study.loading import load_study
from poleng_assets.study.policies import Budget
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import as_table, with_policies

ROOT = Path(__file__).parents[3]
LONG = Budget(trials=12, minutes=60)


def quick_search() -> tuple[pa.Table, Study]:
    """Rows and a study whose trials take a tenth of a second."""
    study = load_study()
    return as_table(synthesise(study, rows=400, seed=3, part="clean")), with_policies(
        study, training={"candidates": ("logistic",), "varies_by": "settlement"}
    )


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return quick_search()[0]


@pytest.fixture(scope="module")
def small() -> Study:
    return quick_search()[1]


@dataclass(frozen=True)
class Search:
    """A search that nothing interrupted."""

    folder: Path
    tuned: TuningResult


@pytest.fixture(scope="module")
def whole(rows: pa.Table, small: Study, tmp_path_factory: pytest.TempPathFactory) -> Search:
    folder = tmp_path_factory.mktemp("whole") / "search"
    return Search(folder, tune(rows, small, LONG, folder))


def of_every_kind(study: Study) -> Study:
    return with_policies(
        study,
        training={
            "candidates": tuple(KINDS),
            "xgboost": {"rounds": 30, "learning_rate": 0.2},
            "varies_by": "settlement",
        },
    )


@pytest.fixture(scope="module")
def mixed(rows: pa.Table, study: Study, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """The starting points of every kind, as a quick search tries them."""
    folder = tmp_path_factory.mktemp("mixed") / "search"
    return Search(folder, tune(rows, of_every_kind(study), Budget(trials=5, minutes=5), folder))


def told(trials: tuple[Trial, ...]) -> list[tuple[object, ...]]:
    """Return what trials found out; how long they took, and their numbers, may differ."""
    return [(one.member, one.fold_losses, one.pruned) for one in trials]


def loss(log_odds: np.ndarray, target: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, log_odds) - target * log_odds))


# What a search finds


def test_a_quick_search_tries_the_starting_points_of_every_kind(mixed: Search, study: Study):
    tried = sorted(mixed.tuned.trials, key=lambda one: one.number)
    assert [one.member.kind for one in tried] == ["xgboost", "logistic", "forest", "xgboost", "xgboost"]
    policy = with_policies(
        study, training={"xgboost": {"rounds": 30, "learning_rate": 0.2}}
    ).policies.training
    for name, kind in KINDS.items():
        found = [dict(one.member.parameters) for one in tried if one.member.kind == name]
        assert found == kind.starting_points(policy)


def test_the_table_has_the_configuration_first_and_then_every_trial_best_first(whole: Search):
    table = whole.tuned.table()
    assert table["candidate"].iloc[0] == "chosen"
    assert len(table) == 1 + LONG.trials
    for complete, part in table.iloc[1:].groupby(table["state"] == "complete"):
        assert part["log_loss"].is_monotonic_increasing, complete
    states = table["state"].iloc[1:].tolist()
    assert states == sorted(states, key=lambda state: state != "complete")
    assert table["seconds"].iloc[0] == pytest.approx(table["seconds"].iloc[1:].sum())
    assert table.notna().all(axis=None)


def test_the_configuration_is_no_worse_than_its_best_member(mixed: Search, whole: Search):
    for search in (mixed, whole):
        # A trial's is the mean of its folds, the configuration's that of all rows.
        assert search.tuned.log_loss <= search.tuned.trials[0].log_loss + 1e-4


def test_the_log_loss_of_a_trial_is_that_of_its_out_of_fold_log_odds(
    mixed: Search, rows: pa.Table, study: Study
):
    target = rows[study.target.name].to_numpy()
    fold = fold_of(rows, study)
    for one in mixed.tuned.trials:
        raw = np.load(mixed.folder / f"{one.number}.npy")
        by_fold = [loss(raw[fold == part], target[fold == part]) for part in range(3)]
        np.testing.assert_allclose(one.fold_losses, by_fold, rtol=1e-9)
        assert one.log_loss == pytest.approx(np.mean(by_fold))


def test_the_configuration_tells_more_than_chance_and_can_be_trained_by(
    mixed: Search, rows: pa.Table, study: Study
):
    assert 0.6 < mixed.tuned.auc < 0.95
    assert sum(one.weight for one in mixed.tuned.configuration.members) == pytest.approx(1)
    model = train(rows, study, mixed.tuned.configuration)
    assert model.calibration == mixed.tuned.configuration.calibration
    assert len(model.blend.members) == len(mixed.tuned.configuration.members)
    assert np.isfinite(model.score(rows)).all()


def test_the_contact_rule_of_the_study_is_settled(rows: pa.Table, small: Study, whole: Search):
    assert whole.tuned.configuration.rule == ContactRule(0.5)
    limited = with_policies(small, contact={"rule": "capacity", "capacity": 1_000, "usual_batch": 4_000})
    assert tune(rows, limited, LONG, whole.folder).configuration.rule.capacity == 1_000
    balanced = with_policies(small, contact={"rule": "youden"})
    assert 0 < tune(rows, balanced, LONG, whole.folder).configuration.rule.threshold < 1


def test_calibration_is_left_out_when_little_is_gained(rows: pa.Table, small: Study, whole: Search):
    eager, unwilling = (
        tune(rows, with_policies(small, training={"min_calibration_gain": least}), LONG, whole.folder)
        for least in (-1.0, 1.0)
    )
    assert eager.configuration.calibration != Calibration()
    assert unwilling.configuration.calibration == Calibration()
    assert eager.calibration_gain == unwilling.calibration_gain
    assert eager.log_loss == pytest.approx(unwilling.log_loss - eager.calibration_gain)


def test_no_more_are_blended_than_the_study_allows(rows: pa.Table, small: Study, whole: Search):
    for most in (1, 2):
        greedy = with_policies(small, training={"max_blended": most, "min_blend_gain": -1.0})
        assert len(tune(rows, greedy, LONG, whole.folder).configuration.members) == most


# Determinism, and what the search may be told


def test_the_same_search_twice_gives_the_same_configuration(
    rows: pa.Table, small: Study, whole: Search, tmp_path: Path
):
    again = tune(rows, small, LONG, tmp_path / "again")
    assert again.configuration == whole.tuned.configuration
    assert told(again.trials) == told(whole.tuned.trials)
    assert (again.log_loss, again.auc) == (whole.tuned.log_loss, whole.tuned.auc)


def test_a_search_that_is_not_kept_gives_the_same_configuration(rows: pa.Table, small: Study, whole: Search):
    in_memory = tune(rows, small, LONG)
    assert in_memory.configuration == whole.tuned.configuration
    assert told(in_memory.trials) == told(whole.tuned.trials)


def test_a_search_leaves_the_threads_of_the_linear_algebra_as_they_were(rows: pa.Table, small: Study):
    with threadpool_limits(3):
        before = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
        tune(rows, small, Budget(trials=4, minutes=5))
        after = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
    assert {path: after[path] for path in before} == before


def test_a_search_of_all_kinds_twice_gives_the_same_configuration(
    mixed: Search, rows: pa.Table, study: Study
):
    again = tune(rows, of_every_kind(study), Budget(trials=5, minutes=5))
    assert again.configuration == mixed.tuned.configuration
    assert told(again.trials) == told(mixed.tuned.trials)


@pytest.mark.parametrize("cores", [1, 2, 4, 16])
def test_every_number_of_cores_fits_the_same_folds_once_and_finds_the_same_configuration(
    mixed: Search, rows: pa.Table, study: Study, monkeypatch: pytest.MonkeyPatch, cores: int
):
    fitted: list[tuple[str, str, int]] = []
    score_fold = tuning._Search._score_fold

    def counted(search: tuning._Search, point: tuning.Point, fold: int) -> np.ndarray:
        fitted.append((point[0], repr(point[1]), fold))
        return score_fold(search, point, fold)

    monkeypatch.setattr(tuning._Search, "_score_fold", counted)
    monkeypatch.setattr("joblib.cpu_count", lambda: cores)
    found = tune(rows, of_every_kind(study), Budget(trials=5, minutes=5))
    assert len(fitted) == len(set(fitted)) == 5 * study.policies.training.folds
    assert told(found.trials) == told(mixed.tuned.trials)


def test_another_seed_searches_elsewhere(rows: pa.Table, small: Study, whole: Search):
    other = tune(rows, with_policies(small, training={"seed": 24}), Budget(trials=3, minutes=5))
    tried = [one.member.parameters for one in sorted(whole.tuned.trials, key=lambda one: one.number)]
    found = [one.member.parameters for one in sorted(other.trials, key=lambda one: one.number)]
    assert found[0] == tried[0]
    assert not any(one in tried for one in found[1:])


@pytest.mark.parametrize(
    "numbers",
    [
        {"rounds": 2, "learning_rate": 1.0, "max_depth": 1, "min_child_weight": 0.125},
        {"rounds": 3, "learning_rate": 0.001, "max_depth": 16, "subsample": 0.05, "colsample": 0.01},
        {"rounds": 5, "learning_rate": 0.123456789, "min_child_weight": 400.0},
    ],
    ids=["small", "far out", "odd"],
)
def test_the_studys_own_numbers_are_tried_exactly_whatever_they_are(
    rows: pa.Table, study: Study, numbers: dict[str, float]
):
    own = with_policies(study, training={"candidates": ("xgboost",), "folds": 2, "xgboost": numbers})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna only warns of numbers outside of a range
        tuned = tune(rows, own, Budget(trials=3, minutes=5))
    tried = [dict(one.member.parameters) for one in sorted(tuned.trials, key=lambda one: one.number)]
    assert tried == Boosting.starting_points(own.policies.training)


@pytest.mark.parametrize("rounds", [1, 149, 700, 777, 10_000])
def test_starting_points_lie_within_the_ranges_that_are_searched(study: Study, rounds: int):
    trees = {"rounds": rounds, "learning_rate": 0.9, "max_depth": 16}
    rare = {"trees": 3, "min_samples_leaf": 90, "max_features": 1.0}
    own = with_policies(study, training={"xgboost": trees, "forest": rare, "logistic": {"C": 9.0}})
    for kind in KINDS.values():
        for point in kind.starting_points(own.policies.training):
            trial = optuna.create_study().ask()
            suggested = kind.suggest(trial, own.policies.training)
            assert set(suggested) == set(point)
            for name, value in point.items():
                range_ = trial.distributions[name]
                assert range_._contains(range_.to_internal_repr(value)), (name, value)


# Interruptions


class Killed(BaseException):
    """Ends a search as nothing else in it would."""


def killed_after(count: int) -> Callable[[Trial, str], None]:
    seen: list[Trial] = []

    def on_trial(trial: Trial, words: str) -> None:
        seen.append(trial)
        if len(seen) == count:
            raise Killed

    return on_trial


def dying_at(fits: int) -> type[Logistic]:
    """Return a logistic regression that ends the search in its so-many-th fit."""
    calls: list[int] = []

    class Dying(Logistic):
        @classmethod
        def fit(cls, *args, **kwargs):
            calls.append(1)
            if len(calls) == fits:
                raise Killed
            return Logistic.fit(*args, **kwargs)

    return Dying


@pytest.mark.parametrize("count", [2, 11])
def test_a_search_interrupted_between_trials_gives_the_same_configuration(
    rows: pa.Table, small: Study, whole: Search, tmp_path: Path, count: int
):
    with pytest.raises(Killed):
        tune(rows, small, LONG, tmp_path, killed_after(count))
    resumed = tune(rows, small, LONG, tmp_path)
    assert resumed.configuration == whole.tuned.configuration
    assert told(resumed.trials) == told(whole.tuned.trials)


def test_a_search_interrupted_again_and_again_gives_the_same_configuration(
    rows: pa.Table, small: Study, whole: Search, tmp_path: Path
):
    for count in range(1, LONG.trials):
        with pytest.raises(Killed):
            tune(rows, small, LONG, tmp_path, killed_after(count))
    assert tune(rows, small, LONG, tmp_path).configuration == whole.tuned.configuration


@pytest.mark.parametrize("fits", [2, 14])
def test_a_search_interrupted_within_a_trial_gives_the_same_configuration(
    rows: pa.Table,
    small: Study,
    whole: Search,
    tmp_path: Path,
    fits: int,
    monkeypatch: pytest.MonkeyPatch,
):
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "KINDS", {"logistic": dying_at(fits)})
        with pytest.raises(Killed):
            tune(rows, small, LONG, tmp_path)
    left = optuna.load_study(study_name=small.name, storage=f"sqlite:///{tmp_path / 'trials.db'}")
    assert left.trials[-1].state == optuna.trial.TrialState.RUNNING
    resumed = tune(rows, small, LONG, tmp_path)
    assert resumed.configuration == whole.tuned.configuration
    assert told(resumed.trials) == told(whole.tuned.trials)


@pytest.mark.parametrize("asked", [False, True], ids=["enqueued", "enqueued and asked for"])
def test_a_starting_point_that_was_left_lying_about_does_no_harm(
    rows: pa.Table, small: Study, whole: Search, tmp_path: Path, asked: bool
):
    left = optuna.create_study(study_name=small.name, storage=f"sqlite:///{tmp_path / 'trials.db'}")
    point = Logistic.starting_points(small.policies.training)[0]
    left.enqueue_trial({"candidate": "logistic", **point})
    if asked:
        left.ask()
    resumed = tune(rows, small, LONG, tmp_path)
    assert resumed.configuration == whole.tuned.configuration
    assert told(resumed.trials) == told(whole.tuned.trials)


CHILD = """
import sys
from pathlib import Path
from poleng_assets.core.modeling.tuning import tune
from poleng_assets_tests.core.modeling.test_tuning import LONG, quick_search

rows, small = quick_search()
tune(rows, small, LONG, Path(sys.argv[1]), lambda trial, words: print(words, flush=True))
"""


def test_a_search_that_was_shot_goes_on_and_gives_the_same_configuration(
    rows: pa.Table, small: Study, whole: Search, tmp_path: Path
):
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for _ in range(3):
            assert child.stdout.readline().startswith("Trial ")
        child.kill()
    assert child.returncode == -9
    heard: list[str] = []
    resumed = tune(rows, small, LONG, tmp_path, lambda trial, words: heard.append(words))
    taken_over = [words for words in heard if "from an earlier run" in words]
    assert 3 <= len(taken_over) < LONG.trials
    assert resumed.configuration == whole.tuned.configuration
    assert told(resumed.trials) == told(whole.tuned.trials)


def test_a_finished_search_is_only_concluded_again(
    rows: pa.Table, small: Study, whole: Search, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tuning, "KINDS", {"logistic": dying_at(1)})
    assert tune(rows, small, LONG, whole.folder) == whole.tuned


def test_a_longer_search_goes_on_where_a_shorter_one_stopped(
    rows: pa.Table, small: Study, whole: Search, tmp_path: Path
):
    first = tune(rows, small, Budget(trials=5, minutes=60), tmp_path)
    assert len(first.trials) == 5
    tried: list[str] = []
    longer = tune(rows, small, LONG, tmp_path, lambda trial, words: tried.append(words))
    assert sum("from an earlier run" in words for words in tried) == 5
    assert len(tried) == LONG.trials
    assert longer.configuration == whole.tuned.configuration


# Budgets and pruning


def test_a_search_ends_with_its_minutes(rows: pa.Table, small: Study):
    tuned = tune(rows, small, Budget(trials=1_000, minutes=0.5 / 60))
    seconds = [one.seconds for one in sorted(tuned.trials, key=lambda one: one.number)]
    assert sum(seconds) >= 0.5
    assert sum(seconds[:-1]) < 0.5


def test_the_minutes_of_an_interrupted_search_count(rows: pa.Table, small: Study, whole: Search):
    tuned = tune(rows, small, Budget(trials=1_000, minutes=1e-6), whole.folder)
    assert len(tuned.trials) == LONG.trials


def test_one_trial_is_tried_however_little_time_there_is(rows: pa.Table, small: Study):
    tuned = tune(rows, small, Budget(trials=10, minutes=1e-9))
    assert len(tuned.trials) == 1
    assert tuned.configuration.members[0].parameters == Logistic.starting_points(small.policies.training)[0]


def test_hopeless_trials_are_pruned_and_never_blended(whole: Search, study: Study):
    pruned = [one for one in whole.tuned.trials if one.pruned]
    assert pruned
    assert all(len(one.fold_losses) < 3 for one in pruned)
    assert min(one.number for one in pruned) >= study.policies.training.pruned_after
    blended = [one.parameters for one in whole.tuned.configuration.members]
    assert not any(one.member.parameters in blended for one in pruned)
    complete = [one for one in whole.tuned.trials if not one.pruned]
    assert [len(one.fold_losses) for one in complete] == [3] * len(complete)
    table = whole.tuned.table()
    assert table["state"].str.startswith("pruned after fold").sum() == len(pruned)


def test_each_trial_says_how_far_the_search_is(rows: pa.Table, small: Study):
    heard: list[str] = []
    tune(rows, small, Budget(trials=2, minutes=5), on_trial=lambda trial, words: heard.append(words))
    assert [words.split(" in ")[0] for words in heard] == ["Trial 1 of 2 done", "Trial 2 of 2 done"]
    assert heard[-1].endswith("about 0.0 more minutes")


# Rows that cannot be tuned on


@pytest.mark.parametrize("positive", [0, 1, 40])
def test_rows_of_hardly_more_than_one_class_are_refused(rows: pa.Table, small: Study, positive: int):
    frame = rows.to_pandas()
    lows = frame[frame[small.target.name] == 0].head(40)
    highs = frame[frame[small.target.name] == 1].head(positive)
    given = as_table(pd.concat([lows, highs]) if positive < 40 else highs)
    with pytest.raises(ValueError, match=f"both classes of {small.target.name} for each of 3 folds"):
        tune(given, small, LONG)


def test_no_rows_are_refused(rows: pa.Table, small: Study):
    with pytest.raises(ValueError, match="0 training rows have too few"):
        tune(rows.slice(0, 0), small, LONG)


# The name of a search


def test_a_search_has_another_name_for_other_data_features_or_training_policy(study: Study):
    fewer = study.model_copy(update={"features": study.features[:-1]})
    names = [
        search_name("abc", study),
        search_name("abd", study),
        search_name("abc", fewer),
        search_name("abc", with_policies(study, training={"seed": 24})),
        search_name("abc", with_policies(study, training={"folds": 5})),
        search_name("abc", with_policies(study, training={"candidates": ("logistic",)})),
        search_name("abc", with_policies(study, training={"xgboost": {"rounds": 699}})),
        search_name("abc", with_policies(study, training={"forest": {"trees": 81}})),
        search_name("abc", with_policies(study, training={"xgboost": {"search": {"max_depth": (2, 9)}}})),
    ]
    assert len(set(names)) == len(names)


def test_a_search_has_the_same_name_however_long_it_goes_on(study: Study):
    longer = with_policies(
        study,
        training={
            "mode": "full",
            "quick": Budget(trials=1, minutes=1),
            "full": Budget(trials=9, minutes=9),
        },
        contact={"threshold": 0.1},
    )
    assert search_name("abc", longer) == search_name("abc", study)
    assert search_name("abc", study).isalnum()
