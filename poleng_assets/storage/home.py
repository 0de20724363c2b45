"""The home folder with all state; the only module that reads ``POLENG_HOME``."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from poleng_assets.storage.files import write_atomically
from poleng_assets.text.plain_text import in_one_line

Kind = Literal["batches", "field_studies", "outcomes"]
KINDS: tuple[Kind, ...] = ("field_studies", "batches", "outcomes")
CHECKOUT = Path(__file__).resolve().parents[2]
# The files of the project in a home; files of libraries (a WAL, a journal) have the same prefixes.
OWN = (
    "landing",
    "archive",
    "rejected",
    "warehouse.duckdb",
    "mlflow.db",
    "mlartifacts",
    "contact_lists",
    "reports",
    "requests",
    "tuning",
    "outbox",
    "outbox.db",
    "simulation",
    "clock.json",
    "people.json",
    "study.yaml",
    "dagster",
)


class HomeRefused(ValueError):
    """A folder cannot be a home because of its path; the message says which character is not supported."""


# SQLAlchemy, which opens the databases of Dagster and MLflow, interprets %20 and ? in URLs; Dagster finds its
# settings by a glob pattern: with * ? [ in the path it finds none and sends telemetry; braces are formatted;
# DuckDB reads a backslash as a slash.
_UNSUPPORTED = re.compile(r"%[0-9A-Fa-f]{2}|[?*\[\]{}\\]")
# SQLite opens no path of more than 512 bytes, and the longest one in a home needs some 80.
LONGEST_ROOT = 400  # bytes


def _refuse_unusable(root: Path) -> None:
    """Refuse a path that breaks a library of the project.

    Raises:
        HomeRefused: the path has an unsupported character, or is too long.
    """
    name = str(root)
    unseen = {in_one_line(sign) for sign in name if in_one_line(sign) != sign}
    if unsupported := sorted(unseen | set(_UNSUPPORTED.findall(name))):
        signs = " ".join(unsupported)
        raise HomeRefused(
            f"{in_one_line(name)} cannot be a home folder: its path contains {signs}, which the databases "
            "of a home do not support. Choose another --home (or POLENG_HOME), or rename the folder; "
            "spaces, quotes, # and letters of any language are supported. Nothing was created"
        )
    if long := [part for part in root.parts if len(os.fsencode(part)) > 255]:
        raise HomeRefused(
            f"{name[:60]}… cannot be a home folder: {long[0][:60]}… is longer than 255 bytes. Choose "
            "another --home (or POLENG_HOME). Nothing was created"
        )
    if (length := len(os.fsencode(name))) > LONGEST_ROOT:
        raise HomeRefused(
            f"{name[:60]}… cannot be a home folder: its path has {length} bytes, and at most "
            f"{LONGEST_ROOT} are supported. Choose another --home (or POLENG_HOME). Nothing was created"
        )


@dataclass(frozen=True)
class Home:
    """The folders and files under one root; nothing is created before :meth:`create`.

    Raises:
        HomeRefused: the path is not supported.
    """

    root: Path

    def __post_init__(self) -> None:
        """Refuse a folder that cannot be a home, before anything is created."""
        _refuse_unusable(self.root)

    @classmethod
    def default(cls) -> Home:
        """Return the home that ``POLENG_HOME`` names, or ``data/`` of the checkout."""
        return cls(Path(os.environ.get("POLENG_HOME") or CHECKOUT / "data").expanduser().resolve())

    def landing(self, kind: Kind) -> Path:
        """Return the folder to which people submit files of this kind."""
        return self.root / "landing" / kind

    def archive(self, kind: Kind) -> Path:
        """Return the folder of the ingested files."""
        return self.root / "archive" / kind

    def rejected(self, kind: Kind) -> Path:
        """Return the folder of the refused files."""
        return self.root / "rejected" / kind

    @property
    def warehouse(self) -> Path:
        """The DuckDB file."""
        return self.root / "warehouse.duckdb"

    @property
    def mlflow_uri(self) -> str:
        """The URI of the tracking and registry store; absolute, independent of the working directory."""
        return f"sqlite:///{self.mlflow_store}"

    @property
    def mlflow_store(self) -> Path:
        """The SQLite file of that store."""
        return self.root / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """The folder of MLflow's models and reference rows."""
        return self.root / "mlartifacts"

    @property
    def contact_lists(self) -> Path:
        """The folder of the contact lists."""
        return self.root / "contact_lists"

    @property
    def reports(self) -> Path:
        """The folder of all reports: of batches, of model versions, and the overview."""
        return self.root / "reports"

    @property
    def batch_reports(self) -> Path:
        """The folder of the drift reports, with one folder per batch, apart from the other reports."""
        return self.reports / "batches"

    @property
    def requests(self) -> Path:
        """The folder of the lists of people to interview next."""
        return self.root / "requests"

    @property
    def tuning(self) -> Path:
        """The folder of interrupted hyperparameter searches, which can be resumed."""
        return self.root / "tuning"

    @property
    def outbox(self) -> Path:
        """The SQLite file of pending and delivered messages."""
        return self.root / "outbox.db"

    def report(self, batch: str, version: int) -> Path:
        """Return the report of a batch under a model version."""
        return self.batch_reports / batch / f"version_{version}.html"

    @property
    def overview(self) -> Path:
        """The report of all batches."""
        return self.reports / "overview.html"

    def model_card(self, version: int) -> Path:
        """Return the model card of a version."""
        return self.reports / "models" / f"version_{version}.html"

    @property
    def simulation(self) -> Path:
        """The files of the synthetic people of ``poleng simulate``."""
        return self.root / "simulation"

    @property
    def people(self) -> Path:
        """The file that marks the people of this home as synthetic or real (``storage/synthetic.py``)."""
        return self.root / "people.json"

    @property
    def study_file(self) -> Path:
        """The study of this home (``storage/home_study.py``)."""
        return self.root / "study.yaml"

    @property
    def dagster(self) -> Path:
        """Dagster's own history."""
        return self.root / "dagster"

    @property
    def clock(self) -> Path:
        """The file with the last time at which the clock was right (``defs/clock.py``)."""
        return self.root / "clock.json"

    @property
    def lock(self) -> Path:
        """The lock file of the process that runs this home (``headless/home_lock.py``)."""
        return self.root / ".lock"

    def create(self) -> Home:
        """Create missing folders, readable by their owner only; return the home.

        Sets the umask of the process, because libraries write databases and models. Permissions of files of
        earlier releases are corrected once.
        """
        if self.root.exists() and not self.root.is_dir():
            raise HomeRefused(f"{self.root} cannot be a home folder: it is a file. Choose another --home")
        os.umask(0o077)
        folders = [folder(kind) for folder in (self.landing, self.archive, self.rejected) for kind in KINDS]
        self.root.mkdir(parents=True, exist_ok=True)
        folders += [self.artifacts, self.contact_lists, self.requests, self.batch_reports, self.tuning]
        for folder in [*folders, self.dagster]:
            folder.mkdir(parents=True, exist_ok=True)
            # Each folder as well: the root may have to stay accessible.
            top = self.root / folder.relative_to(self.root).parts[0]
            if stat.S_IMODE(top.stat().st_mode) != 0o700:  # not on a read-only disk
                top.chmod(0o700)
        self._gather_reports()
        self._close()
        return self

    def _gather_reports(self) -> None:
        """Move batch reports of earlier releases, which were beside the other reports."""
        moved = []
        for folder in self.reports.iterdir():
            if folder.name == "models" or folder.is_symlink() or not folder.is_dir():
                continue
            for page in folder.glob("version_*.html"):
                target = self.batch_reports / folder.name / page.name
                target.parent.mkdir(exist_ok=True)
                with suppress(FileNotFoundError):  # another process opens this home as well
                    page.replace(target)
                    moved.append(f"{quote(folder.name, safe='')}/{page.name}")
            if folder != self.batch_reports and not any(folder.iterdir()):
                with suppress(FileNotFoundError):
                    folder.rmdir()
        if moved and self.overview.is_file():
            text = self.overview.read_text(encoding="utf-8")
            for address in moved:
                text = text.replace(f'"./{address}"', f'"./batches/{address}"')
            write_atomically(self.overview, text)

    def _close(self) -> None:
        """Remove the permissions of group and others; the root is last and marks completion.

        Only the root can belong to another user: a container's volume, or by mistake a shared folder.
        """
        status = self.root.stat()
        if not status.st_mode & 0o077 or status.st_mode & stat.S_ISVTX or status.st_uid != os.geteuid():
            return
        if self.root in (Path("/"), Path.home()):
            return
        for name in OWN:
            for top in self.root.glob(f"{name}*"):
                for path in (top, *top.rglob("*")):
                    _make_private(path)
        self.root.chmod(0o700)


def _make_private(path: Path) -> None:
    """Remove the permissions of group and others from a file or folder; links are skipped."""
    try:
        mode = path.lstat().st_mode
        if mode & 0o077 and not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode) & ~0o077)
    except FileNotFoundError:
        return  # moved meanwhile, to a private folder
