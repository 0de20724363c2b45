"""Table ``outcomes``: labels by file and person."""

from datetime import datetime
from typing import NamedTuple

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.study.schema import Study
from poleng_assets.warehouse.quarantine import LATER_ROW

# Scores are kept as long as answers at least: who was scored stood in a batch.
_IN_BATCHES = """_seen AS (
    SELECT {id} AS _person, batch FROM batch_rows WHERE {id} IN (
        SELECT {id} FROM outcomes WHERE source = $name)
    UNION SELECT {id}, batch FROM predictions WHERE {id} IN (
        SELECT {id} FROM outcomes WHERE source = $name))"""


def affected_batches(con: Connection, study: Study, source: str) -> list[tuple[str, int]]:
    """Return each batch and model version whose scores a file of outcomes speaks about."""
    return con.execute(
        f"""SELECT DISTINCT p.batch, p.model_version FROM predictions p
        JOIN outcomes o ON o."{study.id}" = p."{study.id}" WHERE o.source = ? ORDER BY ALL""",  # noqa: S608
        [source],
    ).fetchall()


def count_unknown_respondents(con: Connection, study: Study, source: str) -> int:
    """Return how many people of a file of outcomes are in no batch, or in none so far."""
    ((people,),) = con.execute(
        f"""SELECT count(*) FROM outcomes WHERE source = ?
        AND "{study.id}" NOT IN (SELECT "{study.id}" FROM batch_rows)""",  # noqa: S608
        [source],
    ).fetchall()
    return int(people)


def count_contradictory_respondents(con: Connection, study: Study, source: str) -> int:
    """Return about how many people of a file of outcomes another file says otherwise."""
    ((people,),) = con.execute(
        f"""SELECT count(*) FROM outcomes own WHERE own.source = $source AND EXISTS (
            SELECT 1 FROM outcomes other WHERE other."{study.id}" = own."{study.id}"
            AND other."{study.target.name}" <> own."{study.target.name}")""",  # noqa: S608
        {"source": source},
    ).fetchall()
    return int(people)


def count_contradicted_since(con: Connection, study: Study, source: str, moment: datetime) -> int:
    """Return of how many people of a file of outcomes files taken in after a moment say otherwise."""
    ((people,),) = con.execute(
        f"""SELECT count(*) FROM outcomes mine WHERE mine.source = $name AND EXISTS (
            SELECT 1 FROM outcomes newer
            JOIN ingested_files f ON f.kind = 'outcomes' AND f.name = newer.source
            WHERE newer."{study.id}" = mine."{study.id}" AND f.ingested_at > $when
            AND newer."{study.target.name}" <> mine."{study.target.name}")""",  # noqa: S608
        {"name": source, "when": moment},
    ).fetchall()
    return int(people)


def assign_batches(con: Connection, study: Study, source: str) -> None:
    """Set for each outcome of a file the batch in which its respondent stands, whatever the file is called.

    That is the batch which the file is named after when it has the respondent, else the newest one that
    has. An outcome that comes before every batch of its respondent keeps the name of its file. Nothing
    is measured by this column: outcomes meet scores by id alone
    (``core/monitoring/realised_performance.py``).
    """
    con.execute(
        f"""UPDATE outcomes SET batch = found.batch FROM (
            SELECT b."{study.id}" AS _person, b.batch FROM batch_rows b
            LEFT JOIN ingested_files f ON f.kind = 'batches' AND f.name = b.batch
            WHERE b."{study.id}" IN (SELECT "{study.id}" FROM outcomes WHERE source = $name)
            QUALIFY row_number() OVER (
                PARTITION BY b."{study.id}"
                ORDER BY b.batch = $name DESC, f.ingested_at DESC NULLS LAST, b.batch DESC) = 1
        ) found
        WHERE outcomes.source = $name AND outcomes."{study.id}" = found._person""",  # noqa: S608
        {"name": source},
    )


class MatchCounts(NamedTuple):
    """People of a file of outcomes: all, those in a batch, those in several batches."""

    people: int
    matched: int
    in_several_batches: int


def count_matches(con: Connection, study: Study, source: str) -> MatchCounts:
    """Count the people of a file of outcomes, and those who stand in batches."""
    id_ = f'"{study.id}"'
    ((people, matched, several),) = con.execute(
        f"""WITH {_IN_BATCHES.format(id=id_)}
        SELECT count(*), count(_batches), count(*) FILTER (_batches > 1)
        FROM outcomes o LEFT JOIN (SELECT _person, count(*) AS _batches FROM _seen GROUP BY _person) seen
            ON seen._person = o.{id_}
        WHERE source = $name""",  # noqa: S608
        {"name": source},
    ).fetchall()
    return MatchCounts(int(people), int(matched), int(several))


def batches_of(con: Connection, study: Study, source: str) -> list[str]:
    """Return the batches in which people of a file of outcomes stand, by name."""
    rows = con.execute(
        f"""WITH {_IN_BATCHES.format(id=f'"{study.id}"')}
        SELECT DISTINCT batch FROM _seen ORDER BY batch""",  # noqa: S608
        {"name": source},
    ).fetchall()
    return [batch for (batch,) in rows]


class EarlierLabels(NamedTuple):
    """What a file of outcomes says of people of whom something was said before.

    Attributes:
        repeated: rows that a later row of the same person replaced.
        conflicting: people of whom the file itself says different things.
        corrected: people whose label is another one now, than in an earlier row or file.
        known_before: people of whom an earlier file says the same.
    """

    repeated: int
    conflicting: int
    corrected: int
    known_before: int


def compare_with_earlier(con: Connection, study: Study, source: str) -> EarlierLabels:
    """Compare the labels of a file of outcomes with its own earlier rows and with earlier files."""
    id_, target = f'"{study.id}"', f'"{study.target.name}"'
    (counts,) = con.execute(
        f"""WITH replaced AS (
            SELECT payload->>'$.{id_}' AS _person, (payload->>'$.{target}')::INTEGER AS _label
            FROM quarantine WHERE source = 'outcomes/' || $name AND reason = $later
        ), mine AS (SELECT {id_} AS _person, {target} AS _label FROM outcomes WHERE source = $name
        ), before AS (
            SELECT o.{id_} AS _person, arg_max(o.{target}, f.ingested_at) AS _label
            FROM outcomes o JOIN ingested_files f ON f.kind = 'outcomes' AND f.name = o.source
            WHERE o.source <> $name AND f.ingested_at < coalesce(
                (SELECT ingested_at FROM ingested_files WHERE kind = 'outcomes' AND name = $name),
                'infinity'::TIMESTAMPTZ)
            GROUP BY o.{id_}
        ), within AS (
            SELECT DISTINCT _person FROM replaced JOIN mine USING (_person)
            WHERE replaced._label <> mine._label
        ), otherwise AS (
            SELECT _person FROM before JOIN mine USING (_person) WHERE before._label <> mine._label)
        SELECT (SELECT count(*) FROM replaced), (SELECT count(*) FROM within),
            (SELECT count(*) FROM (FROM within UNION FROM otherwise)),
            (SELECT count(*) FROM before JOIN mine USING (_person) WHERE before._label = mine._label)""",  # noqa: S608
        {"name": source, "later": LATER_ROW},
    ).fetchall()
    return EarlierLabels(*map(int, counts))


def unmatched_ids(con: Connection, study: Study, source: str) -> list[str]:
    """Return the ids of a file of outcomes that stand in no batch, in the order of its rows."""
    id_ = f'"{study.id}"'
    rows = con.execute(
        f"""WITH {_IN_BATCHES.format(id=id_)}
        SELECT {id_} FROM outcomes WHERE source = $name AND {id_} NOT IN (SELECT _person FROM _seen)
        ORDER BY row_number""",  # noqa: S608
        {"name": source},
    ).fetchall()
    return [text for (text,) in rows]


def waiting_ids(con: Connection, study: Study) -> list[str]:
    """Return the ids of all outcomes whose respondents are in no batch so far, by file and row."""
    id_ = f'"{study.id}"'
    rows = con.execute(
        f"""SELECT {id_} FROM outcomes WHERE batch = source
        AND {id_} NOT IN (SELECT {id_} FROM batch_rows) ORDER BY source, row_number"""  # noqa: S608
    ).fetchall()
    return [text for (text,) in rows]
