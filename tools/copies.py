"""A home copied to be measured on: by a backup, because its stores name the place where its files lie."""

from __future__ import annotations

from pathlib import Path

from poleng_assets.backup import make_backup
from poleng_assets.core.warehouse import Warehouse
from poleng_assets.home import Home
from poleng_assets.restore import restore_backup
from poleng_assets.study import load_study


def copy_home(home: Home, folder: Path) -> Home:
    """Make a folder, which is missing or empty, a home like another one; return it."""
    archive = folder.with_name(f".{folder.name}.tar.gz")
    make_backup(home, Warehouse(home.warehouse, load_study()), archive, force=True)
    restore_backup(archive, Home(folder))
    archive.unlink()
    return Home(folder).create()
