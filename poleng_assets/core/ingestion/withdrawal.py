"""Withdrawal of a field study: its people are no longer used for training or evaluation.

Its rows and its file are kept, and marked: what a model learned from must be told for as long as that model
is. Who is to be erased is forgotten one by one (``poleng_assets/operations/erase_person.py``).
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.data.versions import name_and_number
from poleng_assets.storage.dropped_files import content_hash
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets.warehouse.files import FileRecord, file_records, update_file
from poleng_assets.warehouse.writes import now, transaction


class WithdrawalRefused(ValueError):
    """A field study cannot be withdrawn, or taken back; the message says why."""


def field_study_records(con: Connection) -> list[FileRecord]:
    """Return every field study that was taken in, in the order of their names."""
    return sorted(file_records(con, "field_studies"), key=lambda record: record.name)


def withdrawn(con: Connection) -> dict[str, datetime]:
    """Return when each withdrawn field study was withdrawn, by its id."""
    return {record.name: record.withdrawn_at for record in field_study_records(con) if record.withdrawn_at}


def set_withdrawn(
    con: Connection,
    study: str,
    *,
    reason: str,
    undo: bool = False,
    learned: Mapping[int, Collection[str]] | None = None,
    serving: int | None = None,
    dagster_run_id: str | None = None,
) -> list[FileRecord]:
    """Withdraw a field study, or take that back, with a row in the ledger; what is so already is left alone.

    Args:
        study: id; the name that a study was dropped under means all its versions, ``name@2`` only that one.
        learned: the field studies of each registered model version.

    Returns:
        The versions of the study, as they are now.

    Raises:
        WithdrawalRefused: no such field study was taken in.
    """
    named = _versions_of(con, study)
    changed = [record.name for record in named if (record.withdrawn_at is None) != undo]
    if not changed:
        return named
    learned_from = sorted(
        version for version, names in (learned or {}).items() if set(names).intersection(changed)
    )
    whose = f"; versions trained on it: {', '.join(map(str, learned_from))}" if learned_from else ""
    with transaction(con):
        moment = None if undo else now()
        for name in changed:
            update_file(con, "field_studies", name, withdrawn_at=moment)
        record_decision(
            con,
            "withdraw",
            f"{', '.join(changed)} {'is restored' if undo else 'is withdrawn'}: {reason}{whose}",
            evidence={"field_studies": changed, "undo": undo, "versions_that_learned": learned_from},
            champion_version=serving,
            dagster_run_id=dagster_run_id,
        )
    return _versions_of(con, study)


def _versions_of(con: Connection, study: str) -> list[FileRecord]:
    known = field_study_records(con)
    named = [record for record in known if study in (record.name, name_and_number(record.name)[0])]
    if not named:
        names = ", ".join(record.name for record in known) or "none"
        raise WithdrawalRefused(f"no field study {study!r} exists; there are: {names}")
    return named


def refuse_withdrawn(con: Connection, file: Path) -> None:
    """Refuse a dropped field study that was withdrawn.

    Raises:
        FileRefused: it is, under whatever name.
    """
    # Jobs load this module, and the contract brings the libraries of tables with it.
    from poleng_assets.core.ingestion.contract import FileRefused

    digest = content_hash(file)
    for record in field_study_records(con):
        if record.content_hash != digest or record.withdrawn_at is None:
            continue
        raise FileRefused(
            f"the same content was ingested as {record.name!r} and withdrawn on "
            f"{record.withdrawn_at:%Y-%m-%d %H:%M} UTC; "
            f"`poleng withdraw {record.name} --undo` restores it"
        )


def in_doubt(con: Connection, version: int | None, field_studies: Collection[str]) -> str:
    """Return in words that a version learned from what was withdrawn since; empty when it did not."""
    gone = sorted(set(withdrawn(con)).intersection(field_studies))
    if version is None or not gone:
        return ""
    were = "was" if len(gone) == 1 else "were"
    return f"version {version} was trained on {', '.join(gone)}, which {were} withdrawn"
