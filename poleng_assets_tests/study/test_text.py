"""What a study file says is what its questionnaire says: codes, labels and names as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from poleng_assets.study.loading import STUDIES, load_study
from poleng_assets.study.schema import RESERVED_COLUMNS, Study, StudyError
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.schema import create_tables

SHIPPED = (STUDIES / "political_engagement.yaml").read_text(encoding="utf-8")
SEX = '      1: "Male"\n      2: "Female"'


def with_sex(*lines: str) -> str:
    """Return the shipped study with other codes for sex."""
    assert SEX in SHIPPED
    return SHIPPED.replace(SEX, "\n".join(f"      {line}" for line in lines))


def read(folder: Path, text: str) -> Study:
    path = folder / "written.yaml"
    path.write_text(text, encoding="utf-8")
    return load_study(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(StudyError) as caught:
        read(folder, text)
    return str(caught.value)


def line_of(text: str, fragment: str) -> int:
    return text[: text.index(fragment)].count("\n") + 1


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("032", 32), ("008", 8), ("010", 10), ("0777", 777), ('"032"', 32), ("'7'", 7),
        ("+3", 3), ("-1", -1), ("-032", -32), ("3.0", 3), ("3.", 3), ("000", 0), ("2147483647", 2**31 - 1),
    ],
)  # fmt: skip
def test_a_code_is_the_decimal_number_that_is_written(tmp_path: Path, written: str, code: int):
    study = read(tmp_path, with_sex(f"{written}: this one", "99: another"))
    assert study.feature("sex").codes == {code: "this one", 99: "another"}
    assert study.feature("sex").label(written.strip("\"'")) == "this one"


@pytest.mark.parametrize(
    "written",
    ["0o32", "0x1A", "0b11", "1_000", "1:30", "1e3", "3.5", "1,000", "yes", "on", "null", "~", "true",
     "2024-01-01", "2147483648", ".inf", "\u0661", "''"],
)  # fmt: skip
def test_what_is_no_decimal_number_is_refused_as_a_code_with_its_line(tmp_path: Path, written: str):
    text = with_sex(f"{written}: this one", "99: another")
    said = refusal(tmp_path, text)
    assert f"line {line_of(text, written + ': this one')}: features." in said
    assert "not a valid integer" in said


@pytest.mark.parametrize(
    ("one", "other"),
    [("32", "032"), ("32", '"32"'), ("'32'", "032"), ("8", "8.0"), ("+8", "08"), ("0", "-0"), ("8", "' 8 '")],
)
def test_one_code_in_two_spellings_is_refused_with_both_lines(tmp_path: Path, one: str, other: str):
    text = with_sex(f"{one}: this one", "99: another", f"{other}: the same")
    said = refusal(tmp_path, text)
    first, second = line_of(text, ": this one"), line_of(text, ": the same")
    assert f"line {second}: " in said
    assert f"in line {first}" in said or (said.endswith("occurs twice") and one == other.strip('"'))


def test_codes_that_older_yaml_would_take_for_one_are_two(tmp_path: Path):
    assert read(tmp_path, with_sex("8: eight", "010: ten")).feature("sex").codes == {8: "eight", 10: "ten"}


@pytest.mark.parametrize(
    "word",
    ["No", "Yes", "on", "off", "OFF", "y", "n", "N", "2024-01-01", "12:30", "1_000", "0o7", "0x1F",
     "1,5", "=", "No answer", "5 or more", "1e", "nan", "inf"],
)  # fmt: skip
def test_a_word_is_a_word_wherever_it_stands(tmp_path: Path, word: str):
    text = with_sex(f"1: {word}", "2: another").replace("title: Sex", f"title: {word}")
    feature = read(tmp_path, text).feature("sex")
    assert feature.label("1") == word
    assert feature.title == word


@pytest.mark.parametrize("word", ["5", "05", "-1", "2.50", "1e3", ".5", "true", "False", "null", "~", ""])
def test_a_word_that_reads_as_something_else_is_to_be_quoted(tmp_path: Path, word: str):
    text = with_sex(f"1: {word}", "2: another")
    said = refusal(tmp_path, text)
    assert f"line {line_of(text, '2: another') - 1}: features." in said
    assert f"valid string: to use {word or 'nothing'} as text, put it in quotes" in said
    if word:
        quoted = with_sex(f'1: "{word}"', "2: another")
        assert read(tmp_path, quoted).feature("sex").label(1) == word


@pytest.mark.parametrize("name", ["no", "on", "y", "off", "yes", "n"])
def test_a_column_may_be_called_a_word_that_older_yaml_takes_for_a_truth_value(tmp_path: Path, name: str):
    text = SHIPPED.replace("- name: sex", f"- name: {name}").replace("[country, sex", f"[country, {name}")
    text = text.replace("protected: [sex", f"protected: [{name}").replace("sex,", f"{name},")
    assert name in read(tmp_path, text).feature_names


def test_numbers_of_policies_are_decimal_too(tmp_path: Path):
    text = SHIPPED.replace("rounds: 200", "rounds: 0200").replace("max_depth: 8", "max_depth: 08")
    training = read(tmp_path, text).policies.training
    assert (training.xgboost.rounds, training.xgboost.max_depth) == (200, 8)
    assert "policies.training.xgboost.rounds" in refusal(
        tmp_path, SHIPPED.replace("rounds: 200", "rounds: 0x20")
    )
    for endless in (".inf", ".nan", "'inf'", "'nan'"):
        text = SHIPPED.replace("min_log_loss_gain: 0.003", f"min_log_loss_gain: {endless}")
        assert "policies.promotion.min_log_loss_gain" in refusal(tmp_path, text)


def test_an_older_spelling_of_a_switch_is_understood(tmp_path: Path):
    text = SHIPPED.replace("domain_classifier: false", "domain_classifier: no")
    assert read(tmp_path, text).policies.overseer.domain_classifier is False


def test_mappings_that_are_merged_are_read(tmp_path: Path):
    text = SHIPPED.replace("quick: {", "quick: &quick {").replace(
        "full: {trials: 80", "full: {<<: *quick, trials: 80"
    )
    training = read(tmp_path, text).policies.training
    assert (training.full.trials, training.full.minutes) == (80, 90)
    text = text.replace("trials: 80, minutes: 90", "trials: 80")
    assert read(tmp_path, text).policies.training.full.minutes == training.quick.minutes


def test_what_stands_within_itself_is_refused_in_words(tmp_path: Path):
    assert "more: Extra inputs" in refusal(tmp_path, SHIPPED + "\nmore: &more\n  more: *more\n")
    assert "a key must be text" in refusal(tmp_path, "? [a, b]\n: c\n")


@pytest.mark.parametrize("words", ["\\e[31mRed", "a\\0b", "a\\u2028b", "a\\rb", "a\\x9bb"])
def test_a_label_cannot_hold_control_characters(tmp_path: Path, words: str):
    text = with_sex(f'1: "{words}"', "2: another")
    said = refusal(tmp_path, text)
    assert "contains a control character" in said
    assert said.isprintable()


# Names that the project needs


def test_every_column_that_stands_beside_an_id_or_an_answer_is_in_use(tmp_path: Path, study: Study):
    with Warehouse(tmp_path / "w.duckdb", study).connect() as con:
        create_tables(con, study)
        tables = con.execute(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
    own = {study.id, study.target.name, *study.feature_names}
    about_people = {table for table, column in tables if column in own}
    beside = {column for table, column in tables if table in about_people} - own
    assert {"batch", "part", "row_number", "score", "source"} <= beside
    in_frames = {"prediction", "unknown_answers"}
    assert beside | in_frames == RESERVED_COLUMNS


@pytest.mark.parametrize("name", sorted(RESERVED_COLUMNS))
def test_a_name_that_the_project_needs_is_refused_with_its_line(tmp_path: Path, name: str):
    for old, where in (
        ("- name: sex", "features."),
        ("  name: political_engagement", "target.name"),
        ("\nid: subject_id", "id"),
    ):
        assert old in SHIPPED
        text = SHIPPED.replace(old, f"{old.rpartition(' ')[0]} {name}")
        said = refusal(tmp_path, text)
        line = line_of(SHIPPED, old.lstrip("\n"))
        assert f"line {line}: {where}" in said
        assert f"{name} is a reserved column" in said


def test_every_name_in_use_is_named_at_once(tmp_path: Path):
    text = SHIPPED.replace("- name: sex", "- name: score").replace("- name: mode", "- name: batch")
    said = refusal(tmp_path, text).splitlines()
    assert sum("is a reserved column of the project" in line for line in said) == 2
