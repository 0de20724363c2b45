"""The study of a home: its file ``study.yaml``.

It is a copy of the study file with which the home was created. A process with another study is refused before
it changes anything; only ``poleng study change`` replaces it.
"""

import json
import os
from pathlib import Path

from poleng_assets.storage.files import write_atomically
from poleng_assets.storage.home import Home
from poleng_assets.study.differences import differences, listed
from poleng_assets.study.loading import VARIABLE, load_study, study_file
from poleng_assets.study.schema import Study, StudyError

StudySource = Study | Path | None


class OtherStudy(StudyError):
    """A process has another study than its home; the message names the different fields."""


def study_of(home: Home, given: StudySource = None) -> Study:
    """Return the study of a home; nothing is written.

    Args:
        home: without a study file, the given study is used, else that of ``POLENG_STUDY``, else the built-in
            one.
        given: the study of the caller, or its file; None for that of ``POLENG_STUDY``, if set.

    Raises:
        OtherStudy: the home has another study than the given one or that of ``POLENG_STUDY``.
        StudyError: a study file is missing or invalid; the message has the file, the line, and what to do.
    """
    asked, source = _asked(given)
    if not home.study_file.exists():
        return asked or load_study()
    own = _read(home.study_file, f"It is the study of {home.root}: correct it, or restore it from a backup")
    if asked is not None and (differing := differences(own, asked)):
        raise OtherStudy(
            f"{home.study_file} is the study of this home, and {source} differs in "
            f"{listed(differing)}. Nothing was done. Omit {VARIABLE} and --study to use the study of the "
            "home; `poleng study change STUDY` replaces it, after showing the differences"
        )
    return own


def _asked(given: StudySource) -> tuple[Study | None, str]:
    """Return the study of a process, None if it has none, and its name for messages."""
    if isinstance(given, Path):
        return _read(given, "Correct it, or choose another study file"), str(given)
    if given is not None:
        return given, "the study of this process"
    if not os.environ.get(VARIABLE):
        return None, ""
    what_to_do = f"{VARIABLE} is set to it: correct it, choose another study file, or unset {VARIABLE}"
    return _read(study_file(), what_to_do), str(study_file())


def open_home(home: Home, given: StudySource = None) -> Study:
    """Create what is missing in a home, including its study file; return its study.

    Raises:
        OtherStudy, StudyError: as in :func:`study_of`, before anything is created.
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
    """Write the study of a home, as the given text of a file with all comments, if there is one."""
    # JSON is YAML without ambiguous numbers and labels.
    content = text or json.dumps(study.model_dump(mode="json"), indent=2, ensure_ascii=False)
    write_atomically(home.study_file, content)


def _read(path: Path, what_to_do: str) -> Study:
    try:
        return load_study(path)
    except StudyError as error:
        raise StudyError(f"{error}\n{what_to_do}") from error
