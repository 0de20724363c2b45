"""Reads a study file, and says of a wrong one which field is at fault, in which line, and why."""

import os
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import ValidationError

from poleng_assets.study.schema import CODE, Study, StudyError
from poleng_assets.study.text import Repeated, StudyText

STUDIES = Path(__file__).parent / "studies"
VARIABLE = "POLENG_STUDY"


def study_file() -> Path:
    """Return the study file that ``POLENG_STUDY`` names, or the one that ships."""
    return Path(os.environ.get(VARIABLE) or STUDIES / "political_engagement.yaml")


def named_study(name: str) -> Path:
    """Return the file of a study that ships, by its name, or else the file of that name."""
    shipped = STUDIES / f"{name}.yaml"
    return shipped if shipped.is_file() else Path(name)


def load_study(path: Path | None = None) -> Study:
    """Read a study file and validate it; one that has not changed since is not read again.

    Args:
        path: of the file; by default the one that ``POLENG_STUDY`` names, or the one that ships.

    Raises:
        StudyError: the file is missing, is no YAML, or breaks the model above. The message has one
            line for each fault: the file, the line, the field and the reason.
    """
    path = path or study_file()
    try:
        status = path.stat()
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror}") from error
    return _study_in(path, (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=16)
def _study_in(path: Path, stamp: object) -> Study:
    """Read a study again only when ``stamp`` has changed: sensors ask every few seconds."""
    try:
        text = StudyText(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: is no YAML: {error}") from error
    if not isinstance(text.content, dict):
        raise StudyError(f"{path}: line 1: a study is a mapping of fields, this is not")
    if repeated := list(text.repeated_keys(_as_one_key)):
        raise StudyError("\n".join(f"{path}: line {key.line}: {_stands_twice(key)}" for key in repeated))
    try:
        return Study.model_validate(text.content)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            location, reason = _fault(fault["loc"], fault["msg"])
            if fault["type"] == "string_type" and (written := text.written(location)) is not None:
                reason += f": if {written or 'nothing'} is meant as a word, put it in quotes"
            faults.append(f"{path}: line {text.line_of(location)}: {'.'.join(location)}: {reason}")
        raise StudyError("\n".join(faults)) from error


def _fault(location: tuple[str | int, ...], message: str) -> tuple[tuple[str, ...], str]:
    """Return where a fault is and why; a rule about the whole study names its field in the message."""
    reason = message.removeprefix("Value error, ")
    path = tuple(str(part) for part in location if part != "[key]")
    if not path:
        field, _, reason = reason.partition(": ")
        path = tuple(field.split("."))
    return path, reason


def _as_one_key(mapping: tuple[str, ...], key: str) -> object:
    """Return what two keys share that are one: of codes, the number, however it is spelled."""
    number = CODE.fullmatch(key.strip()) if mapping[-1:] == ("codes",) else None
    return int(number[1]) if number else key


def _stands_twice(key: Repeated) -> str:
    if key.location[-1] == key.earlier:
        return f"{key.earlier}: stands twice"
    return (
        f"{'.'.join(key.location)}: is the same code as {key.earlier} in line {key.earlier_line}, in another "
        "spelling: give each code once"
    )
