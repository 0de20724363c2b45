"""Champion against challenger: named gates, each a pure rule with its words and its figures.

Both contestants are judged by the same frozen holdout rows. The first champion has nobody to beat and
needs the sanity gates only. Figures that are undefined (one class only, scores that are no numbers)
fail their gate: doubt speaks for the model that serves.

What no gate can see: a leak of the answer that is in the holdout too and makes a model only a little
too good. ``max_auc`` stops the blatant ones; that no holdout person is trained on is the split's business.

How things are measured, and where the methods come from, stands in ``core/statistics/metrics.py`` and
``core/statistics/resampling.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot, isfinite
from statistics import NormalDist

import numpy as np

from poleng_assets.core.statistics.groups import group_masks
from poleng_assets.core.statistics.metrics import calibration_error, paired_auc, row_log_loss
from poleng_assets.core.statistics.resampling import resampled_means
from poleng_assets.core.statistics.selection_rates import (
    GroupContacts,
    contacts_by_group,
    describe_passed_over,
    passed_over,
)
from poleng_assets.study.policies import PromotionPolicy

_LEAST_SPREAD = 1e-6  # of scores that are not one number but for rounding, whatever the study allows


@dataclass(frozen=True)
class Gate:
    """One rule and how it went: words that an auditor reads, figures that the ledger keeps.

    Attributes:
        name: of the rule, the same for every challenger.
        passed: whether the challenger may go on.
        words: what was found and what was asked for.
        figures: finite numbers behind the words; what is undefined is left out, as JSON has no NaN.
    """

    name: str
    passed: bool
    words: str
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Holdout:
    """The rows that both contestants are judged by, n of them.

    Attributes:
        target: 0 or 1, shape (n,).
        population: the field study of each row, shape (n,).
        groups: for each protected property, the value of each row in words, shape (n,).
        contacted: for each property whose groups a rule must not pass over, the same.
    """

    target: np.ndarray
    population: np.ndarray
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)
    contacted: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ``ValueError`` when a column has another length than the target."""
        for name, values in {"population": self.population, **self.groups, **self.contacted}.items():
            if len(values) != len(self.target):
                raise ValueError(f"{name} has {len(values)} rows, the target {len(self.target)}")


def contest(
    holdout: Holdout,
    challenger: np.ndarray,
    champion: np.ndarray | None,
    flagged: np.ndarray,
    policy: PromotionPolicy,
) -> list[Gate]:
    """Put a challenger to every gate there is, the weightiest first.

    Args:
        holdout: the judging rows, n of them.
        challenger: its probabilities of the positive answer, shape (n,).
        champion: those of the model that serves, shape (n,); None for the first model.
        flagged: whom the challenger would contact by its own rule, bool, shape (n,).

    Returns:
        All gates; one failed gate alone when there is nothing that figures could be made from.
    """
    if len(holdout.target) == 0:
        return [Gate("can be judged", False, "there is no holdout row to judge the challenger by")]
    usable = (challenger >= 0) & (challenger <= 1)
    if not usable.all():
        share = 1 - usable.mean()
        explanation = f"{share:.1%} of its scores on the holdout are no probabilities"
        return [Gate("can be judged", False, explanation, {"unusable_share": float(share)})]
    sanity = sanity_gates(holdout, challenger, flagged, policy)
    if policy.refuse_passed_over:
        sanity.append(passing_over_gate(holdout, flagged, policy))
    return sanity if champion is None else [*contest_gates(holdout, challenger, champion, policy), *sanity]


def sanity_gates(
    holdout: Holdout, score: np.ndarray, flagged: np.ndarray, policy: PromotionPolicy
) -> list[Gate]:
    """Refuse a model that ranks like chance, flags nobody or everybody, is constant, or misstates risk.

    Args:
        holdout: the judging rows, n > 0 of them.
        score: probability of the positive answer, shape (n,).
        flagged: whom the model would contact by its own rule, bool, shape (n,).
    """
    auc = paired_auc(holdout.target, score, score)[0]
    spread, distinct = float(score.std()), len(np.unique(score))
    error, chance = calibration_error(holdout.target, score, policy.calibration_bins, policy.confidence)
    allowed = hypot(policy.max_calibration_error, chance)
    return [
        Gate(
            "ranks people",
            auc >= policy.min_auc,
            f"AUC on the holdout {_figure(auc)}, at least {policy.min_auc:.3f} is needed",
            _finite(auc=auc, needed=policy.min_auc),
        ),
        Gate(
            "is not too good to be true",
            auc <= policy.max_auc,
            f"AUC on the holdout {_figure(auc)}; above {policy.max_auc:.3f} the answer "
            "has leaked into the data",
            _finite(auc=auc, limit=policy.max_auc),
        ),
        _flagging_gate(holdout, flagged, policy),
        Gate(
            "is not constant",
            spread >= max(policy.min_score_spread, _LEAST_SPREAD) and distinct >= policy.min_distinct_scores,
            f"scores spread by {spread:.4f} (standard deviation) over {distinct} distinct values, at least "
            f"{policy.min_score_spread:.3f} and {policy.min_distinct_scores} are needed",
            _finite(spread=spread, distinct_scores=distinct),
        ),
        Gate(
            "means what it says",
            error <= allowed,
            f"calibration error on the holdout {_figure(error)}, {_figure(allowed)} is allowed: "
            f"{policy.max_calibration_error:.3f}, and {_figure(chance)} that chance makes with so few people",
            _finite(calibration_error=error, allowed=allowed, by_chance=chance),
        ),
    ]


def contest_gates(
    holdout: Holdout, challenger: np.ndarray, champion: np.ndarray, policy: PromotionPolicy
) -> list[Gate]:
    """Ask whether the challenger is truly better than the champion, and worse for nobody.

    Two models of the same data and another seed differ too; so a gain must be larger than what another
    draw of people could turn into a loss, and larger than what another seed gives.

    Args:
        holdout: the judging rows, n > 0 of them.
        challenger: its probabilities of the positive answer, shape (n,).
        champion: those of the model that serves, shape (n,).
    """
    challenger_loss = row_log_loss(holdout.target, challenger)
    champion_loss = row_log_loss(holdout.target, champion)
    populations = group_masks({"": holdout.population}, policy.min_group_rows)
    groups = group_masks(holdout.groups, policy.min_group_rows)
    everybody = np.ones(len(challenger_loss), dtype=bool)
    masks = np.column_stack([everybody, *populations.values(), *groups.values()])
    gains = resampled_means(champion_loss - challenger_loss, masks, policy.resamples, policy.seed)
    # Of a mask that a resample missed there is nothing to say; the others still count.
    lower, upper = (np.nanquantile(gains, q, axis=0) for q in (1 - policy.confidence, policy.confidence))
    rises, losses = challenger_loss - champion_loss, -upper[1:]
    split, population_limit = len(populations), policy.max_population_log_loss_loss
    group_limit = policy.max_group_log_loss_loss
    return [
        _log_loss_gate(challenger_loss, champion_loss, float(lower[0]), policy),
        _ranking_gate(holdout.target, challenger, champion, policy),
        _loss_gate("keeps every population", rises, populations, losses[:split], population_limit, policy),
        _loss_gate("keeps every protected group", rises, groups, losses[split:], group_limit, policy),
        _calibration_gate(holdout.target, challenger, champion, policy),
    ]


def promoted(gates: Sequence[Gate]) -> bool:
    """Whether every gate is passed; no gates at all promote nobody."""
    return bool(gates) and all(gate.passed for gate in gates)


def reason(gates: Sequence[Gate]) -> str:
    """Return why a challenger was refused, or the first and weightiest gate of one that was not."""
    failed = [gate for gate in gates if not gate.passed]
    return "; ".join(gate.words for gate in failed or gates[:1])


def _flagging_gate(holdout: Holdout, flagged: np.ndarray, policy: PromotionPolicy) -> Gate:
    """A sensible share of all, and of each population: in a mean, a flood of one can hide."""
    low, high = policy.flagged_share
    populations = group_masks({"": holdout.population}, policy.min_group_rows)
    shares = {name: float(flagged[rows].mean()) for name, rows in populations.items()}
    everybody = float(flagged.mean())
    # However wide the study's gate is: to contact everybody, or nobody, takes no model.
    tells_apart = 0 < everybody < 1
    listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    return Gate(
        "flags a sensible share",
        tells_apart and all(low <= share <= high for share in [everybody, *shares.values()]),
        f"flags {everybody:.1%} of the holdout{f' ({listed})' if listed else ''}, between {low:.1%} and "
        f"{high:.1%} is sensible, and never nobody or everybody",
        _finite(
            **{"flagged_share": everybody, **{f"{name}: flagged_share": s for name, s in shares.items()}}
        ),
    )


def groups_passed_over(holdout: Holdout, flagged: np.ndarray, policy: PromotionPolicy) -> list[GroupContacts]:
    """Return the groups of the holdout that a rule passes over, field studies among them.

    Args:
        holdout: the judging rows, n of them.
        flagged: whom the model would contact by its own rule, bool, shape (n,).
    """
    groups = {"Field study": holdout.population, **(holdout.contacted or holdout.groups)}
    return passed_over(contacts_by_group(groups, flagged, holdout.target), policy)


def passing_over_gate(holdout: Holdout, flagged: np.ndarray, policy: PromotionPolicy) -> Gate:
    """Refuse a rule that passes over a group; only studies that ask for it have this gate."""
    groups = groups_passed_over(holdout, flagged, policy)
    figures = {
        f"{group.property}: {group.value}: contacted": group.contacted / group.rows for group in groups
    }
    figures |= {f"{group.property}: {group.value}: rows": float(group.rows) for group in groups}
    return Gate(
        "passes nobody over",
        not groups,
        describe_passed_over(groups, policy)
        or "contacts people of every group that is large enough to be judged",
        _finite(**figures),
    )


def _log_loss_gate(
    challenger: np.ndarray, champion: np.ndarray, gain_at_least: float, policy: PromotionPolicy
) -> Gate:
    gain = float((champion - challenger).mean())
    return Gate(
        "better log-loss",
        gain >= policy.min_log_loss_gain and gain_at_least > 0,
        f"log-loss {challenger.mean():.4f} against {champion.mean():.4f}: gain {gain:+.4f}, at least "
        f"{policy.min_log_loss_gain:.4f} is needed; with {policy.confidence:.0%} confidence it is "
        f"{gain_at_least:+.4f} or more, above zero is needed",
        _finite(
            challenger=challenger.mean(),
            champion=champion.mean(),
            gain=gain,
            gain_at_least=gain_at_least,
            needed=policy.min_log_loss_gain,
        ),
    )


def _ranking_gate(
    target: np.ndarray, challenger: np.ndarray, champion: np.ndarray, policy: PromotionPolicy
) -> Gate:
    auc, champion_auc, error = paired_auc(target, challenger, champion)
    gain_at_most = auc - champion_auc + NormalDist().inv_cdf(policy.confidence) * error
    return Gate(
        "no worse ranking",
        gain_at_most >= -policy.max_auc_loss,
        f"AUC {_figure(auc)} against {_figure(champion_auc)}; with {policy.confidence:.0%} confidence the "
        f"gain is {_figure(gain_at_most, '+.4f')} or less, a loss of {policy.max_auc_loss:.3f} is tolerated",
        _finite(
            challenger=auc,
            champion=champion_auc,
            gain=auc - champion_auc,
            gain_at_most=gain_at_most,
            tolerated_loss=policy.max_auc_loss,
        ),
    )


def _loss_gate(
    name: str,
    loss: np.ndarray,
    parts: Mapping[str, np.ndarray],
    at_least: np.ndarray,
    tolerance: float,
    policy: PromotionPolicy,
) -> Gate:
    """A part is lost when its log-loss has surely risen by more than is tolerated, not by mere chance.

    Args:
        loss: how much the log-loss of each row rises, shape (n,).
        parts: which rows belong to each part, each of shape (n,).
        at_least: lower end of the interval of the loss of each part, shape (parts,).
        tolerance: that a part may lose.
    """
    if not parts:
        return Gate(name, True, f"none has the {policy.min_group_rows} people that a judgement needs")
    point = {part: float(loss[rows].mean()) for part, rows in parts.items()}
    surely = dict(zip(parts, at_least.tolist(), strict=True))
    # Written as "not within", because a loss that is unknown is no loss within the tolerance.
    lost = [part for part in parts if not surely[part] <= tolerance]
    named = lost or [max(point, key=point.__getitem__)]
    listed = ", ".join(
        f"{part} {point[part]:+.4f} (at least {surely[part]:+.4f}, {int(parts[part].sum())} people)"
        for part in named
    )
    figures = {f"{part}: loss": point[part] for part in parts}
    figures |= {f"{part}: loss_at_least": surely[part] for part in parts}
    figures |= {f"{part}: rows": float(parts[part].sum()) for part in parts}
    return Gate(
        name,
        not lost,
        f"log-loss rises {'too much' if lost else 'most'} for {listed}; {tolerance:.4f} is tolerated",
        _finite(**figures, tolerated_loss=tolerance),
    )


def _calibration_gate(
    target: np.ndarray, challenger: np.ndarray, champion: np.ndarray, policy: PromotionPolicy
) -> Gate:
    error, chance = calibration_error(target, challenger, policy.calibration_bins, policy.confidence)
    champion_error, _ = calibration_error(target, champion, policy.calibration_bins, policy.confidence)
    allowed = max(champion_error + policy.max_calibration_loss, hypot(policy.fine_calibration_error, chance))
    return Gate(
        "keeps calibration",
        error <= allowed,
        f"calibration error {_figure(error)} against {_figure(champion_error)}, {_figure(allowed)} is "
        "allowed",
        _finite(challenger=error, champion=champion_error, allowed=allowed, by_chance=chance),
    )


def _finite(**figures: float) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items() if isfinite(value)}


def _figure(value: float, form: str = ".4f") -> str:
    return format(value, form) if isfinite(value) else "unknown"
