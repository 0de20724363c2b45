"""The contact rule: how scores become decisions, by the policy of the study."""

from dataclasses import dataclass

import numpy as np

from poleng_assets.study.policies import ContactPolicy


@dataclass(frozen=True)
class ContactRule:
    """The fixed contact rule of a model version.

    Attributes:
        threshold: probability from which a person is contacted. With a capacity it is the threshold that
            flags the same share of people, for holdouts and single persons.
        capacity: how many people of a batch are contacted, highest scores first; None when the threshold
            decides about a batch too.
    """

    threshold: float
    capacity: int | None = None

    def decide(self, score: np.ndarray) -> np.ndarray:
        """Return whom to contact among people outside a batch: bool, shape (n,).

        Args:
            score: probability of the positive class, shape (n,).
        """
        return score >= self.threshold

    def in_words(self) -> str:
        """Describe the rule in a phrase."""
        if self.capacity is not None:
            return f"contact the {self.capacity} highest scores of each batch"
        return f"contact if the probability is at least {self.threshold:.3f}"


def choose_rule(policy: ContactPolicy, target: np.ndarray, score: np.ndarray) -> ContactRule:
    """Return the rule that a policy asks for.

    ``threshold`` takes the study's own; ``youden`` maximises sensitivity + specificity (Youden 1950) on
    the given rows; ``cost_ratio`` contacts whenever that is expected to cost less, which for true
    probabilities is from 1 / (1 + ratio) on (Elkan 2001); ``capacity`` contacts the most likely
    people of a batch, as many as the contact centre can call.

    Args:
        target: 0 or 1, shape (n,).
        score: out-of-sample probability of 1, shape (n,).

    Raises:
        ValueError: Youden's rule is asked for and the target has one class only.
    """
    if policy.rule == "youden":
        return ContactRule(_youden(target, score))
    if policy.rule == "cost_ratio":
        return ContactRule(1 / (1 + policy.cost_ratio))
    if policy.rule == "capacity":
        share = min(policy.capacity / policy.usual_batch, 1.0)
        return ContactRule(float(np.quantile(score, 1 - share)), policy.capacity)
    return ContactRule(policy.threshold)


def _youden(target: np.ndarray, score: np.ndarray) -> float:
    from sklearn.metrics import roc_curve

    if len(np.unique(target)) < 2:
        raise ValueError("Youden's rule needs rows of both classes")
    false_alarms, hits, thresholds = roc_curve(target, score, drop_intermediate=False)
    # The first threshold of scikit-learn's curve is infinite: it stands for contacting nobody.
    best = np.argmax((hits - false_alarms)[1:]) + 1
    return float(thresholds[best])
