"""Table ``quarantine``: rows of files that broke the contract, with why. A source is ``batches/march``."""

from collections.abc import Collection

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.schema import ROW_TABLES, storage_types

# Why a row is in quarantine beside which another one of the same person counts: of batches and field studies
# the first, of outcomes the last.
EARLIER_ROW = "the id stands in an earlier row"
LATER_ROW = "a later row of the same person counts"
# Column, reason and number of rows.
Fault = tuple[str, str, int]


def source_of(kind: Kind, name: str) -> str:
    """Return what quarantine calls a file."""
    return f"{kind}/{name}"


def count_quarantined(con: Connection) -> int:
    """Return how many rows are in quarantine, of whatever file and for however many reasons."""
    ((rows,),) = con.execute("SELECT count(DISTINCT (source, row_number)) FROM quarantine").fetchall()
    return int(rows)


def count_by_source(con: Connection) -> dict[str, int]:
    """Return how many rows of each source are in quarantine, by its name."""
    return dict(
        con.execute(
            "SELECT source, count(DISTINCT row_number) FROM quarantine GROUP BY source ORDER BY source"
        ).fetchall()
    )


def commonest_faults(con: Connection, limit: int) -> dict[str, list[Fault]]:
    """Return the commonest faults of each source, the commonest first."""
    faults: dict[str, list[Fault]] = {}
    for source, *fault in con.execute(
        """SELECT source, column_name, reason, count(*) AS n FROM quarantine
        GROUP BY source, column_name, reason
        QUALIFY row_number() OVER (PARTITION BY source ORDER BY n DESC, column_name, reason) <= ?
        ORDER BY source, n DESC, column_name, reason""",
        [limit],
    ).fetchall():
        faults.setdefault(source, []).append(tuple(fault))
    return faults


def worst_faults(con: Connection, source: str, limit: int) -> list[tuple[str, str, int, int]]:
    """Return column, reason, number of rows and first row of a source's commonest faults."""
    return con.execute(
        """SELECT column_name, reason, count(*) AS n, min(row_number) FROM quarantine
        WHERE source = ? GROUP BY ALL ORDER BY n DESC, 4, 1 LIMIT ?""",
        [source, limit],
    ).fetchall()


def rows_of(con: Connection, source: str) -> list[tuple[int, str, list[tuple[str, str]]]]:
    """Return number, payload and faults (column, reason) of each row of a source, in order."""
    return con.execute(
        """SELECT row_number, any_value(payload), list((column_name, reason) ORDER BY column_name, reason)
        FROM quarantine WHERE source = ? GROUP BY row_number ORDER BY row_number""",
        [source],
    ).fetchall()


def broken_payloads(con: Connection, source: str) -> list[str]:
    """Return the payloads of a source's rows, but of those beside which another one of the person counts."""
    rows = con.execute(
        f"""SELECT any_value(payload) FROM quarantine WHERE source = ?
        AND reason NOT IN ('{EARLIER_ROW}', '{LATER_ROW}') GROUP BY row_number""",  # noqa: S608
        [source],
    ).fetchall()
    return [payload for (payload,) in rows]


def remove_rows(con: Connection, source: str, numbers: Collection[int]) -> None:
    """Take rows of a source out of quarantine."""
    con.execute(
        "DELETE FROM quarantine WHERE source = ? AND row_number IN (SELECT unnest(?::BIGINT[]))",
        [source, list(numbers)],
    )


def may_repeat_ids(con: Connection, study: Study, kind: Kind, name: str) -> bool:
    """Return whether an id may stand in several rows of a file.

    Ids with different hashes are different, and ten million hashes take a quarter of their ids' memory.
    Where two hashes are the same, the ids themselves must be looked at.
    """
    table, key = ROW_TABLES[kind]
    rows, hashes = con.execute(
        f'SELECT count(*), count(DISTINCT hash("{study.id}")) FROM {table} WHERE {key} = ?',  # noqa: S608
        [name],
    ).fetchall()[0]
    return bool(rows != hashes)


def move_repeated_ids(con: Connection, study: Study, kind: Kind, name: str) -> int:
    """Keep one row of each id of a file; the others go to quarantine. Return how many.

    The first one stays, but of outcomes the last: there, a row further down is a correction.
    """
    table, key = ROW_TABLES[kind]
    payload = ", ".join(f'"{column}" := "{column}"' for column in storage_types(study, kind))
    order, reason = ("DESC", LATER_ROW) if kind == "outcomes" else ("ASC", EARLIER_ROW)
    repeated = f"""SELECT row_number FROM {table} WHERE {key} = ?
        QUALIFY row_number() OVER (PARTITION BY "{study.id}" ORDER BY row_number {order}) > 1"""  # noqa: S608
    con.execute(
        f"""INSERT INTO quarantine BY NAME
        SELECT ? AS source, row_number, ? AS column_name, ? AS reason,
            to_json(struct_pack({payload}))::VARCHAR AS payload
        FROM {table} WHERE {key} = ? AND row_number IN ({repeated})""",  # noqa: S608
        [source_of(kind, name), study.id, reason, name, name],
    )
    removed = con.execute(
        f"DELETE FROM {table} WHERE {key} = ? AND row_number IN ({repeated}) RETURNING row_number",  # noqa: S608
        [name, name],
    ).fetchall()
    return len(removed)
