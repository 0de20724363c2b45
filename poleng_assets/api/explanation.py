"""Why one person has their score: each answer and its effect, as numbers and as a table of a notebook."""

import html
import math
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from poleng_assets.core.modeling.explanations import shown_questions
from poleng_assets.core.modeling.model import Model
from poleng_assets.core.statistics.groups import NO_ANSWER
from poleng_assets.study.schema import Study

ANSWERS_SHOWN = 8
_HEADER = ("Question", "Answer", "What it does")


@dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """Why one person has their score; a notebook shows it as a table in words.

    Attributes:
        score: probability of ``outcome``.
        contact: whether the person would be contacted, alone.
        outcome: what is predicted, in words.
        reasons: the answers that raise the score most, strongest first, as a contact list tells them: without
            those that the study withholds. Empty when no answer raises it.
        contributions: one row for each question, by its name, the strongest first: ``question`` and
            ``answer`` in words, ``effect`` (how much the answer moves the score, in log-odds),
            ``never_learned`` (the model does not know the answer, and takes it as none), ``withheld`` (not
            among the study's ``policies.contact.shown_reasons``: not for a contact centre). With a constant
            the effects add up to the log-odds of the score, unless a forest is in the blend.
    """

    version: int
    score: float
    contact: bool
    outcome: str
    reasons: str
    contributions: pd.DataFrame

    def __repr__(self) -> str:
        raised = f"Raised most by {self.reasons}" if self.reasons else "No answer raises it"
        return f"{self._verdict()}\n{raised}"

    def _verdict(self) -> str:
        return (
            f"Version {self.version}: {self.score:.1%} likely to be of {self.outcome!r}, "
            f"{'a contact' if self.contact else 'no contact'}"
        ).replace("%", " %")

    def _repr_html_(self) -> str:
        """Return the strongest answers as a table; those that the study withholds are only counted."""
        allowed = self.contributions[~self.contributions["withheld"]]
        shown = allowed.head(ANSWERS_SHOWN)
        rows = "".join(
            f"<tr><th scope='row' style='text-align:left'>{html.escape(question)}</th>"
            f"<td style='text-align:left'>{html.escape(answer)}"
            f"{' (never learned: taken as no answer)' if never_learned else ''}</td>"
            f"<td style='text-align:left'>{_effect_in_words(effect)}</td></tr>"
            for question, answer, effect, never_learned in zip(
                shown["question"], shown["answer"], shown["effect"], shown["never_learned"], strict=True
            )
        )
        left_out = len(allowed.iloc[ANSWERS_SHOWN:])
        withheld = len(self.contributions) - len(allowed)
        hidden = [f"{left_out} more matter less"] * (left_out > 0)
        hidden += [f"{withheld} withheld by the study"] * (withheld > 0)
        rest = f"<p>Answers not shown: {', '.join(hidden)}; see .contributions</p>" if hidden else ""
        head = "".join(f"<th scope='col' style='text-align:left'>{title}</th>" for title in _HEADER)
        return (
            f"<p>{html.escape(self._verdict())}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{rest}"
        )


def contributions(model: Model, codes: pa.Table, study: Study) -> pd.DataFrame:
    """Return what each answer of one person does to the score, the strongest first."""
    unseen, shown = model.encoder.unseen(codes), set(shown_questions(study, model.proxies))
    effects = dict(zip(model.encoder.features, model.contributions(codes)[0], strict=True))
    answers = pd.DataFrame(
        {
            "question": [feature.title for feature in study.features],
            "answer": [
                feature.label(codes[feature.name][0].as_py()) or NO_ANSWER for feature in study.features
            ],
            "effect": [effects[feature.name] for feature in study.features],
            "never_learned": [bool(unseen.get(feature.name, [False])[0]) for feature in study.features],
            "withheld": [feature.name not in shown for feature in study.features],
        },
        index=pd.Index(study.feature_names),
    )
    return answers.sort_values("effect", key=abs, ascending=False, kind="stable")


def _effect_in_words(effect: float) -> str:
    """Return what an effect in log-odds does to the odds."""
    change = math.exp(effect) - 1
    if abs(change) < 0.005:
        return "hardly matters"
    return f"{'raises' if change > 0 else 'lowers'} the odds by {abs(change):.0%}".replace("%", " %")
