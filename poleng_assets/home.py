"""The home folder: where all state lives, and the one place that reads ``POLENG_HOME``."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["batches", "field_studies", "outcomes"]
KINDS: tuple[Kind, ...] = ("field_studies", "batches", "outcomes")
CHECKOUT = Path(__file__).resolve().parent.parent
# What the project keeps in a home; files that libraries put beside it (a WAL, a journal) begin likewise.
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
    "simulation",
    "dagster",
)


@dataclass(frozen=True)
class Home:
    """The folders and files under one root; nothing is made until :meth:`create`."""

    root: Path

    @classmethod
    def default(cls) -> Home:
        """Return the home that ``POLENG_HOME`` names, or ``data/`` of the checkout."""
        return cls(Path(os.environ.get("POLENG_HOME") or CHECKOUT / "data").expanduser().resolve())

    def landing(self, kind: Kind) -> Path:
        """Return the folder in which people drop files of this kind."""
        return self.root / "landing" / kind

    def archive(self, kind: Kind) -> Path:
        """Return the folder of the files that were taken in."""
        return self.root / "archive" / kind

    def rejected(self, kind: Kind) -> Path:
        """Return the folder of the files that were refused."""
        return self.root / "rejected" / kind

    @property
    def warehouse(self) -> Path:
        """The DuckDB file."""
        return self.root / "warehouse.duckdb"

    @property
    def mlflow_uri(self) -> str:
        """The tracking and registry store; absolute, because a relative one follows the shell."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        """Where MLflow keeps models and reference rows."""
        return self.root / "mlartifacts"

    @property
    def contact_lists(self) -> Path:
        """The folder of the lists that contact centres open."""
        return self.root / "contact_lists"

    @property
    def reports(self) -> Path:
        """The folder of the drift reports, one folder for each batch."""
        return self.root / "reports"

    @property
    def requests(self) -> Path:
        """The folder of the lists of people to interview next."""
        return self.root / "requests"

    @property
    def tuning(self) -> Path:
        """Where an interrupted search for a model is kept, so that it can go on."""
        return self.root / "tuning"

    @property
    def outbox(self) -> Path:
        """Messages that wait to be delivered, and what was delivered to whom."""
        return self.root / "outbox"

    def report(self, batch: str, version: int) -> Path:
        """Return the page that tells about a batch under a model version."""
        return self.reports / batch / f"version_{version}.html"

    @property
    def overview(self) -> Path:
        """The page that tells about all batches."""
        return self.reports / "overview.html"

    def model_card(self, version: int) -> Path:
        """Return the page that tells about a model version."""
        return self.reports / "models" / f"version_{version}.html"

    @property
    def dagster(self) -> Path:
        """Dagster's own history."""
        return self.root / "dagster"

    @property
    def lock(self) -> Path:
        """Held by the one process that drives this home (``locks.py``)."""
        return self.root / ".lock"

    def create(self) -> Home:
        """Make the folders that are missing, readable by their owner only; return the home.

        From here on, whatever this process writes is its owner's alone: databases and models are written
        by libraries, which ask the process and not us. Files of earlier releases are mended once.
        """
        os.umask(0o077)
        folders = [folder(kind) for folder in (self.landing, self.archive, self.rejected) for kind in KINDS]
        self.root.mkdir(parents=True, exist_ok=True)
        own = [self.artifacts, self.contact_lists, self.requests, self.reports, self.tuning, self.dagster]
        for folder in [*folders, *own]:
            folder.mkdir(parents=True, exist_ok=True)
            # By itself too: it may be that the root has to stay open.
            (self.root / folder.relative_to(self.root).parts[0]).chmod(0o700)
        self._close()
        return self

    def _close(self) -> None:
        """Take the rights of group and others away; the root comes last, and says that it was done.

        Only the root can be somebody else's: a container's volume, or by mistake a folder that all use.
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
    """Take the rights of group and others away from a file or folder; links are left alone."""
    try:
        mode = path.lstat().st_mode
        if mode & 0o077 and not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode) & ~0o077)
    except FileNotFoundError:
        return  # moved on meanwhile, into a folder that is closed
