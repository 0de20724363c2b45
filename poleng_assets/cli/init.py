"""``poleng init``: a home for a study."""

from __future__ import annotations

from pathlib import Path

import click

from poleng_assets.cli.console import console, home_option, open_home
from poleng_assets.storage.home_study import study_of
from poleng_assets.study.loading import named_study, study_file


@click.command()
@click.argument("study", required=False)
@home_option
def init(study: str | None, home_folder: Path | None) -> None:
    """Make a home for the survey of STUDY, and copy the study file into it.

    STUDY is a study file, or the name of one that ships; by default the file that POLENG_STUDY names, or
    political_engagement. A home that has another study is left as it is: see `poleng study change`.
    """
    file = named_study(study) if study else study_file()
    home = open_home(home_folder, file)
    made = study_of(home, file)
    console.print(f"{home.root} is a home for {made.title}, of {len(made.features)} questions.")
    console.print(f"Put a field study into {home.landing('field_studies')}, and say `poleng settle`.")
