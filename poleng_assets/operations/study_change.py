"""Another study for a home: what that changes, what cannot be changed, and the change itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from poleng_assets.storage.home import Home
from poleng_assets.storage.home_study import keep_study, open_home
from poleng_assets.study.differences import Difference, differences
from poleng_assets.study.loading import load_study
from poleng_assets.study.schema import Study, StudyError
from poleng_assets.warehouse.connection import Warehouse
from poleng_assets.warehouse.decisions import record_decision
from poleng_assets.warehouse.writes import transaction

_BOUND = {
    "name": "its models are registered under that name",
    "id": "the people in it are known by that column",
    "target.name": "the labels in it stand in that column",
}


class ChangeRefused(StudyError):
    """A home cannot get another study; the message says which fields stand against it."""


@dataclass(frozen=True)
class StudyChange:
    """Another study for a home.

    Attributes:
        before: the study that the home has.
        after: the study that it is to get.
        text: of the file of that study.
        differences: between the two, field by field; none when they are the same.
    """

    before: Study
    after: Study
    text: str
    differences: list[Difference]

    def in_words(self) -> Iterator[str]:
        """Yield what changes, a line each."""
        old, new = self.before.feature_names, self.after.feature_names
        added, removed = [n for n in new if n not in old], [n for n in old if n not in new]
        if added:
            yield f"Columns added, empty for the people of before: {', '.join(added)}"
        if removed:
            yield f"Columns that are asked no more, kept for the people of before: {', '.join(removed)}"
        for difference in self.differences:
            part, _, rest = difference.field.partition(".")
            if part != "features" or rest.split(".")[0] not in (*added, *removed, "(order)"):
                yield str(difference)
        if old != new:
            yield "The champion learned from the questions as they were: `poleng retrain` trains another one"


def plan_change(home: Home, file: Path) -> StudyChange:
    """Return what a study file would change in a home; nothing is written but what the home lacks.

    Raises:
        ChangeRefused: the home has rows or models that are bound to what would change.
        StudyError: a study file is missing or wrong.
    """
    after = load_study(file)
    before = load_study(home.study_file) if home.study_file.exists() else open_home(home)
    changed = differences(before, after)
    if home.warehouse.exists() or home.mlflow_store.exists():
        bound = [
            f"{change.field} {change.before!r}: {_BOUND[change.field]}"
            for change in changed
            if change.field in _BOUND
        ]
        if bound:
            raise ChangeRefused(
                f"{home.root} cannot get the study of {file}. What it holds is bound to {'; '.join(bound)}. "
                "Nothing was changed. Keep those names, or begin another home (`poleng init`)"
            )
    return StudyChange(before, after, file.read_text(encoding="utf-8"), changed)


def change_study(home: Home, change: StudyChange, warehouse: Warehouse) -> None:
    """Give a home another study: the ledger tells of it first, then the file is replaced.

    Args:
        warehouse: of the home, with the study that it is to get; it gets the columns that it lacks.
    """
    if home.warehouse.exists():
        fields = {field.field: {"before": field.before, "after": field.after} for field in change.differences}
        with warehouse.connect() as con, transaction(con):
            record_decision(
                con, "study", f"another study: {len(fields)} fields differ", evidence={"fields": fields}
            )
    keep_study(home, change.after, change.text)
