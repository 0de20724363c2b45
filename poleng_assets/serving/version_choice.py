"""Which version the server is to answer with: what the graph has told, held against the registry's alias.

The newest event of the asset ``champion`` tells what the ledger decided; an alias may have been moved by
hand. As long as both say the same, the warehouse is not touched: it has one writing process, and the server
must neither keep it waiting nor wait for it. Only when they differ the ledger itself is asked, in passing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from poleng_assets.core.promotion.serving_decision import registry_conflict
from poleng_assets.warehouse.decisions import ServingDecision

NOBODY = (
    "no model serves yet: drop a field study into landing/field_studies; when a model has been trained from "
    "it and has passed its gates, it is loaded here"
)


class LedgerClosed(RuntimeError):
    """The ledger cannot be read at this moment; the message says why."""


@dataclass(frozen=True)
class Choice:
    """Whom to answer with.

    Attributes:
        version: None when nobody is to.
        doubt: what is not as it should be and what to do, empty when all is well.
    """

    version: int | None
    doubt: str = ""


def choose(
    told: int | None, alias: int | None, serving: int | None, ledger: Callable[[], ServingDecision | None]
) -> Choice:
    """Return which version is to answer.

    Args:
        told: by the newest event of the champion; None when there is none.
        alias: the version that the registry's alias ``champion`` points to, None when it is gone.
        serving: the version that answers now, None when none does.
        ledger: asked when the two differ; raises :class:`LedgerClosed` when it cannot be read.
    """
    if told is None:
        return Choice(None, NOBODY)
    if alias == told:
        return Choice(told)
    try:
        decision = ledger()
    except LedgerClosed as error:
        return Choice(
            serving,
            f"the graph tells that version {told} serves, the registry's alias 'champion' says "
            f"{f'version {alias}' if alias else 'nothing'}, and the ledger, which decides, cannot be read at "
            f"this moment ({error}): it is asked again",
        )
    if decision is None:
        # The history tells of a champion that the ledger does not know: a warehouse was lost.
        return Choice(serving, f"the graph tells that version {told} serves, and the ledger knows of none")
    # A promotion that was not told yet is no doubt: alias and ledger agree.
    return Choice(decision.version, registry_conflict(decision, alias))
