"""What is answered over HTTP: the scores of the batches, refusals in words, and nothing said of anybody."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import shutil
import subprocess
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from poleng_assets.core.modeling.decision_rule import ContactRule
from poleng_assets.serving.app import BYTES_BESIDE, BYTES_PER_ROW, build_app
from poleng_assets.serving.champion_watcher import Seen, Watch
from poleng_assets.serving.loaded_champion import Champion
from poleng_assets.serving.version_choice import NO_CHAMPION
from poleng_assets_tests.serving.conftest import BATCH, LATER_BATCH, Client, Served, ask

TOKEN = "0123456789abcdef0123456789abcdef"


def values(client: TestClient, headers: dict[str, str] | None = None) -> dict[tuple[str, ...], float]:
    """Return every sample of /metrics by its name and the values of its labels."""
    told = client.get("/metrics", headers=headers)
    assert told.status_code == 200
    return {
        (one.name, *one.labels.values()): one.value
        for family in text_string_to_metric_families(told.text)
        for one in family.samples
    }


def champion_of(watch: Watch) -> Champion:
    assert watch.seen.champion is not None
    return watch.seen.champion


@pytest.mark.parametrize("batch", [BATCH, LATER_BATCH])
def test_scores_are_those_of_the_batch_to_the_last_digit(served: Served, client: Client, batch: str):
    people = served.respondents(batch)
    kept = {
        one: (score, contact)
        for one, score, contact in served.query(
            f"SELECT {served.study.id}, score, contact FROM current_predictions WHERE batch = ?", batch
        )
    }
    with client() as asking:
        together = ask(asking, people)
        alone = [ask(asking, person) for person in people[:40]]
    answers = together["predictions"]
    assert together["model_version"] == 1
    assert len(answers) == len(kept) > 300
    assert {one[served.study.id]: (one["score"], one["contact"]) for one in answers} == kept
    assert {one["contact"] for one in answers} == {True, False}
    assert [one["predictions"][0] | {"row": 0} for one in alone] == [one | {"row": 0} for one in answers[:40]]


def test_codes_as_numbers_are_scored_like_codes_as_text(served: Served, client: Client):
    names = served.study.feature_names
    people = served.respondents()[:50]
    numbers = [
        {name: None if person[name] is None else int(person[name]) for name in names} for person in people
    ]
    with client() as asking:
        scores = [[one["score"] for one in ask(asking, rows)["predictions"]] for rows in (people, numbers)]
    assert scores[0] == scores[1]


def test_reasons_are_those_of_the_contact_list(served: Served, client: Client):
    listed = dict(
        served.query(
            f"SELECT {served.study.id}, reasons FROM contact_lists WHERE batch = ? ORDER BY 1 LIMIT 20", BATCH
        )
    )
    assert len(listed) == 20
    people = [one for one in served.respondents() if one[served.study.id] in listed]
    with client() as asking:
        answers = ask(asking, people, reasons=True)["predictions"]
        without = ask(asking, people)["predictions"]
    assert {one[served.study.id]: one["reasons"] for one in answers} == listed
    assert all("reasons" not in one for one in without)


def test_an_answer_that_the_model_never_saw_is_named(served: Served, client: Client):
    country = served.study.policies.training.masked[0]
    person = served.respondents()[0]
    with client() as asking:
        known, unknown = ask(asking, [person, person | {country: 9999}])["predictions"]
    assert (known["unknown_answers"], unknown["unknown_answers"]) == ([], [country])
    assert known["score"] != unknown["score"]


def test_a_capacity_has_no_meaning_for_one_person_and_the_answer_says_so(served: Served, watch: Watch):
    before = champion_of(watch)
    rule = ContactRule(threshold=0.4, capacity=25)
    champion = dataclasses.replace(before, model=dataclasses.replace(before.model, rule=rule))
    app = build_app(served.study, lambda: Seen(champion=champion, doubt=""), max_rows=10)
    with TestClient(app) as asking:
        answer = ask(asking, served.respondents()[:10])
    told = answer["contact_rule"]
    assert (told["threshold"], told["capacity_of_a_batch"]) == (0.4, 25)
    assert "this threshold selects the same share of people" in told["words"]
    assert all(one["contact"] == (one["score"] >= 0.4) for one in answer["predictions"])


def test_one_broken_answer_refuses_the_request_and_is_named_without_its_value(
    served: Served, client: Client, caplog: pytest.LogCaptureFixture
):
    ordinal = next(feature.name for feature in served.study.features if feature.is_ordinal)
    people = served.respondents()[:3]
    people[1] = people[1] | {ordinal: "7711-secret"}
    with client() as asking, caplog.at_level(logging.DEBUG):
        before = values(asking)["poleng_refused_answers_total",]
        answer = asking.post("/predict", json={"respondents": people})
        after = values(asking)["poleng_refused_answers_total",]
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert (fault["row"], fault["field"]) == (2, ordinal)
    assert "no one in this request was scored" in answer.json()["detail"]
    assert "7711" not in answer.text + caplog.text
    assert after - before == 1


def test_of_very_many_faults_the_first_are_told(served: Served, client: Client):
    nobody = dict.fromkeys(served.study.feature_names, "?")
    with client() as asking:
        answer = asking.post("/predict", json={"respondents": [nobody] * 50})
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 100
    assert f"{50 * len(nobody)} answers break the contract" in answer.json()["detail"]


def test_too_many_respondents_and_too_many_bytes_are_refused(served: Served, client: Client):
    people = served.respondents()[:3]
    with client(max_rows=2) as asking:
        rows = asking.post("/predict", json={"respondents": people})
        long = asking.post(
            "/predict",
            content=iter([b" " * 65_536] * ((BYTES_BESIDE + 2 * BYTES_PER_ROW) // 65_536 + 1)),
            headers={"content-type": "application/json"},
        )
    assert (rows.status_code, long.status_code) == (413, 413)
    assert "at most 2 respondents, this one has 3" in rows.json()["detail"]
    assert "bytes" in long.json()["detail"]


def test_what_is_no_json_is_refused(client: Client):
    with client() as asking:
        form = asking.post("/predict", data={"respondents": "x"})
        torn = asking.post("/predict", content=b'{"a', headers={"content-type": "application/json"})
    assert (form.status_code, torn.status_code) == (415, 400)
    assert torn.json() == {"detail": "the body is not valid JSON: see line 1, column 2"}


def test_every_refusal_is_json_and_nothing_is_to_be_kept_by_a_proxy(client: Client):
    with client() as asking:
        for answer in (asking.get("/nothing"), asking.get("/predict"), asking.get("/docs")):
            assert answer.status_code in (404, 405)
            assert isinstance(answer.json()["detail"], str)
            assert answer.headers["cache-control"] == "no-store"
            assert "server" not in answer.headers


@pytest.mark.parametrize(
    "shown",
    ["", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN[:-1]}", "Bearer \xff"],
)
def test_without_the_token_nothing_but_health_is_told(client: Client, shown: str):
    headers = {b"authorization": shown.encode("latin-1")} if shown else {}
    with client(token=TOKEN) as asking:
        for path in ("/model", "/metrics", "/openapi.json", "/predict", "/nothing"):
            answer = asking.get(path, headers=headers)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
            assert TOKEN[:-1] not in answer.text
        assert asking.get("/health", headers=headers).status_code == 200
        assert asking.get("/health/live", headers=headers).status_code == 200


def test_with_the_token_all_is_told(served: Served, client: Client):
    with client(token=TOKEN) as asking:
        asking.headers["authorization"] = f"bearer {TOKEN}"
        assert ask(asking, served.respondents()[0])["model_version"] == 1
        assert asking.get("/model").status_code == 200
        assert asking.get("/metrics").status_code == 200


def test_a_fault_of_the_server_is_logged_by_its_place_and_not_by_its_words(
    served: Served, watch: Watch, caplog: pytest.LogCaptureFixture
):
    class Broken:
        encoder = champion_of(watch).model.encoder

        def score(self, rows: Any) -> Any:
            raise ValueError(f"cannot score {rows.to_pylist()}")

    champion = dataclasses.replace(champion_of(watch), model=Broken())  # type: ignore[arg-type]
    app = build_app(served.study, lambda: Seen(champion=champion, doubt=""), max_rows=10)
    with TestClient(app) as asking, caplog.at_level(logging.DEBUG):
        answer = asking.post("/predict", json={"respondents": served.respondents()[0]})
        metrics = values(asking)
    assert answer.status_code == 500
    assert "no part of the request" in answer.json()["detail"]
    assert "Internal error: ValueError in" in caplog.text
    assert "test_app.py" in caplog.text
    assert "cannot score" not in caplog.text + answer.text
    assert metrics["poleng_requests_total", "/predict", "500"] == 1


def test_as_long_as_nobody_answers_that_is_said(served: Served):
    app = build_app(served.study, lambda: Seen(doubt=NO_CHAMPION), max_rows=10)
    with TestClient(app) as asking:
        asked = asking.post("/predict", json={"respondents": served.respondents()[0]})
        health, live = asking.get("/health"), asking.get("/health/live")
        assert asking.get("/model").status_code == 503
        metrics = values(asking)
    assert (asked.status_code, health.status_code, live.status_code) == (503, 503, 200)
    assert NO_CHAMPION in asked.json()["detail"]
    assert "retry-after" in asked.headers
    assert health.json()["ready"] is False
    assert metrics["poleng_ready",] == 0
    assert ("poleng_champion_version",) not in metrics
    assert ("poleng_estimated_auc",) not in metrics


def test_a_home_made_anew_asks_to_be_started_again(served: Served):
    app = build_app(served.study, lambda: Seen(doubt="made anew", replaced=True), max_rows=10)
    with TestClient(app) as asking:
        assert asking.get("/health/live").status_code == 503
        assert asking.get("/health").json()["alive"] is False


def test_health_tells_who_answers_since_when_and_what_is_in_doubt(served: Served, watch: Watch):
    seen = dataclasses.replace(watch.seen, doubt="an alias was moved", failed="locked")
    app = build_app(served.study, lambda: seen, max_rows=10, clock=lambda: seen.looked_at + 60)
    with TestClient(app) as asking:
        told = asking.get("/health")
        metrics = values(asking)
    facts = told.json()
    assert told.status_code == 200
    assert (facts["ready"], facts["model_version"]) == (True, 1)
    assert facts["seconds_since_loaded"] >= 60
    assert facts["trained_at"] < facts["loaded_at"]
    assert facts["not_as_it_should_be"] == ["an alias was moved", "locked"]
    assert (metrics["poleng_champion_in_doubt",], metrics["poleng_watch_failing",]) == (1, 1)
    assert metrics["poleng_watch_age_seconds",] == pytest.approx(60, abs=1)


def test_the_model_tells_how_it_was_made_and_what_it_knows(served: Served, client: Client):
    with client() as asking:
        facts = asking.get("/model").json()
    assert facts["version"] == 1
    assert facts["field_studies"] == ["founding_study"]
    assert len(facts["recipe"]) == 3
    assert facts["contact_rule"]["words"] == "contact if the probability is at least 0.500"
    auc = facts["figures"]["auc"]
    assert 0.5 < auc["lower"] < auc["value"] < auc["upper"] < 1
    country = served.study.policies.training.masked[0]
    learned, never = (
        facts["vocabulary"][country][name] for name in ("codes_learned", "codes_of_the_study_never_learned")
    )
    assert learned + len(never) == len(served.study.feature(country).codes)
    assert never


def test_the_description_names_every_question_with_its_codes(served: Served, client: Client):
    with client() as asking:
        content = asking.get("/openapi.json").json()
    schema = content["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    person = schema["properties"]["respondents"]["anyOf"][0]
    assert set(person["required"]) == set(served.study.feature_names)
    for feature in served.study.features:
        described = person["properties"][feature.name]["description"]
        assert all(words in described for words in feature.codes.values())
    assert "http" not in json.dumps(content)  # nothing to be loaded from elsewhere


@pytest.mark.parametrize(
    "answer",
    [
        *(
            0,
            1,
            2,
            -1,
            99,
            2.0,
            1.5,
            True,
            False,
            None,
            "",
            " ",
            "1",
            " 2 ",
            "02",
            "+1",
            "-1",
            "1.0",
            "1.5",
            "01.00",
        ),
        *("one", "1e0", "1 2", "0x1", "99", "true", "[1]", "\t1\n", "\u20011", "2147483647"),
    ],
    ids=repr,
)
def test_the_description_takes_just_the_answers_that_are_read(served: Served, client: Client, answer: object):
    person = served.respondents()[0]
    closed = [feature for feature in served.study.features if feature.closed_codes is not None]
    with client() as asking:
        schema = asking.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"][
            "application/json"
        ]["schema"]["properties"]["respondents"]["anyOf"][0]["properties"]
        for feature in closed[:: max(1, len(closed) // 5)]:
            given = asking.post("/predict", json={"respondents": person | {feature.name: answer}})
            said = any(_allows(one, answer) for one in schema[feature.name]["anyOf"])
            assert (given.status_code == 200) == said, (feature.name, given.text[:200])


def _allows(schema: dict[str, Any], value: object) -> bool:
    """Whether a value keeps one of the alternatives of an answer's schema."""
    if "enum" in schema:
        return any(
            value == one and isinstance(value, bool) == isinstance(one, bool) for one in schema["enum"]
        )
    if schema["type"] == "null":
        return value is None
    return isinstance(value, str) and re.search(schema["pattern"], value) is not None


def test_metrics_count_requests_and_decisions_and_tell_of_the_newest_batch(served: Served, client: Client):
    people = served.respondents()[:30]
    with client() as asking:
        answers = ask(asking, people)["predictions"]
        asking.get("/somewhere/else")
        found = values(asking)
    contacts = sum(one["contact"] for one in answers)
    assert found["poleng_predictions_total", "contact"] == contacts
    assert found["poleng_predictions_total", "no_contact"] == len(people) - contacts
    assert found["poleng_requests_total", "/predict", "200"] == 1
    assert found["poleng_requests_total", "other", "404"] == 1
    assert found["poleng_request_duration_seconds_count", "/predict"] == 1
    assert found["poleng_champion_version",] == 1
    ((verdict, drifted, outside, auc),) = served.query(
        """SELECT verdict, drifted_columns, outside_support, estimated_auc FROM drift_reports
        WHERE batch = ? ORDER BY reported_at DESC LIMIT 1""",
        LATER_BATCH,
    )
    assert found["poleng_batch_drift_score",] == pytest.approx(drifted / len(served.study.features))
    assert found["poleng_batch_outside_support_ratio",] == pytest.approx(outside, abs=1e-4)
    assert found["poleng_estimated_auc",] == pytest.approx(auc, abs=1e-4)
    assert found["poleng_batch_verdict", verdict] == 1
    verdicts = dict(
        served.query(
            """SELECT verdict, count(*) FROM drift_reports
            WHERE (batch, reported_at) IN (SELECT batch, max(reported_at) FROM drift_reports GROUP BY 1)
            GROUP BY 1"""
        )
    )
    counted = {labels[0]: value for (name, *labels), value in found.items() if name == "poleng_batches"}
    assert {name: value for name, value in counted.items() if value} == verdicts
    assert found["poleng_history_age_seconds",] >= 0


def test_promtool_has_nothing_to_say_against_the_metrics(served: Served, client: Client):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (apt-get install prometheus): the metrics were not linted")
    with client() as asking:
        ask(asking, served.respondents()[0])
        text = asking.get("/metrics").text
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
