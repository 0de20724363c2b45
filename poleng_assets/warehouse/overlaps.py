"""Rows that files have in common: compared by hashes of ids and answers, as the warehouse has them.

What is made of it is in ``core/ingestion/duplicates.py``.
"""

from collections.abc import Sequence

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.schema import ROW_TABLES, storage_types


def sum_row_hashes(
    con: Connection, study: Study, kind: Kind, name: str
) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """Return a file's number of rows; sum and exclusive or of their hashes; and of their answers' hashes.

    A row is its id and its answers (of outcomes, its label). Sums and exclusive ors of 64-bit hashes of all
    rows are equal for the same rows in any order, and for others as good as never.
    """
    table, key = ROW_TABLES[kind]
    ((rows, *sums),) = con.execute(
        f"""WITH _hashed AS (
            SELECT {_row_hash(study, kind)} AS _row, {_answer_hash(study, kind)} AS _said
            FROM {table} WHERE {key} = ?
        ) SELECT count(*), sum(_row::HUGEINT), bit_xor(_row), sum(_said::HUGEINT), bit_xor(_said)
        FROM _hashed""",  # noqa: S608
        [name],
    ).fetchall()
    by_id, by_answers = ((sums[i] or 0, sums[i + 1] or 0) for i in (0, 2))
    return rows, by_id, by_answers


def count_different_answers(con: Connection, study: Study, kind: Kind, name: str) -> tuple[int, int]:
    """Return how many rows a file has, and how many different sets of answers."""
    table, key = ROW_TABLES[kind]
    ((rows, different),) = con.execute(
        f"""SELECT count(*), count(DISTINCT {_answer_hash(study, kind)}) FROM {table}
        WHERE {key} = ?""",  # noqa: S608
        [name],
    ).fetchall()
    return int(rows), int(different)


def count_common_rows(
    con: Connection, study: Study, kind: Kind, name: str, earlier: Sequence[str], *, same_answers: bool
) -> dict[str, int]:
    """Count for each earlier file its rows whose id, and answers, are in a file; none are left out."""
    table, key = ROW_TABLES[kind]
    hashed = _row_hash(study, kind) if same_answers else _id_hash(study)
    counted = con.execute(
        f"""SELECT {key}, count(*) FROM {table} WHERE {key} IN (SELECT unnest($earlier::VARCHAR[]))
        AND {hashed} IN (SELECT {hashed} FROM {table} WHERE {key} = $name) GROUP BY {key}""",  # noqa: S608
        {"name": name, "earlier": list(earlier)},
    ).fetchall()
    return dict(counted)


def count_known_people(
    con: Connection, study: Study, kind: Kind, name: str, earlier: Sequence[str]
) -> tuple[int, int]:
    """Count people of a file who are in any of some earlier ones, and those who answered the same there."""
    table, key = ROW_TABLES[kind]
    id_hash, row_hash = _id_hash(study), _row_hash(study, kind)
    among = f"FROM {table} WHERE {key} IN (SELECT unnest($earlier::VARCHAR[]))"
    ((people, same),) = con.execute(
        f"""SELECT count(*) FILTER ({id_hash} IN (SELECT {id_hash} {among})),
            count(*) FILTER ({row_hash} IN (SELECT {row_hash} {among}))
        FROM {table} WHERE {key} = $name""",  # noqa: S608
        {"name": name, "earlier": list(earlier)},
    ).fetchall()
    return int(people), int(same)


def count_listed_people(con: Connection, study: Study, batch: str, earlier: Sequence[str]) -> int:
    """Count people of a batch who are on a contact list of any of some earlier ones."""
    ((listed,),) = con.execute(
        f"""SELECT count(DISTINCT l."{study.id}") FROM contact_lists l
        WHERE l.batch IN (SELECT unnest($earlier::VARCHAR[]))
        AND l."{study.id}" IN (SELECT "{study.id}" FROM batch_rows WHERE batch = $name)""",  # noqa: S608
        {"name": batch, "earlier": list(earlier)},
    ).fetchall()
    return int(listed)


def count_same_answers_under_other_ids(
    con: Connection, study: Study, kind: Kind, name: str, earlier: Sequence[str]
) -> dict[str, int]:
    """Count for earlier files the people of a file who answer exactly as somebody with another id there."""
    table, key = ROW_TABLES[kind]
    answer_hash = _answer_hash(study, kind)
    counted = con.execute(
        f"""WITH _mine AS (
            SELECT {answer_hash} AS _said, "{study.id}" AS _id FROM {table} WHERE {key} = $name)
        SELECT _file, count(DISTINCT _id) FROM (
            SELECT _mine._id AS _id, theirs.{key} AS _file, theirs."{study.id}" AS _other
            FROM {table} theirs JOIN _mine ON _mine._said = {answer_hash}
            WHERE theirs.{key} IN (SELECT unnest($earlier::VARCHAR[]))
        ) WHERE _id <> _other GROUP BY _file""",  # noqa: S608
        {"name": name, "earlier": list(earlier)},
    ).fetchall()
    return dict(counted)


def set_common_rows_aside(
    con: Connection, study: Study, name: str, by_row: Sequence[str], by_answers: Sequence[str]
) -> int:
    """Set the rows of a field study aside that are learned from or held out in earlier ones.

    Args:
        by_row: earlier ones in which a row is the same by id, answers and target.
        by_answers: earlier ones in which it is the same by answers and target alone.

    Returns:
        How many rows were set aside.
    """
    hashes = {
        "by_row": (_row_hash(study, "field_studies"), by_row),
        "by_answers": (_answer_hash(study, "field_studies"), by_answers),
    }
    asked = {key: list(names) for key, (_, names) in hashes.items() if names}
    if not asked:
        return 0
    conditions = " OR ".join(
        f"""{hashes[key][0]} IN (SELECT {hashes[key][0]} FROM field_study_rows
            WHERE field_study IN (SELECT unnest(${key}::VARCHAR[])) AND part <> 'set_aside')"""  # noqa: S608
        for key in asked
    )
    ((rows,),) = con.execute(
        f"UPDATE field_study_rows SET part = 'set_aside' WHERE field_study = $name AND ({conditions})",  # noqa: S608
        {"name": name, **asked},
    ).fetchall()
    return int(rows)


def _id_hash(study: Study) -> str:
    return f'hash("{study.id}")'


def _row_hash(study: Study, kind: Kind) -> str:
    return f'hash("{study.id}", {_answers(study, kind)})'


def _answer_hash(study: Study, kind: Kind) -> str:
    return f"hash({_answers(study, kind)})"


def _answers(study: Study, kind: Kind) -> str:
    return ", ".join(f'"{column}"' for column in storage_types(study, kind) if column != study.id)
