"""Restore a backup into an empty home, at the same or another path, completely or not at all.

The archive is unpacked, compared and adapted to the new path in a hidden folder beside the home, which is
then renamed. An interruption before that changes nothing.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import duckdb

from poleng_assets.defs.instance import open_instance
from poleng_assets.defs.run_history import runs_in_progress
from poleng_assets.operations.backup.archive import ArchiveBroken, Manifest, installed_versions, read_archive
from poleng_assets.operations.backup.snapshot import exclusive_folder, models_without_files
from poleng_assets.operations.backup.state import LAST_BACKUP, contents
from poleng_assets.storage.files import sync_folder, sync_tree, write_atomically
from poleng_assets.storage.home import Home
from poleng_assets.warehouse import dagster_store, mlflow_store
from poleng_assets.warehouse.compaction import rows_of_file

README = "README.md"


class HomeNotEmpty(RuntimeError):
    """The home is not empty, or cannot be replaced; nothing was changed."""


@dataclass(frozen=True)
class Restored:
    """What was restored.

    Attributes:
        failed_runs: number of runs that were in progress during the backup.
        other_versions: a description of each library with another version here.
    """

    manifest: Manifest
    failed_runs: int
    other_versions: tuple[str, ...]


def restore_backup(archive: Path, home: Home) -> Restored:
    """Restore an archive into an empty or missing home.

    Every hash is compared before the home is replaced. MLflow's and Dagster's stores get the new paths; runs
    that were in progress are marked as failed, and their work is repeated.

    Raises:
        HomeNotEmpty: the home has files, or is a mount point.
        ArchiveBroken: see :func:`~poleng_assets.operations.backup.archive.read_archive`; or the
            content does not match the manifest.
        BackupRefused: another restore of that home is running.
        sqlite3.Error, OSError: a file cannot be read or written.
    """
    root = home.root
    root.parent.mkdir(parents=True, exist_ok=True)
    if root.is_mount():
        raise HomeNotEmpty(
            f"{root} is a mount point and cannot be replaced: "
            f"choose a folder in it, such as --home {root / 'home'}"
        )
    with exclusive_folder(root.with_name(f".{root.name}.restore")) as stage:
        _finish_earlier(root)
        _require_empty(root)
        manifest = read_archive(archive, into=stage)
        _check_warehouse(stage, manifest)
        _point_mlflow_to(root, stage, manifest)
        dagster_store.move_paths(Home(stage).dagster, Path(manifest.home), root)
        failed_runs = _fail_runs_in_progress(stage)
        note = {"made_at": manifest.made_at, "file": archive.name}
        write_atomically(stage / LAST_BACKUP, json.dumps(note))
        _make_private(stage)
        sync_tree(stage)
        _exchange(stage, root)
    return Restored(manifest, failed_runs, tuple(_other_versions(manifest)))


def _aside(root: Path) -> Path:
    return root.with_name(f".{root.name}.empty")


def _require_empty(root: Path) -> None:
    held = contents(root)
    if held:
        raise HomeNotEmpty(
            f"{root} is not empty, it has {held[0]}{f' and {len(held) - 1} more' if held[1:] else ''}, and "
            "a restore overwrites nothing. Choose another --home, or stop its processes and run "
            f"poleng reset --home {root}"
        )


def _finish_earlier(root: Path) -> None:
    """Restore or delete the empty home that an interrupted restore renamed."""
    aside = _aside(root)
    if not aside.exists():
        return
    if not root.exists():
        aside.rename(root)
        return
    _require_empty(aside)
    if (aside / README).exists() and not (root / README).exists():
        shutil.copy2(aside / README, root / README)
    shutil.rmtree(aside)


def _exchange(stage: Path, root: Path) -> None:
    aside = _aside(root)
    if root.exists():
        for name in (README, Home(root).study_file.name):  # archives of earlier releases hold no study
            if (root / name).exists() and not (stage / name).exists():
                shutil.copy2(root / name, stage / name)
        root.rename(aside)
        try:
            _require_empty(aside)  # a file may have been submitted meanwhile
        except HomeNotEmpty:
            aside.rename(root)
            _require_empty(root)
            raise
    stage.rename(root)
    sync_folder(root.parent)
    if aside.exists():
        shutil.rmtree(aside)


def _check_warehouse(stage: Path, manifest: Manifest) -> None:
    path = Home(stage).warehouse
    try:
        rows = rows_of_file(path)
    except duckdb.Error as error:
        ours, theirs = installed_versions()["duckdb"], manifest.versions.get("duckdb")
        raise ArchiveBroken(
            f"its warehouse was written by DuckDB {theirs} and cannot be opened by DuckDB {ours}: {error}"
        ) from error
    if rows != manifest.rows:
        raise ArchiveBroken(f"its warehouse does not match the manifest: {rows} rows, not {manifest.rows}")


def _point_mlflow_to(root: Path, stage: Path, manifest: Manifest) -> None:
    store = Home(stage).mlflow_store
    if not store.exists():
        return
    mlflow_store.move_places(store, Path(manifest.home), root)
    if missing := models_without_files(stage, root):
        raise ArchiveBroken(f"the files are missing for {', '.join(missing)}")


def _fail_runs_in_progress(stage: Path) -> int:
    """Mark the runs that were in progress as failed, and delete the daemon's heartbeat; return their number.

    No process executes them here: on another machine they would look alive for ever, and on this one as long
    as the original process runs.
    """
    home = Home(stage).create()
    with open_instance(home) as instance:
        in_progress = runs_in_progress(instance)
        for run in in_progress:
            instance.report_run_failed(
                run, "This run was in progress during the backup from which this home was restored."
            )
        _free_slots(instance)
        instance.wipe_daemon_heartbeats()
    # It has the path of the hidden folder; every start rewrites it.
    (home.dagster / "dagster.yaml").unlink()
    return len(in_progress)


def _free_slots(instance: dg.DagsterInstance) -> None:
    events = instance.event_log_storage
    for run_id in events.get_concurrency_run_ids():
        events.free_concurrency_slots_for_run(run_id)


def _make_private(stage: Path) -> None:
    for folder, _, files in os.walk(stage):
        Path(folder).chmod(0o700)
        for file in files:
            (Path(folder) / file).chmod(0o600)


def _other_versions(manifest: Manifest) -> Iterator[str]:
    ours = installed_versions()
    for name, version in manifest.versions.items():
        if ours.get(name) != version:
            yield f"{name} {version} in the backup, {ours.get(name, 'not installed')} here"
