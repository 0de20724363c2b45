"""What notebooks and scripts may use: scores of the batches, reasons, tables; the home stays as it was."""

from __future__ import annotations

import dataclasses
import doctest
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import poleng_assets
from poleng_assets import (
    EncodingError,
    LoadedModel,
    NoChampion,
    WarehouseBusy,
    api,
    in_words,
    load_champion,
    load_study,
    read_table,
    tables,
)
from poleng_assets.core.features.encoder import Encoder
from poleng_assets.core.ingestion.contract import check_rows
from poleng_assets.core.modeling.decision_rule import ContactRule
from poleng_assets.models.registry import CHAMPION, Registry
from poleng_assets.operations.backup.make import make_backup
from poleng_assets.operations.restore import restore_backup
from poleng_assets.storage.home import CHECKOUT, Home
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets_tests.faults.quick_study import quick_survey
from poleng_assets_tests.graph.conftest import open_founded
from poleng_assets_tests.serving.conftest import Served
from poleng_assets_tests.test_loading import SLOW_LIBRARIES, python

PAGE = CHECKOUT / "docs" / "how-to" / "python.md"
PUBLIC = {name: getattr(poleng_assets, name) for name in poleng_assets.__all__}
EXAMPLES = [
    example
    for module in (api.explanation, api.model, api.rows, api.warehouse)
    for example in doctest.DocTestFinder().find(module, extraglobs=PUBLIC)
    if example.examples
]
BLOCKS = re.findall(r"```pycon\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
STUDY = load_study()
NOMINAL = next(one.name for one in STUDY.features if one.kind == "nominal")
ORDINAL = next(one.name for one in STUDY.features if one.kind == "ordinal")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A home whose champion has scored two batches: ``march``, and ``april`` from countries it never saw.

    It is the default one, by its variables, for as long as this module runs.
    """
    folder = tmp_path_factory.mktemp("python")
    with quick_survey(folder, every_feature=True) as data, open_founded(folder / "home", data) as workshop:
        workshop.drop_frame("batches", "march", workshop.synthetic("batches", "clean_batch_1"))
        workshop.drop_frame("batches", "april", workshop.synthetic("batches", "drift_batch_1"))
        with patch.dict(os.environ, POLENG_HOME=str(workshop.home.root)):
            yield Served(workshop.home, load_study(), folder / "quick.yaml")


@pytest.fixture(scope="module")
def archive(made: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("archive") / "home.tar.gz"
    return make_backup(made.home, Warehouse(made.home.warehouse, made.study), target).path


@pytest.fixture
def copied(made: Served, archive: Path, tmp_path: Path) -> Served:
    """A home of its own to change, in which another version is registered that does not serve."""
    home = Home(tmp_path / "home")
    restore_backup(archive, home)
    copy = Served(home, made.study, made.study_file)
    assert copy.register(copy.registry.model(copy.registry.version(1))) == 2
    return copy


@pytest.fixture(scope="module")
def champion(made: Served) -> LoadedModel:
    return load_champion()


def kept(batch: str) -> pd.DataFrame:
    """Return what the graph has kept of a batch: id, score and contact, by id."""
    rows = read_table("current_predictions", columns=[STUDY.id, "score", "contact"], where={"batch": batch})
    return rows.astype({"contact": bool}).sort_values(STUDY.id, ignore_index=True)


def people_of(batch: str) -> pd.DataFrame:
    return read_table("batch_rows", where={"batch": batch}).drop(columns=["batch", "row_number"])


def somebody(**answers: Any) -> dict[str, Any]:
    return {one.name: min(one.codes) for one in STUDY.features} | answers


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    return {one: (one.stat().st_mtime_ns, one.stat().st_size) for one in folder.rglob("*")}


@contextmanager
def held_by_another_process(path: Path, seconds: float) -> Iterator[None]:
    """Let another process hold the warehouse for writing, for so long at most."""
    code = (
        f"import duckdb, time; c = duckdb.connect({str(path)!r}); print(1, flush=True); time.sleep({seconds})"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"1\n"
            yield
        finally:
            process.kill()


def test_importing_the_package_loads_no_slow_library(tmp_path: Path):
    code = (
        f"import sys, poleng_assets; print(*(n for n in ('dagster', *{SLOW_LIBRARIES}) if n in sys.modules))"
    )
    assert python(code, tmp_path / "home").stdout.split() == []


def test_the_package_has_the_names_that_it_offers_and_no_others():
    assert set(poleng_assets.__all__) <= set(dir(poleng_assets))
    for name in poleng_assets.__all__:
        assert getattr(poleng_assets, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="no attribute 'load_campion'"):
        _ = poleng_assets.load_campion


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_examples_in_the_docstrings_are_true(made: Served, example: doctest.DocTest):
    told: list[str] = []
    doctest.DocTestRunner().run(example, out=told.append, clear_globs=False)
    assert "".join(told) == ""


def test_the_examples_on_the_page_are_true(made: Served):
    assert len(BLOCKS) > 4
    page = doctest.DocTestParser().get_doctest("\n".join(BLOCKS), {}, PAGE.name, str(PAGE), 0)
    told: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL).run(page, out=told.append)
    assert "".join(told) == ""


FORMS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "as the warehouse has them": lambda people: people,
    "numbers": lambda people: people.astype(dict.fromkeys(STUDY.feature_names, "Int64")),
    "text": lambda people: people.astype("string"),
    "categories": lambda people: people.astype("string").astype("category"),
    "another order, and more columns": lambda people: people[people.columns[::-1]].assign(
        shoe_size=44, seen=pd.Timestamp("2026-01-01"), tags=pd.Series([["a"]] * len(people), dtype=object)
    ),
    "an Arrow table": lambda people: pa.Table.from_pandas(people, preserve_index=False),
    "a record batch": lambda people: pa.RecordBatch.from_pandas(people, preserve_index=False),
    "a DuckDB relation": duckdb.from_df,
    "mappings": lambda people: people.astype(object).replace({np.nan: None}).to_dict("records"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", ["march", "april"])
def test_scores_are_those_of_the_batch_to_the_last_digit(champion: LoadedModel, batch: str, form: str):
    scored = champion.predict(FORMS[form](people_of(batch)))
    assert set(scored["contact"]) == {True, False}
    found = scored[[STUDY.id, "score", "contact"]].sort_values(STUDY.id, ignore_index=True)
    pd.testing.assert_frame_equal(found.astype({STUDY.id: object}), kept(batch), check_exact=True)


def test_one_person_has_the_score_that_they_have_among_many(champion: LoadedModel):
    people = people_of("march")
    together = champion.predict(people)
    for place in (0, 7):
        person = people.iloc[place]
        for alone in (person, people.iloc[[place]], person.to_dict()):
            found = champion.predict(alone)
            assert found["score"].tolist() == [together["score"][place]]
            assert found[STUDY.id].tolist() == [person[STUDY.id]]


def test_scores_have_the_index_of_the_frame(champion: LoadedModel):
    people = people_of("march").set_index(STUDY.id)[::3]
    scored = champion.predict(people)
    pd.testing.assert_index_equal(scored.index, people.index)
    assert list(scored) == ["score", "contact", "unknown_answers"]


def test_of_nobody_there_is_no_score(champion: LoadedModel):
    scored = champion.predict(people_of("march")[:0], reasons=True)
    assert scored.shape == (0, 5)


def test_reasons_are_those_of_the_contact_list(champion: LoadedModel):
    listed = read_table("contact_lists", where={"batch": "march"}).set_index(STUDY.id)["reasons"]
    people = people_of("march").set_index(STUDY.id).loc[listed.index]
    assert len(people) > 20
    assert champion.predict(people, reasons=True)["reasons"].to_dict() == listed.to_dict()


def test_answers_that_the_model_never_learned_are_named(champion: LoadedModel):
    assert champion.predict(somebody(**{NOMINAL: 9999}))["unknown_answers"].tolist() == [NOMINAL]
    people = people_of("april")
    assert (champion.predict(people)["unknown_answers"] == NOMINAL).all()
    assert (champion.predict(people.assign(**{NOMINAL: None}))["unknown_answers"] == "").all()


def test_a_capacity_decides_by_its_threshold_and_says_what_it_is(champion: LoadedModel):
    model = dataclasses.replace(champion.model, rule=ContactRule(threshold=0.4, capacity=3))
    loaded = dataclasses.replace(champion, model=model)
    scored = loaded.predict(people_of("march"))
    assert scored["contact"].equals(scored["score"] >= 0.4)
    assert loaded.contact_rule == "contact the 3 highest scores of each batch"


@pytest.mark.parametrize("name", [NOMINAL, ORDINAL])
@pytest.mark.parametrize(
    "answer",
    [1, "1", 1.0, " 1.0 ", "+1", None, "", np.nan, pd.NA, 1.5, "1e0", "x", 771177, -5, 2**40, "\ud7ff"],
)
def test_the_door_and_this_take_the_same_answers(champion: LoadedModel, name: str, answer: Any):
    person = somebody(**{name: answer, STUDY.id: "a"})
    at_the_door = check_rows(Encoder.table(pd.DataFrame([person])), STUDY, "batches")
    if not len(at_the_door.broken):
        assert len(champion.predict(person)) == 1
        return
    with pytest.raises(EncodingError, match=f"column '{name}' holds .* in row 1, which is n") as refused:
        champion.predict(person)
    assert ascii(answer).strip("'")[:4] in ascii(str(refused.value))


def test_every_question_with_a_fault_is_told_with_its_row(champion: LoadedModel):
    people = people_of("march")[:5].astype(object)
    people.loc[3, NOMINAL] = "somewhere"
    people.loc[1, ORDINAL] = 42
    with pytest.raises(EncodingError) as refused:
        champion.predict(people)
    told = str(refused.value).splitlines()
    assert told[0] == f"column '{NOMINAL}' holds 'somewhere' in row 4, which is no survey code"
    assert told[1].startswith(
        f"column '{ORDINAL}' holds '42' in row 2, which is not among the codes of the study: "
    )
    assert len(told) == 2


def test_a_question_that_is_not_there_is_no_missing_answer(champion: LoadedModel):
    person = somebody()
    del person[ORDINAL]
    with pytest.raises(EncodingError, match=f"column '{ORDINAL}' is missing in row 2"):
        champion.predict([somebody(), person])
    with pytest.raises(EncodingError, match=f"column '{ORDINAL}' is missing"):
        champion.predict(people_of("march").drop(columns=ORDINAL))
    people = people_of("march")
    with pytest.raises(EncodingError, match=f"'{ORDINAL}' stands twice"):
        champion.predict(pd.concat([people, people[[ORDINAL]]], axis=1))
    table = pa.Table.from_pandas(people)
    with pytest.raises(EncodingError, match=f"'{STUDY.id}' stands twice"):
        champion.predict(table.append_column(STUDY.id, table[STUDY.id]))


@pytest.mark.parametrize("rows", [7, "march", None, [somebody(), 7], np.zeros((2, 2))])
def test_what_is_no_people_is_refused_in_words(champion: LoadedModel, rows: Any):
    with pytest.raises(TypeError, match="mapping"):
        champion.predict(rows)


def test_what_the_answers_do_adds_up_to_the_score(champion: LoadedModel):
    people = people_of("march")
    explained = [champion.explain(people.iloc[place]) for place in range(8)]
    assert [one.score for one in explained] == champion.predict(people)["score"][:8].tolist()
    effects = np.array([one.contributions["effect"].sum() for one in explained])
    log_odds = np.array([np.log(one.score / (1 - one.score)) for one in explained])
    assert (log_odds - effects).std() < 1e-4
    assert log_odds.std() > 0.05
    for one in explained:
        assert one.contributions["effect"].abs().is_monotonic_decreasing
        assert set(one.contributions.index) == set(STUDY.feature_names)


def test_an_explanation_is_told_in_words(champion: LoadedModel, made: Served):
    person = people_of("march").iloc[0]
    why = champion.explain(person)
    assert why.reasons == champion.predict(person, reasons=True)["reasons"][0]
    outcome = STUDY.target.codes[STUDY.target.positive]
    decision = "a contact" if why.contact else "no contact"
    assert repr(why).splitlines()[0] == (
        f"Version 1: {100 * why.score:.1f} % likely to be of {outcome!r}, {decision}"
    )
    page = why._repr_html_()
    strongest = why.contributions[~why.contributions["withheld"]].iloc[0]
    name = str(strongest.name)
    assert strongest["answer"] == made.study.feature(name).label(person[name])
    change = np.exp(strongest["effect"]) - 1
    words = f"{'raises' if change > 0 else 'lowers'} the odds by {100 * abs(change):.0f} %"
    assert words in page.partition("<tbody>")[2].partition("</tr>")[0]


def test_what_the_study_withholds_is_in_the_frame_and_not_in_the_table(champion: LoadedModel):
    withheld = set(STUDY.feature_names) - set(STUDY.policies.contact.shown_reasons or ())
    assert withheld > set(STUDY.protected)
    person = somebody()
    why = champion.explain(person)
    frame = why.contributions
    assert set(frame.index[frame["withheld"]]) == withheld
    everything = dataclasses.replace(why, contributions=frame.sort_values("withheld", ascending=False))
    for page in (why._repr_html_(), everything._repr_html_()):
        assert f"{len(withheld)} withheld by the study" in page
        for name in withheld:
            assert STUDY.feature(name).title not in page


def test_words_of_a_study_cannot_break_the_table(champion: LoadedModel):
    why = champion.explain(somebody())
    odd = why.contributions.assign(answer="<script>alert(1)</script>")
    page = dataclasses.replace(why, contributions=odd, outcome="<b>")._repr_html_()
    assert "<script>" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page


def test_an_answer_that_was_never_learned_is_said_to_count_as_none(champion: LoadedModel):
    why = champion.explain(somebody(**{NOMINAL: 9999}))
    assert why.contributions.loc[NOMINAL, "never_learned"]
    assert why.contributions.loc[NOMINAL, "answer"] == "unknown (9999)"
    first = why.contributions.loc[[NOMINAL]].assign(withheld=False)
    assert "never learned: taken as no answer" in dataclasses.replace(why, contributions=first)._repr_html_()


def test_one_person_is_explained_at_a_time(champion: LoadedModel):
    people = people_of("march")
    with pytest.raises(ValueError, match=f"these are {len(people)}: take one of them"):
        champion.explain(people)


def test_all_that_is_asked_leaves_the_home_as_it_was(made: Served):
    before = snapshot(made.home.root)
    umask = os.umask(0o022)
    try:
        loaded = load_champion(made.home.root)
        people = read_table("batch_rows", home=str(made.home.root))
        loaded.predict(people)
        loaded.explain(people.iloc[0])
        assert tables(made.home) == tables()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)
    assert snapshot(made.home.root) == before


def test_mlflow_logs_where_the_notebook_wanted(made: Served, tmp_path: Path):
    code = f"""
import os
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):  # set by other tests of this process
    os.environ.pop(name, None)
import mlflow, sklearn  # scikit-learn sets variables of its own when it loads
from poleng_assets import load_champion
before = dict(os.environ)
load_champion()
assert not mlflow.is_tracking_uri_set() and os.environ == before
mlflow.set_tracking_uri("sqlite:///{tmp_path}/own.db")
mlflow.set_registry_uri("sqlite:///{tmp_path}/registry.db")
load_champion()
print(mlflow.get_tracking_uri(), mlflow.get_registry_uri())
"""
    said = python(code, made.home.root).stdout.split()
    assert said == [f"sqlite:///{tmp_path}/own.db", f"sqlite:///{tmp_path}/registry.db"]


def test_a_version_that_was_asked_for_is_loaded_or_said_to_be_missing(made: Served):
    assert load_champion(version=1).version == 1
    with pytest.raises(LookupError, match="has no version 99") as refused:
        load_champion(version=99)
    assert not isinstance(refused.value, NoChampion)


def test_an_alias_that_was_moved_by_hand_is_not_followed(copied: Served):
    copied.registry.set_alias(CHAMPION, 2)
    with pytest.raises(NoChampion, match="points to version 2, without a decision") as refused:
        load_champion(copied.home)
    assert "`poleng rollback --to 1` restores it" in str(refused.value)
    assert load_champion(copied.home, version=2).version == 2
    alias = copied.registry.alias(CHAMPION)
    assert alias is not None
    assert alias.version == 2


def test_the_ledger_is_believed_when_a_promotion_did_not_get_to_the_alias(copied: Served):
    copied.decide(2)
    assert load_champion(copied.home).version == 2
    copied.registry._client().delete_registered_model_alias(copied.registry.model_name, CHAMPION)
    assert load_champion(copied.home).version == 2
    assert copied.registry.alias(CHAMPION) is None


def test_a_warehouse_or_a_registry_that_was_lost_is_said(copied: Served):
    warehouse, registry = copied.home.warehouse, copied.home.root / "mlflow.db"
    warehouse.rename(warehouse.with_suffix(".away"))
    with pytest.raises(NoChampion, match="alias 'champion' points to version 1, but the ledger"):
        load_champion(copied.home)
    registry.rename(registry.with_suffix(".away"))
    with pytest.raises(NoChampion, match="no model is registered"):
        load_champion(copied.home)


def test_in_a_home_without_a_champion_nothing_is_made(made: Served, tmp_path: Path):
    nowhere, empty = tmp_path / "nowhere", Home(tmp_path / "home").create()
    Registry(empty, made.study).versions()
    for place in (nowhere, empty):
        before = snapshot(tmp_path)
        with pytest.raises(NoChampion, match="drop a field study into landing/field_studies"):
            load_champion(place)
        with pytest.raises(FileNotFoundError, match="there is no warehouse in"):
            read_table("predictions", home=place)
        assert snapshot(tmp_path) == before


def test_a_broken_model_is_refused_and_says_what_to_do(copied: Served):
    file = copied.registry.model_folder(copied.registry.version(1)) / "encoder.json"
    file.write_text("{}")
    with pytest.raises(poleng_assets.ModelUnusable, match="poleng rollback"):
        load_champion(copied.home, version=1)


def test_some_columns_of_some_rows_are_read(made: Served):
    both = read_table("drift_reports", columns=["verdict", "batch"])
    assert sorted(both.itertuples(index=False)) == [("clear", "march"), ("untrusted", "april")]
    assert read_table("drift_reports", where={"batch": "march", "model_version": 1}).shape[0] == 1
    assert read_table("decisions", where={"batch": None}).shape[0] > 0
    assert read_table("drift_reports", where={"batch": "may"}).empty


def test_numbers_stay_whole_and_times_are_in_utc(made: Served):
    ledger = read_table("decisions")
    assert ledger["champion_version"].dtype == pd.Int32Dtype()
    assert ledger["champion_version"].isna().any()
    assert str(ledger["decided_at"].dt.tz) == "UTC"
    told = [moment for (moment,) in made.query("SELECT decided_at FROM decisions")]
    assert sorted(ledger["decided_at"]) == sorted(pd.Timestamp(moment).tz_convert("UTC") for moment in told)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"name": "perdictions"}, "no table 'perdictions'; it has: batch_rows, "),
        ({"name": 'x" UNION SELECT 1'}, "no table"),
        ({"name": "performance", "columns": ["value", "worth"]}, "no column 'worth'; it has: batch, "),
        ({"name": "performance", "where": {"1 = 1 OR batch": "x"}}, "no column '1 = 1 OR batch'"),
    ],
)
def test_a_table_or_column_that_is_not_there_is_said(made: Served, asked: dict[str, Any], words: str):
    with pytest.raises(LookupError, match=re.escape(words)):
        read_table(**asked)


def test_who_holds_the_warehouse_is_named_and_waited_for(made: Served, caplog: pytest.LogCaptureFixture):
    path = made.home.warehouse
    named = pytest.raises(WarehouseBusy, match=r"is locked by .*\(PID \d+\)")
    with held_by_another_process(path, seconds=60), named:
        tables(patience_seconds=0.3)
    with held_by_another_process(path, seconds=2), caplog.at_level(logging.WARNING, "poleng"):
        assert "performance" in tables(patience_seconds=60)
    assert "Waiting for the warehouse" in caplog.text


def test_nobody_is_kept_from_writing_after_a_table_was_read(made: Served):
    read_table("batch_rows")
    with Warehouse(made.home.warehouse, made.study, patience_seconds=0.0).connect() as con:
        assert con.execute("SELECT 1").fetchall() == [(1,)]


def test_codes_become_the_words_of_the_survey(study: Study):
    feature, target = study.feature(ORDINAL), study.target
    code = max(feature.codes)
    frame = pd.DataFrame({"n": [1, 2, 3, 4], ORDINAL: [code, str(code), None, 771177]}, index=[4, 4, 2, 1])
    told = in_words(frame.assign(**{target.name: pd.array([1, 0, 1, None])}), study)
    words = feature.codes[code]
    assert told[ORDINAL].tolist() == [words, words, "no answer", "unknown (771177)"]
    assert told[target.name].tolist() == [target.codes[1], target.codes[0], target.codes[1], "no answer"]
    assert told["n"].tolist() == [1, 2, 3, 4]
    assert frame[ORDINAL].tolist()[1] == str(code)
    pd.testing.assert_index_equal(told.index, frame.index)
