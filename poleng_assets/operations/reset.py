"""Reset a home: delete its data and its history."""

import shutil

import dagster as dg

from poleng_assets.defs.partitions import PARTITIONS
from poleng_assets.storage.home import OWN, Home
from poleng_assets.storage.synthetic import real_files


class ResetRefused(ValueError):
    """A home was not emptied; the message says why."""


def check_confirmation(home: Home, typed: str) -> None:
    """Check that the name of the home was typed, and that no files of real people would be lost.

    Args:
        typed: the name of its folder, or its complete path.

    Raises:
        ResetRefused: another name was typed, or there are files of real people in a synthetic home.
    """
    if typed.strip() not in (home.root.name, str(home.root)):
        wrong = f"not {typed.strip()!r}" if typed.strip() else "and nothing was typed"
        raise ResetRefused(
            f"Nothing was deleted: this home is named {home.root.name!r}, {wrong} "
            f"(`poleng reset --confirm {home.root.name}`)."
        )
    if lost := [str(file.relative_to(home.root)) for file in real_files(home)]:
        raise ResetRefused(
            f"Nothing was deleted, because these files of real people would be lost: "
            f"{', '.join(lost)}. Move them elsewhere first."
        )


def reset_data(home: Home) -> None:
    """Delete all data of the project in a home, except its study and Dagster's history.

    Other files are kept.
    """
    removed = tuple(name for name in OWN if name not in (home.dagster.name, home.study_file.name))
    for path in home.root.iterdir():
        if not path.name.startswith(removed):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    home.create()


def reset_events(instance: dg.DagsterInstance, assets: list[dg.AssetKey]) -> None:
    """Delete all materialisations and partitions in Dagster; the list of runs is kept."""
    instance.wipe_assets([key for key in assets if instance.has_asset_key(key)])
    for partitions in PARTITIONS.values():
        name = partitions.name or ""
        for key in instance.get_dynamic_partitions(name):
            instance.delete_dynamic_partition(name, key)


def reset_history(home: Home) -> None:
    """Delete Dagster's history; only if no daemon uses it."""
    shutil.rmtree(home.dagster, ignore_errors=True)
