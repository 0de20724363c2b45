"""The id of a submitted file, and content hashes of files.

Sensors use this every few seconds, so it imports no table library.
"""

import hashlib
import os
from pathlib import Path
from typing import IO

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".csv.bz2", ".csv.zst")
_BLOCK = 1 << 20


def file_id(name: str) -> str:
    """Return the name without its suffix; the complete name if the suffix is unknown."""
    return name.removesuffix(known_suffix(name))


def has_known_suffix(name: str) -> bool:
    """Return whether files of this name can be read; a suffix alone is not a name."""
    return known_suffix(name) != "" and file_id(name) != ""


def known_suffix(name: str) -> str:
    """Return the longest supported suffix of a name, empty if there is none."""
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
    """Copy a file to a new private one and sync it to disk; return the SHA-256 as hex.

    Raises:
        FileExistsError: the target exists.
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
