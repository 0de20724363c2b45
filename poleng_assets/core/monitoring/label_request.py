"""The label request: how many people to interview, in which strata, and who.

What belongs here is the design of the sample. Which batches it is about, and where the request is
written, is in ``defs/assets/label_requests.py``.

The size is what an AUC needs to be known well enough. It is spread over strata of what drifted and of how
uncertain the scores are: many interviews where there are many people and little is known about them.

Sources:
    J. Hanley, B. McNeil, Radiology 143, 1982 (standard error of the AUC).
    J. Neyman, JRSS 97, 1934 (optimal allocation). L. Kish, Survey Sampling, 1965 (design effect).
    CBPE: https://nannyml.readthedocs.io/en/v0.13.1/how_it_works/performance_estimation.html
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from poleng_assets.core.statistics.groups import NO_ANSWER
from poleng_assets.core.statistics.intervals import Z_95, hanley_mcneil_error
from poleng_assets.core.statistics.metrics import expected_auc
from poleng_assets.study.schema import Study

OTHER_ANSWERS = "other answers"
AUDIT, DRAWN = "audit sample", "drawn at random"
STRATA_COLUMNS = ("stratum", "people", "known", "interviews", "mean_score")


@dataclass(frozen=True)
class FieldStudyRequest:
    """A sample to interview.

    Attributes:
        people: those to interview: the id, ``batch``, ``stratum`` (in words, with no answer that a
            contact list may not show) and ``why`` (:data:`AUDIT` or :data:`DRAWN`).
        strata: for each stratum: its name with all answers, ``people`` in it, those ``known`` already,
            ``interviews`` asked for now, ``mean_score``; of numbers only, so that it may be shown.
        needed: interviews that reach the wanted precision, known ones among them.
        within: half width of the 95 % interval of the AUC once all of them are known; infinite when
            there is nobody of one of the classes to be expected.
        words: what is asked for and what it will tell, in sentences.
    """

    people: pd.DataFrame
    strata: pd.DataFrame
    needed: int
    within: float
    words: str

    @property
    def size(self) -> int:
        """Number of people to interview."""
        return len(self.people)


def interviews_needed(auc: float, rate: float, within: float) -> int:
    """Return the fewest people that let the 95 % interval of the AUC be within ``± within``.

    Args:
        auc: expected; below 0.5 it counts as 0.5, where most people are needed.
        rate: expected share of people with the target, in (0, 1).
        within: half width of the interval, above 0.
    """
    few, many = 1, 2
    while half_width(auc, rate, many) > within:
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if half_width(auc, rate, middle) <= within else (middle, many)
    return many


def half_width(auc: float, rate: float, people: float) -> float:
    """Return half the width of the 95 % interval of an AUC (Hanley & McNeil 1982).

    Args:
        auc: expected; below 0.5 it counts as 0.5.
        rate: expected share of people with the target, in [0, 1].
        people: interviewed; need not be whole.
    """
    positives, negatives = people * rate, people * (1 - rate)
    if positives <= 0 or negatives <= 0:
        return math.inf
    return Z_95 * hanley_mcneil_error(max(auc, 0.5), positives, negatives)


def allocate(people: np.ndarray, spread: np.ndarray, total: int, at_least: int) -> np.ndarray:
    """Spread interviews over strata in proportion to their size times their spread (Neyman 1934).

    Args:
        people: in each stratum, whole numbers, shape (strata,).
        spread: standard deviation of the answer within each, likewise.
        total: interviews; no more than there are people are given.
        at_least: interviews of each stratum, as far as it has people; this may exceed the total.

    Returns:
        Interviews of each stratum, whole numbers that are never more than its people.
    """
    least = np.minimum(people, at_least).astype(float)
    wish = people * np.maximum(spread, 1e-9)
    total = min(max(total, int(least.sum())), int(people.sum()))
    # What all get together rises with the factor, however many are at their least or have given everybody.
    low, high = 0.0, float((people / wish).max())
    for _ in range(100):
        factor = (low + high) / 2
        low, high = (factor, high) if np.clip(factor * wish, least, people).sum() < total else (low, factor)
    return _whole(np.clip(high * wish, least, people), people, total)


def plan_request(
    scored: pd.DataFrame, drifted: Sequence[str], study: Study, auc: float | None = None
) -> FieldStudyRequest:
    """Design the request for the people of some batches.

    Nobody is asked whose outcome is known, and what is known counts: once those asked for have
    answered, the next request is empty. Whom to ask within a stratum is left to the lot, the audit
    sample first (which is drawn at random as well). The same people are drawn every time.

    Args:
        scored: one row for each person and batch, the newest batch first: the id, ``batch``, ``score``
            (probability of 1), ``audit`` (bool), ``known`` (bool: whether an outcome is), and the
            drifted features as codes.
        drifted: features that shifted or hold unseen codes, the worst first.
        study: labels, the contact list's columns, and the policy ``outcomes``.
        auc: as estimated; None estimates it from the scores alone, as if they were true probabilities.
    """
    policy = study.policies.outcomes
    people = scored.drop_duplicates(study.id).sort_values(study.id).reset_index(drop=True)
    if people.empty:
        return _nobody(study, "No scored people need labels")
    auc = expected_auc(people["score"].to_numpy()) if auc is None else auc
    rate = float(people["score"].mean())
    if not 0 < rate < 1:
        return _nobody(study, "All scores are alike, so more interviews would not improve the estimate")
    needed = interviews_needed(auc, rate, policy.request_within)
    features = [name for name in dict.fromkeys(drifted) if name in people][: policy.max_strata_features]
    people["stratum"], people["shown"] = _strata(people, features, study, needed)
    strata, drawn, effective = _allocated(people, study, needed)
    within = half_width(auc, rate, effective)
    chosen = _draw(people, strata, study)
    return FieldStudyRequest(
        people=chosen,
        strata=strata,
        needed=drawn,
        within=within,
        words=_in_words(len(chosen), strata, within, policy.request_within, len(features)),
    )


def _strata(
    people: pd.DataFrame, features: Sequence[str], study: Study, needed: int
) -> tuple[pd.Series, pd.Series]:
    """Return the stratum of each person in words, and the same as far as a list may show it.

    A stratum is a combination of answers and a band of scores. Answers of too few people stand together,
    and so do bands that have too few of them.
    """
    policy = study.policies.outcomes
    least, bands = policy.min_interviews, _bands(*policy.uncertain_scores)
    answers, shown = _answers(people, features, study), _answers(people, features, study, study.contact_list)
    sizes = answers.value_counts()
    # By size, and by name where sizes are equal, so that the strata are the same every time.
    largest = sorted(sizes.index, key=lambda value: (-sizes[value], value))
    # Answers whose part of the interviews is enough for their strata cost nothing. Of the rest, as many
    # stand alone as take half of the interviews, because each stratum gets some.
    alone = max(1, needed // (2 * least * len(bands[0])))
    kept = {
        value
        for rank, value in enumerate(largest)
        if sizes[value] >= least and (rank < alone or sizes[value] * needed >= 2 * least * len(people))
    }
    others = ~answers.isin(kept)
    if features and others.any():
        answers, shown = (texts.mask(others, OTHER_ANSWERS) for texts in (answers, shown))
    band = pd.Series(np.digitize(people["score"], policy.uncertain_scores), index=people.index)
    counts = pd.crosstab(answers, band).reindex(columns=range(len(bands[0])), fill_value=0)
    names = {value: _names_of(bands, row.to_numpy(), least) for value, row in counts.iterrows()}
    scores = pd.Series(
        [names[value][number] for value, number in zip(answers, band, strict=True)], index=people.index
    )
    return _joined([answers, scores]), _joined([shown, scores])


def _bands(low: float, high: float) -> tuple[tuple[str, str, str], ...]:
    """Return how three bands of scores, the uncertain one between, may stand together, the finest first."""
    below, above = f"score below {low:g}", f"score above {high:g}"
    return (
        (below, f"uncertain score, {low:g} to {high:g}", above),
        (f"score below {high:g}", f"score below {high:g}", above),
        (below, f"score above {low:g}", f"score above {low:g}"),
        ("any score", "any score", "any score"),
    )


def _names_of(bands: tuple[tuple[str, ...], ...], counts: np.ndarray, least: int) -> tuple[str, ...]:
    """Return the finest names of the bands under which none stands for fewer people than asked for."""
    for names in bands[:-1]:
        together = pd.Series(counts).groupby(list(names)).sum()
        if together[together > 0].min() >= least:
            return names
    return bands[-1]


def _answers(
    people: pd.DataFrame, features: Sequence[str], study: Study, allowed: Sequence[str] | None = None
) -> pd.Series:
    """Return the answers to some features in words; those that may not be shown are left out."""
    texts = []
    for name in features:
        if allowed is None or name in allowed:
            feature = study.feature(name)
            label = {code: feature.label(_plain(code)) for code in people[name].dropna().unique()}
            texts.append(f"{feature.title}: " + people[name].map(label).fillna(NO_ANSWER).astype(str))
    return _joined(texts) if texts else pd.Series("", index=people.index)


def _plain(code: object) -> object:
    """A column of numbers with a hole holds floats."""
    return int(code) if isinstance(code, float) and code.is_integer() else code


def _joined(parts: Sequence[pd.Series]) -> pd.Series:
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.str.cat(part, sep=", ")
    return joined.str.removeprefix(", ")


def _allocated(people: pd.DataFrame, study: Study, needed: int) -> tuple[pd.DataFrame, int, float]:
    """Return the strata with the interviews of each, how many are wanted, and what they are worth.

    Interviews in unequal shares tell less than as many drawn plainly, so more are wanted until they tell
    enough, or until there is nobody left.
    """
    grouped = people.groupby("stratum", sort=True)
    strata = pd.DataFrame(
        {
            "people": grouped.size(),
            "known": grouped["known"].sum().astype(int),
            "mean_score": grouped["score"].mean().round(3),
        }
    ).reset_index()
    size, rate = strata["people"].to_numpy(), grouped["score"].mean().to_numpy()
    spread, least, everybody = np.sqrt(rate * (1 - rate)), study.policies.outcomes.min_interviews, len(people)

    def design(total: int) -> tuple[np.ndarray, float]:
        wanted = allocate(size, spread, total, least)
        return wanted, everybody**2 / float((size**2 / wanted).sum())

    few, many = min(needed, everybody) - 1, min(needed, everybody)
    while design(many)[1] < needed and many < everybody:
        few, many = many, min(2 * many, everybody)
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if design(middle)[1] >= needed else (middle, many)
    wanted, effective = design(many)
    strata["interviews"] = np.maximum(wanted - strata["known"].to_numpy(), 0)
    return strata[list(STRATA_COLUMNS)], int(wanted.sum()), effective


def _draw(people: pd.DataFrame, strata: pd.DataFrame, study: Study) -> pd.DataFrame:
    random = np.random.default_rng(study.policies.outcomes.audit_seed)
    lots = people.assign(_lot=random.random(len(people)))
    lots = lots[~lots["known"]].sort_values(["audit", "_lot"], ascending=[False, True])
    turn = lots.groupby("stratum").cumcount()
    chosen = lots[turn < lots["stratum"].map(strata.set_index("stratum")["interviews"])]
    chosen = chosen.assign(why=np.where(chosen["audit"], AUDIT, DRAWN), stratum=chosen["shown"])
    columns = [study.id, "batch", "stratum", "why"]
    return chosen.sort_values(["batch", "stratum", study.id])[columns].reset_index(drop=True)


def _whole(wanted: np.ndarray, people: np.ndarray, total: int) -> np.ndarray:
    """Round to whole numbers of this total: the largest remainders are rounded up."""
    whole = np.floor(wanted + 1e-9).astype(int)
    remainders = np.where(whole < people, wanted - whole, -1.0)
    for position in np.argsort(-remainders, kind="stable")[: max(0, total - int(whole.sum()))]:
        if whole[position] < people[position]:
            whole[position] += 1
    return whole


def _in_words(asked: int, strata: pd.DataFrame, within: float, wanted: float, features: int) -> str:
    if not asked:
        return f"No interviews needed: known outcomes give the AUC to ±{within:.3f}"
    kinds = int((strata["interviews"] > 0).sum())
    of = f"{kinds} strata" if kinds > 1 else "one stratum"
    sentence = f"Interview {asked} people of {of}: this gives the AUC to ±{within:.3f}"
    if not features:
        sentence += ". No answer drifted, so the strata are by score only"
    if within > wanted:
        sentence += f". There are too few people to reach the target of ±{wanted:.3f}"
    return sentence


def _nobody(study: Study, reason: str) -> FieldStudyRequest:
    people = pd.DataFrame(columns=[study.id, "batch", "stratum", "why"])
    return FieldStudyRequest(people, pd.DataFrame(columns=list(STRATA_COLUMNS)), 0, math.inf, reason)
