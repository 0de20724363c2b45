"""The training configuration of a model: what tuning decides, and training follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from poleng_assets.core.modeling.candidates.boosting import Boosting
from poleng_assets.core.modeling.decision_rule import ContactRule
from poleng_assets.core.statistics.calibration import Calibration
from poleng_assets.study.schema import Study


@dataclass(frozen=True)
class Member:
    """A member of the blend: its kind, its parameters, and its weight in the blend."""

    kind: str
    parameters: Mapping[str, Any]
    weight: float = 1.0

    def in_words(self) -> str:
        """Return it on one line."""
        listed = ", ".join(f"{name} {_short(value)}" for name, value in self.parameters.items())
        share = "" if self.weight == 1 else f"{self.weight:.0%} "
        return f"{share}{self.kind} ({listed})"


@dataclass(frozen=True)
class TrainingConfiguration:
    """Which candidates to blend, how to correct their log-odds, and whom to contact then."""

    members: tuple[Member, ...]
    calibration: Calibration
    rule: ContactRule

    @classmethod
    def untuned(cls, study: Study) -> TrainingConfiguration:
        """Return the study's own boosted trees, as tuning begins with them."""
        first = Boosting.starting_points(study.policies.training)[0]
        return cls(
            (Member(Boosting.kind, first),), Calibration(), ContactRule(study.policies.contact.threshold)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON knows it; members are called ingredients in what is stored."""
        content = asdict(self)
        return {"ingredients": content.pop("members"), **content}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TrainingConfiguration:
        """Read what :meth:`to_dict` gave."""
        return cls(
            tuple(Member(**member) for member in content["ingredients"]),
            Calibration(**content["calibration"]),
            ContactRule(**content["rule"]),
        )


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
