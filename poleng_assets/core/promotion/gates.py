"""Champion against challenger: named gates, each a pure rule with an explanation and its metrics.

Both models are evaluated on the same frozen holdout rows. The first champion needs the sanity gates only.
Undefined metrics (one class only, scores that are not numbers) fail their gate, in favour of the champion.

No gate detects a small target leakage that is in the holdout as well; ``max_auc`` stops blatant ones. The
split keeps holdout people out of training.

The metrics and their sources are in ``core/statistics/metrics.py`` and ``core/statistics/resampling.py``.
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

_LEAST_SPREAD = 1e-6  # scores with less spread are constant up to rounding, whatever the study allows
# What people read; the names are stored in homes.
_TITLES = {
    "can be judged": "evaluation data",
    "better log-loss": "log-loss",
    "no worse ranking": "AUC",
    "keeps every population": "log-loss by population",
    "keeps every protected group": "log-loss by protected group",
    "keeps calibration": "calibration against the champion",
    "ranks people": "minimum AUC",
    "is not too good to be true": "leakage check",
    "flags a sensible share": "contact share",
    "is not constant": "score variance",
    "means what it says": "calibration",
    "passes nobody over": "group contact rates",
}


@dataclass(frozen=True)
class Gate:
    """The result of one rule: an explanation for an auditor, metrics for the ledger.

    Attributes:
        name: of the rule, the same for every challenger.
        passed: whether the challenger may go on.
        words: the measured and the required values, in a sentence.
        figures: the finite values; undefined ones are left out, as JSON has no NaN.
    """

    name: str
    passed: bool
    words: str
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name of the rule for display."""
        return _TITLES.get(self.name, self.name)


@dataclass(frozen=True)
class Holdout:
    """The n rows that both models are evaluated on.

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
    """Evaluate a challenger by all gates, the most important first.

    Args:
        holdout: the judging rows, n of them.
        challenger: its probabilities of the positive answer, shape (n,).
        champion: those of the model that serves, shape (n,); None for the first model.
        flagged: whom the challenger would contact by its own rule, bool, shape (n,).

    Returns:
        All gates; one failed gate alone when no metric can be computed.
    """
    if len(holdout.target) == 0:
        return [Gate("can be judged", False, "there are no holdout rows to evaluate the challenger on")]
    usable = (challenger >= 0) & (challenger <= 1)
    if not usable.all():
        share = 1 - usable.mean()
        explanation = f"{share:.1%} of its scores on the holdout are not probabilities"
        return [Gate("can be judged", False, explanation, {"unusable_share": float(share)})]
    sanity = sanity_gates(holdout, challenger, flagged, policy)
    if policy.refuse_passed_over:
        sanity.append(passing_over_gate(holdout, flagged, policy))
    return sanity if champion is None else [*contest_gates(holdout, challenger, champion, policy), *sanity]


def sanity_gates(
    holdout: Holdout, score: np.ndarray, flagged: np.ndarray, policy: PromotionPolicy
) -> list[Gate]:
    """Reject a model that ranks at random, flags nobody or everybody, is constant, or is badly calibrated.

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
            f"AUC on the holdout {_figure(auc)}, at least {policy.min_auc:.3f} is required",
            _finite(auc=auc, needed=policy.min_auc),
        ),
        Gate(
            "is not too good to be true",
            auc <= policy.max_auc,
            f"AUC on the holdout {_figure(auc)}; above {policy.max_auc:.3f} suggests target leakage",
            _finite(auc=auc, limit=policy.max_auc),
        ),
        _flagging_gate(holdout, flagged, policy),
        Gate(
            "is not constant",
            spread >= max(policy.min_score_spread, _LEAST_SPREAD) and distinct >= policy.min_distinct_scores,
            f"standard deviation of the scores {spread:.4f} with {distinct} distinct values, at least "
            f"{policy.min_score_spread:.3f} and {policy.min_distinct_scores} are required",
            _finite(spread=spread, distinct_scores=distinct),
        ),
        Gate(
            "means what it says",
            error <= allowed,
            f"calibration error on the holdout {_figure(error)}, at most {_figure(allowed)} is allowed: "
            f"{policy.max_calibration_error:.3f} plus a sampling error of {_figure(chance)}",
            _finite(calibration_error=error, allowed=allowed, by_chance=chance),
        ),
    ]


def contest_gates(
    holdout: Holdout, challenger: np.ndarray, champion: np.ndarray, policy: PromotionPolicy
) -> list[Gate]:
    """Test whether the challenger is significantly better than the champion, and worse for no group.

    Two models of the same data differ by their seed too. So the gain must be significant over resamples of
    the people, and larger than the gain from another seed.

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
    # A resample without any row of a mask has no value for it.
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
    """Whether every gate is passed; without gates nothing is promoted."""
    return bool(gates) and all(gate.passed for gate in gates)


def reason(gates: Sequence[Gate]) -> str:
    """Return why a challenger was rejected, or the most important gate of one that was promoted."""
    failed = [gate for gate in gates if not gate.passed]
    return "; ".join(gate.words for gate in failed or gates[:1])


def _flagging_gate(holdout: Holdout, flagged: np.ndarray, policy: PromotionPolicy) -> Gate:
    """Require a plausible contact share overall and in each population."""
    low, high = policy.flagged_share
    populations = group_masks({"": holdout.population}, policy.min_group_rows)
    shares = {name: float(flagged[rows].mean()) for name, rows in populations.items()}
    everybody = float(flagged.mean())
    # Whatever the study allows: contacting everybody, or nobody, needs no model.
    tells_apart = 0 < everybody < 1
    listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    return Gate(
        "flags a sensible share",
        tells_apart and all(low <= share <= high for share in [everybody, *shares.values()]),
        f"flags {everybody:.1%} of the holdout{f' ({listed})' if listed else ''}; between {low:.1%} and "
        f"{high:.1%} is required, and neither nobody nor everybody",
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
    """Reject a contact rule that passes over a group; only studies that ask for it have this gate."""
    groups = groups_passed_over(holdout, flagged, policy)
    figures = {
        f"{group.property}: {group.value}: contacted": group.contacted / group.rows for group in groups
    }
    figures |= {f"{group.property}: {group.value}: rows": float(group.rows) for group in groups}
    return Gate(
        "passes nobody over",
        not groups,
        describe_passed_over(groups, policy) or "passes over no group that is large enough to judge",
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
        f"{policy.min_log_loss_gain:.4f} is required; lower bound at {policy.confidence:.0%} confidence "
        f"{gain_at_least:+.4f}, above zero is required",
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
        f"AUC {_figure(auc)} against {_figure(champion_auc)}; upper bound of the gain at "
        f"{policy.confidence:.0%} confidence {_figure(gain_at_most, '+.4f')}, a loss of "
        f"{policy.max_auc_loss:.3f} is tolerated",
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
    """Fail when the log-loss of a part has risen significantly by more than is tolerated.

    Args:
        loss: how much the log-loss of each row rises, shape (n,).
        parts: which rows belong to each part, each of shape (n,).
        at_least: lower end of the interval of the loss of each part, shape (parts,).
        tolerance: that a part may lose.
    """
    if not parts:
        return Gate(name, True, f"no group has the required {policy.min_group_rows} people")
    point = {part: float(loss[rows].mean()) for part, rows in parts.items()}
    lower_bounds = dict(zip(parts, at_least.tolist(), strict=True))
    # "not <=", so that an undefined loss fails.
    lost = [part for part in parts if not lower_bounds[part] <= tolerance]
    named = lost or [max(point, key=point.__getitem__)]
    listed = ", ".join(
        f"{part} {point[part]:+.4f} (at least {lower_bounds[part]:+.4f}, {int(parts[part].sum())} people)"
        for part in named
    )
    figures = {f"{part}: loss": point[part] for part in parts}
    figures |= {f"{part}: loss_at_least": lower_bounds[part] for part in parts}
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
        f"calibration error {_figure(error)} against {_figure(champion_error)}, at most {_figure(allowed)} "
        "is allowed",
        _finite(challenger=error, champion=champion_error, allowed=allowed, by_chance=chance),
    )


def _finite(**figures: float) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items() if isfinite(value)}


def _figure(value: float, form: str = ".4f") -> str:
    return format(value, form) if isfinite(value) else "unknown"
