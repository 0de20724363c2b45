"""The version that the server uses: the graph's newest event, compared with the registry's alias.

The newest event of the asset ``champion`` has the decision of the ledger; an alias may have been moved by
hand. While both agree, the warehouse is not opened: it has one writing process, and the server must neither
block it nor wait for it. The ledger is read, without waiting, only if they differ.
"""

from collections.abc import Callable
from dataclasses import dataclass

from poleng_assets.core.promotion.serving_decision import registry_conflict
from poleng_assets.warehouse.decisions import ServingDecision

NO_CHAMPION = (
    "no model serves yet: submit a field study to landing/field_studies; a model that is trained on it and "
    "passes the gates is loaded automatically"
)


class LedgerClosed(RuntimeError):
    """The ledger cannot be read now; the message says why."""


@dataclass(frozen=True)
class Choice:
    """The version to use.

    Attributes:
        version: None for no version.
        doubt: the problem and what to do, empty if there is none.
    """

    version: int | None
    doubt: str = ""


def choose(
    reported: int | None, alias: int | None, serving: int | None, ledger: Callable[[], ServingDecision | None]
) -> Choice:
    """Return which version the server uses.

    Args:
        reported: version in the newest event of the champion; None if there is no event.
        alias: version of the registry's alias ``champion``, None if it is missing.
        serving: the loaded version, None if there is none.
        ledger: read if the two differ; raises :class:`LedgerClosed` if it cannot be read.
    """
    if reported is None:
        return Choice(None, NO_CHAMPION)
    if alias == reported:
        return Choice(reported)
    try:
        decision = ledger()
    except LedgerClosed as error:
        return Choice(
            serving,
            f"version {reported} serves by the graph, the registry's alias 'champion' points to "
            f"{f'version {alias}' if alias else 'nothing'}, and the ledger, which decides, cannot be read "
            f"now ({error}): next attempt follows",
        )
    if decision is None:
        # The history has a champion that is not in the ledger: a warehouse was lost.
        return Choice(serving, f"version {reported} serves by the graph, but the ledger has no champion")
    # A promotion without an event yet is no problem: alias and ledger agree.
    return Choice(decision.version, registry_conflict(decision, alias))
