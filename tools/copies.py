"""A home copied to be measured on: by a backup, because its stores name the place where its files lie."""

from __future__ import annotations

from pathlib import Path

from poleng_assets.operations.backup.make import make_backup
from poleng_assets.operations.restore import restore_backup
from poleng_assets.storage.home import Home
from poleng_assets.study.loading import load_study
from poleng_assets.warehouse.connection import Warehouse


def copy_home(home: Home, folder: Path) -> Home:
    """Make a folder, which is missing or empty, a home like another one; return it."""
    archive = folder.with_name(f".{folder.name}.tar.gz")
    make_backup(home, Warehouse(home.warehouse, load_study()), archive, force=True)
    restore_backup(archive, Home(folder))
    archive.unlink()
    return Home(folder).create()
