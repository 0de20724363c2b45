"""Nobody is judged by who was learned from: not by id, and not by the very same answers."""

from __future__ import annotations

import dagster as dg
import pandas as pd

from poleng_assets.study.loading import load_study
from poleng_assets.warehouse import holdout
from poleng_assets_tests.graph.conftest import Workshop

STUDY = load_study()
PLANTED = 20


def newcomers(prefix: str, number: int = PLANTED) -> list[str]:
    """Ids that nobody has."""
    return [f"{prefix}-{one}" for one in range(number)]


def answering_like(others: pd.DataFrame, ids: list[str]) -> pd.DataFrame:
    """Other people with the very same answers. So is their target: contradictions would train no model."""
    return others.assign(**{STUDY.id: ids})


def parts(workshop: Workshop, ids: list[str], study: str) -> set[str]:
    found = workshop.query(
        f"""SELECT DISTINCT part FROM field_study_rows
        WHERE field_study = ? AND "{STUDY.id}" IN (SELECT unnest(?))""",
        study,
        ids,
    )
    return {part for (part,) in found}


def on_both_sides(workshop: Workshop) -> tuple[int, int]:
    with workshop.warehouse.connect() as con:
        return holdout.on_both_sides(con, STUDY)


def learned_and_judged(workshop: Workshop) -> int:
    """Count the people in the champion's reference who answer like somebody it learned from."""
    reference = workshop.registry.reference(workshop.registry.champion())
    assert len(reference) > 0
    columns = ", ".join(f'"{name}"' for name in STUDY.feature_names)
    learned = workshop.query(f"SELECT {columns} FROM field_study_rows WHERE part = 'train'")
    patterns = {tuple(map(str, one)) for one in learned}
    judged = reference[STUDY.feature_names].astype(object).itertuples(index=False, name=None)
    return sum(tuple(map(str, one)) in patterns for one in judged)


def test_no_id_and_no_set_of_answers_of_the_holdout_is_trained_on(workshop: Workshop):
    founding = workshop.synthetic("field_studies", "founding_study")
    followup = workshop.synthetic("field_studies", "followup_study")
    # A quarter of so many pairs would be torn apart if nobody kept them together.
    within = answering_like(founding[: 5 * PLANTED], newcomers("a", 5 * PLANTED))
    workshop.drop_frame("field_studies", "founding_study", pd.concat([founding, within]))
    assert workshop.registry.champion().version == 1
    assert on_both_sides(workshop) == (0, 0)
    assert learned_and_judged(workshop) == 0
    assert parts(workshop, newcomers("a", 5 * PLANTED), "founding_study") == {"train", "holdout"}
    before = workshop.query("SELECT * FROM field_study_rows ORDER BY row_number")

    part = founding[STUDY.id].map(dict(workshop.query(f'SELECT "{STUDY.id}", part FROM field_study_rows')))
    held, trained = founding[part == "holdout"], founding[part == "train"]
    across = [
        answering_like(held[:PLANTED], newcomers("c")),
        answering_like(trained[:PLANTED], newcomers("d")),
        # People who come again, and answer like somebody of the other side.
        answering_like(held[:PLANTED], trained[STUDY.id].iloc[-PLANTED:].tolist()),
    ]
    workshop.drop_frame("field_studies", "followup_study", pd.concat([followup, *across]))
    assert on_both_sides(workshop) == (0, 0)
    assert parts(workshop, newcomers("c"), "followup_study") == {"holdout"}
    assert parts(workshop, newcomers("d"), "followup_study") == {"train"}
    assert parts(workshop, across[2][STUDY.id].tolist(), "followup_study") == {"set_aside"}
    frozen = workshop.query(
        "SELECT * FROM field_study_rows WHERE field_study = 'founding_study' ORDER BY row_number"
    )
    assert frozen == before


def test_the_check_of_training_data_sees_who_is_learned_from_and_judged(trained: Workshop):
    assert trained.checks("retrain_and_promote") == {
        "models_are_judged_by_others": True,
        "champion_can_serve": True,
    }
    with trained.warehouse.connect() as con:
        con.execute(
            """INSERT INTO field_study_rows
            SELECT * REPLACE (CASE part WHEN 'train' THEN 'holdout' ELSE 'train' END AS part,
                row_number + 1_000_000 AS row_number)
            FROM field_study_rows LIMIT 3"""
        )
    job = trained.runner.defs.resolve_job_def("retrain_and_promote")
    result = job.execute_in_process(instance=trained.instance, asset_selection=[dg.AssetKey("training_data")])
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    told = {name: value.value for name, value in check.metadata.items()}
    assert told == {"ids_on_both_sides": 3, "answers_on_both_sides": 3}
