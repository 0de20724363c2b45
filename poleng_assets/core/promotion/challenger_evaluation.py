"""Evaluation of a challenger: against the champion on the same frozen holdout, and by shadow scoring.

Both are scored afresh. What the scores mean is in ``gates.py`` and ``shadow_scoring.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from poleng_assets.core.modeling.model import Model
from poleng_assets.core.promotion.gates import Gate, Holdout, contest, groups_passed_over, promoted, reason
from poleng_assets.core.promotion.shadow_scoring import Scored, Shadow, compare, contacts
from poleng_assets.core.statistics.groups import labelled_groups
from poleng_assets.core.statistics.selection_rates import GroupContacts, describe_passed_over, group_questions
from poleng_assets.study.policies import PromotionPolicy
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.files import names_of_files
from poleng_assets.warehouse.predictions import people_sample
from poleng_assets.warehouse.training_sets import labelled_rows


@dataclass(frozen=True)
class ChallengerEvaluation:
    """The evaluation of a challenger.

    Attributes:
        gates: all that it was put to.
        passed_over: groups that its contact rule passes over.
        shadows: what would change for the newest batches, newest first; empty without a champion.
    """

    gates: Sequence[Gate]
    passed_over: Sequence[GroupContacts]
    shadows: Sequence[Shadow]

    @property
    def promoted(self) -> bool:
        """Whether it passed every gate."""
        return promoted(self.gates)

    def reason(self, policy: PromotionPolicy, champion_fault: str) -> str:
        """Return why it is promoted or rejected, for the ledger.

        Args:
            champion_fault: why it was not compared with the version that serves; may be empty.
        """
        summary = reason(self.gates)
        if flagged := describe_passed_over(self.passed_over, policy):
            summary = f"{summary}; warning: it {flagged}"
        return (
            f"{summary}; judged without a champion, because {champion_fault}" if champion_fault else summary
        )


def evaluate_challenger(
    warehouse: Warehouse, challenger: Model, champion: Model | None, field_studies: Sequence[str]
) -> ChallengerEvaluation:
    """Score both models and evaluate the gates, with the warehouse closed.

    Args:
        champion: the model that serves; None when the challenger is compared with nobody.
        field_studies: whose holdout rows both are judged by.
    """
    study = warehouse.study
    policy = study.policies.promotion
    with warehouse.read() as con:
        holdout = labelled_rows(con, study, field_studies, "holdout")
        newest = names_of_files(con, "batches")[: policy.shadow_batches] if champion else []
        batches = [(name, *people_sample(con, study, name, policy.shadow_rows)) for name in newest]
    shadows = [
        _shadow(study, name, rows, people, challenger, champion) for name, rows, people in batches if champion
    ]
    gates, passed_over = _gates(study, holdout, challenger, champion)
    return ChallengerEvaluation(gates, passed_over, shadows)


def _gates(
    study: Study, rows: pa.Table, challenger: Model, champion: Model | None
) -> tuple[list[Gate], list[GroupContacts]]:
    holdout = Holdout(
        target=rows[study.target.name].to_numpy(),
        population=rows["field_study"].to_numpy(zero_copy_only=False),
        groups=labelled_groups(study, rows, study.protected),
        contacted=labelled_groups(study, rows, group_questions(study)),
    )
    score, policy = challenger.score(rows), study.policies.promotion
    flagged = challenger.rule.decide(score)
    gates = contest(holdout, score, champion.score(rows) if champion else None, flagged, policy)
    return gates, groups_passed_over(holdout, flagged, policy) if rows.num_rows else []


def _shadow(
    study: Study, batch: str, rows: pa.Table, people: int, challenger: Model, champion: Model
) -> Shadow:
    ids = rows[study.id].to_numpy()

    def scored_by(model: Model) -> Scored:
        score = model.score(rows)
        return Scored(score, contacts(model.rule, score, ids, people))

    return compare(
        batch,
        champion=scored_by(champion),
        challenger=scored_by(challenger),
        groups=labelled_groups(study, rows, study.protected),
        batch_rows=people,
        min_group_rows=study.policies.promotion.min_group_rows,
    )
