"""Forgetting everything: the empty home that a scenario starts from."""

import shutil

import dagster as dg

from poleng_assets.defs.partitions import PARTITIONS
from poleng_assets.storage.home import OWN, Home
from poleng_assets.storage.synthetic import real_files


class ResetRefused(ValueError):
    """A home is not emptied; the message says why."""


def check_confirmation(home: Home, typed: str) -> None:
    """See that who wants to empty a home has typed its name, and loses nobody else's files.

    Args:
        typed: the name of its folder, or its whole path.

    Raises:
        ResetRefused: another name was typed, or files of real people lie in a home of made-up ones.
    """
    if typed.strip() not in (home.root.name, str(home.root)):
        wrong = f"not {typed.strip()!r}" if typed.strip() else "and nothing was typed"
        raise ResetRefused(
            f"Nothing was removed: this home is called {home.root.name!r}, {wrong} "
            f"(`poleng reset --confirm {home.root.name}`)."
        )
    if lost := [str(file.relative_to(home.root)) for file in real_files(home)]:
        raise ResetRefused(
            f"Nothing was removed, because files that are not of the made-up people would be lost: "
            f"{', '.join(lost)}. Move them elsewhere first."
        )


def reset_data(home: Home) -> None:
    """Remove all that the project keeps in a home but its study and Dagster's history.

    What others put there stays, too.
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
    """Make Dagster forget what was materialised, and all partitions; the list of runs stays."""
    instance.wipe_assets([key for key in assets if instance.has_asset_key(key)])
    for partitions in PARTITIONS.values():
        name = partitions.name or ""
        for key in instance.get_dynamic_partitions(name):
            instance.delete_dynamic_partition(name, key)


def reset_history(home: Home) -> None:
    """Remove Dagster's own history too; only when no daemon uses it."""
    shutil.rmtree(home.dagster, ignore_errors=True)
