"""The champion watcher: a thread that regularly checks which version serves, and loads a new champion.

A request uses one champion from start to end. A new one replaces it only after it is loaded and has scored a
row. A failed check (a locked registry, a full disk) is reported and changes nothing until the next one.
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
from poleng_assets.serving.version_choice import NO_CHAMPION, LedgerClosed, choose
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
    """The state after the last checks.

    Attributes:
        champion: the loaded version, None if there is none.
        doubt: a problem with the serving version, empty if there is none.
        looked_at: time of the last successful check, seconds since 1970; 0 before the first.
        failed: why the last check failed, empty if it succeeded.
        history: the last events of the graph, None before they were read.
        reloads: number of versions loaded, including the first.
        replaced: the home was replaced under this process, which must be restarted.
    """

    champion: Champion | None = None
    doubt: str = "the champion is being loaded"
    looked_at: float = 0.0
    failed: str = ""
    history: History | None = None
    reloads: int = 0
    replaced: bool = False


class Watch:
    """Watches one home. Any thread may read ``seen``: it is immutable and replaced as one object."""

    def __init__(
        self,
        home: Home,
        study: Study,
        every_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Store the home and its study; nothing is read before :meth:`look` or :meth:`start`."""
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
        """Start a thread that checks repeatedly until :meth:`stop`."""
        self._thread = threading.Thread(target=self._watch, name="poleng-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and wait for its end, but not long if it is loading a model."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(GOODBYE_SECONDS)
        self._close()

    def look(self) -> None:
        """Check once which version serves and, every ``HISTORY_SECONDS``, read the events. Raises nothing."""
        try:
            if self._replaced():
                return
            instance = self._open()
            serving = serving_version(instance)
            self._follow(serving)
            self._read_history(instance, serving)
            self.seen = replace(self.seen, looked_at=self._clock(), failed="")
        except Exception as error:
            # The boundary: two databases, a registry and a disk raise different errors, and the loaded
            # champion stays in use. Requests never reach this code.
            self._close()
            failed = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            if failed != self.seen.failed:
                log.warning("The serving version cannot be checked, next attempt follows: %s", failed)
            self.seen = replace(self.seen, failed=failed)

    def _watch(self) -> None:
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
        """Whether the registry's file was replaced, by a reset or a restored backup.

        MLflow keeps connections to the removed file, and would return its versions for ever.
        """
        path = self._home.root / "mlflow.db"
        if self._store is None:
            if path.exists():
                self._store = (path.stat().st_dev, path.stat().st_ino)
            return False
        if path.exists() and (path.stat().st_dev, path.stat().st_ino) == self._store:
            return False
        doubt = f"{self._home.root} was replaced while this server ran on it: restart `poleng serve`"
        if not self.seen.replaced:
            log.error("%s", doubt)
        self.seen = replace(self.seen, champion=None, doubt=doubt, replaced=True)
        return True

    def _follow(self, reported: int | None) -> None:
        serving = self.seen.champion.version if self.seen.champion else None
        # Before the first champion MLflow is not read: it would create its tables while a training creates
        # them as well.
        alias = self._registry.alias(CHAMPION) if reported is not None else None
        pair = (reported, alias.version if alias else None)
        choice = choose(*pair, serving, lambda: self._ask_ledger(pair))
        if choice.doubt and choice.doubt not in {self.seen.doubt, NO_CHAMPION}:
            log.warning("Problem with the serving version: %s", choice.doubt)
        if choice.version is None:
            self.seen = replace(self.seen, champion=None, doubt=choice.doubt)
        elif choice.version == serving:
            self.seen = replace(self.seen, doubt=choice.doubt)
        else:
            self._load(choice.version, choice.doubt)

    def _ask_ledger(self, pair: tuple[int | None, int | None]) -> ServingDecision | None:
        """Read the ledger without waiting for it, once a minute for the same disagreement."""
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
        """Load another version; if it cannot be used, report that and keep the previous one."""
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
            fallback = f"version {before.version} stays in use" if before else "no version is loaded"
            doubt = f"version {number} should serve but cannot be loaded, {fallback}: {error}"
            if doubt != self.seen.doubt:
                log.error("%s", doubt)
            self.seen = replace(self.seen, doubt=doubt)
            return
        self._unusable = None
        self.seen = replace(self.seen, champion=champion, doubt=doubt, reloads=self.seen.reloads + 1)
        log.info("Version %d serves; loaded in %.1f s", number, time.monotonic() - started)

    def _read_history(self, instance: Instance, serving: int | None) -> None:
        now, before = self._clock(), self.seen.history
        if before is not None and now - before.read_at < HISTORY_SECONDS:
            return
        history = History(serving, newest(instance, DriftReport), newest(instance, Overview), now)
        self.seen = replace(self.seen, history=history)
