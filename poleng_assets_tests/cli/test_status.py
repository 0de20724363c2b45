"""``poleng status`` of a home in which little has happened."""

from __future__ import annotations

from click.testing import CliRunner

from poleng_assets.cli.main import main
from poleng_assets.storage.home import Home


def said_of(home: Home) -> str:
    answer = CliRunner().invoke(main, ["status", "--home", str(home.root)])
    assert answer.exit_code == 0, answer.output
    return " ".join(answer.output.split())


def test_a_home_without_a_champion_says_where_a_field_study_goes(home: Home):
    said = said_of(home)
    assert "Champion: none yet" in said
    # A terminal breaks long paths wherever its line ends.
    assert str(home.landing("field_studies")).replace(" ", "") in said.replace(" ", "")
    assert "`poleng run-pending`" in said


def test_a_field_study_that_waits_is_named_with_what_takes_it_in(home: Home):
    (home.landing("field_studies") / "spring.csv").write_text("id\n", encoding="utf-8")
    said = said_of(home)
    assert "`poleng run-pending` ingests the pending files and trains the first one" in said
    assert "Pending in landing/field_studies: spring.csv" in said
