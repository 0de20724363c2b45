"""Erasure of twenty people who stand in a home in every form there is."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from poleng_assets.cli.forget import forget
from poleng_assets.core.privacy.subject import ERASED
from poleng_assets.study.loading import load_study
from poleng_assets_tests.faults.quick_study import write_quick_study
from poleng_assets_tests.graph.conftest import Workshop
from poleng_assets_tests.graph.erasure import crowded_home, erase_everybody


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("crowded")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("POLENG_STUDY", str(write_quick_study(folder / "quick.yaml")))
        with crowded_home(folder) as workshop:
            yield workshop


@pytest.mark.slow
def test_twenty_people_in_every_form_leave_no_trace_by_id_answers_or_score(crowded: Workshop):
    found = erase_everybody(crowded)
    assert found.people == 20
    assert len(found.places) >= 20, found.places
    assert found.traces_before > found.people
    assert found.told == ()
    assert found.left == ()
    assert found.others_lost == set()


@pytest.mark.slow
def test_events_are_cleaned_and_can_still_be_read(crowded: Workshop):
    event = crowded.instance.get_latest_materialization_event(dg.AssetKey("contact_list"))
    assert event is not None
    assert event.asset_materialization is not None
    assert "contacts" in event.asset_materialization.metadata
    shown = str(event.asset_materialization.metadata["first_five_without_ids"].value).splitlines()
    assert set(shown[2:]) == {ERASED}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("locked.7z", b"7z\xbc\xaf\x27\x1c" + bytes(range(32)) * 9, "of a kind that cannot be looked into"),
        ("broken.csv.gz", gzip.compress(b"a,b\n" * 3, mtime=0)[:10] + b"\xff" * 40, "it is damaged"),
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
