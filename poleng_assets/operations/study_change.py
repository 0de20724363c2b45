"""Change the study of a home: show the differences, refuse impossible changes, and replace the study file."""

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
    "name": "its models are registered under this name",
    "id": "its people are identified by this column",
    "target.name": "its labels are in this column",
}


class ChangeRefused(StudyError):
    """The study of a home cannot be changed like this; the message names the fields."""


@dataclass(frozen=True)
class StudyChange:
    """Another study for a home.

    Attributes:
        before: the current study of the home.
        after: the new study.
        text: of the file of that study.
        differences: field by field; empty if the studies are equal.
    """

    before: Study
    after: Study
    text: str
    differences: list[Difference]

    def in_words(self) -> Iterator[str]:
        """Yield one line for each change."""
        old, new = self.before.feature_names, self.after.feature_names
        added, removed = [n for n in new if n not in old], [n for n in old if n not in new]
        if added:
            yield f"Added columns, empty for existing people: {', '.join(added)}"
        if removed:
            yield f"Removed columns, kept for existing people: {', '.join(removed)}"
        for difference in self.differences:
            part, _, rest = difference.field.partition(".")
            if part != "features" or rest.split(".")[0] not in (*added, *removed, "(order)"):
                yield str(difference)
        if old != new:
            yield "The champion was trained on the old questions: `poleng retrain` trains a new model"


def plan_change(home: Home, file: Path) -> StudyChange:
    """Return what a study file would change in a home; only a missing home is created.

    Raises:
        ChangeRefused: the home has rows or models that depend on a changed field.
        StudyError: a study file is missing or invalid.
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
                f"{home.root} cannot get the study of {file}. Its data depends on {'; '.join(bound)}. "
                "Nothing was changed. Keep these names, or create another home (`poleng init`)"
            )
    return StudyChange(before, after, file.read_text(encoding="utf-8"), changed)


def change_study(home: Home, change: StudyChange, warehouse: Warehouse) -> None:
    """Change the study of a home: record the change in the ledger, then replace the file.

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
