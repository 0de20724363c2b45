"""What a dropped file is called, and the hashes that tell the contents of files apart.

Sensors ask for that every few seconds: no library of tables is loaded for it.
"""

import hashlib
import os
from pathlib import Path
from typing import IO

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".csv.bz2", ".csv.zst")
_BLOCK = 1 << 20


def file_id(name: str) -> str:
    """Return the name without its whole suffix; the name itself when the suffix is unknown."""
    return name.removesuffix(known_suffix(name))


def has_known_suffix(name: str) -> bool:
    """Return whether files of such a name can be read; a suffix alone is no name."""
    return known_suffix(name) != "" and file_id(name) != ""


def known_suffix(name: str) -> str:
    """Return the longest suffix that the project reads and the name ends in, empty when there is none."""
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder, by its place in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): content_hash(path) for path in files}


def copy_hashed(source: IO[bytes], target: Path) -> str:
    """Write what a file holds into a new one, its owner's alone and on the disk; return the SHA-256, as hex.

    Raises:
        FileExistsError: there is one of that name.
    """
    digest = hashlib.sha256()
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as copy:
        while block := source.read(_BLOCK):
            digest.update(block)
            copy.write(block)
        copy.flush()
        os.fsync(copy.fileno())
    return digest.hexdigest()
