"""Why a person was contacted: their scores, their lists, and the model versions behind them."""

from dataclasses import dataclass, replace
from datetime import datetime

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.data.subject_ids import plain_id
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.erasures import newest_erasures
from poleng_assets.warehouse.predictions import scores_of_person


@dataclass(frozen=True)
class Scoring:
    """One scoring of one person.

    Attributes:
        batch: of the person.
        model_version: that gave the score.
        score: probability of the positive class.
        contact: whether the person was flagged for contact.
        current: whether this is the batch's newest scoring, the one that counts.
        listed_at: when the person was put on the contact list by this version, None when never.
        reasons: the answers that raised the score most, as the list shows them.
        verdict: of the overseer on the batch under this version, None when there is no report.
        promoted_at: when the version became champion.
        list_number: of the newest list with the person that this version made, None when
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
        """Describe the scoring for an auditor."""
        number = f" {self.list_number}" if (self.list_number or 1) > 1 else ""
        listed = f"put on the contact list{number} at {_time(self.listed_at)}"
        if self.listed_at is None and self.list_erased:
            listed = f"the list was {self.list_erased}, so it is unknown whether the person was on it"
        elif self.listed_at is None:
            listed = "not on a list"
        elif self.list_stands and not self.current:
            listed += ", which is still valid"
        if self.remark:
            listed += f' (remark: "{self.remark}")'
        if self.reasons:
            listed += f", because of {self.reasons}"
        decision = "flagged for contact" if self.contact else "not flagged"
        superseded = "" if self.current else "; superseded by a later scoring"
        return (
            f"Batch {self.batch}, model version {self.model_version}, {_time(self.scored_at)}: "
            f"score {self.score:.4f}, {decision}; {listed}{superseded}.\n"
            f"  Verdict on the batch under this version: {self.verdict or 'none'}. "
            f"Version {self.model_version} became champion at {_time(self.promoted_at)}: "
            f"{self.promoted_because or 'no reason in the ledger'}."
        )


def history_of(con: Connection, study: Study, subject: str) -> list[Scoring]:
    """Return every scoring of a person, oldest first; empty when the id is unknown.

    Args:
        subject: the person's id; surrounding blanks are ignored.
    """
    lists, history = newest_erasures(con, "contact_lists"), []
    for row in scores_of_person(con, study, plain_id(subject)):
        may_be_listed = row.pop("may_be_listed")
        if row["reasons"]:
            row["reasons"] = without_withheld(row["reasons"], study) or None
        scoring = Scoring(**row)
        if may_be_listed and scoring.listed_at is None:
            erased = lists.get(scoring.batch)
            scoring = replace(scoring, list_erased=erased.in_words() if erased else "")
        history.append(scoring)
    return history


def without_withheld(reasons: str, study: Study) -> str:
    """Return the reasons of an earlier list, without those that the study no longer shows."""
    policy = study.policies.contact
    allowed = set(study.feature_names if policy.shown_reasons is None else policy.shown_reasons)
    hidden = set(policy.withheld_reasons)
    if policy.shown_reasons is None:
        hidden |= set(study.protected)
    shown = tuple(f"{study.feature(name).title}: " for name in allowed - hidden)
    return "; ".join(reason for reason in reasons.split("; ") if reason.startswith(shown))


def _time(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC" if when else "an unknown time"
