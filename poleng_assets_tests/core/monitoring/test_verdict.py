"""The verdict: from figures to one word and why. Whole truth tables."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from poleng_assets.core.monitoring.measurements import (
    ALL_COLUMNS,
    COMPOSITION,
    CONTACT,
    DOMAIN_CLASSIFIER,
    JENSEN_SHANNON,
    L_INFINITY,
    MISSING,
    OUT_OF_RANGE,
    QUARANTINED,
    RECONSTRUCTION,
    SCORE,
    UNSEEN,
    BatchMeasurements,
    DriftMetric,
    Estimate,
    Loss,
    MetricLoss,
    Trust,
)
from poleng_assets.core.monitoring.verdict import (
    ESTIMATED_LOSS,
    QUIET,
    REALISED_LOSS,
    TOO_FEW,
    Judgement,
    Reason,
    Verdict,
    judge,
)
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.drift_reports import EarlierReport
from poleng_assets_tests.conftest import with_policies


@pytest.fixture(scope="module")
def names(study: Study) -> list[str]:
    return study.feature_names


def figure(column: str, method: str, value: float | None, *, alert: bool) -> DriftMetric:
    return DriftMetric(column, method, value, None, 0.1, alert)


def shift(column: str, value: float | None = 0.3, method: str = JENSEN_SHANNON) -> DriftMetric:
    return figure(column, method, value, alert=True)


QUIET_FIGURES = BatchMeasurements(
    rows=500,
    rows_measured=500,
    outside_support=0.0,
    flagged_share=0.3,
    estimates=(Estimate("auc", 0.75, 0.7, 0.8, 0.75), Estimate("recall", 0.1, 0.0, 0.2, 0.9)),
    loss=Loss(0.0, 0.005),
    trust=Trust(True),
)
# Losses as the policy looks at them: .03 is tolerated, half of it is a weak sign.
LOSSES = {"none": Loss(0.0, 0.004), "weak": Loss(0.02, 0.004), "strong": Loss(0.05, 0.004)}
REALISED = (MetricLoss("the AUC is lower", Loss(0.06, 0.01), 0.03),)
WEAK_PAST = (EarlierReport("p2", weak=True), EarlierReport("p1", weak=True))


def figures_of(
    names: list[str], *, few: bool, outside: bool, loss: str, missing: bool, score: bool, columns: int
) -> BatchMeasurements:
    """Return figures with just these things wrong."""
    found = [
        figure(names[0], UNSEEN, 0.4 if outside else 0.0, alert=outside),
        figure(names[1], MISSING, 0.4 if missing else 0.0, alert=missing),
        figure(SCORE, JENSEN_SHANNON, 0.2 if score else 0.01, alert=score),
        *[shift(name) for name in names[:columns]],
        *[figure(name, JENSEN_SHANNON, 0.01, alert=False) for name in names[columns:]],
    ]
    return replace(
        QUIET_FIGURES,
        rows=50 if few else 500,
        outside_support=0.4 if outside else 0.0,
        metrics=tuple(found),
        loss=LOSSES[loss],
    )


# Of 32 features 5 % is 1.6: one is few, two are many. The first rule that fits gives the verdict.
NO, FEW, MANY = 0, 1, 2
VERDICTS: list[tuple[dict[str, Any], Verdict]] = [
    ({"few": True}, "insufficient"),
    ({"outside": True}, "untrusted"),
    ({"loss": "strong"}, "drifted"),
    ({"loss": "weak", "past": "weak"}, "drifted"),
    ({"realised": True}, "drifted"),
    ({"missing": True}, "drifted"),
    ({"score": True}, "drifted"),
    ({"columns": FEW}, "drifted"),
    ({"columns": MANY}, "drifted"),
    ({}, "clear"),
]
# Any rule that fits has the batch held, unless it is too small.
HOLDS: list[dict[str, Any]] = [
    {"outside": True},
    {"loss": "strong"},
    {"loss": "weak", "past": "weak"},
    {"realised": True},
    {"missing": True},
    {"policy": "any_drift", "score": True},
    {"policy": "any_drift", "columns": MANY},
]
KEYS = ("policy", "few", "outside", "loss", "past", "realised", "missing", "score", "columns")
CASES: list[dict[str, Any]] = [
    dict(zip(KEYS, values, strict=True))
    for values in product(
        ("harm", "any_drift"),
        (False, True),
        (False, True),
        tuple(LOSSES),
        ("quiet", "weak"),
        (False, True),
        (False, True),
        (False, True),
        (NO, FEW, MANY),
    )
]


def expected_verdict(case: dict[str, Any]) -> Verdict:
    return next(verdict for rule, verdict in VERDICTS if rule.items() <= case.items())


def expected_hold(case: dict[str, Any]) -> bool:
    return not case["few"] and any(rule.items() <= case.items() for rule in HOLDS)


def judged(study: Study, names: list[str], case: dict[str, Any]) -> Judgement:
    findings = {key: case[key] for key in ("few", "outside", "loss", "missing", "score", "columns")}
    return judge(
        figures_of(names, **findings),
        with_policies(study, overseer={"policy": case["policy"]}),
        WEAK_PAST if case["past"] == "weak" else (EarlierReport("p2"), EarlierReport("p1")),
        REALISED if case["realised"] else (),
    )


@pytest.mark.parametrize("policy", ["harm", "any_drift"])
def test_every_combination_of_findings_has_its_verdict(study: Study, names: list[str], policy: str):
    for case in (one for one in CASES if one["policy"] == policy):
        judgement = judged(study, names, case)
        assert judgement.verdict == expected_verdict(case), case
        assert judgement.held is expected_hold(case), case
        assert judgement.alarm is expected_hold(case), case
        assert judgement.weak is (not case["few"] and case["loss"] != "none"), case
        columns = 0 if case["few"] else case["columns"]
        assert judgement.drifted_columns == tuple(names[:columns]), case
        assert judgement.reasons, case
        assert all(judgement.words), case
        assert not any(word.endswith(".") for word in judgement.words), case


def test_every_verdict_and_both_ways_to_drift_occur_in_the_table():
    reached = {(expected_verdict(case), expected_hold(case)) for case in CASES}
    assert reached == {
        ("clear", False),
        ("drifted", False),
        ("drifted", True),
        ("untrusted", True),
        ("insufficient", False),
    }


@pytest.mark.parametrize("acts", [False, True])
@pytest.mark.parametrize("verdict", ["clear", "insufficient", "drifted", "untrusted"])
def test_a_batch_is_held_when_any_reason_acts(verdict: Verdict, acts: bool):
    reasons = (Reason("a", "one"), Reason("b", "two", acts=acts), Reason("c", "three"))
    judgement = Judgement(verdict, reasons)
    assert judgement.held is acts
    assert judgement.causes == ({"b"} if acts else set())
    assert judgement.words == ("one", "two", "three")


@pytest.mark.parametrize(("rows", "verdict"), [(99, "insufficient"), (100, "clear")])
def test_the_smallest_number_of_rows_is_enough(study: Study, rows: int, verdict: Verdict):
    assert judge(replace(QUIET_FIGURES, rows=rows), study).verdict == verdict


def test_a_batch_that_could_not_be_measured_at_all_is_judged_by_its_size(study: Study):
    judgement = judge(replace(QUIET_FIGURES, rows=7), study, WEAK_PAST, REALISED)
    assert judgement == Judgement(
        "insufficient", (Reason(TOO_FEW, "7 respondents are too few to judge: at least 100 are needed"),)
    )


# Support


@pytest.mark.parametrize(("share", "verdict"), [(0.05, "clear"), (0.0501, "untrusted")])
def test_a_share_outside_support_is_tolerated_up_to_its_limit(
    study: Study, names: list[str], share: float, verdict: Verdict
):
    found = (figure(names[0], UNSEEN, share, alert=share > 0.05),)
    assert judge(replace(QUIET_FIGURES, outside_support=share, metrics=found), study).verdict == verdict


def test_an_untrusted_batch_says_which_answers_the_model_never_saw(study: Study):
    outside = replace(
        QUIET_FIGURES,
        outside_support=0.4,
        metrics=(figure("country", UNSEEN, 0.4, alert=True), shift("sex")),
    )
    first, second = judge(outside, study).reasons
    assert first.words == (
        "40% of the respondents are out of distribution, with answers not seen in training: "
        "Country of the interview (40%). Estimates about them are unreliable"
    )
    assert (first.cause, first.acts) == ("support:country", True)
    assert (second.cause, second.acts) == ("shift:sex", False)


def test_an_untrusted_batch_names_many_small_causes_when_none_alerts_alone(study: Study):
    small = tuple(figure(name, UNSEEN, 0.04, alert=False) for name in ("country", "religion"))
    nothing = figure("savings", UNSEEN, 0.0, alert=False)
    judgement = judge(replace(QUIET_FIGURES, outside_support=0.08, metrics=(*small, nothing)), study)
    assert "Country of the interview (4%), Religious denomination (4%)." in judgement.words[0]


@pytest.mark.parametrize("method", [JENSEN_SHANNON, COMPOSITION])
@pytest.mark.parametrize(("value", "verdict"), [(0.99, False), (0.991, True), (1.0, True)])
def test_answers_that_have_nothing_in_common_with_the_references_are_not_trusted(
    study: Study, method: str, value: float, verdict: bool
):
    judgement = judge(replace(QUIET_FIGURES, metrics=(figure("religion", method, value, alert=True),)), study)
    assert (judgement.verdict == "untrusted") is verdict
    assert ("support:religion" in judgement.causes) is verdict
    said = any(
        "Religious denomination: out of distribution, the answers have no overlap" in w
        for w in judgement.words
    )
    assert said is verdict


def test_what_the_model_never_saw_is_one_cause_and_not_two(study: Study):
    outside = replace(
        QUIET_FIGURES,
        outside_support=1.0,
        metrics=(figure("country", UNSEEN, 1.0, alert=True), shift("country", 1.0)),
    )
    assert [r.cause for r in judge(outside, study).reasons if r.acts] == ["support:country"]


def test_scores_without_anything_in_common_are_a_shift_and_no_lack_of_support(study: Study):
    judgement = judge(replace(QUIET_FIGURES, metrics=(shift(SCORE, 1.0),)), study)
    assert (judgement.verdict, judgement.held) == ("drifted", False)


# Loss, estimated


@pytest.mark.parametrize(
    ("value", "error", "acts"),
    [
        (0.0301, 0.001, True),
        (0.03, 0.001, False),
        (0.04, 0.0138, True),
        (0.04, 0.0140, False),
        (0.5, 0.2, False),
        (-0.5, 0.001, False),
        (float("nan"), 0.001, False),
        (0.5, float("nan"), False),
    ],
)
def test_a_loss_counts_when_it_is_above_what_is_tolerated_and_surely_so(
    study: Study, value: float, error: float, acts: bool
):
    judgement = judge(replace(QUIET_FIGURES, loss=Loss(value, error)), study)
    assert judgement.held is acts
    assert judgement.causes == ({ESTIMATED_LOSS} if acts else set())


@pytest.mark.parametrize("confidence", [0.95, 0.998])
def test_a_loss_is_sure_when_chance_alone_would_seldom_make_it(confidence: float):
    from scipy.stats import norm

    just = float(norm.ppf(confidence))
    assert Loss(just * 1.001, 1.0).is_above(0.0, confidence)
    assert not Loss(just * 0.999, 1.0).is_above(0.0, confidence)
    assert not Loss(just * 1.001, 1.0).is_above(just * 1.002, confidence)


def test_a_fall_of_another_figure_than_auc_is_not_acted_upon(study: Study):
    assert judge(QUIET_FIGURES, study).verdict == "clear"  # its recall fell from 0.9 to 0.1


def test_without_an_estimate_the_other_findings_decide_and_the_doubt_is_told(study: Study, names: list[str]):
    blind = replace(QUIET_FIGURES, estimates=(), loss=None, trust=Trust(False, "there is no estimate"))
    judgement = judge(blind, study)
    assert (judgement.verdict, judgement.weak) == ("clear", False)
    assert judgement.words[1:] == ("the estimate is not trusted: there is no estimate",)
    gone = replace(blind, metrics=(figure(names[3], MISSING, 0.9, alert=True),))
    assert judge(gone, study).verdict == "drifted"


def test_an_expected_loss_is_told_in_words(study: Study):
    worse = replace(QUIET_FIGURES, estimates=(Estimate("auc", 0.6, 0.5, 0.7, 0.75),), loss=Loss(0.151, 0.01))
    (reason,) = judge(worse, study).reasons
    assert reason == Reason(
        ESTIMATED_LOSS,
        "the model is expected to perform worse: estimated AUC 0.600, "
        "0.151 lower than in the same strata of the reference",
        acts=True,
    )


# Loss, by weak signs that are repeated


def past_of(signs: str) -> tuple[EarlierReport, ...]:
    """Return earlier batches, newest first: ``w`` with a weak sign."""
    return tuple(EarlierReport(f"p{number}", weak=sign == "w") for number, sign in enumerate(signs))


def weak_figures() -> BatchMeasurements:
    return replace(QUIET_FIGURES, loss=LOSSES["weak"])


@pytest.mark.parametrize(
    ("value", "error", "weak"),
    [(0.0151, 0.001, True), (0.015, 0.001, False), (0.02, 0.0121, True), (0.02, 0.0123, False)],
)
def test_a_weak_sign_is_half_of_what_is_tolerated_and_likely(
    study: Study, value: float, error: float, weak: bool
):
    judgement = judge(replace(QUIET_FIGURES, loss=Loss(value, error)), study)
    assert judgement.weak is weak
    assert judgement.verdict == "clear"


@pytest.mark.parametrize("signs", ["".join(one) for n in range(7) for one in product("w.", repeat=n)])
def test_three_weak_signs_in_five_batches_count_as_a_strong_one(study: Study, signs: str):
    judgement = judge(weak_figures(), study, past_of(signs))
    held = 1 + signs[:4].count("w") >= 3
    assert judgement.held is held
    assert judgement.causes == ({ESTIMATED_LOSS} if held else set())
    # Without one of its own a batch is not held for those of others.
    assert not judge(QUIET_FIGURES, study, past_of(signs)).held


@pytest.mark.parametrize(
    ("some", "last"), [(some, last) for last in range(1, 5) for some in range(1, last + 1)]
)
def test_how_many_weak_signs_count_is_the_studys(study: Study, some: int, last: int):
    under = with_policies(study, overseer={"weak_batches": (some, last)})
    for signs in map("".join, product("w.", repeat=4)):
        expected = 1 + signs[: last - 1].count("w") >= some
        assert judge(weak_figures(), under, past_of(signs)).held is expected, signs


def test_repeated_weak_signs_are_told_in_words(study: Study):
    (reason,) = judge(weak_figures(), study, past_of("w.w")).reasons
    assert reason.words == (
        "the model seems to perform worse in 3 of the last 4 batches: in this one estimated AUC 0.750, "
        "0.020 lower than in the same strata of the reference"
    )
    (reason,) = judge(weak_figures(), study, past_of("wwwwwww")).reasons
    assert "in 5 of the last 5 batches" in reason.words


# Loss, realised


@pytest.mark.parametrize(
    ("value", "error", "acts"),
    [(0.031, 0.001, True), (0.029, 0.001, False), (0.06, 0.0207, True), (0.06, 0.0210, False)],
)
def test_a_realised_loss_counts_when_it_is_above_what_is_tolerated_and_surely_so(
    study: Study, value: float, error: float, acts: bool
):
    judgement = judge(
        QUIET_FIGURES, study, realised=[MetricLoss("the AUC is lower", Loss(value, error), 0.03)]
    )
    assert judgement.held is acts
    assert judgement.verdict == ("drifted" if acts else "clear")


def test_each_realised_loss_is_told_in_words_and_all_are_one_cause(study: Study):
    losses = [
        MetricLoss("the AUC is lower", Loss(0.06, 0.01), 0.03),
        MetricLoss("the log-loss is higher", Loss(0.1, 0.02), 0.05),
        MetricLoss("luck is less", Loss(0.1, 0.5), 0.05),
    ]
    judgement = judge(QUIET_FIGURES, study, realised=losses)
    assert judgement.words == (
        "outcomes show that the model performs worse: the AUC is lower by 0.060 ± 0.020 (tolerated 0.030)",
        "outcomes show that the model performs worse: the log-loss is higher by 0.100 "
        "± 0.040 (tolerated 0.050)",
    )
    assert judgement.causes == {REALISED_LOSS}


# Missing answers


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.4, "Sex: 40% missing answers"), (None, "Sex: no answers at all")],
)
def test_missing_answers_are_reported_in_words(study: Study, value: float | None, said: str):
    gone = replace(QUIET_FIGURES, metrics=(figure("sex", MISSING, value, alert=True),))
    assert judge(gone, study).reasons == (Reason("missing:sex", said, acts=True),)


# Shifts


def test_under_harm_a_shift_is_named_and_not_acted_upon(study: Study):
    judgement = judge(replace(QUIET_FIGURES, metrics=(shift("religion"),)), study)
    assert (judgement.verdict, judgement.held, judgement.alarm) == ("drifted", False, False)
    assert judgement.drifted_columns == ("religion",)
    assert judgement.words == (
        "the answers to Religious denomination shifted: Jensen-Shannon distance 0.300 (threshold 0.100)",
    )


@pytest.mark.parametrize(
    ("found", "verdict", "held"),
    [
        ([shift(SCORE)], "drifted", True),
        ([shift(CONTACT)], "drifted", True),
        ([shift(CONTACT, method=L_INFINITY)], "drifted", True),
        ([shift("sex")], "drifted", False),
        ([shift("sex", method=L_INFINITY)], "drifted", False),
        ([shift("sex"), shift("sex", method=L_INFINITY)], "drifted", False),
        ([shift("sex"), shift("mode")], "drifted", True),
        ([shift("sex"), shift("mode", method=L_INFINITY)], "drifted", True),
        ([figure(ALL_COLUMNS, RECONSTRUCTION, 9.0, alert=True)], "drifted", False),
        ([figure("country", COMPOSITION, 0.5, alert=True)], "clear", False),
        ([figure("education", OUT_OF_RANGE, 0.5, alert=True)], "clear", False),
        ([], "clear", False),
    ],
)
def test_any_drift_acts_on_moved_predictions_and_on_many_moved_columns(
    study: Study, found: list[DriftMetric], verdict: Verdict, held: bool
):
    measured = replace(QUIET_FIGURES, metrics=tuple(found))
    under = with_policies(study, overseer={"policy": "any_drift"})
    assert (judge(measured, under).verdict, judge(measured, under).held) == (verdict, held)
    # The same is found under harm, and never acted upon.
    assert (judge(measured, study).verdict, judge(measured, study).held) == (verdict, False)


@pytest.mark.parametrize(("share", "held"), [(0.0, True), (0.0624, True), (0.0625, False), (0.2, False)])
def test_how_many_moved_columns_are_many_is_the_studys(study: Study, share: float, held: bool):
    # Two of 32 features are 0.0625.
    under = with_policies(study, overseer={"policy": "any_drift", "max_drifted_columns": share})
    assert judge(replace(QUIET_FIGURES, metrics=(shift("sex"), shift("mode"))), under).held is held


def test_a_column_that_alerts_by_both_distances_is_told_once_by_the_one_farther_beyond(study: Study):
    both = (
        DriftMetric("sex", JENSEN_SHANNON, 0.2, None, 0.1, True),
        DriftMetric("sex", L_INFINITY, 0.15, None, 0.05, True),
    )
    judgement = judge(replace(QUIET_FIGURES, metrics=both), study)
    assert judgement.drifted_columns == ("sex",)
    assert judgement.words == ("the answers to Sex shifted: L-infinity distance 0.150 (threshold 0.050)",)


def test_drifted_columns_are_named_farthest_first_and_unknown_ones_before_all(study: Study):
    far = (shift("sex", 0.2), shift("mode", None), shift(SCORE), shift("savings", 0.5))
    judgement = judge(replace(QUIET_FIGURES, metrics=far), study)
    assert judgement.drifted_columns == ("mode", "savings", "sex")
    said = "the answers to How the interview was held cannot be compared: all are missing"
    assert said in judgement.words


def test_shifts_are_ranked_by_what_they_are_worth_to_the_model(study: Study):
    far = (shift("sex", 0.9), shift("savings", 0.3), shift("mode", 0.2), shift("religion", None))
    importance = {"sex": 0.01, "savings": 0.5, "mode": 0.4, "religion": 0.085}
    judgement = judge(replace(QUIET_FIGURES, metrics=far, importance=importance), study)
    assert [r.cause for r in judgement.reasons] == [
        "shift:savings",
        "shift:religion",
        "shift:mode",
        "shift:sex",
    ]
    assert [r.worth for r in judgement.reasons] == pytest.approx([0.15, 0.085, 0.08, 0.009])
    assert judgement.words[0].endswith("; 50% of the feature importance")


def test_without_importance_the_farthest_shift_comes_first(study: Study):
    far = (shift("sex", 0.2), shift("savings", 0.5), shift("mode", 0.3))
    judgement = judge(replace(QUIET_FIGURES, metrics=far), study)
    assert [r.cause for r in judgement.reasons] == ["shift:savings", "shift:mode", "shift:sex"]


def test_moved_predictions_come_before_moved_answers(study: Study):
    far = (shift("sex", 0.9), shift(CONTACT, 0.15), shift(SCORE, 0.12))
    judgement = judge(replace(QUIET_FIGURES, metrics=far, importance={"sex": 1.0}), study)
    assert [r.cause for r in judgement.reasons] == ["shift:score", "shift:contact", "shift:sex"]
    assert judgement.words[0].startswith("the scores shifted: ")
    assert judgement.words[1].startswith("the share to contact shifted: ")


def test_answers_that_no_longer_go_together_are_told(study: Study):
    found = (DriftMetric(ALL_COLUMNS, RECONSTRUCTION, 3.9, 3.2, 3.5, True),)
    judgement = judge(replace(QUIET_FIGURES, metrics=found), study)
    assert judgement.reasons == (
        Reason(
            "structure",
            "multivariate drift: PCA reconstruction error 3.900 (thresholds 3.200 to 3.500)",
        ),
    )


# Remarks


def test_another_mix_of_people_is_told_and_is_no_drift(study: Study):
    found = (DriftMetric("country", COMPOSITION, 0.45, None, 0.1, True),)
    judgement = judge(replace(QUIET_FIGURES, metrics=found), study)
    assert (judgement.verdict, judgement.drifted_columns) == ("clear", ())
    assert judgement.words == (
        "no sign that the model performs worse",
        "composition shift: Country of the interview, distance 0.450 to the reference (threshold 0.100); "
        "other questions are compared within its strata",
    )
    assert judgement.reasons[0].cause == QUIET


@pytest.mark.parametrize(("value", "said"), [(0.123, "12.3%"), (None, "an unknown share")])
def test_answers_beyond_those_of_the_reference_are_told(study: Study, value: float | None, said: str):
    found = (figure("generation", OUT_OF_RANGE, value, alert=True),)
    judgement = judge(replace(QUIET_FIGURES, metrics=found), study)
    assert judgement.verdict == "clear"
    title = study.feature("generation").title
    assert judgement.words[1] == f"{title}: {said} of the answers are outside the reference range"


def test_figures_that_only_describe_change_no_verdict(study: Study):
    found = (
        figure(ALL_COLUMNS, QUARANTINED, 0.9, alert=False),
        figure(ALL_COLUMNS, DOMAIN_CLASSIFIER, 0.99, alert=True),
    )
    assert judge(replace(QUIET_FIGURES, metrics=found), study).verdict == "clear"


def test_a_doubt_about_the_estimate_is_told_last(study: Study):
    doubtful = replace(
        QUIET_FIGURES, metrics=(shift("sex"),), trust=Trust(False, "too few people to trust it")
    )
    judgement = judge(doubtful, study)
    assert judgement.words[-1] == "the estimate is not trusted: too few people to trust it"
    assert not judgement.reasons[-1].acts


def test_what_is_acted_upon_comes_first(study: Study, names: list[str]):
    everything = figures_of(
        names, few=False, outside=True, loss="strong", missing=True, score=True, columns=MANY
    )
    remarks = (
        figure("country", COMPOSITION, 0.4, alert=True),
        figure("generation", OUT_OF_RANGE, 0.4, alert=True),
        figure(ALL_COLUMNS, RECONSTRUCTION, 9.0, alert=True),
    )
    everything = replace(
        everything, metrics=(*remarks, *everything.metrics), trust=Trust(False, "no telling")
    )
    judgement = judge(everything, study, realised=REALISED)
    assert [r.cause for r in judgement.reasons] == [
        f"support:{names[0]}",
        REALISED_LOSS,
        ESTIMATED_LOSS,
        f"missing:{names[1]}",
        "shift:score",
        *[f"shift:{name}" for name in names[:MANY]],
        "structure",
        "mix:country",
        "range:generation",
        "estimate",
    ]
    assert [r.acts for r in judgement.reasons] == [True] * 4 + [False] * 7


# Alarms


GONE = replace(QUIET_FIGURES, metrics=(figure("sex", MISSING, 0.4, alert=True),))


@pytest.mark.parametrize(
    ("past", "alarm"),
    [
        ((), True),
        ((EarlierReport("p1"),), True),
        ((EarlierReport("p1", frozenset({"missing:mode", ESTIMATED_LOSS})),), True),
        ((EarlierReport("p1", frozenset({"missing:sex"})),), False),
        (
            (
                EarlierReport("p3"),
                EarlierReport("p2"),
                EarlierReport("p1", frozenset({"missing:sex", "missing:mode"})),
            ),
            False,
        ),
        (
            (
                EarlierReport("p2", frozenset({"missing:mode"})),
                EarlierReport("p1", frozenset({"missing:sex"})),
            ),
            False,
        ),
    ],
)
def test_only_what_no_earlier_batch_was_held_for_is_an_alarm(
    study: Study, past: tuple[EarlierReport, ...], alarm: bool
):
    judgement = judge(GONE, study, past)
    assert judgement.held
    assert judgement.alarm is alarm


def test_one_new_cause_among_known_ones_is_an_alarm(study: Study):
    more = replace(GONE, metrics=(*GONE.metrics, figure("mode", MISSING, 0.4, alert=True)))
    past = (EarlierReport("p1", frozenset({"missing:sex"})),)
    assert judge(more, study, past).alarm
    assert not judge(GONE, study, (EarlierReport("p1", judge(more, study).causes),)).alarm


def test_what_is_not_acted_upon_is_no_alarm(study: Study):
    judgement = judge(replace(QUIET_FIGURES, metrics=(shift(SCORE),)), study)
    assert (judgement.verdict, judgement.causes, judgement.alarm) == ("drifted", frozenset(), False)


def test_causes_are_the_same_for_every_batch_in_which_they_are_found(study: Study):
    one = judge(replace(QUIET_FIGURES, loss=Loss(0.05, 0.001)), study)
    other = judge(replace(QUIET_FIGURES, loss=Loss(0.31, 0.002), rows=12_000), study)
    by_weak_signs = judge(weak_figures(), study, WEAK_PAST)
    assert one.causes == other.causes == by_weak_signs.causes == {ESTIMATED_LOSS}


def test_a_judgement_is_the_same_every_time(study: Study, names: list[str]):
    case = dict(CASES[-1], few=False)
    assert judged(study, names, case) == judged(study, names, case)
