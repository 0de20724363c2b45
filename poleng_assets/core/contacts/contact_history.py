"""Why somebody was contacted: their scores, their lists, and how each model came to decide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import duckdb

from poleng_assets.core.data.subject_ids import plain_id
from poleng_assets.core.modeling.explanations import without_withheld
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.erasures import Erasures


@dataclass(frozen=True)
class Scoring:
    """One time that one person was scored.

    Attributes:
        batch: in which the person stands.
        model_version: that gave the score.
        score: probability of being disengaged, 0 to 1.
        contact: whether that score asked for a contact.
        scored_at: when.
        current: whether this is the batch's newest scoring, the one that counts.
        listed_at: when the person was put on the contact list by this version, None when never.
        remark: of that list.
        reasons: the answers that raised the score most, as the list told them.
        verdict: of the overseer on the batch under this version, None when there is no report.
        promoted_at: when the version became champion.
        promoted_because: why, from the ledger.
        list_number: of the batch's lists that name the person, made by this version; the newest, None when
            there is none.
        list_stands: whether that is the batch's newest list.
        list_erased: when and by which rule rows of the batch's lists were erased, empty when none were, or
            when this scoring put nobody on a list.
    """

    batch: str
    model_version: int
    score: float
    contact: bool
    scored_at: datetime
    current: bool
    listed_at: datetime | None
    remark: str | None
    reasons: str | None
    verdict: str | None
    promoted_at: datetime | None
    promoted_because: str | None
    list_number: int | None = None
    list_stands: bool = False
    list_erased: str = ""

    def in_words(self) -> str:
        """Tell it as an auditor would read it."""
        number = f" {self.list_number}" if (self.list_number or 1) > 1 else ""
        listed = f"put on the contact list{number} at {_time(self.listed_at)}"
        if self.listed_at is None and self.list_erased:
            listed = f"the list was {self.list_erased}: whether they stood on it can no longer be told"
        elif self.listed_at is None:
            listed = "not on a list"
        elif self.list_stands and not self.current:
            listed += ", which stands"
        if self.remark:
            listed += f' (remark: "{self.remark}")'
        if self.reasons:
            listed += f", because of {self.reasons}"
        asked = "a contact" if self.contact else "no contact"
        superseded = "" if self.current else "; superseded by a later scoring"
        return (
            f"Batch {self.batch}, model version {self.model_version}, {_time(self.scored_at)}: "
            f"score {self.score:.4f}, {asked}; {listed}{superseded}.\n"
            f"  The batch was judged {self.verdict or 'not at all'} under this version. "
            f"Version {self.model_version} became champion at {_time(self.promoted_at)}: "
            f"{self.promoted_because or 'the ledger does not say why'}."
        )


def history_of(con: duckdb.DuckDBPyConnection, study: Study, subject: str) -> list[Scoring]:
    """Return every scoring of a person, oldest first; empty when the id is unknown.

    Args:
        con: a connection to the warehouse.
        study: names the id column.
        subject: the person's id; blanks around it are no part of it.
    """
    rows = con.execute(
        f"""SELECT p.batch, p.model_version, p.score, p.contact, p.scored_at,
            p.scored_at = (SELECT max(scored_at) FROM predictions n WHERE n.batch = p.batch),
            l.listed_at, nullif(l.remark, ''), nullif(l.reasons, ''),
            r.verdict, d.decided_at, d.reason, l.list_number, l.list_number IS NOT DISTINCT FROM (
                SELECT max(list_number) FROM issued_lists i WHERE i.batch = p.batch), p.contact OR p.audit
        FROM predictions p
        LEFT JOIN ( -- a version may have made several lists of a batch
            SELECT batch, model_version, min(created_at) AS listed_at, arg_max(remark, list_number) AS remark,
                arg_max(reasons, list_number) AS reasons, max(list_number) AS list_number
            FROM contact_lists WHERE "{study.id}" = $subject GROUP BY ALL
        ) l ON l.batch = p.batch AND l.model_version = p.model_version
        LEFT JOIN drift_reports r ON r.batch = p.batch AND r.model_version = p.model_version
        LEFT JOIN decisions d ON d.kind = 'promote' AND d.challenger_version = p.model_version
        WHERE p."{study.id}" = $subject ORDER BY p.scored_at""",  # noqa: S608
        {"subject": plain_id(subject)},
    ).fetchall()
    lists = Erasures(con, "contact_lists")
    told = []
    for *row, wanted in rows:
        one = Scoring(*row)
        erased = lists.of(one.batch, one.scored_at) if wanted and one.listed_at is None else None
        told.append(replace(one, list_erased=erased.in_words() if erased else ""))
    # Lists of earlier releases told more than the study shows today.
    return [
        replace(one, reasons=without_withheld(one.reasons, study) or None if one.reasons else None)
        for one in told
    ]


def _time(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC" if when else "an unknown time"
