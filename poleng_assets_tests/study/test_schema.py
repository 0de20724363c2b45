"""The study file: what ships is whole, and a wrong file is refused in words that lead to the fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from poleng_assets.study.loading import STUDIES, load_study
from poleng_assets.study.schema import Feature, Study, StudyError

SHIPPED = (STUDIES / "political_engagement.yaml").read_text(encoding="utf-8")


def refusal(folder: Path, text: str) -> str:
    path = folder / "wrong.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        load_study(path)
    return str(caught.value)


def changed(old: str, new: str) -> str:
    assert old in SHIPPED, f"the shipped study has no {old!r} to change"
    return SHIPPED.replace(old, new, 1)


def line_of(text: str, fragment: str) -> int:
    return text[: text.index(fragment)].count("\n") + 1


# The shipped study


def test_the_shipped_study_has_32_features(study: Study):
    assert len(study.features) == 32


def test_every_feature_has_its_question_its_title_and_labels(study: Study):
    lacking = [
        f.name for f in study.features if not (f.question and f.title and f.codes and all(f.codes.values()))
    ]
    assert lacking == []


def test_no_two_features_share_a_question(study: Study):
    questions = [f.question for f in study.features]
    assert sorted(set(questions)) == sorted(questions)


def test_every_binary_feature_has_two_codes(study: Study):
    assert {f.name: len(f.codes) for f in study.features if f.kind == "binary" and len(f.codes) != 2} == {}


def test_every_kind_of_feature_occurs(study: Study):
    assert {f.kind for f in study.features} == {"nominal", "ordinal", "binary"}


def test_no_code_stands_twice_in_the_shipped_file():
    # YAML keeps the last of two equal keys and says nothing: a label would be lost.
    tree = yaml.compose(SHIPPED, Loader=yaml.SafeLoader)
    assert tree is not None
    features = {key.value: node for key, node in tree.value}["features"]
    for feature in features.value:
        fields = {key.value: node for key, node in feature.value}
        keys = [key.value for key, _ in fields["codes"].value]
        assert len(keys) == len(set(keys)), fields["name"].value


def test_the_positive_code_is_low_engagement(study: Study):
    assert study.target.codes[study.target.positive] == "Low political engagement"


def test_masked_and_protected_columns_are_features(study: Study):
    named = {*study.policies.training.masked, *study.protected, *study.contact_list}
    assert named <= set(study.feature_names)


def test_feature_names_come_in_the_order_of_the_file(study: Study):
    in_file = [entry["name"] for entry in yaml.safe_load(SHIPPED)["features"]]
    assert study.feature_names == in_file


def test_a_feature_is_found_by_its_name(study: Study):
    assert study.feature("education").question == "Q275"


def test_asking_for_a_feature_that_is_none_raises(study: Study):
    with pytest.raises(KeyError, match="shoe_size"):
        study.feature("shoe_size")


def test_a_study_cannot_be_changed_in_passing(study: Study):
    with pytest.raises(ValueError, match="frozen"):
        study.title = "Other"


# Wrong files

FAULTS = {
    "a kind that is none": (
        "    kind: nominal",
        "    kind: nominell",
        "features.0.kind",
        "'nominal', 'ordinal' or 'binary'",
    ),
    "an unknown key": (
        "      rounds: 200",
        "      rounds: 200\n      trees: 5",
        "policies.training.xgboost.trees",
        "Extra inputs are not permitted",
    ),
    "a share above one": (
        "max_quarantined_share: 0.05",
        "max_quarantined_share: 1.5",
        "policies.ingestion.max_quarantined_share",
        "less than or equal to 1",
    ),
    "no training round at all": (
        "rounds: 200",
        "rounds: 0",
        "policies.training.xgboost.rounds",
        "greater than or",
    ),
    "a search that begins above its end": (
        "max_depth: [2, 7]",
        "max_depth: [7, 2]",
        "policies.training.xgboost.search.max_depth",
        "the lower bound must come first",
    ),
    "a holdout of nobody": (
        "holdout_share: 0.15",
        "holdout_share: 0",
        "policies.training.holdout_share",
        "greater than 0",
    ),
    "a word for a number": (
        "threshold: 0.5",
        "threshold: half",
        "policies.contact.threshold",
        "valid number",
    ),
    "a policy that is none": ("policy: harm ", "policy: luck ", "policies.overseer.policy", "'any_drift'"),
    "a code that is no number": ('20: "Andorra"', 'AD: "Andorra"', "features.0.codes.AD", "valid integer"),
    "a label that is a number": ('20: "Andorra"', "20: 5", "features.0.codes.20", "valid string"),
    "a column name with a space": ("- name: mode", "- name: the mode", "features.1.name", "match pattern"),
    "a contact rule that is none": (
        "rule: threshold ",
        "rule: astrology ",
        "policies.contact.rule",
        "'threshold', 'youden', 'cost_ratio' or 'capacity'",
    ),
    "a missed person who costs nothing": (
        "cost_ratio: 1.0",
        "cost_ratio: 0",
        "policies.contact.cost_ratio",
        "greater than 0",
    ),
    "a capacity of nobody": (
        "capacity: 1000 ",
        "capacity: 0 ",
        "policies.contact.capacity",
        "greater than or equal to 1",
    ),
    "a usual batch of half a person": (
        "usual_batch: 4000",
        "usual_batch: 0.5",
        "policies.contact.usual_batch",
        "valid integer",
    ),
    "a candidate that is none": (
        "candidates: [xgboost, logistic]",
        "candidates: [xgboost, oracle]",
        "policies.training.candidates.1",
        "'xgboost', 'logistic' or 'forest'",
    ),
    "no candidate at all": (
        "candidates: [xgboost, logistic]",
        "candidates: []",
        "policies.training.candidates",
        "at least 1 item",
    ),
    "a budget of no trials": (
        "quick: {trials: ",
        "quick: {trials: -",
        "policies.training.quick.trials",
        "greater than or equal to 1",
    ),
    "a budget of no time": (
        "full: {trials: 80, minutes: 90}",
        "full: {trials: 80, minutes: 0}",
        "policies.training.full.minutes",
        "greater than 0",
    ),
    "a mode that is none": ("mode: quick ", "mode: hasty ", "policies.training.mode", "'quick' or 'full'"),
    "one fold": ("folds: 3 ", "folds: 1 ", "policies.training.folds", "greater than or equal to 2"),
    "a blend of nothing": (
        "max_blended: 3",
        "max_blended: 0",
        "policies.training.max_blended",
        "greater than or equal to 1",
    ),
    "a seed below zero": (
        "    seed: 23",
        "    seed: -1",
        "policies.training.seed",
        "greater than or equal to 0",
    ),
    "trees that no memory holds": (
        "max_depth: 8",
        "max_depth: 600",
        "policies.training.xgboost.max_depth",
        "less than or equal to 16",
    ),
    "leaves of no weight": (
        "min_child_weight: 10",
        "min_child_weight: 0",
        "policies.training.xgboost.min_child_weight",
        "greater than 0",
    ),
    "fewer rows than anything can be said of": (
        "min_rows: 100 ",
        "min_rows: 9 ",
        "policies.overseer.min_rows",
        "greater than or equal to 10",
    ),
    "no false alarm at all": (
        "false_alarms: 0.005",
        "false_alarms: 0",
        "policies.overseer.false_alarms",
        "greater than 0",
    ),
    "too few resamples to tell": (
        "resamples: 600 ",
        "resamples: 99 ",
        "policies.overseer.resamples",
        "greater than or equal to 100",
    ),
    "more weak signs than batches": (
        "weak_batches: [3, 5]",
        "weak_batches: [6, 5]",
        "policies.overseer",
        "weak_batches: [k, n] with 1 <= k <= n, not [6, 5]",
    ),
    "no weak sign at all": (
        "weak_batches: [3, 5]",
        "weak_batches: [0, 5]",
        "policies.overseer",
        "weak_batches: [k, n] with 1 <= k <= n, not [0, 5]",
    ),
    "weak signs in no number of batches": (
        "weak_batches: [3, 5]",
        "weak_batches: [3]",
        "policies.overseer.weak_batches.1",
        "Field required",
    ),
    "an estimate that is always trusted": (
        "trusted_within: 0.03",
        "trusted_within: 1",
        "policies.overseer.trusted_within",
        "less than 1",
    ),
    "a cooldown that ends before it begins": (
        "cooldown_batches: 2",
        "cooldown_batches: -1",
        "policies.overseer.cooldown_batches",
        "greater than or equal to 0",
    ),
    "a switch that is a word": (
        "domain_classifier: false",
        "domain_classifier: perhaps",
        "policies.overseer.domain_classifier",
        "valid boolean",
    ),
    "more than everybody audited": (
        "audit_share: 0.02",
        "audit_share: 1.02",
        "policies.outcomes.audit_share",
        "less than or equal to 1",
    ),
    "a request for a certainty": (
        "request_within: 0.03",
        "request_within: 0",
        "policies.outcomes.request_within",
        "greater than 0",
    ),
    "a request of nobody": (
        "min_interviews: 30",
        "min_interviews: 0",
        "policies.outcomes.min_interviews",
        "greater than or equal to 1",
    ),
    "a target of three codes": (
        "    1: Low political engagement",
        "    1: Low political engagement\n    2: None",
        "target.codes",
        "at most 2",
    ),
}


@pytest.mark.parametrize(("old", "new", "field", "reason"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_refused_with_file_line_field_and_reason(
    tmp_path: Path, old: str, new: str, field: str, reason: str
):
    text = changed(old, new)
    wrong = line_of(text, new.splitlines()[-1])
    # The fault is in the whole mapping, or in the list that is too short.
    wrong = {
        "target.codes": line_of(text, "  codes:"),
        "policies.overseer": line_of(text, "  overseer:"),
    }.get(field, wrong)
    said = refusal(tmp_path, text)
    assert said.startswith(f"{tmp_path / 'wrong.yaml'}: line {wrong}: {field}: ")
    assert reason in said


def test_a_missing_key_is_named_with_the_line_of_what_lacks_it(tmp_path: Path):
    text = changed("    question: Q_MODE\n", "")
    said = refusal(tmp_path, text)
    assert f"line {line_of(text, '- name: mode')}: features.1.question: Field required" in said


def test_every_fault_of_a_file_is_named_at_once(tmp_path: Path):
    text = changed("rounds: 200", "rounds: 0").replace("min_auc: 0.6", "min_auc: 6")
    assert [line.split(": ")[2] for line in refusal(tmp_path, text).splitlines()] == [
        "policies.training.xgboost.rounds",
        "policies.promotion.min_auc",
    ]


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("contact_list: [country,", "contact_list: [shoe_size,", "contact_list"),
        ("protected: [sex,", "protected: [shoe_size,", "protected"),
        ("masked: [country]", "masked: [shoe_size]", "policies.training.masked"),
        ("varies_by: country", "varies_by: shoe_size", "policies.training.varies_by"),
        ("compare_within: country", "compare_within: shoe_size", "policies.overseer.compare_within"),
        (
            "shown_reasons: [settlement,",
            "shown_reasons: [shoe_size,",
            "policies.contact.shown_reasons",
        ),
    ],
)
def test_a_list_that_names_no_feature_is_refused(tmp_path: Path, old: str, new: str, field: str):
    said = refusal(tmp_path, changed(old, new))
    wrong = changed(old, new)
    line = wrong[: wrong.index("shoe_size")].count("\n") + 1
    assert said == f"{tmp_path / 'wrong.yaml'}: line {line}: {field}: shoe_size is not a feature"


@pytest.mark.parametrize("rule", ["threshold", "youden", "cost_ratio", "capacity"])
def test_every_contact_rule_can_be_asked_for(tmp_path: Path, rule: str):
    path = tmp_path / "study.yaml"
    path.write_text(changed("rule: threshold ", f"rule: {rule} "), encoding="utf-8")
    assert load_study(path).policies.contact.rule == rule


def test_effects_need_not_vary(tmp_path: Path):
    path = tmp_path / "study.yaml"
    path.write_text(changed("varies_by: country", "varies_by: null"), encoding="utf-8")
    assert load_study(path).policies.training.varies_by is None


def test_batches_need_not_be_compared_within_a_feature(tmp_path: Path):
    path = tmp_path / "study.yaml"
    path.write_text(changed("compare_within: country", "compare_within: null"), encoding="utf-8")
    assert load_study(path).policies.overseer.compare_within is None


@pytest.mark.parametrize(("some", "last"), [(1, 1), (5, 5), (1, 9)])
def test_any_number_of_weak_signs_among_so_many_batches_can_be_asked_for(
    tmp_path: Path, some: int, last: int
):
    path = tmp_path / "study.yaml"
    path.write_text(changed("weak_batches: [3, 5]", f"weak_batches: [{some}, {last}]"), encoding="utf-8")
    assert load_study(path).policies.overseer.weak_batches == (some, last)


@pytest.mark.parametrize("policy", ["harm", "any_drift"])
def test_every_policy_of_the_overseer_can_be_asked_for(tmp_path: Path, policy: str):
    path = tmp_path / "study.yaml"
    path.write_text(changed("policy: harm ", f"policy: {policy} "), encoding="utf-8")
    assert load_study(path).policies.overseer.policy == policy


def test_each_mode_has_its_budget(study: Study):
    policy = study.policies.training
    assert (policy.budget("quick"), policy.budget("full")) == (policy.quick, policy.full)
    assert policy.quick.trials < policy.full.trials


def test_a_code_that_stands_twice_is_refused_with_its_line(tmp_path: Path):
    wrong = changed('5: "Jew"', '4: "Jew"')
    said = refusal(tmp_path, wrong)
    line = wrong[: wrong.index('4: "Jew"')].count("\n") + 1
    assert said == f"{tmp_path / 'wrong.yaml'}: line {line}: 4: occurs twice"


@pytest.mark.parametrize("taken", ["country", "subject_id", "political_engagement"])
def test_a_column_name_that_stands_twice_is_refused(tmp_path: Path, taken: str):
    said = refusal(tmp_path, changed("- name: sex", f"- name: {taken}"))
    assert f"{taken} occurs twice" in said


def test_a_positive_code_other_than_one_is_refused(tmp_path: Path):
    said = refusal(tmp_path, changed("positive: 1", "positive: 0"))
    assert "target: the positive code must be 1" in said


def test_target_codes_other_than_zero_and_one_are_refused(tmp_path: Path):
    said = refusal(tmp_path, changed("    1: Low political", "    2: Low political"))
    assert "target: the codes must be 0 and 1, not [0, 2]" in said


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(StudyError, match=r"none\.yaml: cannot be read: No such file"):
        load_study(tmp_path / "none.yaml")


def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path):
    assert "wrong.yaml: is not valid YAML: " in refusal(tmp_path, "name: [unclosed\ntitle: x")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(StudyError, match="is not valid YAML"):
        load_study(path)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"], ids=["empty", "a list", "words"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str):
    assert "line 1: a study must be a mapping of fields" in refusal(tmp_path, text)


# Labels


@pytest.fixture
def answer() -> Feature:
    return Feature(name="x", question="Q1", title="X", kind="nominal", codes={0: "No", 3: "Maybe", 20: "Yes"})


@pytest.mark.parametrize("code", [3, "3", 3.0, "3.0", np.int64(3), np.float64(3), np.int32(3)], ids=repr)
def test_a_code_of_any_type_has_the_same_label(answer: Feature, code: object):
    assert answer.label(code) == "Maybe"


def test_a_code_of_zero_is_an_answer(answer: Feature):
    assert [answer.label(code) for code in (0, "0", 0.0)] == ["No"] * 3


@pytest.mark.parametrize("missing", [None, "", float("nan"), np.nan, pd.NA, "nan"], ids=repr)
def test_a_missing_answer_has_no_words(answer: Feature, missing: object):
    assert answer.label(missing) == ""


@pytest.mark.parametrize("code", [4, "4", -5, "huh", 3.5, "2000"], ids=repr)
def test_a_code_that_the_study_does_not_know_says_so(answer: Feature, code: object):
    assert answer.label(code) == f"unknown ({code})"


def test_no_label_of_the_shipped_study_reads_as_a_bare_code(study: Study):
    for feature in study.features:
        for code, words in feature.codes.items():
            assert feature.label(code) == feature.label(str(code)) == feature.label(float(code)) == words


def test_a_study_is_read_again_only_when_its_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "study.yaml"
    path.write_text(SHIPPED)
    first = load_study(path)
    assert load_study(path) is first
    path.write_text(changed("name: poleng\n", "name: another_study\n"))
    assert load_study(path).name == "another_study"
    path.write_text("")
    with pytest.raises(StudyError, match="mapping of fields"):
        load_study(path)
    path.unlink()
    for _ in range(2):
        with pytest.raises(StudyError, match="cannot be read: No such file"):
            load_study(path)
    other = tmp_path / "other.yaml"
    other.write_text(SHIPPED)
    monkeypatch.setenv("POLENG_STUDY", str(other))
    assert load_study() == first


def test_the_trees_of_earlier_releases_stand_under_their_candidate(tmp_path: Path, study: Study):
    """Then their six numbers stood beside the candidates, and what has a default now was in the code."""
    content = yaml.safe_load(SHIPPED)
    training = content["policies"]["training"]
    trees = training.pop("xgboost")
    del content["policies"]["privacy"], trees["search"], trees["reg_lambda"]
    path = tmp_path / "earlier.yaml"
    training |= trees
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    assert load_study(path) == study
    training["xgboost"] = trees
    assert "policies.training.rounds: Extra inputs" in refusal(tmp_path, yaml.safe_dump(content))
