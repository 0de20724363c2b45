"""Erasure of twenty people who stand in a home in every form there is."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from click.testing import CliRunner

from poleng_assets.commands.forget import forget
from poleng_assets.forget import forget as erase
from poleng_assets.simulation.population import write_scenario_data
from poleng_assets.study import load_study
from poleng_assets_tests.faults.quick_study import write_quick_study
from poleng_assets_tests.graph.conftest import Workshop, open_founded
from poleng_assets_tests.graph.erasure import spread, traces

PEOPLE = 20


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("crowded")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("POLENG_STUDY", str(write_quick_study(folder / "quick.yaml")))
        write_scenario_data(load_study(), folder / "data", scale=0.05)
        with open_founded(folder / "home", folder / "data") as workshop:
            people = workshop.synthetic("batches", "clean_batch_1")
            march = folder / "march.csv.gz"
            march.write_bytes(gzip.compress(people.to_csv(index=False).encode()))
            workshop.drop_file("batches", march)
            yield workshop


def chosen(workshop: Workshop) -> pd.DataFrame:
    """Return people of the batch who were listed, whose answers nobody else gave, with their scores."""
    study = load_study()
    scored = workshop.synthetic("batches", "clean_batch_1").drop_duplicates(study.feature_names, keep=False)
    predictions = pd.DataFrame(
        workshop.query(f"SELECT {study.id}, score FROM predictions WHERE contact"),
        columns=[study.id, "score"],
    )
    people = scored.merge(predictions, on=study.id).sort_values("score", ascending=False)
    return people.dropna().head(PEOPLE).reset_index(drop=True)


@pytest.mark.slow
def test_twenty_people_in_every_form_leave_no_trace_by_id_answers_or_score(crowded: Workshop):
    study = load_study()
    people = chosen(crowded)
    assert len(people) == PEOPLE
    listed = crowded.contact_list("march")
    spread(crowded, study, people, listed)
    before = traces(crowded.home.root, study, people)
    places = {one.partition(":")[0] for one in before}
    assert len(places) >= 20, places
    seconds = time.process_time()
    for who in people[study.id]:
        done = erase(crowded.home, study, crowded.warehouse, crowded.registry, who)
        assert done.proof.traces == ()
        assert done.proof.closed == ()
    seconds = time.process_time() - seconds
    assert traces(crowded.home.root, study, people) == []
    others = set(listed[study.id]) - set(people[study.id])
    assert set(crowded.contact_list("march")[study.id]) == others
    print(f"{len(before)} traces in {len(places)} places; {seconds:.1f} s of CPU for {PEOPLE} people")


@pytest.mark.slow
def test_events_are_cleaned_and_can_still_be_read(crowded: Workshop):
    event = crowded.instance.get_latest_materialization_event(dg.AssetKey("contact_list"))
    assert event is not None
    assert event.asset_materialization is not None
    assert "contacts" in event.asset_materialization.metadata
    assert "first_five_without_ids" not in event.asset_materialization.metadata


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("locked.7z", b"7z\xbc\xaf\x27\x1c" + bytes(range(32)) * 9, "of a kind that cannot be looked into"),
        ("broken.csv.gz", gzip.compress(b"a,b\n" * 3)[:10] + b"\xff" * 40, "it is damaged"),
    ],
)
def test_a_file_that_cannot_be_looked_into_is_named_and_the_exit_code_is_1(
    crowded: Workshop, name: str, content: bytes, why: str
):
    path: Path = crowded.home.rejected("batches") / name
    path.write_bytes(content)
    try:
        who = crowded.contact_list("march")[load_study().id].iloc[-1]
        result = CliRunner().invoke(forget, [who, "--yes", "--home", str(crowded.home.root)])
    finally:
        path.unlink()
    assert result.exit_code == 1
    assert ": 0 traces." in result.output
    assert f"rejected/batches/{name}: {why}" in result.output.replace("\n", "")
