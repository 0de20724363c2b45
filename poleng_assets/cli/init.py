"""``poleng init``: create a home for a study."""

from pathlib import Path

import click

from poleng_assets.cli.console import console, home_option, open_home
from poleng_assets.storage.home_study import study_of
from poleng_assets.study.loading import named_study, study_file


@click.command()
@click.argument("study", required=False)
@home_option
def init(study: str | None, home_folder: Path | None) -> None:
    """Create a home for the survey of STUDY, and copy the study file into it.

    STUDY is a study file or the name of a built-in study; by default the file in POLENG_STUDY, or
    political_engagement. A home with another study is not changed: see `poleng study change`.
    """
    file = named_study(study) if study else study_file()
    home = open_home(home_folder, file)
    chosen = study_of(home, file)
    console.print(f"{home.root} is a home for {chosen.title} with {len(chosen.features)} questions.")
    console.print(f"Put a field study into {home.landing('field_studies')}, and run `poleng run-pending`.")
