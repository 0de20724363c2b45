"""The home folder: where all state lives, and the one place that reads ``POLENG_HOME``."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from poleng_assets.storage.files import write_whole
from poleng_assets.text.plain_text import in_one_line

Kind = Literal["batches", "field_studies", "outcomes"]
KINDS: tuple[Kind, ...] = ("field_studies", "batches", "outcomes")
CHECKOUT = Path(__file__).resolve().parents[2]
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
    "outbox.db",
    "simulation",
    "clock.json",
    "people.json",
    "study.yaml",
    "dagster",
)


class HomeRefused(ValueError):
    """A folder cannot be a home because of its name; the message says which sign is in the way."""


# SQLAlchemy, by which Dagster and MLflow open their databases, reads %20 and ? as parts of an address;
# Dagster looks for its settings by a pattern: where the folder has * ? [ in it, it finds none and sends
# telemetry; braces are formatted; DuckDB takes a backslash for a slash.
_IN_THE_WAY = re.compile(r"%[0-9A-Fa-f]{2}|[?*\[\]{}\\]")
# SQLite opens no path of more than 512 bytes, and the longest one in a home needs some 80.
LONGEST_ROOT = 400  # bytes


def _refuse_unusable(root: Path) -> None:
    """Refuse a folder in which a library that we stand on would work elsewhere, or not at all.

    Raises:
        HomeRefused: its path has a sign that is in the way, or is too long.
    """
    name = str(root)
    unseen = {in_one_line(sign) for sign in name if in_one_line(sign) != sign}
    if in_the_way := sorted(unseen | set(_IN_THE_WAY.findall(name))):
        signs = " ".join(in_the_way)
        raise HomeRefused(
            f"{in_one_line(name)} cannot be a home folder: its path has {signs} in it, which the databases "
            "of a home cannot be opened with. Choose another --home (or POLENG_HOME), or rename the folder; "
            "blanks, quotes, # and letters of any language are fine. Nothing was made"
        )
    if long := [part for part in root.parts if len(os.fsencode(part)) > 255]:
        raise HomeRefused(
            f"{name[:60]}… cannot be a home folder: {long[0][:60]}… is longer than the 255 bytes that a name "
            "may have. Choose another --home (or POLENG_HOME). Nothing was made"
        )
    if (length := len(os.fsencode(name))) > LONGEST_ROOT:
        raise HomeRefused(
            f"{name[:60]}… cannot be a home folder: its path is {length} bytes long, and databases can be "
            f"opened in a folder of {LONGEST_ROOT} at most. Choose another --home (or POLENG_HOME). "
            "Nothing was made"
        )


@dataclass(frozen=True)
class Home:
    """The folders and files under one root; nothing is made until :meth:`create`.

    Raises:
        HomeRefused: the folder cannot be one because of its name.
    """

    root: Path

    def __post_init__(self) -> None:
        """Refuse a folder that cannot be a home, whoever asks and before anything is made."""
        _refuse_unusable(self.root)

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
        return f"sqlite:///{self.mlflow_store}"

    @property
    def mlflow_store(self) -> Path:
        """The SQLite file of that store."""
        return self.root / "mlflow.db"

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
        """The folder of all pages: of batches, of model versions, and the overview."""
        return self.root / "reports"

    @property
    def batch_reports(self) -> Path:
        """The folder of the drift reports, one folder for each batch: whatever a batch is called, the
        pages that are of no batch stand elsewhere."""
        return self.reports / "batches"

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
        """Messages that wait to be delivered, and what was delivered to whom (SQLite)."""
        return self.root / "outbox.db"

    def report(self, batch: str, version: int) -> Path:
        """Return the page that tells about a batch under a model version."""
        return self.batch_reports / batch / f"version_{version}.html"

    @property
    def overview(self) -> Path:
        """The page that tells about all batches."""
        return self.reports / "overview.html"

    def model_card(self, version: int) -> Path:
        """Return the page that tells about a model version."""
        return self.reports / "models" / f"version_{version}.html"

    @property
    def simulation(self) -> Path:
        """The files of the made-up people of ``poleng simulate``."""
        return self.root / "simulation"

    @property
    def people(self) -> Path:
        """Says whether the people of this home are made up or real (``storage/synthetic.py``)."""
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
        """Up to when the clock was found right (``defs/clock.py``)."""
        return self.root / "clock.json"

    @property
    def lock(self) -> Path:
        """Held by the one process that drives this home (``headless/home_lock.py``)."""
        return self.root / ".lock"

    def create(self) -> Home:
        """Make the folders that are missing, readable by their owner only; return the home.

        From here on, whatever this process writes is its owner's alone: databases and models are written
        by libraries, which ask the process and not us. Files of earlier releases are mended once.
        """
        if self.root.exists() and not self.root.is_dir():
            raise HomeRefused(f"{self.root} cannot be a home folder: it is a file. Choose another --home")
        os.umask(0o077)
        folders = [folder(kind) for folder in (self.landing, self.archive, self.rejected) for kind in KINDS]
        self.root.mkdir(parents=True, exist_ok=True)
        folders += [self.artifacts, self.contact_lists, self.requests, self.batch_reports, self.tuning]
        for folder in [*folders, self.dagster]:
            folder.mkdir(parents=True, exist_ok=True)
            # By itself too: it may be that the root has to stay open.
            top = self.root / folder.relative_to(self.root).parts[0]
            if stat.S_IMODE(top.stat().st_mode) != 0o700:  # not on a disk that may only be read
                top.chmod(0o700)
        self._gather_reports()
        self._close()
        return self

    def _gather_reports(self) -> None:
        """Move the reports of earlier releases, which stood beside the pages that are of no batch."""
        moved = []
        for folder in self.reports.iterdir():
            if folder.name == "models" or folder.is_symlink() or not folder.is_dir():
                continue
            for page in folder.glob("version_*.html"):
                target = self.batch_reports / folder.name / page.name
                target.parent.mkdir(exist_ok=True)
                with suppress(FileNotFoundError):  # another process opens this home, too
                    page.replace(target)
                    moved.append(f"{quote(folder.name, safe='')}/{page.name}")
            if folder != self.batch_reports and not any(folder.iterdir()):
                with suppress(FileNotFoundError):
                    folder.rmdir()
        if moved and self.overview.is_file():
            text = self.overview.read_text(encoding="utf-8")
            for address in moved:
                text = text.replace(f'"./{address}"', f'"./batches/{address}"')
            write_whole(self.overview, text)

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
