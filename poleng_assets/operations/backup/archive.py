"""The archive of a backup: a ``.tar.gz`` with a list of hashes in the format of ``sha256sum``.

It starts with ``manifest.json``, which describes the backup, and ``SHA256SUMS``, which lists every file. The
files follow. ``tar -xf`` and ``sha256sum -c`` can read it without this project. An archive is untrusted
input: everything is checked before it is used.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from poleng_assets.operations.backup.state import MANIFEST, SUMS, is_state

FORMAT = 2
LARGEST_MANIFEST = 256 * 2**20
SMALL_MANIFEST = 2**20
MANY_MEMBERS = 10_000
# The limit of an extended header, which holds a long name and a few settings.
LARGEST_EXTENSION = 64 * 2**10
VERSIONED = ("poleng_assets", "dagster", "duckdb", "mlflow")
# Most files are compressed already (Parquet, DuckDB): a higher level costs much time and saves little.
COMPRESSION = 1
BLOCK = 2**20
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
# A line of GNU coreutils: a backslash before the hash means that the name has escapes.
_SUM = re.compile(rb"(\\?)([0-9a-f]{64}) [ *](.+)")
_TIME = re.compile(r"(\d{1,10})(?:\.(\d{1,9}))?")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}


class ArchiveBroken(RuntimeError):
    """A file is not a backup, is damaged, or is from a later release; nothing was restored."""


@dataclass(frozen=True)
class Manifest:
    """The description of an archive; its first member.

    Attributes:
        made_at: time of the snapshot; ISO 8601, UTC.
        home: the root of the original home; MLflow's store has its path.
        study: name of the study, and of the registered model.
        versions: of the project and of the libraries that wrote the files.
        size: bytes of all files, unpacked.
        hashes: SHA-256 of each file by its name, as in ``SHA256SUMS``.
        format: of the archive; a later one may not be readable here.
    """

    made_at: str
    home: str
    study: str
    versions: dict[str, str]
    rows: dict[str, int]
    size: int
    hashes: Mapping[str, str] = field(repr=False)
    format: int = FORMAT

    def to_json(self) -> bytes:
        """Return the manifest without the hashes, as ASCII; undecodable bytes of a path are escaped."""
        content = {name: value for name, value in vars(self).items() if name != "hashes"}
        return json.dumps(content, indent=1).encode("ascii")


def installed_versions() -> dict[str, str]:
    """Return the versions of the software that writes the files of a home."""
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in VERSIONED
    }


def write_archive(path: Path, stage: Path, manifest: Manifest) -> None:
    """Write an archive that only its owner can read.

    Args:
        path: of the archive; an existing file is replaced.
    """
    about = manifest.to_json()
    sums = _format_sums({MANIFEST: hashlib.sha256(about).hexdigest(), **manifest.hashes})
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as packed:
        with (
            gzip.GzipFile(
                filename="", fileobj=packed, mode="wb", compresslevel=COMPRESSION, mtime=0
            ) as zipped,
            tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT) as archive,
        ):
            for name, content in ((MANIFEST, about), (SUMS, sums)):
                archive.addfile(_header(name, len(content)), io.BytesIO(content))
            for name in manifest.hashes:
                status = (stage / name).stat()
                with (stage / name).open("rb") as file:
                    archive.addfile(_header(name, status.st_size, status.st_mtime_ns), file)
        packed.flush()
        os.fsync(packed.fileno())


def read_archive(path: Path, into: Path | None = None) -> Manifest:
    """Read an archive from end to end and compare every file with its hash.

    Args:
        into: an empty folder for the files; None to verify only.

    Raises:
        ArchiveBroken: it is not a backup, incomplete, changed, of a later format, or a member's name is
            outside the folder. The unpacked files are then invalid.
        OSError: it cannot be read, or the folder is not writable.
    """
    try:
        with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as unzipped:
            with tarfile.open(fileobj=unzipped, mode="r|", tarinfo=_Header) as archive:
                headers = iter(archive)
                manifest = _read_head(archive, headers, path.stat().st_size)
                if into is not None:
                    _require_space(manifest, into)
                _read_members(archive, headers, manifest, into)
            # To the end, which has the checksum of the complete archive.
            trailing = 0
            while block := unzipped.read(BLOCK):
                trailing += len(block)
                if trailing > BLOCK:
                    raise ArchiveBroken("it has data after its end")
    except ArchiveBroken as error:
        raise ArchiveBroken(f"{path} cannot be restored: {error}") from error
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, RecursionError) as error:
        raise ArchiveBroken(f"{path} is not a complete backup: {error}") from error
    return manifest


def _header(name: str, size: int, modified_ns: int = 0) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o600
    seconds, rest = divmod(modified_ns, 10**9)
    header.mtime, header.pax_headers = seconds, {"mtime": f"{seconds}.{rest:09d}"}
    return header


def _format_sums(hashes: Mapping[str, str]) -> bytes:
    lines = []
    for name, digest in hashes.items():
        escaped = "".join(_ESCAPES.get(sign, sign) for sign in name)
        lines.append(f"{digest}  {name}\n" if escaped == name else f"\\{digest}  {escaped}\n")
    return os.fsencode("".join(lines))


def _parse_sums(content: bytes) -> dict[str, str]:
    """Parse the hashes by name; raises ``ValueError`` if the list is invalid."""
    hashes: dict[str, str] = {}
    for line in content.removesuffix(b"\n").split(b"\n"):
        match = _SUM.fullmatch(line)
        if match is None:
            raise ValueError("a line has no hash")
        name = os.fsdecode(match[3])
        if match[1]:
            name = re.sub(r"\\([\\nr])", lambda sign: {"n": "\n", "r": "\r"}.get(sign[1], "\\"), name)
        if name in hashes:
            raise ValueError("a name occurs twice")
        hashes[name] = match[2].decode()
    return hashes


class _Header(tarfile.TarInfo):
    """A header that is checked before its content is read: tarfile keeps extensions in memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENSIONS and not 0 <= header.size <= LARGEST_EXTENSION:
            raise ArchiveBroken(f"a name in it has {header.size:,} bytes, which is not possible in a backup")
        if header.type not in (*_EXTENSIONS, tarfile.REGTYPE, tarfile.AREGTYPE):
            raise ArchiveBroken(f"it contains {header.name!r}, which is not a regular file")
        return header


def _read_head(archive: tarfile.TarFile, headers: Iterator[tarfile.TarInfo], packed_size: int) -> Manifest:
    """Read the manifest and the hashes, which describe the other members."""
    about = _read_first(archive, next(headers, None), MANIFEST, packed_size)
    try:
        content: dict[str, Any] = dict(json.loads(about))
        written = int(content["format"])
        if written > FORMAT:
            raise ArchiveBroken(
                f"it has format {written}, and this release reads formats up to {FORMAT}: "
                "restore it with the release that wrote it, or a later one"
            )
        if written == 1:  # the manifest had the hashes, without another list
            members = content.pop("members")
            hashes = {str(member["name"]): str(member["sha256"]) for member in members}
            content["size"] = sum(member["size"] for member in members)
        else:
            hashes = _parse_sums(_read_first(archive, next(headers, None), SUMS, packed_size))
            if hashes.pop(MANIFEST, None) != hashlib.sha256(about).hexdigest():
                raise ArchiveBroken(f"{MANIFEST} was changed after the backup")
        manifest = Manifest(**content, hashes=hashes)
        if type(manifest.size) is not int or manifest.size < 0:
            raise ValueError("a size is not a number of bytes")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ArchiveBroken(f"its {MANIFEST} and {SUMS} are invalid ({error})") from error
    if len(hashes) > MANY_MEMBERS + packed_size // 64:
        raise ArchiveBroken(f"it lists {len(hashes):,} files, too many for its size")
    return manifest


def _read_first(
    archive: tarfile.TarFile, header: tarfile.TarInfo | None, name: str, packed_size: int
) -> bytes:
    """Read one of the two members that describe the others.

    Args:
        packed_size: of the complete archive: hashes cannot be compressed, so their list and the number of
            members are bounded by it.
    """
    if header is None or header.name != name or not header.isreg() or header.sparse is not None:
        raise ArchiveBroken(f"it does not start with {MANIFEST} and {SUMS}: it is not from `poleng backup`")
    if header.size > min(LARGEST_MANIFEST, SMALL_MANIFEST + 16 * packed_size):
        raise ArchiveBroken(
            f"its {name} claims {header.size:,} bytes, which is not possible in an archive of "
            f"{packed_size:,} bytes"
        )
    return _content(archive, header).read()


def _require_space(manifest: Manifest, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if manifest.size > free:
        raise ArchiveBroken(f"it needs {manifest.size:,} bytes, but {folder} has only {free:,} free")


def _read_members(
    archive: tarfile.TarFile, headers: Iterator[tarfile.TarInfo], manifest: Manifest, into: Path | None
) -> None:
    expected, remaining = dict(manifest.hashes), manifest.size
    for header in headers:
        digest = expected.pop(header.name, None)
        if digest is None or not header.isreg() or not _stays_inside(header.name):
            raise ArchiveBroken(f"it contains {header.name!r}, which is not possible in a backup")
        # Before anything is written: check the announced size, and refuse sparse files.
        if header.size > remaining or header.sparse is not None:
            raise ArchiveBroken(
                f"{header.name} was changed after the backup. It claims "
                f"{header.size:,} bytes, but only {remaining:,} remain"
            )
        remaining -= header.size
        tarfile.data_filter(header, str(into or Path.cwd()))
        if _unpack(_content(archive, header), into / header.name if into else None, header) != digest:
            raise ArchiveBroken(f"{header.name} was changed after the backup")
    if expected:
        raise ArchiveBroken(f"{len(expected)} files are missing, including {min(expected)!r}")


def _stays_inside(name: str) -> bool:
    """Whether a name is that of a state file inside a home."""
    path = PurePosixPath(name)
    return str(path) == name and not path.is_absolute() and ".." not in path.parts and is_state(name)


def _unpack(source: IO[bytes], target: Path | None, header: tarfile.TarInfo) -> str:
    """Read a member, and write it with its time if a target is given; return its hash."""
    digest = hashlib.sha256()
    with _opened(target) as file:
        while block := source.read(BLOCK):
            digest.update(block)
            if file is not None:
                file.write(block)
    if target is not None:
        written = _TIME.fullmatch(header.pax_headers.get("mtime", f"{header.mtime:.0f}"))
        if written:
            modified_ns = int(written[1] + (written[2] or "").ljust(9, "0"))
            os.utime(target, ns=(modified_ns, modified_ns))
    return digest.hexdigest()


@contextmanager
def _opened(target: Path | None) -> Iterator[IO[bytes] | None]:
    if target is None:
        yield None
        return
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except (FileExistsError, NotADirectoryError) as error:
        raise ArchiveBroken(f"it contains {target.name!r} as a file and as a folder") from error
    with os.fdopen(handle, "wb") as file:
        yield file


def _content(archive: tarfile.TarFile, header: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(header)
    if content is None:
        raise ArchiveBroken(f"{header.name!r} has no content")
    return content
