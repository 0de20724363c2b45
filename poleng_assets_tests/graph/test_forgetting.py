"""A person forgotten in a home where everything has happened; and what is left when retention was applied."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from poleng_assets.cli.forget import forget
from poleng_assets.cli.main import main
from poleng_assets.core.contacts.workbook import first_cells
from poleng_assets.core.ingestion.row_accounting import account, rows_in
from poleng_assets.core.privacy import byte_search
from poleng_assets.core.privacy.subject import Person
from poleng_assets.defs.checks import list_differences
from poleng_assets.headless.home_lock import hold_home
from poleng_assets.headless.runner import RunReport
from poleng_assets.operations import erase_person as forgetting
from poleng_assets.operations import retention
from poleng_assets.simulation.population import write_scenario_data
from poleng_assets.storage.dropped_files import file_id
from poleng_assets.study.loading import load_study
from poleng_assets.warehouse.writes import now
from poleng_assets_tests.faults.quick_study import write_quick_study
from poleng_assets_tests.graph.conftest import Workshop, open_founded

ID, TARGET = load_study().id, load_study().target.name


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A home with a model, a batch in a compressed CSV, its outcomes, and files that were refused.

    Tests forget different people, so they share it.
    """
    folder = tmp_path_factory.mktemp("lived_in")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("POLENG_STUDY", str(write_quick_study(folder / "quick.yaml")))
        write_scenario_data(load_study(), folder / "data", scale=0.05)
        with open_founded(folder / "home", folder / "data") as workshop:
            people = workshop.synthetic("batches", "clean_batch_1")
            march = folder / "march.csv.gz"
            march.write_bytes(gzip.compress(people.to_csv(index=False, sep=";").encode()))
            workshop.drop_file("batches", march)
            told = workshop.synthetic("outcomes", "clean_batch_1")
            told.to_csv(folder / "march.csv", index=False)
            workshop.drop_file("outcomes", folder / "march.csv")
            refused = workshop.home.rejected("batches") / "short.csv"
            refused.write_text(people.iloc[:, :5].to_csv(index=False))
            letter = workshop.home.rejected("batches") / "letter.parquet"
            letter.write_text("\n".join(f"Dear {one}," for one in people[ID]))
            (letter.parent / "letter.parquet.reason.txt").write_text("letter.parquet was refused.\n")
            assert workshop.query("SELECT DISTINCT batch FROM contact_lists") == [("march",)]
            yield workshop


def ask(workshop: Workshop, subject: str, *options: str) -> Result:
    return CliRunner().invoke(forget, [subject, "--home", str(workshop.home.root), *options], input="y\n")


def contacts(workshop: Workshop) -> list[str]:
    return list(workshop.contact_list("march")[ID])


def ids_shown(workshop: Workshop) -> list[object]:
    """Return the ids in the workbook of the list, as a person sees them."""
    return list(first_cells(workshop.home.contact_lists / "march.xlsx"))[1:]


def held_out(workshop: Workshop) -> str:
    ((one,),) = workshop.query(f"SELECT min({ID}) FROM field_study_rows WHERE part = 'holdout'")
    return one


def files_with(workshop: Workshop, word: str) -> list[str]:
    """Return the files in whose bytes a word stands, unpacked where they are packed."""
    found = []
    for path in workshop.home.root.rglob("*"):
        if path.is_file():
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            if path.suffix == ".xlsx":
                with zipfile.ZipFile(path) as packed:
                    content += b"".join(map(packed.read, packed.namelist()))
            found += [str(path.relative_to(workshop.home.root))] if word.encode() in content else []
    return sorted(found)


def test_a_contact_is_gone_from_tables_lists_and_files_and_nobody_else_is(lived_in: Workshop):
    who, other = contacts(lived_in)[:2]
    home = lived_in.home
    lines = (home.contact_lists / "march.csv").read_text().splitlines()
    archived = gzip.decompress((home.archive("batches") / "march.csv.gz").read_bytes()).splitlines()
    assert "rejected/batches/letter.parquet" in files_with(lived_in, who)
    assert "contact_lists/march.xlsx" in files_with(lived_in, who)
    shown = ids_shown(lived_in)

    result = ask(lived_in, who)

    assert result.exit_code == 0, result.output
    assert "table predictions: 1 row" in result.output
    assert ": 0 traces." in result.output
    assert files_with(lived_in, who) == []
    assert (home.contact_lists / "march.csv").read_text().splitlines() == [x for x in lines if who not in x]
    assert ids_shown(lived_in) == [one for one in shown if one != who]
    left = gzip.decompress((home.archive("batches") / "march.csv.gz").read_bytes()).splitlines()
    assert left == [line for line in archived if who.encode() not in line]
    assert other in (home.rejected("batches") / "short.csv").read_text()
    assert not (home.rejected("batches") / "letter.parquet").exists()
    assert "it held a person who is forgotten" in lived_in.rejected("batches")["letter.parquet.reason.txt"]
    for table in ("batch_rows", "predictions", "outcomes", "contact_lists"):
        assert lived_in.query(f"SELECT count(*) FROM {table} WHERE {ID} = ?", who) == [(0,)]
        assert lived_in.query(f"SELECT count(*) > 0 FROM {table} WHERE {ID} = ?", other) == [(True,)]


def test_the_ledger_tells_that_somebody_was_forgotten_and_not_who(lived_in: Workshop):
    who = contacts(lived_in)[-1]
    assert ask(lived_in, who, "--yes").exit_code == 0
    ((reason, evidence),) = lived_in.query(
        "SELECT reason, evidence FROM decisions WHERE kind = 'forget' ORDER BY decided_at DESC LIMIT 1"
    )
    assert "a person was erased on request" in reason
    assert json.loads(evidence)["rows"] == {
        "batch_rows": 1,
        "contact_lists": 1,
        "outcomes": 1,
        "predictions": 1,
    }
    assert who not in evidence


def test_every_row_that_came_in_is_accounted_for_afterwards(lived_in: Workshop):
    assert ask(lived_in, contacts(lived_in)[3], "--yes").exit_code == 0
    with lived_in.warehouse.connect() as con:
        for kind in ("batches", "outcomes", "field_studies"):
            (archived,) = lived_in.home.archive(kind).iterdir()
            in_file = rows_in(archived, load_study(), kind)
            told = account(con, load_study(), kind, file_id(archived.name), in_file)
            assert told.balanced, told.in_words()
            assert told.erased or kind == "field_studies"


def test_everything_else_goes_on(lived_in: Workshop):
    home = ["--home", str(lived_in.home.root)]
    who = contacts(lived_in)[5]
    assert ask(lived_in, who, "--yes").exit_code == 0
    assert list_differences(lived_in.warehouse, lived_in.landing, "march") == (set(), set())
    status = CliRunner().invoke(main, ["status", "--json", *home])
    assert [one["batch"] for one in json.loads(status.output)["batches"]] == ["march"]
    assert CliRunner().invoke(main, ["report", "march", *home]).exit_code == 0
    assert f"{who} is in no batch" in CliRunner().invoke(main, ["why", who, *home]).output
    again = lived_in.runner.run("score_batch", partition_key="march")
    assert again.success, again.message
    assert who not in contacts(lived_in)
    assert list_differences(lived_in.warehouse, lived_in.landing, "march") == (set(), set())


def test_the_reference_of_a_model_loses_one_row_of_a_person_held_out(lived_in: Workshop):
    version = lived_in.registry.version(1)
    before = len(lived_in.registry.reference(version))
    result = ask(lived_in, held_out(lived_in), "--yes")
    assert "reference rows of version 1" in result.output
    assert len(lived_in.registry.reference(version)) == before - 1


def test_models_that_learned_from_a_person_are_named_and_a_retraining_does_without(lived_in: Workshop):
    ((who,),) = lived_in.query(f"SELECT min({ID}) FROM field_study_rows WHERE part = 'train'")
    result = ask(lived_in, who, "--yes")
    assert "version 1 was trained on data that included this person" in result.output
    event = lived_in.instance.get_latest_materialization_event(dg.AssetKey("field_studies"))
    assert event is not None
    told = event.asset_materialization
    ((data,),) = lived_in.query("SELECT data_hash FROM ingested_files WHERE kind = 'field_studies'")
    assert told is not None
    assert told.metadata["data_hash"].value == data
    assert lived_in.runner.run_until_idle() == []


@pytest.mark.parametrize("moment", ["first file", "references", "ledger", "commit", "compaction", "proof"])
def test_killed_at_any_moment_and_run_again_it_ends_the_same(lived_in: Workshop, moment: str, monkeypatch):
    who = held_out(lived_in)
    reference = len(lived_in.registry.reference(lived_in.registry.version(1)))
    contacts_file = lived_in.home.contact_lists / "march.csv"
    contacts_file.write_text(contacts_file.read_text() + f"{who},0.5\n")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    places = {
        "first file": (Path, "replace"),
        "references": (forgetting, "reference_without"),
        "ledger": (forgetting, "record_decision"),
        "commit": (forgetting, "erase_rows"),
        "compaction": (forgetting, "compact"),
        "proof": (forgetting, "verify_erasure"),
    }
    with monkeypatch.context() as patched:
        patched.setattr(*places[moment], killed)
        assert ask(lived_in, who, "--yes").exit_code == 1
    result = ask(lived_in, who, "--yes")
    assert result.exit_code == 0, result.output
    assert ": 0 traces." in result.output
    assert len(lived_in.registry.reference(lived_in.registry.version(1))) == reference - 1
    assert list(lived_in.home.root.rglob(".*.part")) == []


def test_an_id_that_nobody_has_changes_nothing(lived_in: Workshop):
    before = lived_in.decisions()
    result = ask(lived_in, "nobody-at-all")
    assert result.exit_code == 0
    assert "This id is unknown in this home" in result.output
    assert ": 0 traces." in result.output
    assert lived_in.decisions() == before


def test_an_id_that_is_written_otherwise_erases_nobody_and_shows_both_spellings(lived_in: Workshop):
    with lived_in.warehouse.read() as con:
        known = load_study().id
        ((who,),) = con.execute(f'SELECT min("{known}") FROM batch_rows').fetchall()
    result = ask(lived_in, f"0{who}" if who.isdigit() else who.upper())
    assert result.exit_code == 0
    assert "This id is unknown in this home" in result.output
    assert who in result.output
    assert "Only exact ids are erased" in result.output


@pytest.mark.parametrize("size", [1, 20, 50, 64, 1000])
@pytest.mark.parametrize("before", [0, 1, 30, 62, 63, 100])
def test_a_word_in_bytes_is_found_wherever_a_window_ends(tmp_path: Path, monkeypatch, size: int, before: int):
    monkeypatch.setattr(byte_search, "CHUNK", size)
    person = Person("person-12", ID)
    path = tmp_path / "notes.bin"
    for text, there in ((b"person-12", True), (b"person-123", False), (b"a-person-12", False)):
        for behind in (b"", b" ", b" " * 90):
            path.write_bytes(b" " * before + text + behind)
            assert byte_search.file_mentions(path, person) is there, (text, behind)


def test_a_trace_that_cannot_be_erased_is_named_and_the_exit_code_says_so(lived_in: Workshop):
    who = contacts(lived_in)[7]
    (lived_in.home.root / "notes.bin").write_bytes(b"\x00\x01" + who.encode() + b"\x00")
    try:
        result = ask(lived_in, who, "--yes")
    finally:
        (lived_in.home.root / "notes.bin").unlink()
    assert result.exit_code == 1
    assert "notes.bin: its bytes" in result.output


def test_an_id_in_dagsters_history_is_erased_and_the_history_can_still_be_read(lived_in: Workshop):
    who = contacts(lived_in)[9]
    words = f"row 7 of {who} was odd"
    lived_in.instance.report_runless_asset_event(dg.AssetObservation("overview", metadata={"found": words}))
    result = ask(lived_in, who, "--yes")
    assert result.exit_code == 0, result.output
    assert "dagster/" in result.output
    (seen,) = lived_in.instance.fetch_observations(dg.AssetKey("overview"), limit=1).records
    assert seen.asset_observation is not None
    assert seen.asset_observation.metadata["found"].value == "row 7 of [erased] was odd"


def test_while_another_command_works_on_the_home_nobody_is_forgotten(lived_in: Workshop):
    who = contacts(lived_in)[0]
    with hold_home(lived_in.home, "run-pending"):
        result = ask(lived_in, who, "--yes")
    assert result.exit_code == 1
    assert "`poleng run-pending`" in result.output
    assert who in contacts(lived_in)


def test_a_file_that_is_still_being_taken_in_is_waited_for(lived_in: Workshop):
    who = contacts(lived_in)[0]
    ((name, kept),) = lived_in.query("SELECT name, content_hash FROM ingested_files WHERE kind = 'outcomes'")
    people = pd.DataFrame({ID: [who], TARGET: [1]})
    waiting = lived_in.home.landing("outcomes") / "april.csv"
    people.to_csv(waiting, index=False)
    hashed = "UPDATE ingested_files SET content_hash = ? WHERE name = ? AND kind = 'outcomes'"
    lived_in.query(hashed, forgetting.content_hash(waiting), name)
    result = ask(lived_in, who, "--yes")
    lived_in.query(hashed, kept, name)
    assert result.exit_code == 1
    assert "run `poleng run-pending` first" in result.output
    assert who in contacts(lived_in)
    waiting.unlink()


def test_a_file_that_waits_in_landing_comes_in_without_the_person(lived_in: Workshop):
    who, other = contacts(lived_in)[:2]
    waiting = lived_in.home.landing("outcomes") / "may.csv"
    pd.DataFrame({ID: [who, other], TARGET: [1, 0]}).to_csv(waiting, index=False)
    assert ask(lived_in, who, "--yes").exit_code == 0
    assert waiting.read_text() == f"{ID},{TARGET}\n{other},0\n"
    waiting.unlink()


# Retention; these come last, because they empty the home


def apply(workshop: Workshop, days: int, monkeypatch: pytest.MonkeyPatch, **config: Any) -> RunReport:
    with monkeypatch.context() as patched:
        patched.setattr(retention, "now", lambda: now() + timedelta(days=days))
        settings = {"ops": {"erase_what_expired": {"config": {"trust_clock": True, **config}}}}
        return workshop.runner.run(retention.RETENTION_JOB, run_config=settings)


def test_a_clock_that_jumps_ahead_fails_the_run_and_erases_nothing(lived_in: Workshop, monkeypatch):
    before = lived_in.query("SELECT count(*) FROM batch_rows")
    report = apply(lived_in, 4_000, monkeypatch, trust_clock=False)
    assert not report.success
    assert "correct the clock if it is wrong, then run `poleng clock --trust`" in report.message
    assert lived_in.query("SELECT count(*) FROM batch_rows") == before


def test_a_dry_run_of_the_job_changes_nothing(lived_in: Workshop, monkeypatch):
    before = lived_in.query("SELECT count(*) FROM batch_rows")
    assert apply(lived_in, 4_000, monkeypatch, dry_run=True).success
    assert lived_in.query("SELECT count(*) FROM batch_rows") == before
    assert "retention" not in lived_in.decisions()


def test_when_answers_and_lists_are_gone_the_rest_still_works(lived_in: Workshop, monkeypatch):
    people = lived_in.synthetic("batches", "clean_batch_1")[ID]
    report = apply(lived_in, 4_000, monkeypatch)
    assert report.success, report.message
    assert lived_in.query("SELECT count(*) FROM batch_rows") == [(0,)]
    assert lived_in.query("SELECT count(*) > 0 FROM field_study_rows") == [(True,)]
    assert list(lived_in.home.contact_lists.iterdir()) == []
    assert list(lived_in.home.archive("batches").iterdir()) == []
    assert "retention" in lived_in.decisions()
    home = ["--home", str(lived_in.home.root)]
    for words in (["status"], ["decisions"], ["report", "march"], ["why", "nobody-at-all"]):
        result = CliRunner().invoke(main, [*words, *home])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    # The clock is back in its own time: nothing is taken in until a person says that it is right.
    trusted = CliRunner().invoke(main, ["clock", "--trust", *home])
    assert trusted.exit_code == 0, trusted.output
    late = lived_in.drop_frame("outcomes", "late", pd.DataFrame({ID: people, TARGET: 1}))
    assert [one.success for one in late] == [True], late
    taken_in_again = lived_in.runner.run("process_batch", partition_key="march")
    assert "There is no file" in taken_in_again.message
    assert apply(lived_in, 1, monkeypatch).success
