"""What is said: in words a person understands, and of nobody in particular."""

from __future__ import annotations

from typing import Any

import pytest

from poleng_assets.core.data.asset_events import event_of
from poleng_assets.defs.events import Recorded
from poleng_assets.notifications.messages import (
    TEXT_LENGTH,
    Day,
    Failure,
    about,
    about_failure,
    about_refusal,
    digest,
    summary,
    without_values,
)

AT = 1_795_000_000.0  # 2026-11-18 11:06 UTC
REPORT: dict[str, Any] = {
    "alarm": True,
    "held": True,
    "verdict": "untrusted",
    "model_version": 3,
    "reasons": "- **on hold:** 12% gave a new answer. No estimate can be believed\n- one\n- two\n- three",
    "report": "/home/reports/batches/march/version_3.html",
}


def event(asset: str, partition: str = "", run: str = "run", **metadata: object) -> Recorded[Any]:
    return Recorded(asset, partition, event_of(asset, metadata), run, AT, 1)


def test_an_alarm_names_batch_version_home_time_and_the_top_reasons():
    told = about(event("drift_report", "march", **REPORT), "/data/poleng")
    assert told is not None
    assert told.title == "Alarm: batch march is untrusted"
    assert told.text == (
        "Batch march is untrusted under model version 3. Its contact list is on hold until a "
        "challenger was trained and evaluated.\n"
        "- 12% gave a new answer. No estimate can be believed.\n- one.\n- two.\n"
        "Report: /home/reports/batches/march/version_3.html\n\n/data/poleng, 2026-11-18 11:06 UTC"
    )


@pytest.mark.parametrize(
    "quiet",
    [
        event("drift_report", "march", **REPORT | {"alarm": False}),
        event("drift_report", "march", verdict="clear"),
        event("field_study_request", interviews=0),
        event("realised_performance", "march", losses={}),
        event("realised_performance", "march", losses={"1": []}),
        event("batches", "march"),
    ],
)
def test_what_is_no_news_is_not_told(quiet):
    assert about(quiet, "/data") is None


def test_promotion_rejection_and_rollback_have_titles_of_their_own():
    told: dict[str, Any] = {
        "promoted": True,
        "serving_version": 2,
        "challenger_version": 2,
        "reason": "log-loss falls by .01",
    }
    found = [
        about(event("champion", **told), "/data"),
        about(event("champion", **told | {"promoted": False, "serving_version": 1}), "/data"),
        about(event("champion", **told | {"promoted": False, "serving_version": 0}), "/data"),
        about(event("champion", **told | {"serving_version": 1, "score_again": ["march"]}), "/data"),
    ]
    assert [one.title for one in found if one] == [
        "Promoted: model version 2 serves now",
        "Rejected: model version 2 is not promoted",
        "Rejected: model version 2 is not promoted",
        "Rolled back: model version 1 serves again",
    ]
    texts = [one.text for one in found if one]
    assert all("log-loss falls by .01." in text for text in texts)
    assert "Version 1 remains the champion" in texts[1]
    assert "No version serves yet" in texts[2]
    assert "scored again: march" in texts[3]


def test_a_request_says_how_many_interviews_and_where_the_list_is():
    told = about(
        event("field_study_request", interviews=400, request="400 interviews are wanted", batches="march",
              drifted="Education", model_version=2, list="/data/requests/field_study_request.csv"),
        "/data",
    )  # fmt: skip
    assert told is not None
    assert told.title == "Field study requested: 400 interviews"
    assert "/data/requests/field_study_request.csv" in told.text


def test_losses_name_version_and_batches():
    told = about(event("realised_performance", "april", losses={"2": ["march", "april"], "1": []}), "/data")
    assert told is not None
    assert "Model version 2: march, april." in told.text
    assert "version 1" not in told.text


def test_the_same_event_has_the_same_key_and_the_same_cause_another_one():
    first, again = (
        event("drift_report", "march", "a", **REPORT),
        event("drift_report", "march", "b", **REPORT),
    )
    one, other = about(first, "/data"), about(again, "/data")
    assert one is not None
    assert other is not None
    assert one.key != other.key
    assert one.cause == other.cause
    assert about(first, "/data") == one


def test_a_failure_that_was_meant_for_people_is_told_whole():
    failure = Failure("0123456789", "process_batch", "march", "There is no file 'march.csv'", True, AT)
    told = about_failure(failure, "/data")
    assert told.title == "The run process_batch of march failed"
    assert "There is no file 'march.csv'." in told.text
    assert "run 01234567." in told.text


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("ConversionException: Could not convert string 'Jane Doe' to INT32", "…"),
        ('KeyError: "R_9x8y7z"', "…"),
        ('Duplicate key "subject_id: 4711" violates primary key', "…"),
        ("ValueError: person 123456 stands twice", "…"),
        ("ValueError: person R_9x8y7z stands twice", "…"),
        ("ValueError: it isn't there, it wasn't found", "it isn't there, it wasn't found"),
        ("OSError: [Errno 28] No space left on device: /data/warehouse.duckdb", "[Errno 28] No space left"),
        ("LookupError: version 12 is not registered", "version 12 is not registered"),
        ("A first line\nand 'a second' with row 17: Jane", "A first line"),
    ],
)
def test_an_unforeseen_error_is_told_without_values(said, told):
    words = without_values(said)
    assert told in words
    for secret in ("Jane", "4711", "123456", "R_9x8y7z"):
        assert secret not in words


NOTE = (
    "march.csv was refused.\n\nWhy: 60 of 100 rows break the contract, 5% are tolerated: education: "
    "'Elm Street' is no survey code (30 rows, first 2); education: 77 is not among the codes of the study "
    "(30 rows, first 4)\n\nWhat to do: fix the file and submit it to landing/batches again. "
    "No part of it was ingested.\n"
)


def test_a_refusal_says_why_and_what_to_do_without_an_answer():
    told = about_refusal("batches", "march.2.csv.reason.txt", NOTE, "/data", AT)
    assert told is not None
    assert told.title == "The file march.csv was refused"
    assert "60 of 100 rows break the contract" in told.text
    assert "fix the file" in told.text
    assert "rejected/batches/march.2.csv.reason.txt" in told.text
    assert "Elm" not in told.text
    assert "77" not in told.text


def test_the_same_file_refused_again_for_the_same_reason_has_the_same_cause():
    one = about_refusal("batches", "march.csv.reason.txt", NOTE, "/data", AT)
    two = about_refusal("batches", "march.2.csv.reason.txt", NOTE, "/data", AT + 5)
    assert one is not None
    assert two is not None
    assert (one.key == two.key, one.cause == two.cause) == (False, True)


@pytest.mark.parametrize("part", ["", "march.csv was ref"])
def test_half_a_note_is_not_told(part):
    assert about_refusal("batches", "march.csv.reason.txt", part, "/data", AT) is None


def test_a_quiet_day_is_told_as_one():
    told = digest(Day(AT - 86_400, AT), "/data", "digest/1")
    assert told.title == "2026-11-17 11:06 UTC to 2026-11-18 11:06 UTC: 0 reports, 0 refused, 0 failed"
    assert told.text == (
        "No model serves yet.\nNothing else happened.\nNo backup is known.\n\n/data, 2026-11-18 11:06 UTC"
    )


def test_a_busy_day_is_short():
    told = digest(
        Day(
            AT - 86_400,
            AT,
            champion=4,
            batches=[(f"batch_{n}", "drifted" if n % 2 else "clear", 4, False) for n in range(500)],
            events=[f"Something {n}" for n in range(500)],
            waiting={"batches": [f"waiting_{n}.csv" for n in range(500)]},
            refused=[f"refused_{n}.csv" for n in range(500)],
            quarantined={f"batch_{n}": 2 for n in range(500)},
            failed=["process_batch of march"] * 30 + ["retrain_and_promote"],
            backup_at="yesterday",
        ),
        "/data",
        "digest/2",
    )
    assert len(told.text) < TEXT_LENGTH + 100
    assert "Reports: 250 clear, 250 drifted." in told.text
    assert "- and 240 more" in told.text


def test_a_summary_counts_equal_titles():
    events = [about(event("training_data", run=str(n), reason="drift"), "/data") for n in range(3)]
    title, text = summary([one for one in events if one])
    assert title == "3 more"
    assert text == "3 more:\n- Retraining started (3 times)"
