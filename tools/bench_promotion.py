"""Put bad, equal and better challengers to the gates of promotion, on real field studies.

    python tools/bench_promotion.py --data DIR [--bad 100] [--same 50] [--better 20] [--full]

DIR holds ``field_studies/founding_study.*`` and at least one later study. The champion is trained on
the founding study; each challenger is judged as the asset judges it: afresh, by the frozen holdout rows
of the field studies that it or the champion knows. The exit code is 1 when a bar is missed.

By default the champion, its equals and its betters are boosted trees alone, trained in 250 rounds at a
learning rate of 0.08: another seed then changes more, which makes the bar for equals harder. ``--full``
trains them by the configurations that tuning finds on the founding study and on all of them. Bad challengers
that need a training of their own get 60 rounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from poleng_assets.core.ingestion.ingest import ingest
from poleng_assets.core.modeling.model import train
from poleng_assets.core.modeling.training_configuration import TrainingConfiguration
from poleng_assets.core.modeling.tuning import tune
from poleng_assets.core.promotion.gates import Gate, Holdout, contest, promoted, reason
from poleng_assets.study.loading import load_study
from poleng_assets.study.policies import PromotionPolicy
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.schema import create_tables

CHEAP = {"rounds": 250, "learning_rate": 0.08}
CHEAPEST = {"rounds": 60, "learning_rate": 0.1}
FOUNDING = "founding_study"


@dataclass(frozen=True)
class Ground:
    """Training and holdout rows of all field studies, with ``field_study`` as a column.

    Attributes:
        study: whose policies decide.
        training: labelled rows that may be learned from.
        holdout: the frozen rows.
    """

    study: Study
    training: pa.Table
    holdout: pa.Table

    def founding(self, rows: pa.Table) -> pa.Table:
        """Return the rows of the founding study."""
        return rows.filter(pa.array(_is_founding(rows)))

    def later(self, rows: pa.Table) -> pa.Table:
        """Return the rows of the studies after it."""
        return rows.filter(pa.array(~_is_founding(rows)))

    def scores(
        self, rows: pa.Table, seed: int, configuration: TrainingConfiguration | None = None, **changes: float
    ) -> np.ndarray:
        """Train on rows with another seed, and score the whole holdout: shape (holdout rows,)."""
        return train(rows, _trained_by(self.study, seed=seed, **changes), configuration).score(self.holdout)

    def judge(
        self, challenger: np.ndarray, champion: np.ndarray, founding_only: bool, policy: PromotionPolicy
    ) -> list[Gate]:
        """Judge scores of the whole holdout, by the rows of the field studies that are known by then."""
        known = _is_founding(self.holdout) if founding_only else np.ones(len(champion), dtype=bool)
        rows = self.holdout.filter(pa.array(known))
        holdout = Holdout(
            target=rows[self.study.target.name].to_numpy(),
            population=rows["field_study"].to_numpy(zero_copy_only=False),
            groups={
                name: np.array([self.study.feature(name).label(one) for one in rows[name].to_pylist()])
                for name in self.study.protected
            },
        )
        flagged = challenger[known] >= self.study.policies.contact.threshold
        return contest(holdout, challenger[known], champion[known], flagged, policy)


def read_ground(data: Path, study: Study) -> Ground:
    """Read all field studies of a data folder, founding study first, and split them as ingestion does."""
    files = sorted(
        (data / "field_studies").iterdir(), key=lambda path: (not path.stem.startswith(FOUNDING), path.name)
    )
    columns = ", ".join(f'"{name}"' for name in [study.id, *study.feature_names, study.target.name])
    with duckdb.connect() as con:
        create_tables(con, study)
        for path in files:
            ingest(con, study, "field_studies", path)
        training, holdout = (
            con.sql(
                f"""SELECT field_study, {columns} FROM field_study_rows WHERE part = ?
                ORDER BY list_position(?, field_study), row_number""",  # noqa: S608
                params=[part, [path.stem for path in files]],
            ).to_arrow_table()
            for part in ("train", "holdout")
        )
    return Ground(study, training, holdout)


def bad_challengers(
    ground: Ground, number: int, equals: list[np.ndarray], betters: list[np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield seven kinds of bad challengers in turn: name and scores of the whole holdout.

    What is made out of a good model's scores is made out of a better one's every second time: its
    ranking and what it learned of new people are then truly better, and it must be refused all the same.
    """
    kinds: dict[str, Callable[[int, np.ndarray], np.ndarray]] = {
        "constant": lambda seed, good: _constant(seed, ground),
        "inverted": lambda seed, good: 1 - good,
        "mis-scaled probabilities": _mis_scaled,
        "shuffled labels": lambda seed, good: ground.scores(_shuffled(ground, seed), seed, **CHEAPEST),
        "exploding learning rate": lambda seed, good: ground.scores(
            ground.training,
            seed,
            rounds=60,
            learning_rate=float(10 ** np.random.default_rng(seed).uniform(0.5, 2)),
        ),
        "trained on new countries only": lambda seed, good: ground.scores(
            ground.later(ground.training), seed, **CHEAPEST
        ),
        "leaking the id": lambda seed, good: _leaking(ground, seed),
    }
    names = list(kinds)
    for position in range(number):
        goods = (equals, betters)[position // len(names) % 2]
        kind = names[position % len(names)]
        yield kind, kinds[kind](1_000 + position, goods[position % len(goods)])


def contests(
    ground: Ground, bad: int, same: int, better: int, others: int, tuned: bool
) -> list[tuple[str, int, int, str, bool]]:
    """Let all challengers be judged, print how they fared, and return each bar.

    Args:
        ground: the rows.
        bad: number of bad challengers.
        same: number of challengers from the same data with another seed.
        better: number of challengers that have learned from all field studies.
        others: how many other champions each of the same data meets, too.
        tuned: train them by tuned configurations.

    Returns:
        For each bar: name, promoted, judged, the bar in words, whether it is met.
    """
    study = ground.study
    policy, seed = study.policies.promotion, study.policies.training.seed
    founding = ground.founding(ground.training)
    changes = {} if tuned else CHEAP
    first, second = (_configuration(rows, study) if tuned else None for rows in (founding, ground.training))
    champion = ground.scores(founding, seed, first, **changes)
    equals = [ground.scores(founding, 100 + n, first, **changes) for n in range(same)]
    betters = [ground.scores(ground.training, 500 + n, second, **changes) for n in range(better)]
    verdicts: dict[str, list[list[Gate]]] = {}
    for kind, score in bad_challengers(ground, bad, equals or [champion], betters or [champion]):
        verdicts.setdefault(kind, []).append(ground.judge(score, champion, False, policy))
    all_bad = [verdict for judged in verdicts.values() for verdict in judged]
    alike = [ground.judge(score, champion, True, policy) for score in equals]
    improved = [ground.judge(score, champion, False, policy) for score in betters]
    # Whether equals are promoted hangs on the luck of the one champion; others take its place.
    pairs = [
        ground.judge(equals[(n + step) % len(equals)], equals[n], True, policy)
        for n in range(len(equals))
        for step in range(1, 1 + others)
    ]
    print(f"{'challengers':<42} {'promoted':>11}  bar      refused by")
    for kind, judged in verdicts.items():
        _print_row(f"bad: {kind}", judged, "")
    bars = [
        _print_row("bad: all", all_bad, "0", lambda share: share == 0),
        _print_row("same data, another seed", alike, "<= 5 %", lambda share: share <= 0.05),
        _print_row("same data, other champions too", pairs, "<= 5 %", lambda share: share <= 0.05),
        _print_row("later studies assimilated", improved, ">= 95 %", lambda share: share >= 0.95),
    ]
    for name, judged in (("same data", alike), ("assimilated", improved)):
        gains = np.array([_gain(verdict) for verdict in judged])
        if len(gains):
            print(
                f"gain in log-loss, {name}: mean {gains.mean():+.4f}, standard deviation {gains.std():.4f}, "
                f"from {gains.min():+.4f} to {gains.max():+.4f}"
            )
    for verdict in [verdict for verdict in all_bad if promoted(verdict)]:
        print("promoted although bad:", reason(verdict))
    return bars


def main() -> None:
    """Print the table; exit with 1 when a bar is missed."""
    arguments = _arguments()
    started = time.monotonic()
    ground = read_ground(arguments.data, load_study())
    bars = contests(ground, arguments.bad, arguments.same, arguments.better, arguments.others, arguments.full)
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(0 if all(met for *_, met in bars) else 1)


def _configuration(rows: pa.Table, study: Study) -> TrainingConfiguration:
    return tune(rows, study, study.policies.training.quick).configuration


def _print_row(
    name: str, verdicts: list[list[Gate]], bar: str, meets: Callable[[float], bool] | None = None
) -> tuple[str, int, int, str, bool]:
    """Print how many were promoted and which gates refused the others; return the bar."""
    won = sum(map(promoted, verdicts))
    met = meets is None or not verdicts or meets(won / len(verdicts))
    refused = Counter(gate.name for verdict in verdicts for gate in verdict if not gate.passed)
    by = ", ".join(f"{gate} {count}" for gate, count in refused.most_common())
    print(f"{name:<42} {f'{won} of {len(verdicts)}':>11}  {bar:<8} {'' if met else 'MISSED; '}{by}")
    return name, won, len(verdicts), bar, met


def _gain(verdict: list[Gate]) -> float:
    return next((gate.figures["gain"] for gate in verdict if gate.name == "better log-loss"), float("nan"))


def _constant(seed: int, ground: Ground) -> np.ndarray:
    """The share of disengaged people for everybody, with a whiff of noise every second time."""
    target = ground.training[ground.study.target.name].to_numpy()
    noise = np.random.default_rng(seed).normal(0, 1e-3 * (seed % 2), ground.holdout.num_rows)
    return target.mean() + noise


def _mis_scaled(seed: int, good: np.ndarray) -> np.ndarray:
    """Too sure of itself, too timid, shifted up or down, or shrunk."""
    random = np.random.default_rng(seed)
    logit = np.log(good / (1 - good))
    changed = [
        logit * random.uniform(1.6, 4),
        logit * random.uniform(0.2, 0.5),
        logit + random.uniform(0.4, 1.5) * random.choice([-1, 1]),
        np.log(good * 0.7 / (1 - good * 0.7)),
    ][random.integers(4)]
    return 1 / (1 + np.exp(-changed))


def _shuffled(ground: Ground, seed: int) -> pa.Table:
    name = ground.study.target.name
    shuffled = np.random.default_rng(seed).permutation(ground.training[name].to_numpy())
    return _with_column(ground.training, name, shuffled)


def _leaking(ground: Ground, seed: int) -> np.ndarray:
    """Train with the id's number as a feature, where ids were handed out in the order of the answer.

    Every second time the holdout leaks as well: the model is then as good as perfect there.
    """
    random = np.random.default_rng(seed)
    feature = [one.name for one in ground.study.features if one.is_ordinal][seed % 3]

    def numbered(rows: pa.Table) -> pa.Table:
        answers = rows[ground.study.target.name].to_numpy()
        numbers = np.empty(len(answers), dtype=np.int32)
        numbers[np.lexsort((random.random(len(answers)), answers))] = np.linspace(1, 9_999, len(answers))
        return _with_column(rows, feature, numbers)

    training = numbered(ground.training)
    holdout = numbered(ground.holdout)
    if seed // 7 % 2:
        holdout = _with_column(
            ground.holdout, feature, random.integers(1, 9_999, ground.holdout.num_rows, dtype=np.int32)
        )
    return train(training, _trained_by(ground.study, seed=seed, **CHEAPEST)).score(holdout)


def _with_column(rows: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, pa.array(values))


def _is_founding(rows: pa.Table) -> np.ndarray:
    return rows["field_study"].to_numpy(zero_copy_only=False) == FOUNDING


def _trained_by(study: Study, seed: int, **trees: float) -> Study:
    xgboost = study.policies.training.xgboost.model_copy(update=trees)
    training = study.policies.training.model_copy(update={"seed": seed, "xgboost": xgboost})
    return study.model_copy(update={"policies": study.policies.model_copy(update={"training": training})})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with field_studies/")
    parser.add_argument("--bad", type=int, default=100)
    parser.add_argument("--same", type=int, default=50)
    parser.add_argument("--better", type=int, default=20)
    parser.add_argument("--others", type=int, default=4, help="other champions for each of the same data")
    parser.add_argument("--full", action="store_true", help="train by tuned configurations: about 15 minutes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
