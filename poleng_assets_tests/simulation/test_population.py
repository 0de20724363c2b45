"""The synthetic population: as like the survey as the demo needs, and the same every time.

Shares are held against the figures that ship with the package; the tests that hold them against
real respondents look for these in the folder POLENG_REAL_DATA, or else in ../shared/data/wvs
beside the repository, and are skipped when they are not there. ``pytest -rP`` shows the figures.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, train_test_split

from poleng_assets.simulation.population import (
    Population,
    PopulationError,
    draw_answers,
    load_population,
    synthesise,
    write_scenario_data,
)
from poleng_assets.study.loading import load_study
from poleng_assets.study.schema import Study

REPOSITORY = Path(__file__).parents[2]
PARTS = ["clean", "drift"]
ROWS = {"clean": 40_301, "drift": 29_639}  # as many as the real files hold


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study()


@pytest.fixture(scope="module")
def population() -> Population:
    return load_population()


@pytest.fixture(scope="module")
def people(study: Study) -> dict[str, pd.DataFrame]:
    return {part: synthesise(study, rows=ROWS[part], seed=23, part=part) for part in PARTS}


@pytest.fixture(scope="module")
def halves(study: Study, people: dict[str, pd.DataFrame]) -> dict[str, list[pd.DataFrame]]:
    """Three quarters to train on and a quarter held out, of each part."""
    return {part: train_test_split(frame, test_size=0.25, random_state=0) for part, frame in people.items()}


@pytest.fixture(scope="module")
def real_data() -> Path:
    folder = Path(os.environ.get("POLENG_REAL_DATA", REPOSITORY.parent / "shared" / "data" / "wvs"))
    if not (folder / "field_studies").is_dir():
        pytest.skip(f"no real survey data in {folder}; set POLENG_REAL_DATA to their folder")
    return folder


@pytest.fixture(scope="module")
def real_people(real_data: Path, study: Study) -> dict[str, pd.DataFrame]:
    return {
        part: _read_part(real_data, study, part, study_file)
        for part, study_file in zip(PARTS, ["founding_study", "followup_study"], strict=True)
    }


@pytest.fixture(scope="module")
def data_folder(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenario")
    write_scenario_data(study, folder)
    return folder


# Drawing


@pytest.mark.timed
def test_a_hundred_thousand_respondents_take_less_than_five_seconds(study: Study):
    start = time.perf_counter()
    synthesise(study, rows=100_000, seed=1)
    seconds = time.perf_counter() - start
    print(f"100,000 respondents: {seconds:.2f} s")
    assert seconds < 5


def test_the_same_seed_gives_the_same_bytes(study: Study):
    first, second = (_bytes_of(synthesise(study, rows=3_000, seed=5)) for _ in range(2))
    assert first == second


def test_another_seed_gives_other_people(study: Study):
    first, second = (synthesise(study, rows=500, seed=seed) for seed in (5, 6))
    assert not set(first[study.id]) & set(second[study.id])
    assert not first[study.feature_names].equals(second[study.feature_names])


def test_two_parts_drawn_with_one_seed_share_nobody(study: Study):
    clean, drift = (synthesise(study, rows=500, seed=5, part=part) for part in PARTS)
    assert not set(clean[study.id]) & set(drift[study.id])


def test_ids_are_distinct_and_look_like_uuids(study: Study, people: dict[str, pd.DataFrame]):
    ids = pd.concat(people.values())[study.id]
    assert ids.is_unique
    assert ids.str.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}").all()


def test_every_answer_is_a_code_of_the_study_and_none_is_missing(
    study: Study, people: dict[str, pd.DataFrame]
):
    everybody = pd.concat(people.values())
    assert list(everybody) == [study.id, *study.feature_names, study.target.name]
    assert not everybody.isna().any(axis=None)
    for feature in study.features:
        assert set(everybody[feature.name].astype(int)) <= set(feature.codes)


def test_a_part_holds_its_own_groups_only(population: Population, people: dict[str, pd.DataFrame]):
    group = population.structure.group
    for part, frame in people.items():
        assert set(frame[group].astype(int)) == set(population.part(part))
    assert len(population.part("clean")) + len(population.part("drift")) == len(population.groups)


def test_chosen_groups_are_the_only_ones_drawn(study: Study, population: Population):
    chosen = sorted(population.groups)[:2]
    frame = synthesise(study, rows=200, seed=1, groups=chosen)
    assert set(frame[population.structure.group].astype(int)) == set(chosen)


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows_have_the_types_of_many(study: Study, rows: int):
    few, many = (synthesise(study, rows=n, seed=1) for n in (rows, 100))
    assert len(few) == rows
    assert few.dtypes.equals(many.dtypes)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rows": -1}, "must not be negative"),
        ({"rows": 1, "part": "nowhere"}, "there is no part 'nowhere'; there are clean, drift"),
        ({"rows": 1, "groups": [1]}, r"has no groups \[1\]"),
        ({"rows": 1, "groups": []}, "at least one group"),
        ({"rows": 1, "groups": [32], "part": "clean"}, "not both"),
    ],
)
def test_a_wrong_request_is_refused_in_words(study: Study, wrong: dict, words: str):
    with pytest.raises(PopulationError, match=words):
        synthesise(study, seed=1, **wrong)


def test_a_study_with_a_feature_that_has_no_figures_is_refused(study: Study):
    new = study.features[-1].model_copy(update={"name": "shoe_size"})
    other = study.model_copy(update={"features": (*study.features, new)})
    with pytest.raises(PopulationError, match="lacks the feature shoe_size"):
        synthesise(other, rows=1, seed=1)


def test_figures_that_cannot_be_read_are_refused_with_their_path(tmp_path: Path):
    (tmp_path / "broken.json").write_text("{}")
    for name in ("broken.json", "absent.json"):
        with pytest.raises(PopulationError, match=name):
            load_population(tmp_path / name)


def test_figures_that_lack_a_row_are_refused(population: Population):
    content = population.model_dump()
    column = content["structure"]["order"][0]["column"]
    content["columns"][column]["by_group"].popitem()
    with pytest.raises(ValueError, match=f"{column} given .* lacks some answers"):
        Population.model_validate(content)


# Likeness to the survey


@pytest.mark.parametrize("part", PARTS)
def test_every_marginal_is_within_three_hundredths_of_the_survey_figures(
    population: Population, people: dict[str, pd.DataFrame], part: str
):
    figures = population.checks.marginals[part]
    distances = {name: _distance(people[part][name], pd.Series(shares)) for name, shares in figures.items()}
    print(f"{part}: largest distances {_largest(distances)}")
    assert max(distances.values()) < 0.03


@pytest.mark.parametrize("part", PARTS)
def test_every_marginal_is_within_three_hundredths_of_the_real_respondents(
    study: Study,
    people: dict[str, pd.DataFrame],
    real_people: dict[str, pd.DataFrame],
    part: str,
):
    distances = {
        name: _distance(people[part][name], _shares(real_people[part][name])) for name in study.feature_names
    }
    print(f"{part}: largest distances {_largest(distances)}")
    assert max(distances.values()) < 0.03


@pytest.mark.parametrize("part", PARTS)
def test_the_target_rate_is_within_a_hundredth_of_the_surveys(
    study: Study, population: Population, people: dict[str, pd.DataFrame], part: str
):
    rate = people[part][study.target.name].mean()
    print(f"{part}: target rate {rate:.4f}, survey {population.checks.target_rates[part]}")
    assert rate == pytest.approx(population.checks.target_rates[part], abs=0.01)


def test_the_figures_target_rates_are_those_of_the_survey(population: Population):
    assert population.checks.target_rates == {"clean": 0.3105, "drift": 0.3478}


def test_the_interview_mode_is_constant_in_58_of_64_countries(people: dict[str, pd.DataFrame]):
    everybody = pd.concat(people.values())
    modes = everybody.groupby("country")["mode"].nunique()
    assert set(modes.index[modes > 1]) == {"344", "368", "458", "826", "840", "909"}


def test_the_spouse_columns_are_zero_together(people: dict[str, pd.DataFrame]):
    zeros = _zero_spouse_columns(pd.concat(people.values()))
    shares = {"all": (zeros == 3).mean(), "none": (zeros == 0).mean()}
    print(f"spouse columns zero: {shares}")
    assert shares == pytest.approx({"all": 0.281, "none": 0.657}, abs=0.03)


def test_the_spouse_columns_are_zero_as_the_marital_status_has_it(people: dict[str, pd.DataFrame]):
    everybody = pd.concat(people.values())
    together = (_zero_spouse_columns(everybody) == 3).groupby(everybody["marital_status"]).mean()
    expected = {"1": 0.002, "2": 0.012, "3": 0.64, "4": 0.655, "5": 0.49, "6": 0.87}
    assert together.to_dict() == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("column", "codes", "given", "expected"),
    [
        ("birth_country", [1], "immigrant", {"1": 0.987, "2": 0.102}),
        ("citizenship", [2], "immigrant", {"1": 0.002, "2": 0.327}),
        ("employment_sector", [0], "profession", {"1": 0.765, "12": 0.18}),
        ("profession", [1], "employment", {"5": 0.52, "6": 0.57, "7": 0.27}),
        (
            "children_number",
            [1, 2, 3, 4],
            "marital_status",
            {"1": 0.91, "2": 0.76, "3": 0.86, "4": 0.89, "5": 0.93, "6": 0.15},
        ),
    ],
)
def test_an_answer_follows_the_answer_that_it_hangs_on(
    people: dict[str, pd.DataFrame], column: str, codes: list[int], given: str, expected: dict
):
    everybody = pd.concat(people.values())
    rates = everybody[column].astype(int).isin(codes).groupby(everybody[given]).mean()
    assert rates[list(expected)].to_dict() == pytest.approx(expected, abs=0.05)


def test_the_target_rate_falls_with_education(study: Study, people: dict[str, pd.DataFrame]):
    everybody = pd.concat(people.values())
    rates = everybody.groupby("education")[study.target.name].mean()
    print(rates.round(3).to_dict())
    assert rates.loc[1] == pytest.approx(0.53, abs=0.06)
    assert rates.loc[9] == pytest.approx(0.13, abs=0.06)


# Realism for a model


@pytest.mark.parametrize("part", [*PARTS, "pooled"])
def test_a_model_finds_the_target_as_hard_as_the_surveys(
    study: Study, people: dict[str, pd.DataFrame], part: str
):
    frame = people[part] if part in people else pd.concat(people.values())
    auc = _cross_validated_auc(study, frame)
    print(f"{part}: 3-fold AUC {auc:.4f}")
    assert 0.75 < auc < 0.81


def test_new_countries_cost_accuracy_but_not_all_of_it(study: Study, halves: dict[str, list[pd.DataFrame]]):
    model = _Model(study, halves["clean"][0])
    known, new = model.auc(halves["clean"][1]), model.auc(halves["drift"][1])
    print(f"trained on clean: AUC {known:.4f} on clean held out, {new:.4f} on drift")
    assert known - new >= 0.04
    assert new > 0.65


def test_training_on_both_parts_wins_the_accuracy_back(study: Study, halves: dict[str, list[pd.DataFrame]]):
    model = _Model(study, pd.concat([halves[part][0] for part in PARTS]))
    known, new = model.auc(halves["clean"][1]), model.auc(halves["drift"][1])
    print(f"trained on both: AUC {known:.4f} on clean held out, {new:.4f} on drift held out")
    assert new >= 0.76


def test_a_model_is_as_accurate_on_synthetic_as_on_real_people(
    study: Study,
    halves: dict[str, list[pd.DataFrame]],
    real_people: dict[str, pd.DataFrame],
):
    train, held_out = train_test_split(real_people["clean"], test_size=0.25, random_state=0)
    real = _Model(study, train)
    synthetic = _Model(study, halves["clean"][0])
    of_real = [real.auc(held_out), real.auc(real_people["drift"])]
    of_synthetic = [synthetic.auc(halves["clean"][1]), synthetic.auc(halves["drift"][1])]
    print(f"AUC held out, on new countries: real {of_real}, synthetic {of_synthetic}")
    assert of_synthetic == pytest.approx(of_real, abs=0.03)


# The data folder


def test_a_data_folder_has_the_files_and_sizes_of_the_survey(data_folder: Path):
    sizes = {
        str(path.relative_to(data_folder)): len(pd.read_parquet(path))
        for path in data_folder.rglob("*.parquet")
    }
    batches = {f"{part}_batch_{i}.parquet": part for part in PARTS for i in (1, 2, 3)}
    expected = {
        "field_studies/founding_study.parquet": 29_165,
        "field_studies/followup_study.parquet": 16_466,
    }
    for name, part in batches.items():
        for folder in ("batches", "outcomes"):
            expected[f"{folder}/{name}"] = {"clean": 3_712, "drift": 4_391}[part]
    assert sizes == expected


def test_a_data_folder_has_the_sizes_and_types_of_the_real_one(data_folder: Path, real_data: Path):
    for path in real_data.glob("*/*.parquet"):
        real = pd.read_parquet(path)
        synthetic = pd.read_parquet(data_folder / path.relative_to(real_data))
        assert len(synthetic) == len(real), path.name
        assert synthetic.dtypes.to_dict() == real.dtypes.to_dict(), path.name


def test_nobody_stands_in_two_files(study: Study, data_folder: Path):
    files = [*data_folder.glob("field_studies/*"), *data_folder.glob("batches/*")]
    ids = pd.concat([pd.read_parquet(file, columns=[study.id]) for file in files])
    assert ids[study.id].is_unique


def test_batches_are_without_the_target_which_their_outcomes_have(study: Study, data_folder: Path):
    for path in data_folder.glob("batches/*"):
        batch, outcomes = (pd.read_parquet(p) for p in (path, data_folder / "outcomes" / path.name))
        assert study.target.name not in batch
        assert list(outcomes) == [study.id, study.target.name]
        assert set(outcomes[study.id]) == set(batch[study.id])


def test_the_same_seed_writes_the_same_folder(study: Study, tmp_path: Path):
    for name in ("one", "two"):
        write_scenario_data(study, tmp_path / name, seed=4, scale=0.01)
    for path in (tmp_path / "one").rglob("*.parquet"):
        twin = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == twin.read_bytes()


def test_a_smaller_folder_has_every_file(study: Study, tmp_path: Path):
    written = write_scenario_data(study, tmp_path, scale=0.001)
    assert sorted(written) == sorted(tmp_path.rglob("*.parquet"))
    assert len(written) == 14
    assert len(pd.read_parquet(tmp_path / "field_studies" / "founding_study.parquet")) == 29


def test_a_scale_of_zero_is_refused(study: Study, tmp_path: Path):
    with pytest.raises(PopulationError, match="above zero"):
        write_scenario_data(study, tmp_path, scale=0)


# What ships


def test_the_figures_are_small():
    import poleng_assets.simulation.population as module

    assert module.FIGURES.stat().st_size < 300_000


def test_the_code_names_no_column_of_the_survey(study: Study):
    import poleng_assets.simulation.population as module

    tool = REPOSITORY / "tools" / "make_population_figures.py"
    for source in (Path(module.__file__), tool):
        text = source.read_text(encoding="utf-8")
        assert [n for n in study.feature_names if f'"{n}"' in text] == []


def test_no_group_gives_an_answer_that_only_a_handful_of_its_people_gave(
    population: Population,
):
    answers = draw_answers(population, 400_000, sorted(population.groups), np.random.default_rng(0))
    group = answers[population.structure.group]
    # The least that ships is ten people; a draw of this size may make them six, never five.
    per_row = sum(population.groups.values()) / 400_000
    for step in population.structure.order:
        if step.column in population.structure.helpers:
            continue
        drawn = pd.Series(answers[step.column]).groupby(group).value_counts() * per_row
        assert drawn.min() > 5, step.column


def test_cells_of_fewer_than_ten_people_are_removed_from_the_figures():
    tool = _load_tool()
    assert tool.without_small_cells({1: 0.9, 2: 0.09, 3: 0.01}, 1_000) == pytest.approx(
        {1: 0.9, 2: 0.09, 3: 0.01}
    )
    assert tool.without_small_cells({1: 0.9, 2: 0.091, 3: 0.009}, 1_000) == pytest.approx(
        {1: 0.9 / 0.991, 2: 0.091 / 0.991}
    )


# Helpers


class _Model:
    """XGBoost with native categories; codes that it never saw become missing."""

    def __init__(self, study: Study, train: pd.DataFrame) -> None:
        import xgboost

        self.study = study
        self.vocabulary = {f.name: sorted(train[f.name].unique()) for f in study.features if not f.is_ordinal}
        settings = {"max_depth": 4, "eta": 0.05, "objective": "binary:logistic", "nthread": 2}
        self.booster = xgboost.train(settings, self._matrix(train), 300)

    def auc(self, held_out: pd.DataFrame) -> float:
        chances = self.booster.predict(self._matrix(held_out))
        return float(roc_auc_score(held_out[self.study.target.name], chances))

    def _matrix(self, frame: pd.DataFrame):
        import xgboost

        columns = {
            f.name: frame[f.name].to_numpy()
            if f.is_ordinal
            else pd.Categorical(frame[f.name], categories=self.vocabulary[f.name])
            for f in self.study.features
        }
        label = frame[self.study.target.name]
        return xgboost.DMatrix(pd.DataFrame(columns), label.to_numpy(), enable_categorical=True)


def _cross_validated_auc(study: Study, frame: pd.DataFrame) -> float:
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    aucs = [
        _Model(study, frame.iloc[train]).auc(frame.iloc[held_out])
        for train, held_out in folds.split(frame, frame[study.target.name])
    ]
    return float(np.mean(aucs))


def _read_part(folder: Path, study: Study, part: str, study_file: str) -> pd.DataFrame:
    frames = [pd.read_parquet(folder / "field_studies" / f"{study_file}.parquet")]
    for path in sorted(folder.glob(f"batches/{part}_batch_*.parquet")):
        outcomes = pd.read_parquet(folder / "outcomes" / path.name)
        frames.append(pd.read_parquet(path).merge(outcomes, on=study.id))
    return pd.concat(frames, ignore_index=True)


def _shares(answers: pd.Series) -> pd.Series:
    return answers.astype(int).value_counts(normalize=True)


def _distance(answers: pd.Series, expected: pd.Series) -> float:
    """Total variation distance, from 0 (the same shares) to 1."""
    return float(_shares(answers).sub(expected, fill_value=0).abs().sum() / 2)


def _largest(distances: dict[str, float]) -> str:
    ordered = sorted(distances.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {value:.4f}" for name, value in ordered)


def _zero_spouse_columns(people: pd.DataFrame) -> pd.Series:
    columns = ["employment_spouse", "profession_spouse", "education_spouse"]
    return (people[columns].astype(int) == 0).sum(axis=1)


def _bytes_of(frame: pd.DataFrame) -> str:
    return hashlib.sha256(frame.to_csv().encode()).hexdigest()


def _load_tool() -> ModuleType:
    path = REPOSITORY / "tools" / "make_population_figures.py"
    spec = importlib.util.spec_from_file_location("make_population_figures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its own module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
