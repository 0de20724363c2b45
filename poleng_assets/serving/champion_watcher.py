"""The watch: a thread that looks every few seconds who serves, and changes the champion when that changed.

Requests take the champion once, when they begin, and end with it: it is put in its place whole, when it is
loaded and has scored a row. What cannot be looked at now (a locked registry, a full disk) changes nothing
and is told; the next look tries again.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from poleng_assets.core.data.asset_events import DriftReport, Overview
from poleng_assets.defs.events import History, newest, serving_version
from poleng_assets.defs.instance import Instance, open_instance
from poleng_assets.models.artifacts import ModelUnusable
from poleng_assets.models.registry import CHAMPION, Registry
from poleng_assets.serving.loaded_champion import Champion, load
from poleng_assets.serving.version_choice import NOBODY, LedgerClosed, choose
from poleng_assets.storage.home import Home
from poleng_assets.study.schema import Study
from poleng_assets.warehouse.connection import Warehouse, WarehouseBusy, WarehouseUnusable
from poleng_assets.warehouse.decisions import ServingDecision, serving_decision

log = logging.getLogger("poleng.serve")
LOOK_SECONDS = 2.0
HISTORY_SECONDS = 15.0
ASK_LEDGER_AGAIN_SECONDS = 60.0
LOAD_AGAIN_SECONDS = 60.0
GOODBYE_SECONDS = 10.0


@dataclass(frozen=True)
class Seen:
    """What the last looks found.

    Attributes:
        champion: that answers, None when none does.
        doubt: what is not as it should be about who serves, empty when all is well.
        looked_at: when the last look succeeded, seconds since 1970; 0 before the first.
        failed: why the last look did not succeed, empty when it did.
        history: what the graph has told last, None before it was read.
        reloads: how often another version was put in its place, the first one included.
        replaced: the home was made anew under this process, which therefore has to start again.
    """

    champion: Champion | None = None
    doubt: str = "the champion is being loaded"
    looked_at: float = 0.0
    failed: str = ""
    history: History | None = None
    reloads: int = 0
    replaced: bool = False


class Watch:
    """Follows one home. ``seen`` may be read by any thread: it is replaced whole and never changed."""

    def __init__(
        self,
        home: Home,
        study: Study,
        every_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the home and its study; nothing is looked at before :meth:`look` or :meth:`start`."""
        self._home, self._study, self._every, self._clock = home, study, every_seconds, clock
        self._registry = Registry(home, study)
        self._opened = ExitStack()
        self._instance: Instance | None = None
        self._store: tuple[int, int] | None = None
        self._asked: tuple[tuple[int | None, int | None], float, ServingDecision | None] | None = None
        self._unusable: tuple[int, float] | None = None
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self.seen = Seen()

    def start(self) -> None:
        """Look again and again in a thread of its own, until :meth:`stop`."""
        self._thread = threading.Thread(target=self._go_on, name="poleng-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait until it has ended; one that is loading a model is not waited for long."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(GOODBYE_SECONDS)
        self._close()

    def look(self) -> None:
        """Look once: who serves, and, every ``HISTORY_SECONDS``, how the batches stand. Raises nothing."""
        try:
            if self._replaced():
                return
            instance = self._open()
            serving = serving_version(instance)
            self._follow(serving)
            self._read_history(instance, serving)
            self.seen = replace(self.seen, looked_at=self._clock(), failed="")
        except Exception as error:
            # The boundary: databases of two libraries, a registry and a disk fail each in its own way, and a
            # champion that is loaded goes on to answer. What was asked of the server never gets here.
            self._close()
            words = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            if words != self.seen.failed:
                log.warning("Who serves cannot be seen at this moment, it is tried again: %s", words)
            self.seen = replace(self.seen, failed=words)

    def _go_on(self) -> None:
        while not self._end.is_set():
            self.look()
            self._end.wait(self._every)

    def _open(self) -> Instance:
        if self._instance is None:
            self._instance = self._opened.enter_context(open_instance(self._home))
        return self._instance

    def _close(self) -> None:
        self._instance = None
        self._opened.close()

    def _replaced(self) -> bool:
        """Whether the registry's file is another one than at first: after a reset, or a restored backup.

        MLflow keeps connections to the file that was removed, and would tell of its versions for ever.
        """
        path = self._home.root / "mlflow.db"
        if self._store is None:
            if path.exists():
                self._store = (path.stat().st_dev, path.stat().st_ino)
            return False
        if path.exists() and (path.stat().st_dev, path.stat().st_ino) == self._store:
            return False
        words = f"{self._home.root} was made anew while this server ran on it: start `poleng serve` again"
        if not self.seen.replaced:
            log.error("%s", words)
        self.seen = replace(self.seen, champion=None, doubt=words, replaced=True)
        return True

    def _follow(self, told: int | None) -> None:
        serving = self.seen.champion.version if self.seen.champion else None
        # Before the first champion nothing is asked of MLflow: it would make its tables, and a training
        # makes them at the same time.
        alias = self._registry.alias(CHAMPION) if told is not None else None
        pair = (told, alias.version if alias else None)
        choice = choose(*pair, serving, lambda: self._ask_ledger(pair))
        if choice.doubt and choice.doubt not in {self.seen.doubt, NOBODY}:
            log.warning("Not as it should be: %s", choice.doubt)
        if choice.version is None:
            self.seen = replace(self.seen, champion=None, doubt=choice.doubt)
        elif choice.version == serving:
            self.seen = replace(self.seen, doubt=choice.doubt)
        else:
            self._load(choice.version, choice.doubt)

    def _ask_ledger(self, pair: tuple[int | None, int | None]) -> ServingDecision | None:
        """Read the ledger in passing, once a minute for the same disagreement; it is never waited for."""
        if self._asked is not None:
            asked, at, answer = self._asked
            if asked == pair and self._clock() - at < ASK_LEDGER_AGAIN_SECONDS:
                return answer
        try:
            with Warehouse(self._home.warehouse, self._study, patience_seconds=0.0).read() as con:
                answer = serving_decision(con)
        except FileNotFoundError:
            answer = None
        except (WarehouseBusy, WarehouseUnusable) as error:
            raise LedgerClosed(str(error)) from error
        self._asked = (pair, self._clock(), answer)
        return answer

    def _load(self, number: int, doubt: str) -> None:
        """Put another version in its place; one that cannot be used is told, and the one before goes on."""
        if self._unusable is not None:
            which, at = self._unusable
            if which == number and self._clock() - at < LOAD_AGAIN_SECONDS:
                return
        started = time.monotonic()
        try:
            champion = load(self._registry, number)
        except (ModelUnusable, LookupError) as error:
            self._unusable = (number, self._clock())
            before = self.seen.champion
            goes_on = f"version {before.version} goes on to answer" if before else "nobody answers"
            words = f"version {number} is to serve and cannot be loaded, {goes_on}: {error}"
            if words != self.seen.doubt:
                log.error("%s", words)
            self.seen = replace(self.seen, doubt=words)
            return
        self._unusable = None
        self.seen = replace(self.seen, champion=champion, doubt=doubt, reloads=self.seen.reloads + 1)
        log.info("Version %d serves; it was loaded in %.1f s", number, time.monotonic() - started)

    def _read_history(self, instance: Instance, serving: int | None) -> None:
        now, before = self._clock(), self.seen.history
        if before is not None and now - before.read_at < HISTORY_SECONDS:
            return
        history = History(serving, newest(instance, DriftReport), newest(instance, Overview), now)
        self.seen = replace(self.seen, history=history)
