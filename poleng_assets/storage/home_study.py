"""A home knows its study: the file ``study.yaml`` in it.

It is a copy of the study file that the home was made with. A process that comes with another study is refused
before it touches anything; only ``poleng study change`` puts another one in its place.
"""

import json
import os
from pathlib import Path

from poleng_assets.storage.files import write_whole
from poleng_assets.storage.home import Home
from poleng_assets.study.differences import differences, listed
from poleng_assets.study.loading import VARIABLE, load_study, study_file
from poleng_assets.study.schema import Study, StudyError

StudySource = Study | Path | None


class OtherStudy(StudyError):
    """A process came with another study than its home has; the message names the fields that differ."""


def study_of(home: Home, given: StudySource = None) -> Study:
    """Return the study of a home; nothing is written.

    Args:
        home: whose study is asked for. One that has none yet takes what is given, else the study that
            ``POLENG_STUDY`` names, else the one that ships.
        given: the study, or its file, that the caller works with; None for that of ``POLENG_STUDY``, if set.

    Raises:
        OtherStudy: the home has another study than the one that is given, or that ``POLENG_STUDY`` names.
        StudyError: a study file is missing or wrong; the message names it, the line, and what to do.
    """
    asked, source = _asked(given)
    if not home.study_file.exists():
        return asked or load_study()
    own = _read(home.study_file, f"It is the study of {home.root}: correct it, or restore it from a backup")
    if asked is not None and (differing := differences(own, asked)):
        raise OtherStudy(
            f"{home.study_file} is the study of this home, and {source} is another one: they differ in "
            f"{listed(differing)}. Nothing was done. Leave {VARIABLE} and --study away to use the home's "
            "own study; `poleng study change STUDY` gives it another one, and says what that changes"
        )
    return own


def _asked(given: StudySource) -> tuple[Study | None, str]:
    """Return the study that a process comes with, None for none, and what it is called in a message."""
    if isinstance(given, Path):
        return _read(given, "Correct it, or name another study file"), str(given)
    if given is not None:
        return given, "the one that this process was given"
    if not os.environ.get(VARIABLE):
        return None, ""
    what_to_do = f"{VARIABLE} names it: correct it, name another study file, or unset {VARIABLE}"
    return _read(study_file(), what_to_do), str(study_file())


def open_home(home: Home, given: StudySource = None) -> Study:
    """Make what is missing of a home that work begins in, its study file too; return its study.

    Raises:
        OtherStudy, StudyError: as of :func:`study_of`, before anything is made.
        HomeRefused: the folder cannot be a home.
    """
    study = study_of(home, given)
    home.create()
    if not home.study_file.exists():
        source = study_file() if given is None else given
        keep_study(home, study, source.read_text(encoding="utf-8") if isinstance(source, Path) else "")
        study_of(home, given)  # another process may have been first, with another one
    return study


def keep_study(home: Home, study: Study, text: str = "") -> None:
    """Write the study of a home: the text of its file with all comments, where there is one."""
    # JSON is YAML, and takes no label for a number.
    content = text or json.dumps(study.model_dump(mode="json"), indent=2, ensure_ascii=False)
    write_whole(home.study_file, content)


def _read(path: Path, what_to_do: str) -> Study:
    try:
        return load_study(path)
    except StudyError as error:
        raise StudyError(f"{error}\n{what_to_do}") from error
