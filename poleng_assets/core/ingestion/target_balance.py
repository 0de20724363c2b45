"""Whether a field study, with earlier ones, has enough people of each class for training and holdout.

A study of one class, of two rows, or with three people of a class among thousands trains nothing: every
training would fail, or end in a model that says the same of everybody. So it is said when the file comes.
"""

from duckdb import DuckDBPyConnection as Connection

from poleng_assets.core.ingestion.contract import FileRefused
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.holdout import count_parts
from poleng_assets.warehouse.people import count_answers


def refuse_what_teaches_nothing(con: Connection, study: Study, name: str) -> None:
    """Refuse a field study when, with all before it, a class has too few people.

    To be called inside the transaction that took it in, once its holdout is drawn.

    Args:
        study: names the classes; its ingestion policy says how many people of each are needed.

    Raises:
        FileRefused: too few people of a class, or none of it among those who are held out or learned from.
    """
    counts = count_parts(con, study)
    needed = study.policies.ingestion.min_of_each_class
    for code in sorted(study.target.codes):
        learned, judged = (counts.get((code, part), 0) for part in ("train", "holdout"))
        if learned + judged >= needed and learned >= study.policies.training.folds and judged:
            continue
        raise FileRefused(
            f"it cannot be used for training: {in_words(con, study, name)}. With every field study before it "
            f"there are {learned:,} to train on and {judged:,} in the holdout of "
            f"{study.target.codes[code]!r} ({code}); {needed:,} of each answer are required "
            "(policies.ingestion.min_of_each_class), some of them held out. "
            f"Is {study.target.name} the right column?"
        )


def remark_on_balance(con: Connection, study: Study, name: str) -> str:
    """Return what is odd about the classes of a field study that was taken in; empty when nothing is."""
    people, policy = _people(con, study, name).values(), study.policies.ingestion
    few = min(people) < policy.min_of_each_class or min(people) < policy.min_share_of_each_class * sum(people)
    return f"one-sided: {in_words(con, study, name)}" if few else ""


def in_words(con: Connection, study: Study, name: str) -> str:
    """Describe how many people of a field study gave each answer to the target."""
    people = _people(con, study, name)
    each = " and ".join(
        f"{number:,} of {study.target.codes[code]!r} ({code})" for code, number in people.items()
    )
    return f"it has {each}"


def _people(con: Connection, study: Study, name: str) -> dict[int, int]:
    counted = {
        int(code): n for code, n in count_answers(con, "field_studies", name, study.target.name) if code
    }
    return dict.fromkeys(sorted(study.target.codes), 0) | counted
