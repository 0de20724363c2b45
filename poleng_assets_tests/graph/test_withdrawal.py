"""A field study is withdrawn: no model learns from it or is judged by it any more, and nothing is lost."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from poleng_assets.cli.main import main
from poleng_assets.defs.rollback import ROLLBACK_JOB
from poleng_assets.defs.withdrawal import WITHDRAW_JOB
from poleng_assets_tests.faults.quick_study import quick_survey
from poleng_assets_tests.graph.conftest import Workshop, open_founded, open_promoted

STUDY = "followup_study"


@pytest.fixture
def promoted(tmp_path: Path) -> Iterator[Workshop]:
    """A home in which version 2 serves, which learned from the founding study and from the follow-up."""
    with quick_survey(tmp_path) as data, open_promoted(tmp_path / "home", data) as workshop:
        yield workshop


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("withdrawal")
    with quick_survey(folder) as data, open_founded(folder / "home", data) as workshop:
        yield workshop


def poleng(workshop: Workshop, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--home", str(workshop.home.root)])


def withdraw(workshop: Workshop, study: str, **config: object) -> str:
    settings = {"study": study, **config}
    report = workshop.runner.run(
        WITHDRAW_JOB, run_config={"ops": {"mark_as_withdrawn": {"config": settings}}}
    )
    return report.message


def test_the_champion_that_learned_from_it_is_followed_by_one_that_did_not(promoted: Workshop):
    rows = promoted.query("SELECT count(*) FROM field_study_rows")
    said = poleng(promoted, "withdraw", STUDY, "--reason", "consent was never given")
    assert said.exit_code == 0, said.output
    assert f"{STUDY} is withdrawn" in said.output
    assert f"version 2 was trained on {STUDY}, which was withdrawn" in said.output
    assert "poleng run-pending" in said.output
    ((reason, evidence),) = promoted.query("SELECT reason, evidence FROM decisions WHERE kind = 'withdraw'")
    assert "consent was never given" in reason
    assert json.loads(evidence)["versions_that_learned"] == [2]
    facts = json.loads(poleng(promoted, "status", "--json").output)
    assert list(facts["withdrawn"]) == [STUDY]
    assert "version 2 was trained on" in facts["champion_learned_from_withdrawn"]

    promoted.runner.run_until_idle()

    assert promoted.registry.champion().field_studies == ["founding_study"]
    assert promoted.query("SELECT count(*) FROM field_study_rows") == rows
    assert promoted.landing.archived("field_studies", STUDY) is not None
    ((why,),) = promoted.query(
        "SELECT reason FROM decisions WHERE kind = 'promote' ORDER BY decided_at DESC LIMIT 1"
    )
    assert f"was trained on {STUDY}, which was withdrawn" in why
    assert promoted.runner.run_until_idle() == []
    assert json.loads(poleng(promoted, "status", "--json").output)["champion_learned_from_withdrawn"] == ""

    settings = {"to": 2, "reason": "back"}
    refused = promoted.runner.run(ROLLBACK_JOB, run_config={"ops": {"put_back": {"config": settings}}})
    assert not refused.success
    assert f"version 2 was trained on {STUDY}" in refused.message

    # The very file again is refused, and a click on its partition brings nothing back.
    promoted.drop("field_studies", STUDY)
    (words,) = promoted.rejected("field_studies").values()
    assert f"poleng withdraw {STUDY} --undo" in words
    promoted.runner.defs.resolve_job_def("ingest_field_study").execute_in_process(
        instance=promoted.instance, partition_key=STUDY
    )
    assert promoted.runner.run_until_idle() == []
    assert promoted.registry.champion().field_studies == ["founding_study"]

    assert withdraw(promoted, STUDY, undo=True, reason="a mistake") == ""
    result = promoted.runner.defs.resolve_job_def("retrain_and_promote").execute_in_process(
        instance=promoted.instance, asset_selection=[dg.AssetKey("training_data")]
    )
    (event,) = result.asset_materializations_for_node("training_data")
    assert event.metadata["pending"].value == STUDY


def test_what_is_no_field_study_is_refused_in_words(founded: Workshop):
    said = poleng(founded, "withdraw", "nothing")
    assert said.exit_code == 1
    assert "no field study 'nothing' exists; there are: founding_study" in said.output
    assert "withdraw" not in founded.decisions()


def test_the_only_study_may_go_and_nothing_is_trained_on_nothing(founded: Workshop):
    trained = founded.decisions().count("retrain")
    assert withdraw(founded, "founding_study", reason="a wrong export") == ""
    assert founded.runner.run_until_idle() == []
    said = poleng(founded, "retrain")
    assert said.exit_code == 1
    assert "There is no field study to train on (withdrawn: founding_study)" in said.output
    assert founded.decisions().count("retrain") == trained
    # Said again, it adds nothing; who was killed in between is told of by the next run.
    assert withdraw(founded, "founding_study") == ""
    assert founded.decisions().count("withdraw") == 1
