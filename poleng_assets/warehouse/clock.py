"""Plausibility of the system clock, and the repair of rows with wrong dates.

A machine whose clock is wrong erases what should be kept, keeps what should be erased, and dates rows years
ahead. No program can tell a clock that jumped from a home that nobody used: that is for a person to say.
What is done about it is in ``poleng_assets/defs/clock.py``.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from itertools import pairwise

from duckdb import DuckDBPyConnection as Connection

# What a clock may be set back by without a word: machines that drift are put right by seconds or minutes.
SLACK = timedelta(hours=1)


def doubt_about_clock(
    moment: datetime, signs: Iterable[datetime], max_gap: int, trusted: datetime | None = None
) -> str:
    """Return why the clock may be wrong, or nothing.

    Every two neighbouring signs of life are compared, the present moment among them: one row that was
    written under a wrong clock makes it no better.

    Args:
        moment: the present one, as the clock has it.
        signs: moments at which something was written down here, in any order.
        max_gap: days between two signs that need no explanation.
        trusted: up to when the clock was found right before; what lies between earlier signs is settled.
    """
    known = sorted({*signs, *([trusted] if trusted else [])})
    if known and known[-1] > moment + SLACK:
        return (
            f"the clock shows {_minute(moment)}, but a record is of {_minute(known[-1])}, "
            f"{_span(known[-1] - moment)} ahead: the clock was set back, or was wrong when it was written"
        )
    later = [sign for sign in known if trusted is None or sign >= trusted]
    for before, after in pairwise([*later, moment]):
        if after - before > timedelta(days=max_gap):
            now = "the clock shows" if after == moment else "a record is of"
            return (
                f"{now} {_minute(after)}, and the last sign of life before it is of {_minute(before)}, "
                f"{(after - before).days} days before: the clock may have jumped ahead"
            )
    return ""


def signs_of_life(con: Connection, after: datetime | None = None) -> list[datetime]:
    """Return the moments that any table knows, each once, those after a moment only if one is given."""
    moments: set[datetime] = set()
    for table, column in _columns(con):
        since = f'WHERE "{column}" > $after' if after else f'WHERE "{column}" IS NOT NULL'
        moments |= {
            moment
            for (moment,) in con.execute(
                f'SELECT DISTINCT "{column}" FROM "{table}" {since}',  # noqa: S608
                {"after": after} if after else {},
            ).fetchall()
        }
    return sorted(moments)


def trusted_until(con: Connection) -> datetime | None:
    """Return when a person last said that the clock is right, None when nobody ever did."""
    ((moment,),) = con.execute("SELECT max(decided_at) FROM decisions WHERE kind = 'clock'").fetchall()
    return moment


def date_to_now(con: Connection, moment: datetime) -> Counter[str]:
    """Date every row that lies ahead of a moment to just before it; to be called inside a transaction.

    Their order stays: what was written later still counts as later, and what is written from now on counts
    as later than all of them. Rows of one moment keep one moment, in all tables.

    Args:
        moment: the present one, which a person says is right.

    Returns:
        Rows that got another date, by table.
    """
    ahead = signs_of_life(con, moment)
    new = {old: moment - timedelta(microseconds=rank) for rank, old in enumerate(reversed(ahead), start=1)}
    changed: Counter[str] = Counter()
    if not ahead:
        return changed
    con.execute("CREATE OR REPLACE TEMP TABLE _moments (was TIMESTAMPTZ, becomes TIMESTAMPTZ)")
    con.executemany("INSERT INTO _moments VALUES (?, ?)", [list(pair) for pair in new.items()])
    for table, column in _columns(con):
        ((rows,),) = con.execute(f'SELECT count(*) FROM "{table}" WHERE "{column}" > ?', [moment]).fetchall()  # noqa: S608
        if rows:
            con.execute(
                f'UPDATE "{table}" SET "{column}" = becomes FROM _moments WHERE "{column}" = was'  # noqa: S608
            )
            changed[table] = max(changed[table], rows)
    con.execute("DROP TABLE _moments")
    return changed


def _columns(con: Connection) -> Collection[tuple[str, str]]:
    return con.execute(
        """SELECT table_name, column_name FROM duckdb_columns() JOIN duckdb_tables()
        USING (database_name, schema_name, table_name)
        WHERE database_name = current_database() AND data_type = 'TIMESTAMP WITH TIME ZONE' AND NOT temporary
        ORDER BY ALL"""
    ).fetchall()


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _span(length: timedelta) -> str:
    hours = length.total_seconds() / 3600
    return f"{hours:.0f} hours" if hours < 48 else f"{length.days} days"
