"""Tuning: which candidates, with which parameters, by cross-validated log-loss.

Only training rows come here; the holdout is never seen. The search is Optuna's, kept in a file, so that
an interrupted one goes on where it was. What it decides is a training configuration.

Sources:
    T. Akiba et al., Optuna, KDD 2019 (TPE, pruning); https://optuna.readthedocs.io/.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from poleng_assets.core.data.library_versions import library_version
from poleng_assets.core.data.parallel import parallel_map
from poleng_assets.core.features.encoder import Encoder
from poleng_assets.core.modeling.blending import blend_weights, choose_blend, cross_fitted
from poleng_assets.core.modeling.candidates.base import Columns, Parameters, with_masked_copies
from poleng_assets.core.modeling.candidates.blend import KINDS
from poleng_assets.core.modeling.decision_rule import choose_rule
from poleng_assets.core.modeling.folds import fold_of
from poleng_assets.core.modeling.training_configuration import Member, TrainingConfiguration
from poleng_assets.core.statistics.calibration import Calibration, calibrate
from poleng_assets.storage.files import in_place_of
from poleng_assets.study.policies import Budget
from poleng_assets.study.schema import Study

if TYPE_CHECKING:
    import optuna

# A candidate's kind, and its parameters.
Point: TypeAlias = tuple[str, Parameters]


@dataclass(frozen=True)
class Trial:
    """One evaluated candidate.

    Attributes:
        number: in the order of trying.
        member: its kind and parameters.
        fold_losses: log-loss on each fold that was reached.
        seconds: that it took.
        pruned: whether it was given up before the last fold.
    """

    number: int
    member: Member
    fold_losses: tuple[float, ...]
    seconds: float
    pruned: bool

    @property
    def log_loss(self) -> float:
        """The mean over the folds that were reached."""
        return float(np.mean(self.fold_losses))


@dataclass(frozen=True)
class TuningResult:
    """The result of a search.

    Attributes:
        configuration: to train by.
        trials: all of them, best first; pruned ones last.
        log_loss: of the configuration, cross-validated: weights and calibration from other folds than those
            that they are measured on.
        auc: of the configuration, out of fold.
        calibration_gain: log-loss that calibration saves, or would save where it was left out.
    """

    configuration: TrainingConfiguration
    trials: tuple[Trial, ...]
    log_loss: float
    auc: float
    calibration_gain: float

    def table(self) -> pd.DataFrame:
        """Return the comparison: the configuration, then each trial, best first."""
        chosen = {
            "candidate": "chosen",
            "log_loss": self.log_loss,
            "seconds": sum(trial.seconds for trial in self.trials),
            "state": "calibrated" if self.configuration.calibration != Calibration() else "uncalibrated",
            "parameters": " + ".join(member.in_words() for member in self.configuration.members),
        }
        tried = [
            {
                "candidate": f"{trial.member.kind} {trial.number}",
                "log_loss": trial.log_loss,
                "seconds": trial.seconds,
                "state": f"pruned after fold {len(trial.fold_losses)}" if trial.pruned else "complete",
                "parameters": trial.member.in_words(),
            }
            for trial in self.trials
        ]
        return pd.DataFrame([chosen, *tried])


def tune(
    rows: pa.Table,
    study: Study,
    budget: Budget,
    folder: Path | None = None,
    on_trial: Callable[[Trial, str], None] = lambda trial, message: None,
) -> TuningResult:
    """Search for the configuration with the lowest cross-validated log-loss.

    With a budget that trials end, the same rows, study and budget give the same configuration, whether the
    search was interrupted or not.

    Args:
        rows: id, features and target of the training rows.
        budget: trials and minutes, those of an interrupted search included.
        folder: where the search is kept, made if it is missing; None to keep it in memory only. It
            must be another one for other rows or another study.
        on_trial: called for each trial, with a progress message.

    Raises:
        ValueError: the rows are too few, or too much of one class, for the folds.
    """
    search = _Search(rows, study, folder)
    # A longer search may have gone before; this one ends where it would have ended alone.
    trials = search.finished()[: budget.trials]
    for trial in trials:
        on_trial(trial, f"{trial.member.kind}: log-loss {trial.log_loss:.4f}, from an earlier run")
    while len(trials) < budget.trials and sum(trial.seconds for trial in trials) < 60 * budget.minutes:
        trials.append(search.next(more=len(trials) + 1 < budget.trials))
        on_trial(trials[-1], _progress(trials, budget))
    return search.conclude(trials)


def search_name(training_data_hash: str, study: Study) -> str:
    """Return the name of a search, which depends on the data, the study and the library versions.

    What may differ is how long the search goes on: a full one goes on where a quick one stopped.
    """
    # In the layout of earlier releases, without what has a default since: their searches are known again.
    policy = study.policies.training.model_dump(exclude={"mode", "quick", "full"}, exclude_defaults=True)
    policy |= policy.pop("xgboost")
    features = [feature.model_dump() for feature in study.features]
    libraries = [library_version(name) for name in ("optuna", "scikit-learn", "xgboost")]
    content = json.dumps(
        [training_data_hash, study.name, study.target.model_dump(), policy, features, libraries]
    )
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _progress(trials: Sequence[Trial], budget: Budget) -> str:
    last, best = trials[-1], min(trials, key=_rank)
    spent = sum(trial.seconds for trial in trials)
    left = min((budget.trials - len(trials)) * spent / len(trials), 60 * budget.minutes - spent)
    state = "pruned" if last.pruned else "done"
    return (
        f"Trial {len(trials)} of {budget.trials} {state} in {last.seconds:.0f} s: {last.member.kind}, "
        f"log-loss {last.log_loss:.4f} (best {best.log_loss:.4f}); about {max(left, 0) / 60:.1f} more minutes"
    )


def _rank(trial: Trial) -> tuple[bool, float]:
    return trial.pruned, trial.log_loss


class _Search:
    """The state of a search: Optuna's trials, and the out-of-fold log-odds of each complete one."""

    def __init__(self, rows: pa.Table, study: Study, folder: Path | None) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = study
        self.policy = study.policies.training
        encoder = Encoder.fit(rows, study)
        self.columns = Columns.of(encoder, study)
        self.matrix = encoder.encode(rows)
        self.target = rows[study.target.name].to_numpy().astype(np.float32)
        self.fold = fold_of(rows, study)
        self._check_that_folds_can_be_learned_from()
        self.folder = folder
        self.out_of_fold: dict[int, np.ndarray] = {}
        # The point that comes next, and those of its folds that were scored while cores had nothing to do.
        self.ahead: tuple[Point | None, dict[int, np.ndarray]] = (None, {})
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self.optuna = optuna.create_study(
            study_name=study.name,
            storage=f"sqlite:///{folder / 'trials.db'}" if folder is not None else None,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=self.policy.pruned_after),
            load_if_exists=True,
        )
        points = {kind: KINDS[kind].starting_points(self.policy) for kind in self.policy.candidates}
        # One of each kind first: a search that ends early has seen them all.
        self.starts: list[Point] = [
            (kind, parameters)
            for together in zip_longest(*points.values())
            for kind, parameters in zip(points, together, strict=True)
            if parameters is not None
        ]
        for stale in self.optuna.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            # Its process was killed: nobody else works on this folder.
            self.optuna.tell(stale.number, state=optuna.trial.TrialState.FAIL)

    def _check_that_folds_can_be_learned_from(self) -> None:
        for fold in range(self.policy.folds):
            inside = self.fold == fold
            if not inside.any() or len(np.unique(self.target[~inside])) < 2:
                raise ValueError(
                    f"tuning needs different people of both classes of {self.study.target.name} for each of "
                    f"{self.policy.folds} folds; {len(self.target)} training rows have too few"
                )

    def finished(self) -> list[Trial]:
        """Return the trials of an earlier, interrupted search."""
        from optuna.trial import TrialState

        done = self.optuna.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
        return [_trial(frozen) for frozen in done]

    def next(self, more: bool = False) -> Trial:
        """Try one more candidate; ``more``: another one is going to follow."""
        import optuna

        finished = self.finished()
        # Seeded again for each trial: after an interruption it goes on as it would have gone on.
        # Not by seed + number: the next seed would then try the very same parameters, one trial later.
        seed = np.random.SeedSequence([self.policy.seed, len(finished)]).generate_state(1)[0]
        self.optuna.sampler = optuna.samplers.TPESampler(seed=int(seed))
        start = len(finished) < len(self.starts)
        if start and not self.optuna.get_trials(states=(optuna.trial.TrialState.WAITING,)):
            kind, parameters = self.starts[len(finished)]
            self.optuna.enqueue_trial({"candidate": kind, **parameters})
        trial = self.optuna.ask()
        kind = trial.suggest_categorical("candidate", list(self.policy.candidates))
        parameters = KINDS[kind].suggest(trial, self.policy)
        trial.set_user_attr("ingredient", {"kind": kind, "parameters": dict(parameters)})
        # Its number among those that were finished: one that was killed leaves no gap in a model card.
        number = max((earlier.number for earlier in finished), default=-1) + 1
        trial.set_user_attr("place", number)
        following = next(iter(self.starts[len(finished) + 1 :]), None) if more else None
        self._cross_validate(trial, number, (kind, parameters), prunable=not start, following=following)
        return _trial(self.optuna.trials[trial.number])

    def _cross_validate(
        self, trial: optuna.Trial, number: int, point: Point, *, prunable: bool, following: Point | None
    ) -> None:
        from optuna.trial import TrialState
        from sklearn.metrics import log_loss

        began = time.monotonic()
        raw = np.empty(len(self.target))
        losses: list[float] = []

        def reach(folds: Sequence[int]) -> None:
            """Fit and score some folds at the same time; each fit keeps to one thread."""
            for fold, scored in zip(folds, self._score_folds(folds, point, following), strict=True):
                inside = self.fold == fold
                raw[inside] = scored
                chance = Calibration().probability(scored)
                losses.append(float(log_loss(self.target[inside], chance, labels=[0, 1])))
                trial.report(float(np.mean(losses)), fold)

        every = range(self.policy.folds)
        if prunable:
            reach(every[:1])
        if not (prunable and trial.should_prune()):
            reach(every[len(losses) :])
        trial.set_user_attr("fold_losses", losses)
        trial.set_user_attr("seconds", time.monotonic() - began)
        if len(losses) < self.policy.folds:
            self.optuna.tell(trial, state=TrialState.PRUNED)
            return
        self.out_of_fold[number] = raw
        if self.folder is not None:
            # Before the trial counts as complete: a complete one always has its log-odds.
            with in_place_of(self.folder / f"{number}.npy") as part, part.open("wb") as file:
                np.save(file, raw)
        self.optuna.tell(trial, float(np.mean(losses)))

    def _score_folds(self, folds: Sequence[int], point: Point, following: Point | None) -> list[np.ndarray]:
        """Return the log-odds of the rows of some folds; cores that are left over begin with what follows."""
        from joblib import cpu_count

        begun = self.ahead[1] if self.ahead[0] == point else {}
        fits = [(point, fold) for fold in folds if fold not in begun]
        if following is not None:
            left_over = -len(fits) % cpu_count()
            fits += [(following, fold) for fold in range(self.policy.folds)[:left_over]]
        scored = parallel_map(lambda fit: self._score_fold(*fit), fits)
        done = [(of, fold, odds) for (of, fold), odds in zip(fits, scored, strict=True)]
        self.ahead = following, {fold: odds for of, fold, odds in done if of is following}
        begun = begun | {fold: odds for of, fold, odds in done if of is point}
        return [begun[fold] for fold in folds]

    def _score_fold(self, point: Point, fold: int) -> np.ndarray:
        """Return the log-odds of the rows of a fold by a candidate that learned from the others."""
        kind, parameters = point
        inside = self.fold == fold
        matrix, target = with_masked_copies(
            self.matrix[~inside],
            self.target[~inside],
            self.columns.masked,
            self.policy.masked_share,
            self.policy.seed,
        )
        fitted = KINDS[kind].fit(matrix, target, self.columns, parameters, self.policy.seed)
        return fitted.log_odds(self.matrix[inside])

    def conclude(self, trials: Sequence[Trial]) -> TuningResult:
        """Blend the best trials, calibrate what comes out, and choose the rule of whom to contact."""
        from sklearn.metrics import log_loss, roc_auc_score

        ranked = sorted(trials, key=_rank)
        pool = [trial for trial in ranked if not trial.pruned][: self.policy.blended_from]
        raw = np.column_stack([self._log_odds_of(trial) for trial in pool])
        chosen = choose_blend(
            raw, self.target, self.fold, self.policy.max_blended, self.policy.min_blend_gain
        )
        weights = blend_weights(raw[:, chosen], self.target)
        blended = cross_fitted(raw[:, chosen], self.target, self.fold)
        calibration, gain = calibrate(blended, self.target, self.fold, self.policy.min_calibration_gain)
        score = calibration.probability(blended)
        loss = float(log_loss(self.target, Calibration().probability(blended), labels=[0, 1]))
        configuration = TrainingConfiguration(
            tuple(
                dataclasses.replace(pool[position].member, weight=float(weight))
                for position, weight in zip(chosen, weights, strict=True)
            ),
            calibration,
            choose_rule(self.study.policies.contact, self.target, score),
        )
        return TuningResult(
            configuration,
            tuple(ranked),
            loss - (gain if calibration != Calibration() else 0.0),
            float(roc_auc_score(self.target, score)),
            gain,
        )

    def _log_odds_of(self, trial: Trial) -> np.ndarray:
        if trial.number not in self.out_of_fold and self.folder is not None:
            self.out_of_fold[trial.number] = np.load(self.folder / f"{trial.number}.npy")
        return self.out_of_fold[trial.number]


def _trial(frozen: optuna.trial.FrozenTrial) -> Trial:
    from optuna.trial import TrialState

    known: dict[str, Any] = frozen.user_attrs
    return Trial(
        known["place"],
        Member(**known["ingredient"]),
        tuple(known["fold_losses"]),
        known["seconds"],
        frozen.state == TrialState.PRUNED,
    )
