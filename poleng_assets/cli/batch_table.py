"""The table of batches, as ``poleng status`` and ``poleng simulate`` print it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from poleng_assets.warehouse.batch_overview import BatchRow


def batch_facts(row: BatchRow) -> dict[str, Any]:
    """Return the facts of a batch that are shown, by the keys of `poleng status --json`."""
    return {
        "batch": row.batch,
        "model_version": row.version,
        "rows": row.rows,
        "verdict": row.verdict,
        "drifted_columns": row.drifted_columns,
        "estimated_auc": row.estimated_auc,
        "realised_auc": row.realised_auc,
        "contacts": row.listed,
        "current": row.current,
        "flagged": row.flagged,
        "list_from_version": row.issued,
        "list_erased": row.erased,
    }


def batch_table(rows: list[dict[str, Any]]) -> Table:
    """Return the table of :func:`batch_facts`."""
    table = Table(
        "batch", "model", "rows", "verdict", "drifted\ncolumns", "estimated\nAUC", "realised\nAUC", "contacts"
    )
    for row in rows:
        table.add_row(
            row["batch"],
            f"v{row['model_version']}",
            f"{row['rows']:,}",
            row["verdict"],
            str(row["drifted_columns"]),
            cell(row["estimated_auc"]),
            cell(row["realised_auc"]),
            _contacts(row),
        )
    return table


def _contacts(row: dict[str, Any]) -> str:
    """Return how many contacts the batch's list has, or which other version made it."""
    issued, version = row["list_from_version"], row["model_version"]
    if row["list_erased"] and (row["current"] or issued == version):
        return f"{row['contacts']:,}, erased" if row["contacts"] else "erased"
    if row["current"] and issued is None:
        return "no list yet" if row["flagged"] else "0"
    if issued == version:
        return f"{row['contacts']:,}" if row["current"] else f"{row['contacts']:,} (list stays valid)"
    return f"list of v{issued} stays valid" if row["current"] else "superseded"


def cell(value: object) -> str:
    """Return a value as a cell: empty for None, four decimals for a metric."""
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
