from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from poleng_assets.core.features.encoder import Encoder
from poleng_assets.core.modeling.candidates.base import Columns
from poleng_assets.core.modeling.candidates.blend import KINDS
from poleng_assets.core.modeling.candidates.boosting import Boosting
from poleng_assets.core.modeling.model import Model
from poleng_assets.study.schema import Study
from tools.bench.raw import ready
from tools.bench.seeds_way import (
    SCORE,
    SeedModel,
    column_drift,
    drift,
    learn,
    score,
    score_file,
    trees_of,
)
from tools.bench.tasks import Clock


@pytest.fixture(scope="module")
def seed_model(people: pd.DataFrame, study: Study) -> SeedModel:
    return learn(people, study.feature_names, study.target.name, rounds=10)


def test_the_seeds_way_ranks_people_and_scores_a_file_as_it_scores_a_frame(
    seed_model: SeedModel, people: pd.DataFrame, study: Study, tmp_path: Path
) -> None:
    from sklearn.metrics import roc_auc_score

    people.to_parquet(tmp_path / "people.parquet")
    written = score_file(
        seed_model, tmp_path / "people.parquet", tmp_path / "out.parquet", study.feature_names
    )

    scores = score(seed_model, people, study.feature_names)
    assert written == len(people)
    assert np.array_equal(pd.read_parquet(tmp_path / "out.parquet")[SCORE], scores)
    assert roc_auc_score(people[study.target.name], scores) > 0.7


def test_a_kept_model_of_the_seed_scores_as_before(
    seed_model: SeedModel, people: pd.DataFrame, study: Study, tmp_path: Path
) -> None:
    seed_model.save(tmp_path)

    again = SeedModel.load(tmp_path)

    few = people.head(50)
    assert np.array_equal(score(again, few, study.feature_names), score(seed_model, few, study.feature_names))


@pytest.mark.parametrize("rows", [500, 4_000])
@pytest.mark.parametrize(
    ("drawn", "shift"),
    [
        (lambda dice, rows: pd.Series(dice.normal(size=rows)), lambda column: column + 0.5),
        (
            lambda dice, rows: pd.Series(dice.choice(["a", "b"], rows)),
            lambda column: column.replace("a", "b"),
        ),
        (
            lambda dice, rows: pd.Series(dice.choice(["a", "b", "c"], rows)),
            lambda column: column.where(column != "a", "c"),
        ),
    ],
    ids=["numbers", "two answers", "three answers"],
)
def test_a_column_that_shifted_drifts_and_one_drawn_again_does_not(
    rows: int,
    drawn: Callable[[np.random.Generator, int], pd.Series],
    shift: Callable[[pd.Series], pd.Series],
) -> None:
    dice = np.random.default_rng(5)
    reference, again = drawn(dice, rows), drawn(dice, rows)

    assert not column_drift(reference, again)[1]
    assert column_drift(reference, shift(again))[1]


def test_large_references_are_compared_by_the_documented_distances() -> None:
    reference = pd.Series(np.arange(2_000.0))
    shares = pd.Series(["a"] * 1_000 + ["b"] * 1_000)

    assert column_drift(reference, reference + reference.std(ddof=0))[0] == pytest.approx(1.0)
    assert column_drift(shares, shares)[0] == 0.0
    assert column_drift(shares, pd.Series(["c"] * 10))[0] == pytest.approx(np.sqrt(np.log(2)))


def test_the_rival_is_given_as_many_and_as_deep_trees_as_the_champions_recipe_says(
    model: Model, people: pd.DataFrame, quick_study: Study
) -> None:
    (member,) = model.blend.members
    assert isinstance(member, Boosting)
    policy = quick_study.policies.training
    trees = trees_of(Boosting.starting_points(policy)[0])
    assert trees["max_depth"] == policy.xgboost.max_depth
    rounds = trees.pop("rounds")

    rival = learn(people.head(500), quick_study.feature_names, quick_study.target.name, rounds, trees)

    assert rounds == member.booster.num_boosted_rounds() == rival.booster.num_boosted_rounds()
    config = json.loads(rival.booster.save_config())["learner"]["gradient_booster"]["tree_train_param"]
    assert int(config["max_depth"]) == trees["max_depth"]
    assert float(config["eta"]) == pytest.approx(trees["eta"])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_raw_predict_of_every_kind_gives_the_members_own_scores(
    kind: str, training_rows: pa.Table, quick_study: Study
) -> None:
    rows = training_rows.slice(0, 800)
    encoder = Encoder.fit(rows, quick_study)
    matrix, target = encoder.encode(rows), rows[quick_study.target.name].to_numpy()
    points = KINDS[kind].starting_points(quick_study.policies.training)
    columns = Columns.of(encoder, quick_study)

    for parameters in points:
        member = KINDS[kind].fit(matrix, target.astype(np.float32), columns, parameters, 1)
        raw = ready(member, matrix)()
        # A forest gives the probability of both answers, the others log-odds.
        log_odds = raw if raw.ndim == 1 else np.log(raw[:, 1] / raw[:, 0])
        assert np.allclose(log_odds, member.log_odds(matrix), atol=1e-5)


def test_a_kind_of_model_that_the_bench_does_not_know_is_named() -> None:
    with pytest.raises(TypeError, match="does not know how a object predicts"):
        ready(object(), np.empty((0, 0)))


def test_the_clock_counts_a_call_within_a_call_once() -> None:
    clock = Clock()
    inner = clock.around(lambda: 1)
    outer = clock.around(lambda: inner() + inner())

    assert outer() == 2
    assert clock.depth == 0
    assert clock.seconds > 0


def test_drift_is_looked_for_in_the_columns_that_are_asked_for(people: pd.DataFrame, study: Study) -> None:
    found = drift(people, people, study.feature_names[:3])

    assert found == dict.fromkeys(study.feature_names[:3], False)
