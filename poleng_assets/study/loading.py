"""Read a study file; an error names the field, the line and the reason."""

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
    """Return the study file in ``POLENG_STUDY``, or the built-in one."""
    return Path(os.environ.get(VARIABLE) or STUDIES / "political_engagement.yaml")


def named_study(name: str) -> Path:
    """Return the file of a built-in study by its name, or else the file of that name."""
    shipped = STUDIES / f"{name}.yaml"
    return shipped if shipped.is_file() else Path(name)


def load_study(path: Path | None = None) -> Study:
    """Read and validate a study file; an unchanged file is not read again.

    Args:
        path: of the file; by default the one in ``POLENG_STUDY``, or the built-in one.

    Raises:
        StudyError: the file is missing, not YAML, or invalid. The message has one line for each fault
            with the file, the line, the field and the reason.
    """
    path = path or study_file()
    try:
        status = path.stat()
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror}") from error
    return _study_in(path, (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=16)
def _study_in(path: Path, stamp: object) -> Study:
    """Read a study again only if ``stamp`` has changed: sensors use it every few seconds."""
    try:
        text = StudyText(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(text.content, dict):
        raise StudyError(f"{path}: line 1: a study must be a mapping of fields")
    if repeated := list(text.repeated_keys(_as_one_key)):
        raise StudyError("\n".join(f"{path}: line {key.line}: {_repetition(key)}" for key in repeated))
    try:
        return Study.model_validate(text.content)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            location, reason = _fault(fault["loc"], fault["msg"])
            if fault["type"] == "string_type" and (written := text.written(location)) is not None:
                reason += f": to use {written or 'nothing'} as text, put it in quotes"
            faults.append(f"{path}: line {text.line_of(location)}: {'.'.join(location)}: {reason}")
        raise StudyError("\n".join(faults)) from error


def _fault(location: tuple[str | int, ...], message: str) -> tuple[tuple[str, ...], str]:
    """Return the location and the reason of a fault; rules about the study have the field in the message."""
    reason = message.removeprefix("Value error, ")
    path = tuple(str(part) for part in location if part != "[key]")
    if not path:
        field, _, reason = reason.partition(": ")
        path = tuple(field.split("."))
    return path, reason


def _as_one_key(mapping: tuple[str, ...], key: str) -> object:
    """Return the identity of a key: of a code its number, in any spelling."""
    number = CODE.fullmatch(key.strip()) if mapping[-1:] == ("codes",) else None
    return int(number[1]) if number else key


def _repetition(key: Repeated) -> str:
    if key.location[-1] == key.earlier:
        return f"{key.earlier}: occurs twice"
    return (
        f"{'.'.join(key.location)}: is the same code as {key.earlier} in line {key.earlier_line}, spelled "
        "differently: use each code once"
    )
