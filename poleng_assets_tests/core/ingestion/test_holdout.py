"""In a survey of few questions the holdout gets its share and its target rate again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import duckdb
import numpy as np
import pandas as pd
import pytest

from poleng_assets.core.ingestion.holdout import balance_holdout
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.holdout import draw_holdout, keep_duplicates_together
from poleng_assets.warehouse.schema import create_tables
from poleng_assets.warehouse.writes import transaction
from poleng_assets_tests.parts import SHARE, parts_of, put, straddling


@pytest.fixture(scope="module")
def brief_study(study: Study) -> Study:
    """The shipped study with a country and two questions: nearly everybody answers like somebody else."""
    by = str(study.policies.training.varies_by)
    ordinal = next(feature.name for feature in study.features if feature.is_ordinal)
    binary = next(feature.name for feature in study.features if feature.kind == "binary")
    few = tuple(study.feature(name) for name in (by, ordinal, binary))
    return study.model_copy(update={"features": few, "contact_list": (by,), "protected": (binary,)})


@pytest.fixture
def brief(brief_study: Study) -> Iterator[Callable[..., pd.DataFrame]]:
    """Take brief field studies in, one beside the other; return the rows of the last with their parts."""
    with duckdb.connect() as con:
        create_tables(con, brief_study)

        def take_in(name: str, rows: pd.DataFrame) -> pd.DataFrame:
            rows = rows[[brief_study.id, *brief_study.feature_names, brief_study.target.name]]
            with transaction(con):
                put(con, name, rows)
                draw_holdout(con, brief_study, name)
                keep_duplicates_together(con, brief_study, name)
                balance_holdout(con, brief_study, name)
            assert straddling(con, [brief_study.id]) == 0
            assert straddling(con, brief_study.feature_names) == 0
            return rows.assign(part=rows[brief_study.id].map(parts_of(con, brief_study, name)))

        yield take_in


def few_answers(study: Study, rows: int, seed: int) -> pd.DataFrame:
    """People of five countries whose targets depend on their answers."""
    random = np.random.default_rng(seed)
    by, ordinal, binary = study.feature_names
    codes = {name: sorted(int(code) for code in study.feature(name).codes) for name in study.feature_names}
    country = random.choice(codes[by][:5], rows, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    answer = random.choice(codes[ordinal], rows)
    target = random.random(rows) < 0.1 + 0.3 * (answer - answer.min()) / max(np.ptp(answer), 1)
    return pd.DataFrame(
        {
            study.id: [f"{seed}-{number}" for number in range(rows)],
            by: country,
            ordinal: answer,
            binary: random.choice(codes[binary], rows),
            study.target.name: target.astype(int),
        }
    )


def off_by(study: Study, parts: pd.DataFrame) -> tuple[float, float]:
    """Return how far the holdout is from its share, and its target rate from that of everybody."""
    held, target = parts["part"] == "holdout", parts[study.target.name]
    share = study.policies.training.holdout_share
    return abs(held.mean() - share), abs(target[held].mean() - target.mean())


@pytest.mark.parametrize(("rows", "seed"), [(300, 1), (300, 2), (1_000, 0), (1_000, 3), (3_000, 4)])
def test_the_holdout_of_a_survey_of_few_questions_keeps_share_target_rate_and_countries(
    brief, brief_study: Study, rows: int, seed: int
):
    parts = brief("one", few_answers(brief_study, rows, seed))
    share, rate = off_by(brief_study, parts)
    assert share <= 1.5 / rows
    assert rate <= 2 / (rows * SHARE)
    held = parts.groupby(str(brief_study.policies.training.varies_by))["part"].agg(
        [lambda part: (part == "holdout").mean(), "count"]
    )
    # Of a country with few people, each set of answers is a large part.
    assert (held.iloc[:, 0] - SHARE).abs()[held["count"] >= 100].max() < 0.08


def test_few_questions_are_drawn_the_same_whatever_the_order_of_rows(brief, brief_study: Study):
    rows = few_answers(brief_study, 600, 5)
    first = brief("one", rows).set_index(brief_study.id)["part"]
    with duckdb.connect() as con:
        create_tables(con, brief_study)
        with transaction(con):
            put(con, "one", rows.sample(frac=1, random_state=3).reset_index(drop=True))
            draw_holdout(con, brief_study, "one")
            keep_duplicates_together(con, brief_study, "one")
            assert balance_holdout(con, brief_study, "one") > 0
            assert balance_holdout(con, brief_study, "one") == 0
        assert parts_of(con, brief_study, "one") == first.to_dict()


def test_people_of_a_later_study_follow_frozen_answers_and_the_others_make_up_for_them(
    brief, brief_study: Study
):
    by = str(brief_study.policies.training.varies_by)
    earlier = few_answers(brief_study, 600, 6)
    frozen = brief("one", earlier)
    later = few_answers(brief_study, 900, 7)
    others = later[by].map(dict(zip(sorted(later[by].unique()), [26, 28, 31, 36, 40], strict=True)))
    mixed = later.assign(**{by: later[by].where(np.arange(len(later)) % 2 == 0, others)})
    parts = brief("two", mixed)
    known = {tuple(row[:-1]): row[-1] for row in frozen[[*brief_study.feature_names, "part"]].to_numpy()}
    for *answers, part in parts[[*brief_study.feature_names, "part"]].to_numpy():
        assert known.get(tuple(answers), part) == part
    share, rate = off_by(brief_study, parts)
    assert (share, rate) < (0.003, 0.02)


def test_each_class_is_held_out_when_any_draw_can(brief, brief_study: Study):
    """Two sets of answers for everybody: a part of four tenths is nearer to a share than nobody at all."""
    rows = few_answers(brief_study, 1_000, 8)
    for name in brief_study.feature_names[:2]:
        rows[name] = rows[name].iloc[0]
    rows[brief_study.feature_names[2]] = [1 if number < 400 else 2 for number in range(1_000)]
    parts = brief("one", rows)
    assert set(parts["part"][parts.index < 400]) == {"holdout"}
    assert set(parts["part"][parts.index >= 400]) == {"train"}


def test_a_study_whose_people_all_answer_otherwise_is_left_as_it_was_drawn(
    study: Study, people: pd.DataFrame
):
    with duckdb.connect() as con:
        create_tables(con, study)
        put(con, "one", people.drop_duplicates(study.feature_names))
        draw_holdout(con, study, "one")
        drawn = parts_of(con, study, "one")
        assert balance_holdout(con, study, "one") == 0
        assert parts_of(con, study, "one") == drawn
