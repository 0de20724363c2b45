"""Parts of field studies (column ``part``): who is learned from, held out, or set aside.

Set aside are rows neither learned from nor judged by, because either would let the other side look over.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.study.schema import Study

# Where the draw starts within its first step. Half a step in, the share of a study is rounded to the
# nearest whole person, not always down.
_START = 0.5


def draw_holdout(con: Connection, study: Study, name: str) -> None:
    """Draw the holdout of a field study: a systematic sample of its rows, stratified.

    The rows are put in order: by the target, then by the feature that effects vary by (when the study
    names one), then by a hash of the id. In that order every so-many-th row is held out. So each class
    of the target, and each value of the feature within a class, gives its share to within one person;
    who is taken within such a stratum is left to the hash. Were each person drawn independently, the
    two parts would differ by chance, and a model be judged by people unlike those it learned from.

    The outcome depends on the rows of this study, not on their order and not on other studies. Because
    it depends on all of them, the same id may be drawn otherwise in another study: for ids and answers
    that stand in an earlier one, :func:`keep_duplicates_together` has the last word. To be called inside
    the transaction that inserted the rows, as training rows (or set aside already, see
    ``core/ingestion/duplicates.py``), once those that are not kept are gone.

    Args:
        name: of the field study that was inserted last.
    """
    training = study.policies.training
    strata = [study.target.name, *([training.varies_by] if training.varies_by else [])]
    # As text, as which releases before kept some of them: the same file gives the same draw for ever.
    listed = ", ".join(f'"{column}"::VARCHAR NULLS LAST' for column in strata)
    con.execute(
        f"""UPDATE field_study_rows SET part = 'holdout' WHERE field_study = $name AND row_number IN (
            SELECT _row FROM (
                SELECT row_number AS _row,
                    row_number() OVER (ORDER BY {listed}, sha256('holdout:' || "{study.id}")) AS _place
                FROM field_study_rows WHERE field_study = $name AND part <> 'set_aside'
            )
            WHERE floor(_place * $share + $start) > floor((_place - 1) * $share + $start)
        )""",  # noqa: S608
        {"name": name, "share": training.holdout_share, "start": _START},
    )


def on_both_sides(con: Connection, study: Study) -> tuple[int, int]:
    """Count who is learned from and held out as well: ids, and different sets of answers."""
    counts = []
    for columns in ([study.id], study.feature_names):
        ((number,),) = con.execute(
            f"""SELECT count(*) FROM (
                SELECT {_listed(columns)} FROM field_study_rows WHERE part = 'train'
                INTERSECT SELECT {_listed(columns)} FROM field_study_rows WHERE part = 'holdout')"""  # noqa: S608
        ).fetchall()
        counts.append(number)
    return counts[0], counts[1]


def keep_duplicates_together(con: Connection, study: Study, name: str) -> None:
    """Settle the parts of a field study so that no id and no set of answers is on both sides.

    The study's rows stand in the warehouse with the parts of :func:`draw_holdout`; rows of other field
    studies are frozen and stay as they are. Answers are the same when all features are, whatever the
    target; two missing answers are the same. Then

    - rows with the answers of a frozen row follow it;
    - other rows with the same answers follow the one among them whose id is frozen (there it has the
      part that it was given, whatever was drawn for it now), or else the part drawn for the one whose
      id sorts first (were they held out as soon as one of them is drawn, nearly every set of answers
      that many people share would be);
    - a row whose id is frozen on another side than the one its answers ask for is set aside, and so is
      one whose frozen likes are on both sides already.

    The outcome depends on the parts drawn, on ids and on answers, not on the order of rows. Rows that
    were set aside earlier ask for nothing. To be called inside the transaction that inserted the rows.

    Args:
        name: of the field study that was inserted last.
    """
    answers = _listed(study.feature_names)
    # Names with a leading underscore cannot be those of a survey column.
    con.execute(
        f"""UPDATE field_study_rows SET part = settled._part FROM (
            WITH _rows AS (
                SELECT *, field_study <> $name AND part <> 'set_aside' AS _frozen FROM field_study_rows
                WHERE field_study <> $name OR part <> 'set_aside'
            ), _asked AS (
                SELECT *,
                    min(part) FILTER (_frozen) OVER _same_id AS _by_id,
                    max(part) FILTER (_frozen) OVER _same_id AS _by_id_too,
                    min(part) FILTER (_frozen) OVER _same_answers AS _by_answers,
                    max(part) FILTER (_frozen) OVER _same_answers AS _by_answers_too
                FROM _rows
                WINDOW _same_id AS (PARTITION BY "{study.id}"), _same_answers AS (PARTITION BY {answers})
            ), _together AS (
                SELECT *, coalesce(_by_answers, first_value(coalesce(_by_id, part)) OVER (
                    PARTITION BY {answers} ORDER BY _by_id IS NULL, "{study.id}")) AS _common
                FROM _asked WHERE field_study = $name
            )
            SELECT row_number AS _row, CASE
                WHEN _by_id <> _common OR _by_id <> _by_id_too OR _by_answers <> _by_answers_too
                THEN 'set_aside' ELSE _common END AS _part
            FROM _together
        ) settled
        WHERE field_study = $name AND row_number = settled._row AND part <> settled._part""",  # noqa: S608
        {"name": name},
    )


def count_parts(con: Connection, study: Study) -> dict[tuple[int, str], int]:
    """Return how many people of all field studies are of each class and part."""
    return {
        (code, part): people
        for code, part, people in con.execute(
            f'SELECT "{study.target.name}", part, count(*) FROM field_study_rows GROUP BY ALL'  # noqa: S608
        ).fetchall()
    }


def count_set_aside(con: Connection, name: str) -> int:
    """Return how many rows of a field study are set aside."""
    ((rows,),) = con.execute(
        "SELECT count(*) FROM field_study_rows WHERE field_study = ? AND part = 'set_aside'", [name]
    ).fetchall()
    return int(rows)


def count_held_out(con: Connection, name: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return for each combination of values: the values, people held out, and people in both parts."""
    return con.execute(
        f"""SELECT {_listed(columns)}, count(*) FILTER (part = 'holdout'), count(*) FROM field_study_rows
        WHERE field_study = ? AND part <> 'set_aside' GROUP BY {_listed(columns)} ORDER BY ALL""",  # noqa: S608
        [name],
    ).fetchall()


def free_groups(con: Connection, study: Study, name: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the people of the same answers whom no earlier field study binds, in a settled order.

    Returns:
        For each group and combination of values of the columns: the draw of its first person, the number of
        its first row, its part, the values, and how many people.
    """
    answers = _listed(study.feature_names)
    return con.execute(
        f"""WITH _rows AS (
            SELECT *, field_study <> $name AND part <> 'set_aside' AS _frozen FROM field_study_rows
        ), _asked AS (
            SELECT *, coalesce(bool_or(_frozen) OVER (PARTITION BY "{study.id}"), false) AS _known
            FROM _rows
        ), _grouped AS (
            SELECT *, bool_or(_known OR _frozen) OVER _alike AS _bound,
                min(row_number) FILTER (field_study = $name) OVER _alike AS _group,
                min(sha256('holdout:' || "{study.id}")) FILTER (field_study = $name) OVER _alike AS _draw
            FROM _asked WINDOW _alike AS (PARTITION BY {answers})
        )
        SELECT _draw, _group, part, {_listed(columns)}, count(*) FROM _grouped
        WHERE field_study = $name AND NOT _bound AND part <> 'set_aside'
        GROUP BY ALL ORDER BY ALL""",  # noqa: S608
        {"name": name},
    ).fetchall()


def move_groups(con: Connection, study: Study, name: str, groups: Mapping[str, Sequence[int]]) -> int:
    """Give people of the same answers another part; return how many rows changed.

    Args:
        groups: number of the first row of each group, by its new part.
    """
    ((rows,),) = con.execute(
        f"""UPDATE field_study_rows SET part = moved._part FROM (
            WITH _rows AS (
                SELECT row_number AS _row, part AS _now,
                    min(row_number) OVER (PARTITION BY {_listed(study.feature_names)}) AS _first
                FROM field_study_rows WHERE field_study = $name
            ), _moved AS (SELECT unnest($groups::BIGINT[]) AS _first, unnest($parts::VARCHAR[]) AS _part)
            SELECT _row, _part FROM _rows JOIN _moved USING (_first) WHERE _now <> 'set_aside'
        ) moved WHERE field_study = $name AND row_number = moved._row""",  # noqa: S608
        {
            "name": name,
            "groups": [first for firsts in groups.values() for first in firsts],
            "parts": [part for part, firsts in groups.items() for _ in firsts],
        },
    ).fetchall()
    return int(rows)


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)
