"""Outcomes in the graph: late, in parts, twice, of strangers, before their batch; and asking for more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from poleng_assets.core.monitoring.label_request import AUDIT, DRAWN
from poleng_assets.defs.assets.label_requests import FILE, field_study_request
from poleng_assets.defs.assets.outcomes import PERFORMANCE_HOLDS
from poleng_assets.study.loading import load_study
from poleng_assets_tests.graph.conftest import Workshop

STUDY = load_study()
ID, TARGET = STUDY.id, STUDY.target.name


@pytest.fixture(scope="module")
def survey_data(half_survey_data: Path) -> Path:
    """Half of the features are enough here."""
    return half_survey_data


def metadata_of(workshop: Workshop, asset: str, partition: str | None = None) -> dict[str, Any]:
    """Return what the newest materialization of an asset tells."""
    records = workshop.instance.fetch_materializations(
        dg.AssetRecordsFilter(
            asset_key=dg.AssetKey(asset), asset_partitions=[partition] if partition else None
        ),
        limit=1,
    ).records
    assert records and records[0].asset_materialization is not None
    return {name: value.value for name, value in records[0].asset_materialization.metadata.items()}


def holds(workshop: Workshop) -> tuple[bool, str, dict[str, Any]]:
    """Return how the newest check of the realised performance ended."""
    records = workshop.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("realised_performance"), PERFORMANCE_HOLDS), limit=1
    )
    event = records[0].event
    assert event is not None and event.dagster_event is not None
    result: Any = event.dagster_event.event_specific_data
    return result.passed, result.severity.value, {k: v.value for k, v in result.metadata.items()}


def realised_figures(workshop: Workshop, batch: str) -> dict[str, float]:
    return dict(
        workshop.query("SELECT metric, value FROM performance WHERE kind = 'realised' AND batch = ?", batch)
    )


def people(workshop: Workshop, batch: str, name: str, rows: slice) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return some of the synthetic people under new ids, and their outcomes."""
    answers = workshop.synthetic("batches", batch).iloc[rows]
    truth = workshop.synthetic("outcomes", batch).set_index(ID).loc[answers[ID], TARGET].to_numpy()
    answers = answers.assign(**{ID: [f"{name} {number}" for number in range(len(answers))]})
    return answers, pd.DataFrame({ID: answers[ID], TARGET: truth})


def request(workshop: Workshop) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Materialise the request; return its file and what it tells."""
    result = dg.materialize(
        [field_study_request],
        instance=workshop.instance,
        resources={
            "warehouse": workshop.warehouse,
            "registry": workshop.registry,
            "landing": workshop.landing,
        },
    )
    assert result.success
    listed = pd.read_csv(workshop.home.requests / FILE, dtype=str, keep_default_na=False)
    return listed, metadata_of(workshop, "field_study_request")


def test_when_nothing_drifted_the_request_is_empty_and_says_so(trained: Workshop):
    listed, told = request(trained)
    assert listed.empty
    assert list(listed) == [ID, "batch", "stratum", "why"]
    assert (told["interviews"], told["batches"]) == (0, "none")
    assert told["request"] == "No scored people need labels"
    assert "request" not in trained.decisions()


def test_realised_figures_stand_beside_the_estimated_ones(trained: Workshop):
    batch, truth = people(trained, "clean_batch_1", "usual", slice(None))
    trained.drop_frame("batches", "usual", batch)
    trained.drop_frame("outcomes", "usual_answers", truth)
    told = metadata_of(trained, "realised_performance", "usual_answers")
    figures = realised_figures(trained, "usual")
    assert told["usual_auc"] == pytest.approx(figures["auc"], abs=1e-4)
    assert told["usual_coverage"] == 1.0
    assert "estimated AUC" in told["performance"]
    assert told["losses"] == {}
    assert (told["batches"], told["unknown_respondents"], told["contradictory"]) == (1, 0, 0)
    assert holds(trained)[:2] == (True, "WARN")


def test_outcomes_of_contacts_alone_tell_the_precision_and_the_rest_comes_with_the_others(trained: Workshop):
    batch, truth = people(trained, "clean_batch_2", "partly", slice(None))
    trained.drop_frame("batches", "partly", batch)
    contacts = {one for (one,) in trained.query(f"SELECT {ID} FROM contact_lists WHERE batch = 'partly'")}
    of_contacts = truth[ID].isin(contacts)
    trained.drop_frame("outcomes", "first_part", truth[of_contacts])
    assert set(realised_figures(trained, "partly")) == {"precision"}
    assert (
        "only precision is measured"
        in metadata_of(trained, "realised_performance", "first_part")["performance"]
    )
    trained.drop_frame("outcomes", "second_part", truth[~of_contacts].iloc[::3])
    figures = realised_figures(trained, "partly")
    assert {"auc", "recall", "log_loss", "accuracy", "precision"} <= set(figures)
    shares = trained.query("SELECT avg(audit::INTEGER) FROM predictions WHERE batch = 'partly'")[0][0]
    assert 0 < shares < 0.1


def test_outcomes_of_strangers_and_contradictions_are_counted(trained: Workshop):
    batch, truth = people(trained, "clean_batch_3", "known", slice(400))
    trained.drop_frame("batches", "known", batch)
    trained.drop_frame("outcomes", "known_answers", truth)
    other = truth.iloc[:7].assign(**{TARGET: 1 - truth[TARGET].iloc[:7]})
    strangers = truth.iloc[:5].assign(**{ID: [f"stranger {number}" for number in range(5)]})
    trained.drop_frame("outcomes", "corrections", pd.concat([other, strangers]))
    told = metadata_of(trained, "realised_performance", "corrections")
    assert (told["unknown_respondents"], told["contradictory"]) == (5, 7)
    met = metadata_of(trained, "outcomes", "corrections")
    assert [met[name] for name in ("read", "matched", "unknown", "corrected", "conflicting")] == [
        12,
        7,
        5,
        7,
        0,
    ]
    assert met["what_they_met"].startswith("12 rows read, 7 of 12 people matched, 5 unknown")


def test_outcomes_before_their_batch_count_as_soon_as_it_is_scored(trained: Workshop):
    batch, truth = people(trained, "clean_batch_3", "early", slice(400, None))
    trained.drop_frame("outcomes", "early_answers", truth)
    told = metadata_of(trained, "realised_performance", "early_answers")
    assert (told["batches"], told["unknown_respondents"]) == (0, len(truth))
    trained.drop_frame("batches", "early", batch)
    assert 0.5 < realised_figures(trained, "early")["auc"] < 1


def test_a_sure_loss_fails_the_check_and_names_version_and_batch(trained: Workshop):
    batch, truth = people(trained, "clean_batch_1", "changed", slice(None))
    trained.drop_frame("batches", "changed", batch)
    trained.drop_frame("outcomes", "changed_answers", truth.assign(**{TARGET: 1 - truth[TARGET]}))
    told = metadata_of(trained, "realised_performance", "changed_answers")
    assert told["losses"] == {"1": ["changed"]}
    passed, severity, words = holds(trained)
    assert (passed, severity) == (False, "WARN")
    assert words["changed, version 1"].startswith("the AUC is lower by ")


def test_people_of_new_countries_are_asked_for_by_country_and_the_request_is_in_the_ledger(trained: Workshop):
    batch, truth = people(trained, "drift_batch_1", "new", slice(None))
    trained.drop_frame("batches", "new", batch)
    before = trained.decisions().count("request")
    listed, told = request(trained)
    assert told["interviews"] == len(listed) > 100
    assert "new" in told["batches"]
    assert STUDY.feature("country").title in told["drifted"]
    assert set(listed["why"]) <= {AUDIT, DRAWN}
    assert listed[ID].is_unique
    known = {one for (one,) in trained.query(f"SELECT {ID} FROM outcomes")}
    assert not known & set(listed[ID])
    assert listed["stratum"].str.startswith(STUDY.feature("country").title).any()
    assert trained.decisions().count("request") == before + 1
    kept = trained.query(f"SELECT {ID}, why FROM field_study_requests")
    assert set(zip(listed[ID], listed["why"], strict=True)) <= set(kept)
    assert (trained.home.requests / FILE).stat().st_mode & 0o077 == 0
    # Once they have answered, nobody is asked again.
    answered = truth[truth[ID].isin(listed[ID])]
    trained.drop_frame("outcomes", "new_answers", answered)
    again, _ = request(trained)
    assert not set(again[ID]) & set(listed[ID])
