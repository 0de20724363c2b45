"""Champion against challenger: named gates, each a pure rule with its figures.

The first champion has nobody to beat and needs the sanity gates only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poleng_assets.study import PromotionPolicy

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Gate:
    """One rule and how it went, in words that an auditor reads."""

    name: str
    passed: bool
    words: str


def sanity_gates(challenger: Metrics, policy: PromotionPolicy) -> list[Gate]:
    """Refuse a model that ranks no better than chance or that flags nearly nobody or everybody.

    Args:
        challenger: figures on the holdout, with ``auc`` and ``flagged_share``.
        policy: of the study.
    """
    auc = challenger.get("auc")
    low, high = policy.flagged_share
    flagged = challenger["flagged_share"]
    return [
        Gate(
            "ranks people",
            auc is not None and auc >= policy.min_auc,
            f"AUC on the holdout {_figure(auc)}, at least {policy.min_auc:.3f} is needed",
        ),
        Gate(
            "flags a sensible share",
            low <= flagged <= high,
            f"flags {flagged:.1%} of the holdout, between {low:.0%} and {high:.0%} is sensible",
        ),
    ]


def contest_gates(
    challenger: Metrics,
    champion: Metrics,
    challenger_known: Metrics,
    champion_known: Metrics,
    policy: PromotionPolicy,
) -> list[Gate]:
    """Ask whether the challenger is truly better than the champion on the same holdout rows.

    Args:
        challenger: figures on the whole common holdout.
        champion: of the champion on the same rows.
        challenger_known: figures on the part that the champion's own field studies gave.
        champion_known: of the champion on that part.
        policy: of the study.
    """
    gain = champion["log_loss"] - challenger["log_loss"]
    auc_gain = challenger.get("auc", 0.0) - champion.get("auc", 0.0)
    known = challenger_known.get("auc", 0.0) - champion_known.get("auc", 0.0)
    return [
        Gate(
            "better log-loss",
            gain >= policy.min_log_loss_gain,
            f"log-loss {challenger['log_loss']:.4f} against {champion['log_loss']:.4f}: gain "
            f"{gain:+.4f}, at least {policy.min_log_loss_gain:.4f} is needed",
        ),
        Gate(
            "no worse ranking",
            auc_gain >= -policy.max_auc_loss,
            f"AUC {_figure(challenger.get('auc'))} against {_figure(champion.get('auc'))}",
        ),
        Gate(
            "keeps what was known",
            known >= -policy.max_known_auc_loss,
            f"AUC on the populations that the champion knew {_figure(challenger_known.get('auc'))} against "
            f"{_figure(champion_known.get('auc'))}, a loss of {policy.max_known_auc_loss:.3f} is tolerated",
        ),
    ]


def promoted(gates: Sequence[Gate]) -> bool:
    """Whether every gate is passed; no gates at all promote nobody."""
    return bool(gates) and all(gate.passed for gate in gates)


def reason(gates: Sequence[Gate]) -> str:
    """Return why a challenger was refused, or the first and weightiest gate of one that was not."""
    failed = [gate for gate in gates if not gate.passed]
    return "; ".join(gate.words for gate in failed or gates[:1])


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
