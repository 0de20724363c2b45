"""Files that are wrong, and moments at which things go wrong: a clear message, and nothing lost."""

from pathlib import Path

import pandas as pd
import pytest

from poleng_assets.cli.run_lines import show_run
from poleng_assets.study.loading import load_study
from poleng_assets_tests.faults.quick_study import SHIPPED, half_of_the_features
from poleng_assets_tests.graph.conftest import Workshop

STUDY = half_of_the_features(load_study(SHIPPED))


@pytest.fixture(scope="module")
def survey_data(half_survey_data: Path) -> Path:
    """Half of the features are enough here."""
    return half_survey_data


def fresh_ids(frame: pd.DataFrame, prefix: str) -> pd.DataFrame:
    return frame.assign(**{STUDY.id: [f"{prefix}-{i}" for i in range(len(frame))]})


@pytest.fixture
def people(trained: Workshop, request) -> pd.DataFrame:
    """Respondents that no other test drops."""
    return fresh_ids(trained.synthetic("batches", "clean_batch_1"), request.node.name)


def refused(workshop: Workshop, name: str, suffix: str = ".parquet") -> str:
    """Return why a batch was refused, after checking that nothing of it was taken in."""
    assert workshop.query("SELECT count(*) FROM batch_rows WHERE batch = ?", name) == [(0,)]
    assert (workshop.home.rejected("batches") / f"{name}{suffix}").exists()
    assert not (workshop.home.landing("batches") / f"{name}{suffix}").exists()
    assert not workshop.instance.has_dynamic_partition("batch", name)
    return workshop.rejected("batches")[f"{name}{suffix}.reason.txt"]


def test_a_batch_with_a_missing_column_is_refused_by_name(trained: Workshop, people):
    gone = STUDY.feature_names[5]
    reports = trained.drop_frame("batches", "missing_column", people.drop(columns=[gone]))
    assert f"1 column is missing: {gone}" in refused(trained, "missing_column")
    assert "was refused" in reports[0].message


def test_a_batch_with_an_extra_column_is_scored_without_it(trained: Workshop, people):
    trained.drop_frame("batches", "extra_column", people.assign(shoe_size=42))
    assert trained.verdicts("extra_column") == [("clear", 1)]
    ((ignored,),) = trained.query("SELECT ignored_columns FROM ingested_files WHERE name = 'extra_column'")
    assert ignored == "shoe_size"


def test_codes_as_integers_give_the_same_scores(trained: Workshop, people):
    # Of the same ids, they would be the same rows again.
    others = {STUDY.id: "numbers of " + people[STUDY.id]}
    as_numbers = people.astype(dict.fromkeys(STUDY.feature_names, int)).assign(**others)
    trained.drop_frame("batches", "codes_as_text", people)
    trained.drop_frame("batches", "codes_as_numbers", as_numbers)
    scores = "SELECT score FROM current_predictions WHERE batch = ? ORDER BY subject_id"
    assert trained.query(scores, "codes_as_text") == trained.query(scores, "codes_as_numbers")


def test_an_unknown_country_is_scored_and_its_list_made_with_a_warning(trained: Workshop, people):
    trained.drop_frame("batches", "unknown_country", people.assign(country="998"))
    assert trained.verdicts("unknown_country") == [("untrusted", 1)]
    listed = trained.contact_list("unknown_country")
    assert set(listed["country"]) == {"unknown (998)"}
    assert listed["remark"].str.contains("caution").all()


def test_missing_values_are_scored(trained: Workshop, people):
    people.loc[::20, STUDY.feature_names[2:6]] = None
    trained.drop_frame("batches", "missing_values", people)
    counted = trained.query("SELECT count(*) FROM current_predictions WHERE batch = 'missing_values'")
    assert counted == [(len(people),)]


def test_an_empty_batch_is_refused(trained: Workshop, people):
    trained.drop_frame("batches", "empty", people.head(0))
    assert "the file has no rows" in refused(trained, "empty")


def test_a_truncated_file_is_refused(trained: Workshop, people):
    whole = trained.home.root / "truncated.parquet"
    people.to_parquet(whole)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    trained.drop_file("batches", whole)
    assert "cannot be read as parquet" in refused(trained, "truncated")


def test_a_text_file_named_parquet_is_refused(trained: Workshop):
    text = trained.home.root / "letter.parquet"
    text.write_text("Dear colleagues, please find attached")
    trained.drop_file("batches", text)
    assert "cannot be read as parquet" in refused(trained, "letter")


def test_the_same_file_under_two_names_is_scored_once(trained: Workshop, people):
    trained.drop_frame("batches", "original", people)
    trained.drop_frame("batches", "copy_of_original", people)
    assert "the same content was ingested as 'original'" in refused(trained, "copy_of_original")
    assert trained.verdicts("original") == [("clear", 1)]


def test_a_mended_file_of_the_same_name_is_taken_in(trained: Workshop, people):
    trained.drop_frame("batches", "mended", people.drop(columns=[STUDY.feature_names[0]]))
    trained.drop_frame("batches", "mended", people)
    assert trained.verdicts("mended") == [("clear", 1)]


def test_rows_that_break_the_contract_are_set_apart_and_the_rest_goes_on(
    trained: Workshop, people, capsys: pytest.CaptureFixture[str]
):
    ordinal = next(f for f in STUDY.features if f.is_ordinal).name
    people.loc[[3, 9], ordinal] = 77
    for report in trained.drop_frame("batches", "two_broken_rows", people):
        show_run(report)
    assert f": {len(people) - 2:,} respondents (2 more in quarantine); " in capsys.readouterr().out
    apart = trained.query(
        "SELECT row_number, column_name FROM quarantine WHERE source = 'batches/two_broken_rows' ORDER BY 1"
    )
    assert apart == [(4, ordinal), (10, ordinal)]
    counted = trained.query("SELECT count(*) FROM current_predictions WHERE batch = 'two_broken_rows'")
    assert counted == [(len(people) - 2,)]


def test_a_batch_too_small_to_judge_gets_its_list_and_says_so(trained: Workshop, people):
    trained.drop_frame("batches", "few", people.head(STUDY.policies.overseer.min_rows - 1))
    assert trained.verdicts("few") == [("insufficient", 1)]
    assert trained.contact_list("few")["remark"].str.contains("Too few").all()


def test_a_name_that_leaves_the_landing_folder_is_refused(trained: Workshop, people):
    people.to_parquet(trained.home.landing("batches") / "two words;.parquet")
    trained.runner.run_until_idle()
    assert "its name may contain only" in trained.rejected("batches")["two words;.parquet.reason.txt"]


def test_a_field_study_without_the_target_is_refused(trained: Workshop, people):
    trained.drop_frame("field_studies", "no_target", people)
    assert "the target" in trained.rejected("field_studies")["no_target.parquet.reason.txt"]


def test_a_batch_waits_until_the_first_model_serves(workshop: Workshop):
    assert workshop.drop("batches", "clean_batch_1") == []
    assert "Waiting for the first model: clean_batch_1.parquet" in workshop.runner.skips["batches_arrivals"]
    workshop.drop("field_studies", "founding_study")
    assert workshop.verdicts("clean_batch_1") == [("clear", 1)]


def test_a_first_model_that_fails_its_gates_serves_nobody(workshop: Workshop):
    study = workshop.synthetic("field_studies", "founding_study")
    shuffled = study[STUDY.target.name].sample(frac=1, random_state=1).to_numpy()
    workshop.drop_frame("field_studies", "noise", study.assign(**{STUDY.target.name: shuffled}))
    assert workshop.registry.alias("champion") is None
    assert workshop.decisions() == ["retrain", "reject"]
    assert not workshop.checks("retrain_and_promote")["champion_can_serve"]
    assert "was rejected: AUC on the holdout" in workshop.runner.skips["overseer"]


def test_drift_without_field_data_makes_the_list_with_the_present_champion(trained: Workshop):
    trained.drop("batches", "drift_batch_1")
    assert trained.verdicts("drift_batch_1") == [("untrusted", 1)]
    assert trained.contact_list("drift_batch_1")["remark"].str.contains("untrusted").all()
    ((reason,),) = trained.query(
        "SELECT reason FROM decisions WHERE kind = 'skip' AND batch = 'drift_batch_1'"
    )
    assert "no new field study" in reason
    assert trained.runner.run_until_idle() == []


def test_a_run_that_died_after_its_commit_is_finished_by_the_next(trained: Workshop, people):
    trained.drop_frame("batches", "died_once", people)
    archived = trained.home.archive("batches") / "died_once.parquet"
    archived.rename(trained.home.landing("batches") / archived.name)  # as if killed before the move
    reports = trained.runner.run_until_idle()
    assert [report.success for report in reports] == [True]
    assert archived.exists()
    assert trained.query("SELECT count(*) FROM batch_rows WHERE batch = 'died_once'") == [(len(people),)]
