"""What it means when ledger and registry name different versions: the alias may have been moved by hand."""

from poleng_assets.warehouse.decisions import ServingDecision


def registry_conflict(decision: ServingDecision | None, alias: int | None) -> str:
    """Return how the registry contradicts the ledger and what to do, in words; empty when it does not.

    Args:
        decision: of the ledger.
        alias: the version that the registry's alias ``champion`` points to, None when there is none.
    """
    if decision is None and alias is not None:
        return (
            f"the registry's alias 'champion' points to version {alias}, but the ledger has no "
            "promotion. Was the warehouse removed? `poleng restore` restores a backup"
        )
    if decision is None or decision.version == alias:
        return ""
    now = f"points to version {alias}" if alias else "is missing"
    return (
        f"the ledger says that version {decision.version} serves ({decision.why}), but the registry's alias "
        f"'champion' {now}, without a decision: `poleng rollback --to {decision.version}` restores it"
        + (
            f", `poleng rollback --to {alias}` lets version {alias} serve"
            if alias in decision.promoted
            else ""
        )
    )
