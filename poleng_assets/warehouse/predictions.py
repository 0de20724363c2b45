"""Table ``predictions``, with its view ``current_predictions``: every score that a version gave to anybody.

What belongs here reads and writes scores, alone or beside the answers and outcomes of the people scored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.study.schema import Study
from poleng_assets.warehouse.audit_sample import in_audit
from poleng_assets.warehouse.writes import limited_memory, monotonic_timestamp

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def people_between(con: Connection, study: Study, batch: str, first: int, end: int) -> pa.Table:
    """Return id and features of the people whose row numbers are at least ``first`` and below ``end``."""
    features = ", ".join(f'"{name}"' for name in study.feature_names)
    return con.sql(
        f"""SELECT "{study.id}", {features} FROM batch_rows
        WHERE batch = ? AND row_number >= ? AND row_number < ?""",  # noqa: S608
        params=[batch, first, end],
    ).to_arrow_table()


def people_sample(con: Connection, study: Study, batch: str, rows: int) -> tuple[pa.Table, int]:
    """Return id and features of at most so many people of a batch, always the same ones; and its size."""
    columns = ", ".join(f'"{name}"' for name in (study.id, *study.feature_names))
    sample = con.sql(
        f"""SELECT {columns} FROM batch_rows WHERE batch = ? ORDER BY md5("{study.id}") LIMIT {rows:d}""",  # noqa: S608
        params=[batch],
    ).to_arrow_table()
    ((people,),) = con.execute("SELECT count(*) FROM batch_rows WHERE batch = ?", [batch]).fetchall()
    return sample, int(people)


def last_row(con: Connection, batch: str) -> int:
    """Return the greatest row number of a batch, -1 when no rows of it are kept."""
    ((number,),) = con.execute("SELECT max(row_number) FROM batch_rows WHERE batch = ?", [batch]).fetchall()
    return -1 if number is None else int(number)


def people_state(con: Connection, batch: str) -> tuple[int, int | None]:
    """Return what changes when people of a batch are erased, or released from quarantine."""
    ((rows, digest),) = con.execute(
        "SELECT count(*), bit_xor(hash(b)) FROM batch_rows b WHERE batch = ?", [batch]
    ).fetchall()
    return rows, digest


def scores_state(con: Connection, batch: str) -> tuple[object, ...]:
    """Return what changes when people of a batch change (:func:`people_state`), or their scores do."""
    ((rows, digest),) = con.execute(
        "SELECT count(*), bit_xor(hash(p)) FROM predictions p WHERE batch = ?", [batch]
    ).fetchall()
    return *people_state(con, batch), rows, digest


def outcomes_state(con: Connection, study: Study, batch: str) -> tuple[object, ...]:
    """Return what changes when people, scores or known outcomes of a batch change, or requests for them."""
    scored = f'SELECT "{study.id}" FROM predictions WHERE batch = $batch'  # noqa: S608
    outcomes = con.execute(
        f"""SELECT count(*), bit_xor(hash(o)) FROM outcomes o WHERE o."{study.id}" IN ({scored})""",  # noqa: S608
        {"batch": batch},
    ).fetchall()
    requests = con.execute(
        f"""SELECT count(*), bit_xor(hash(r)) FROM field_study_requests r
        WHERE r."{study.id}" IN ({scored})""",  # noqa: S608
        {"batch": batch},
    ).fetchall()
    return *scores_state(con, batch), *outcomes[0], *requests[0]


def replace_predictions(
    con: Connection,
    study: Study,
    batch: str,
    version: int,
    scores: Iterable[pa.Table],
    capacity: int | None = None,
) -> None:
    """Put scores in the place of earlier ones of the same batch and version; call it in a transaction.

    Who is in the audit sample (``warehouse/audit_sample.py``) is marked, contacts and others alike.
    Earlier versions' scores stay; the newest scoring is current.

    Args:
        scores: ``id``, ``score`` and ``contact`` of everybody, in one table or several.
        capacity: contact only so many people, those with the highest scores; None keeps ``contact``.
    """
    scored_at = monotonic_timestamp(con, "predictions", "scored_at")
    con.execute("DELETE FROM predictions WHERE batch = ? AND model_version = ?", [batch, version])
    with limited_memory(con, len(study.features)):
        for incoming in scores:  # noqa: B007 - DuckDB finds it by its name, see warehouse/writes.py
            con.execute(
                f"""INSERT INTO predictions BY NAME SELECT ? AS batch, id AS "{study.id}",
                ?::INTEGER AS model_version, score, contact, ?::TIMESTAMPTZ AS scored_at,
                {in_audit(study, "id")} AS audit FROM incoming""",  # noqa: S608
                [batch, version, scored_at],
            )
    if capacity is not None:
        _contact_the_first(con, study, batch, version, capacity)


def _contact_the_first(con: Connection, study: Study, batch: str, version: int, capacity: int) -> None:
    """Contact the people with the highest scores of a batch, as many as there are places."""
    con.execute(
        f"""UPDATE predictions SET contact = "{study.id}" IN (
            SELECT "{study.id}" FROM predictions WHERE batch = $batch AND model_version = $version
            ORDER BY score DESC, "{study.id}" LIMIT $capacity)
        WHERE batch = $batch AND model_version = $version""",  # noqa: S608
        {"batch": batch, "version": version, "capacity": capacity},
    )


def count_scored(con: Connection, batch: str, version: int) -> tuple[int, int]:
    """Return how many people of a batch a version scored, and how many of them it contacts."""
    ((rows, contacts),) = con.execute(
        "SELECT count(*), count(*) FILTER (contact) FROM predictions WHERE batch = ? AND model_version = ?",
        [batch, version],
    ).fetchall()
    return rows, contacts


def count_scored_without(con: Connection, study: Study, batch: str, version: int, ids: Iterable[str]) -> int:
    """Return how many people of a batch a version scored, some people not counted."""
    ((people,),) = con.execute(
        f"""SELECT count(*) FROM predictions WHERE batch = $batch AND model_version = $version
        AND NOT list_contains($without::VARCHAR[], "{study.id}")""",  # noqa: S608
        {"batch": batch, "version": version, "without": list(ids)},
    ).fetchall()
    return int(people)


def count_unscored(con: Connection, study: Study, batch: str) -> int:
    """Return how many respondents of a batch have no current score."""
    ((people,),) = con.execute(
        f"""SELECT count(*) FROM batch_rows b WHERE b.batch = $batch AND NOT EXISTS (
            SELECT 1 FROM current_predictions p
            WHERE p.batch = $batch AND p."{study.id}" = b."{study.id}")""",  # noqa: S608
        {"batch": batch},
    ).fetchall()
    return int(people)


def scoring_version(con: Connection, batch: str) -> int | None:
    """Return the version of the batch's current scores, None when it has none."""
    ((version,),) = con.execute(
        "SELECT any_value(model_version) FROM current_predictions WHERE batch = ?", [batch]
    ).fetchall()
    return version


def current_versions(con: Connection) -> dict[str, int]:
    """Return the version of the current scores of every batch."""
    return dict(con.execute("SELECT DISTINCT batch, model_version FROM current_predictions").fetchall())


def batches_scored_by(con: Connection, version: int) -> list[str]:
    """Return the batches whose current scores come from a version, and whose rows are still kept."""
    rows = con.execute(
        """SELECT DISTINCT batch FROM current_predictions SEMI JOIN batch_rows USING (batch)
        WHERE model_version = ? ORDER BY 1""",
        [version],
    ).fetchall()
    return [batch for (batch,) in rows]


def score_histogram(con: Connection, batch: str) -> pd.DataFrame:
    """Return how many current scores of a batch are in each tenth: ``score from``, ``respondents``."""
    return con.execute(
        """SELECT floor(score * 10) / 10 AS "score from", count(*) AS respondents
        FROM current_predictions WHERE batch = ? GROUP BY 1 ORDER BY 1""",
        [batch],
    ).df()


def scored_people(con: Connection, study: Study, batch: str) -> pd.DataFrame:
    """Return id, ``score``, ``contact`` and features of everybody with a current score, as in the file."""
    columns = ", ".join(f'b."{name}"' for name in study.feature_names)
    return con.execute(
        f"""SELECT p."{study.id}", p.score, p.contact, {columns}
        FROM current_predictions p JOIN batch_rows b USING (batch, "{study.id}")
        WHERE p.batch = ? ORDER BY b.row_number""",  # noqa: S608
        [batch],
    ).df()


def scored_sample(con: Connection, study: Study, batch: str, version: int, rows: int) -> pd.DataFrame:
    """Return features, ``score`` and ``contact`` (0/1) of at most so many people: always the same ones."""
    columns = ", ".join(f'b."{name}"' for name in study.feature_names)
    # Drawn by their ids: the answers of those who are not chosen need not be held beside each other.
    return con.execute(
        f"""WITH chosen AS (
            SELECT "{study.id}", score, contact::INTEGER AS contact, md5("{study.id}") AS draw
            FROM predictions WHERE batch = $batch AND model_version = $version ORDER BY draw LIMIT $rows)
        SELECT {columns}, c.score, c.contact
        FROM chosen c JOIN batch_rows b ON b.batch = $batch AND b."{study.id}" = c."{study.id}"
        ORDER BY c.draw""",  # noqa: S608
        {"batch": batch, "version": version, "rows": rows},
    ).df()


def _known_outcomes(study: Study) -> str:
    """Return the SQL of ``known``: the newest outcome of each person, and whether outcomes disagree."""
    target = study.target.name
    return f"""WITH known AS (
            SELECT o."{study.id}" AS _person, o."{target}"::DOUBLE AS _target,
                min(o."{target}") OVER same <> max(o."{target}") OVER same AS _disagree
            FROM outcomes o JOIN ingested_files f ON f.kind = 'outcomes' AND f.name = o.source
            WINDOW same AS (PARTITION BY o."{study.id}")
            QUALIFY row_number() OVER (
                PARTITION BY o."{study.id}" ORDER BY f.ingested_at DESC, o.source DESC) = 1
        )"""  # noqa: S608


class GroupCount(NamedTuple):
    """People of a batch who gave one answer, as a version scored them.

    Attributes:
        code: the answer, None when it is missing.
        known: those whose outcome is known.
        positive: of these, those of the positive class.
        positive_contacted: of these, contacted ones.
    """

    code: int | None
    rows: int
    contacted: int
    known: int
    positive: int
    positive_contacted: int


def count_groups(con: Connection, study: Study, batch: str, version: int, question: str) -> list[GroupCount]:
    """Count contacts and outcomes for each answer to a question, the most frequent answer first."""
    rows = con.execute(
        f"""{_known_outcomes(study)}
        SELECT b."{question}", count(*), count(*) FILTER (p.contact), count(_target),
            count(*) FILTER (_target = 1), count(*) FILTER (_target = 1 AND p.contact)
        FROM predictions p JOIN batch_rows b ON b.batch = p.batch AND b."{study.id}" = p."{study.id}"
        LEFT JOIN known ON _person = p."{study.id}"
        WHERE p.batch = ? AND p.model_version = ? GROUP BY 1 ORDER BY 2 DESC, 1""",  # noqa: S608
        [batch, version],
    ).fetchall()
    return [GroupCount(*row) for row in rows]


def outcomes_of_scored(con: Connection, study: Study, batch: str, version: int) -> pd.DataFrame:
    """Return everybody whom a version scored in a batch, with the newest outcome.

    Returns:
        One row for each person, by id: ``score``, ``contact``, ``within`` (the answer that people are
        compared within; NULL without such a question), ``at_random`` (drawn for the audit sample or a
        request), ``target`` (NaN when unknown), ``disagree`` (whether outcomes disagree).
    """
    within = study.policies.overseer.compare_within
    column = f'b."{within}"' if within else "NULL"
    return con.execute(
        f"""{_known_outcomes(study)}
        SELECT p.score, p.contact, {column} AS within, coalesce(p.audit, false)
                OR p."{study.id}" IN (SELECT "{study.id}" FROM field_study_requests) AS at_random,
            known._target AS target, coalesce(known._disagree, false) AS disagree
        FROM predictions p LEFT JOIN known ON known._person = p."{study.id}"
        LEFT JOIN batch_rows b ON b.batch = p.batch AND b."{study.id}" = p."{study.id}"
        WHERE p.batch = $batch AND p.model_version = $version ORDER BY p."{study.id}" """,  # noqa: S608
        {"batch": batch, "version": version},
    ).df()


def scores_of_person(con: Connection, study: Study, subject: str) -> list[dict[str, Any]]:
    """Return every score of a person with what came of it, oldest first; empty when the id is unknown.

    Returns:
        ``batch``, ``model_version``, ``score``, ``contact``, ``scored_at``; ``current`` (whether it is of the
        newest scoring); ``listed_at``, ``remark``, ``reasons`` and ``list_number`` of the newest list by this
        version that names the person, and ``list_stands`` (whether it is the batch's newest); ``verdict``;
        ``promoted_at`` and ``promoted_because`` of the version; ``may_be_listed`` (contact or audit).
    """
    result = con.execute(
        f"""SELECT p.batch, p.model_version, p.score, p.contact, p.scored_at,
            p.scored_at = (SELECT max(scored_at) FROM predictions n WHERE n.batch = p.batch) AS current,
            l.listed_at, nullif(l.remark, '') AS remark, nullif(l.reasons, '') AS reasons,
            r.verdict, d.decided_at AS promoted_at, d.reason AS promoted_because, l.list_number,
            l.list_number IS NOT DISTINCT FROM (
                SELECT max(list_number) FROM issued_lists i WHERE i.batch = p.batch) AS list_stands,
            p.contact OR p.audit AS may_be_listed
        FROM predictions p
        LEFT JOIN ( -- a version may have made several lists of a batch
            SELECT batch, model_version, min(created_at) AS listed_at, arg_max(remark, list_number) AS remark,
                arg_max(reasons, list_number) AS reasons, max(list_number) AS list_number
            FROM contact_lists WHERE "{study.id}" = $subject GROUP BY ALL
        ) l ON l.batch = p.batch AND l.model_version = p.model_version
        LEFT JOIN drift_reports r ON r.batch = p.batch AND r.model_version = p.model_version
        LEFT JOIN decisions d ON d.kind = 'promote' AND d.challenger_version = p.model_version
        WHERE p."{study.id}" = $subject ORDER BY p.scored_at""",  # noqa: S608
        {"subject": subject},
    )
    names = [name for name, *_ in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
