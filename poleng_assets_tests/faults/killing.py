"""The kill harness: a home is put back, its work is killed at a chosen moment, finished, and compared.

    python -m poleng_assets_tests.faults.killing --total 100 --seed 5 --out FOLDER [--data FOLDER]

The story has chapters; the home before each of them is kept, and so is what stands in it when the chapter
ran undisturbed. For each kill a process works on the chapter and is killed: by ``kill -9`` after some time
(``sigkill``), by ending itself just before a lasting effect (``injected``), or as a whole process group of
``poleng dev`` (``daemon``). Another process then works until nothing is asked for, and a third reads what
stands there (``end_state.py``). Each of these is a fork of a process that has imported everything and
opened nothing: MLflow and Dagster keep engines of a home for as long as a process lives.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import psutil

CHECKOUT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 180
# A run that is killed between its launch and its first word is given up after 180 s; then comes the chapter.
DAEMON_PATIENCE_SECONDS = 600
# Three ticks of the sensors, and the start of a run.
QUIET_SECONDS = 20
# Exit code of a look that found work going on.
BUSY = 3
STARTING_SECONDS = 6.0
# Has the one retraining of the long story.
TOGETHER = "together"
DAEMON_CHAPTERS = ("clean batch", TOGETHER)
# Of each kind of point.
SAMPLED = 4
FAMILIES = ("warehouse", "file", "mlflow", "dagster", "trials")
# Of each file: more people would only make it slower.
ROWS = 1_200

Where = tuple[str, int] | float


@dataclass(frozen=True)
class Chapter:
    """A part of the story: what is dropped, as (kind, name of the file), and then settled."""

    name: str
    drops: tuple[tuple[str, str], ...]


STORY = (
    Chapter("founding", (("field_studies", "founding_study"),)),
    Chapter("clean batch", (("batches", "clean_batch_1"),)),
    Chapter("drift without data", (("batches", "drift_batch_1"),)),
    Chapter(
        TOGETHER,
        (
            ("batches", "clean_batch_2"),
            ("batches", "drift_batch_2"),
            ("batches", "drift_batch_3"),
            ("field_studies", "followup_study"),
        ),
    ),
    Chapter("outcomes", (("outcomes", "clean_batch_1"), ("outcomes", "drift_batch_2"))),
)
# For who has a minute: what comes together right after the founding.
SHORT_STORY = (
    STORY[0],
    Chapter(
        "study and batches",
        (("batches", "clean_batch_1"), ("batches", "drift_batch_1"), ("field_studies", "followup_study")),
    ),
)


def story_of(chapters: Sequence[str]) -> tuple[Chapter, ...]:
    """Return the story that has these chapters; raises ``ValueError`` when none has all of them."""
    for story in (STORY, SHORT_STORY):
        if {one.name for one in story} >= set(chapters):
            return story
    raise ValueError(f"no story has the chapters {', '.join(chapters)}")


@dataclass(frozen=True)
class Kill:
    """One kill that is to be: how, in which chapter, and when (a point and its number, or seconds)."""

    how: str
    chapter: str
    where: Where

    def in_words(self) -> str:
        """Say where it is."""
        if isinstance(self.where, float):
            return f"{self.how} in '{self.chapter}' after {self.where:.2f} s"
        kind, number = self.where
        return f"{self.how} in '{self.chapter}' before '{kind}' number {number}"


@dataclass(frozen=True)
class Ended:
    """How a kill ended: the last point before it, and what is not as in the undisturbed home."""

    kill: Kill
    last_point: str
    seconds: float
    differences: list[str]


@dataclass
class Result:
    """All kills of a run of the harness."""

    ended: list[Ended] = field(default_factory=list)

    @property
    def unequal(self) -> list[Ended]:
        """The kills after which something was not as it should be."""
        return [one for one in self.ended if one.differences]

    def summary(self) -> str:
        """Return the count in one line, and then each end state that is not equal."""
        counts = Counter(one.kill.how for one in self.ended)
        line = (
            f"{len(self.ended)} kills: {len(self.ended) - len(self.unequal)} equal end states "
            f"({counts['injected']} injected, {counts['sigkill']} SIGKILL, {counts['daemon']} of the daemon)"
        )
        told = [
            "\n".join(
                [
                    f"{one.kill.in_words()}, last point: {one.last_point}",
                    *(f"    {d}" for d in one.differences),
                ]
            )
            for one in self.unequal
        ]
        return "\n".join([line, *told])


def run_kills(
    total: int,
    seed: int,
    data: Path | None,
    out: Path,
    *,
    daemon: int | None = None,
    chapters: Sequence[str] = (),
    workers: int = 2,
    checked: bool = True,
) -> Result:
    """Kill ``total`` times and compare; tell of each on the standard output.

    Args:
        total: kills in all; half of those that are not the daemon's are injected.
        seed: of the moments and points.
        data: laid out as ``poleng simulate --data`` wants it; None for made-up people.
        out: an empty or missing folder to work in; the homes and ``kills.jsonl`` stand there afterwards.
            Given again, with the same chapters, what was prepared in it is used again.
        daemon: how many of them are kills of the daemon; by default a tenth.
        chapters: names of those to kill in, of one story; by default all of the long one.
        workers: how many homes are worked on side by side.
        checked: whether to see first that two undisturbed runs end in the same.

    Raises:
        RuntimeError: the harness itself failed; its words are on the standard output.
        ValueError: no story has all these chapters.
    """
    story_of(chapters)
    command = [sys.executable, "-m", __name__, "--total", str(total), "--seed", str(seed), "--out", str(out)]
    command += ["--workers", str(workers), "--daemon", str(total // 10 if daemon is None else daemon)]
    command += ["--data", str(data)] if data else []
    command += [] if checked else ["--unchecked"]
    command += [f"--chapter={one}" for one in chapters]
    # A process of its own: who calls may have opened engines and threads that no fork survives.
    done = subprocess.run(command, cwd=CHECKOUT, env=_environment(out), check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the kill harness ended with {done.returncode}: {' '.join(command)}")
    return read_result(out)


def read_result(out: Path) -> Result:
    """Return what a run of the harness wrote down."""
    result = Result()
    for line in (out / "kills.jsonl").read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        kill = told.pop("kill")
        where = kill.pop("where")
        where = (str(where[0]), int(where[1])) if isinstance(where, list) else float(where)
        result.ended.append(Ended(Kill(where=where, **kill), **told))
    return result


def _environment(out: Path) -> dict[str, str]:
    return os.environ | {
        "POLENG_STUDY": str(out / "quick.yaml"),
        "POLENG_HOME": str(out / "nobody"),
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONWARNINGS": "ignore",
        "TMPDIR": str(out / "tmp"),
    }


class Place:
    """A home of one worker, with what it was before each chapter and what it must be after it."""

    def __init__(self, root: Path, data: Path) -> None:
        from poleng_assets.storage.home import Home

        self.root, self.data = root, data
        self.home = Home(root / "home")
        self.tmp = root / "tmp"
        self.expected: dict[str, dict[str, list[str]]] = {}
        self.seconds: dict[str, float] = {}
        self.points: dict[str, Counter[str]] = {}

    def prepare(self, chapters: Sequence[str], *, checked: bool) -> None:
        """Play the story undisturbed up to the last of the chapters, and keep what each began and ended with.

        Args:
            chapters: names of those to kill in.
            checked: whether to play these once more, which must end in the same.
        """
        story = story_of(chapters)
        last = max(number for number, one in enumerate(story) if one.name in chapters)
        self.home.create()
        for chapter in story[: last + 1]:
            for kind, name in chapter.drops:
                target = self.home.landing(kind) / f"{name}.parquet"  # type: ignore[arg-type]
                shutil.copyfile(self.data / kind / target.name, target)
            shutil.copytree(self.home.root, self._kept(chapter.name), symlinks=True)
            shutil.rmtree(self.tmp, ignore_errors=True)
            began = time.monotonic()
            self.work(chapter.name, None)
            seconds = time.monotonic() - began
            if chapter.name in chapters:
                self.seconds[chapter.name] = seconds
                self.points[chapter.name] = Counter(self._log.read_text().splitlines())
                self.expected[chapter.name] = self.state()
        for name in chapters if checked else ():
            self.put_back(name)
            self.finish(name)
            self.must_be_equal(name)
        self._notes.write_text(json.dumps([self.seconds, self.points, self.expected]), encoding="utf-8")

    def prepared(self) -> bool:
        """Take over what an earlier run of the harness prepared; whether there was something."""
        if not self._notes.exists():
            return False
        self.seconds, points, self.expected = json.loads(self._notes.read_text(encoding="utf-8"))
        self.points = {name: Counter(counted) for name, counted in points.items()}
        return True

    @property
    def _notes(self) -> Path:
        return self.root / "prepared.json"

    def must_be_equal(self, chapter: str) -> None:
        """Raise ``RuntimeError`` when the home is not what it was after the first undisturbed run."""
        from poleng_assets_tests.faults.end_state import differences

        found = differences(self.expected[chapter], self.state())
        if found:
            raise RuntimeError(f"two undisturbed runs of '{chapter}' differ:\n" + "\n".join(found))

    @property
    def _log(self) -> Path:
        return self.root / "points.txt"

    def _kept(self, chapter: str) -> Path:
        return self.root / "kept" / chapter

    def put_back(self, chapter: str) -> None:
        """Make the home what it was; at the same place, because MLflow's artifacts name it."""
        shutil.rmtree(self.home.root)
        shutil.rmtree(self.tmp, ignore_errors=True)
        self.tmp.mkdir()
        shutil.copytree(self._kept(chapter), self.home.root, symlinks=True)

    def work(self, chapter: str, stop: tuple[str, int] | None, seconds: float | None = None) -> bool:
        """Settle with points watched, perhaps killed at one or after some time; True when it was killed."""
        from poleng_assets_tests.faults.points import Points

        def watched() -> None:
            Points(self.home.root, self._log, stop).install()
            settle(self.home)

        return self._in_child(watched, f"{chapter}.killed.log", seconds) != 0

    def finish(self, chapter: str) -> None:
        """Settle to the end, as the next start of the project does."""
        self._in_child(lambda: settle(self.home), f"{chapter}.after.log")

    def state(self) -> dict[str, list[str]]:
        """Read what stands in the home."""
        from poleng_assets_tests.faults.end_state import end_state

        target = self.root / "state.json"

        def read() -> None:
            target.write_text(json.dumps(end_state(self.home, self.tmp)), encoding="utf-8")

        self._in_child(read, "state.log")
        state: dict[str, list[str]] = json.loads(target.read_text(encoding="utf-8"))
        return state

    def faults(self) -> list[str]:
        """Return what must not be so even now, just after a kill."""
        from poleng_assets_tests.faults.end_state import inconsistencies

        target = self.root / "faults.json"

        def look() -> None:
            target.write_text(json.dumps(inconsistencies(self.home)), encoding="utf-8")

        self._in_child(look, "faults.log")
        return [f"just after the kill: {one}" for one in json.loads(target.read_text(encoding="utf-8"))]

    def is_at_rest(self) -> bool:
        """Whether a daemon has done all that there is to do."""

        def look() -> None:
            if not at_rest(self.home):
                os._exit(BUSY)

        return self._in_child(look, "at_rest.log") == 0

    def last_point(self) -> str:
        """Return the point that was reached last before the kill."""
        return (self._log.read_text().splitlines() or ["none"])[-1]

    def _in_child(self, act: Callable[[], None], log: str, kill_after: float | None = None) -> int:
        """Fork, act, and return 0, or -9 or 137 when it was killed.

        Raises:
            RuntimeError: it failed, or did not end in time.
        """
        output = self.root / log
        child = os.fork()
        if child == 0:
            _act_and_exit(act, output, self.tmp)
        give_up = time.monotonic() + (PATIENCE_SECONDS if kill_after is None else kill_after)
        while time.monotonic() < give_up:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            time.sleep(0.005)
        else:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if kill_after is None:
                raise RuntimeError(f"did not end within {PATIENCE_SECONDS} s, see {output}")
        code = os.waitstatus_to_exitcode(status)
        if code not in (0, -signal.SIGKILL, 137, BUSY):
            raise RuntimeError(f"ended with {code}:\n{output.read_text(encoding='utf-8')[-3000:]}")
        return code


class Daemon:
    """``poleng dev`` on the home of a place, with all processes that it starts."""

    def __init__(self, place: Place) -> None:
        self.place = place
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.output = place.root / "dev.log"
        command = [sys.executable, "-m", "poleng_assets.cli", "dev", "--home", str(place.home.root)]
        with self.output.open("ab") as said:
            self.process = subprocess.Popen(
                [*command, "--port", str(port)],
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=CHECKOUT,
            )

    def kill(self) -> int:
        """Kill every process of it at once, code servers and runs included; return how many they were."""
        killed = set()
        # Twice: one of them may just have started another.
        for _ in range(2):
            for process in self._processes():
                killed.add(process.pid)
                _kill(process.pid)
        self.process.wait()
        return len(killed)

    def _processes(self) -> list[psutil.Process]:
        """Return the processes of the home, by what they were told; a session of their own is no way out."""
        found = [psutil.Process(self.process.pid)] if self.process.poll() is None else []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get("POLENG_HOME") == str(self.place.home.root)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if mine and process.pid != self.process.pid:
                found.append(process)
        return found

    def wait_until_quiet(self) -> float:
        """Wait until nothing waits in landing or runs any more; return when that began, by the clock.

        Raises:
            RuntimeError: it does not come to rest, or has ended.
        """
        give_up = time.monotonic() + DAEMON_PATIENCE_SECONDS
        quiet_since = None
        while time.monotonic() < give_up:
            if self.process.poll() is not None:
                raise RuntimeError(f"poleng dev ended with {self.process.returncode}, see {self.output}")
            if self.place.is_at_rest():
                quiet_since = quiet_since or time.monotonic()
                if time.monotonic() - quiet_since > QUIET_SECONDS:
                    return quiet_since
            else:
                quiet_since = None
            time.sleep(2)
        raise RuntimeError(f"not at rest after {DAEMON_PATIENCE_SECONDS} s, see {self.output}")


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def at_rest(home: Any) -> bool:
    """Whether a daemon ticks and has nothing more to do: nothing waits or runs, every batch is listed."""
    from poleng_assets.defs.instance import daemon_is_running, open_instance
    from poleng_assets.defs.run_history import runs_in_progress
    from poleng_assets.storage.home import KINDS

    if any(any(home.landing(kind).iterdir()) for kind in KINDS):
        return False
    listed = {path.stem for path in home.contact_lists.glob("*.csv")}
    with open_instance(home) as instance:
        batches = set(instance.get_dynamic_partitions("batch"))
        return daemon_is_running(instance) and batches <= listed and not runs_in_progress(instance)


def _act_and_exit(act: Callable[[], None], output: Path, tmp: Path) -> None:
    """Act in a child that was just forked, and never return."""
    code = 2
    try:
        os.setsid()
        tmp.mkdir(exist_ok=True)
        import tempfile

        tempfile.tempdir = str(tmp)
        said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        act()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def settle(home: Any) -> None:
    """Do in this process all that waits to be done in a home; a run that failed is told of."""
    from poleng_assets.definitions import build_defs
    from poleng_assets.defs.instance import open_instance
    from poleng_assets.headless.runner import HeadlessRunner

    with open_instance(home) as instance:
        HeadlessRunner(
            build_defs(home=home, settle_seconds=0.0),
            instance,
            lambda run: print(
                run.job, run.partition, f"{run.seconds:.1f} s", run.success, run.message, flush=True
            ),
        ).run_until_idle()


@dataclass(frozen=True)
class Share:
    """What one of the workers does of all the kills that were asked for."""

    number: int
    workers: int
    injected: int
    sigkill: int
    daemon: int
    seed: int
    chapters: Sequence[str]
    checked: bool

    def of(self, count: int) -> int:
        """Return how many of so many are this worker's."""
        return len(range(self.number, count, self.workers))


def _points(place: Place, dice: random.Random) -> list[Kill]:
    """Return points of every kind: the families in turn, and of a family each kind before one comes again."""
    pools: dict[str, list[list[Kill]]] = {family: [] for family in FAMILIES}
    for chapter, points in place.points.items():
        for kind, number in sorted(points.items()):
            numbers = dice.sample(range(1, number + 1), min(number, SAMPLED))
            pools[kind.split(":")[0]].append([Kill("injected", chapter, (kind, one)) for one in numbers])
    queues = []
    for kinds in pools.values():
        dice.shuffle(kinds)
        queues.append([one[level] for level in range(SAMPLED) for one in kinds if level < len(one)])
    return [kill for together in zip_longest(*queues) for kill in together if kill]


def _moments(place: Place, count: int, dice: random.Random) -> list[Kill]:
    """Return moments spread evenly over the time that all chapters take."""
    whole = sum(place.seconds.values())
    kills = []
    for number in range(count):
        moment = (number + dice.random()) / count * whole
        for chapter, seconds in place.seconds.items():
            if moment < seconds:
                kills.append(Kill("sigkill", chapter, moment))
                break
            moment -= seconds
    dice.shuffle(kills)
    return kills


def kill_once(place: Place, kill: Kill) -> Ended | None:
    """Put the home back, kill, finish, compare; None when the work was over before the kill."""
    from poleng_assets_tests.faults.end_state import differences

    began = time.monotonic()
    place.put_back(kill.chapter)
    at_point = kill.where if isinstance(kill.where, tuple) else None
    after = kill.where if isinstance(kill.where, float) else None
    if not place.work(kill.chapter, at_point, after):
        return None
    last = place.last_point()
    try:
        found = place.faults()
        place.finish(kill.chapter)
        found += differences(place.expected[kill.chapter], place.state())
    except RuntimeError as error:
        found = [str(error)]
    return Ended(kill, last, time.monotonic() - began, found)


def kill_daemon(place: Place, kill: Kill) -> Ended:
    """Put the home back, kill a daemon on it, let another one finish, compare."""
    from poleng_assets_tests.faults.end_state import differences

    began = time.monotonic()
    place.put_back(kill.chapter)
    first = Daemon(place)
    time.sleep(float(kill.where))  # type: ignore[arg-type]
    killed = first.kill()
    second = Daemon(place)
    try:
        second.wait_until_quiet()
    except RuntimeError as error:
        found = [str(error)]
    else:
        found = []
    finally:
        second.kill()
    found += differences(place.expected[kill.chapter], place.state())
    return Ended(kill, f"{killed} processes killed", time.monotonic() - began, found)


def _daemon_kills(place: Place, share: Share) -> Iterator[Kill]:
    """Yield kills spread over the time that an undisturbed daemon takes, chapter by chapter.

    Raises:
        RuntimeError: an undisturbed daemon ends otherwise than an undisturbed command line.
    """
    dice = random.Random(share.seed + share.number)
    chapters = [one for one in DAEMON_CHAPTERS if one in share.chapters]
    for number, chapter in enumerate(chapters):
        kills = len(range(number, share.of(share.daemon), len(chapters)))
        if not kills:
            continue
        place.put_back(chapter)
        began = time.monotonic()
        daemon = Daemon(place)
        try:
            whole = daemon.wait_until_quiet() - began
        finally:
            daemon.kill()
        place.must_be_equal(chapter)
        print(f"{place.root.name}: an undisturbed daemon takes {whole:.0f} s for '{chapter}'", flush=True)
        for one in range(kills):
            # It does nothing in the first seconds, in which Python imports.
            moment = STARTING_SECONDS + (one + dice.random()) / kills * (whole - STARTING_SECONDS)
            yield Kill("daemon", chapter, moment)


def _work_off(place: Place, share: Share, told: Path) -> None:
    if not place.prepared():
        place.prepare(share.chapters, checked=share.checked)
    print(
        f"{place.root.name}: undisturbed: "
        + ", ".join(
            f"{name} {seconds:.1f} s, {place.points[name].total()} points of {len(place.points[name])} kinds"
            for name, seconds in place.seconds.items()
        ),
        flush=True,
    )
    with told.open("a", encoding="utf-8") as file:
        for ended in _kill_in_turn(place, share):
            _tell(ended, file)
        for kill in _daemon_kills(place, share):
            _tell(kill_daemon(place, kill), file)


def _kill_in_turn(place: Place, share: Share) -> Iterator[Ended]:
    """Kill at points and at moments in turn."""
    dice = random.Random(share.seed)
    points = deque(_points(place, dice)[share.number :: share.workers])
    moments = deque(_moments(place, share.sigkill, dice)[share.number :: share.workers])
    injected = share.of(share.injected)
    while (injected and points) or moments:
        if injected and points:
            point = points.popleft()
            ended = kill_once(place, point)
            if ended is None:
                # Threads and libraries do not come by each point each time: another one, then.
                print(f"{point.in_words()}: the point was not reached", flush=True)
            else:
                injected -= 1
                yield ended
        if moments:
            yield _kill_after(place, moments.popleft())


def _kill_after(place: Place, kill: Kill) -> Ended:
    """Kill after some time; a little earlier, when the work is over by then."""
    ended = kill_once(place, kill)
    if ended is None:
        return _kill_after(place, Kill(kill.how, kill.chapter, float(kill.where) * 0.9))  # type: ignore[arg-type]
    return ended


def _tell(ended: Ended, file: Any) -> None:
    file.write(json.dumps(asdict(ended)) + "\n")
    file.flush()
    state = "equal" if not ended.differences else "NOT EQUAL\n    " + "\n    ".join(ended.differences)
    print(f"{ended.kill.in_words()} [{ended.last_point}] {ended.seconds:.1f} s: {state}", flush=True)


def _import_everything() -> None:
    """Import what every child would import anew; nothing of it may open a home."""
    import dagster_mlflow  # noqa: F401
    import joblib  # noqa: F401
    import mlflow.pyfunc
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    import nannyml  # noqa: F401
    import optuna  # noqa: F401
    import sklearn.ensemble  # noqa: F401
    import skops.io  # noqa: F401
    import xgboost  # noqa: F401

    import poleng_assets.definitions  # noqa: F401
    import poleng_assets_tests.faults.end_state
    import poleng_assets_tests.faults.points  # noqa: F401


def _make_data(data: Path | None, target: Path) -> None:
    """Write the files of the story, small ones; from a folder of the user's or from made-up people."""
    import pandas as pd

    from poleng_assets.simulation.population import write_scenario_data
    from poleng_assets.study.loading import load_study

    if data is None:
        write_scenario_data(load_study(), target, scale=0.05)
        return
    studies = sorted((data / "field_studies").iterdir(), key=lambda path: path.stem != "founding_study")
    chosen = {"founding_study": studies[0], "followup_study": studies[1]}
    for kind, names in (("field_studies", chosen), ("batches", None), ("outcomes", None)):
        (target / kind).mkdir(parents=True)
        sources = names or {path.stem: path for path in (data / kind).iterdir()}
        for name, path in sources.items():
            frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str)
            frame.head(ROWS).to_parquet(target / kind / f"{name}.parquet", index=False)


def main() -> None:
    """Kill as often as asked; exit code 1 when an end state is not equal, 2 when the harness failed."""
    arguments = _arguments()
    out: Path = arguments.out.resolve()
    (out / "tmp").mkdir(parents=True, exist_ok=True)
    os.environ |= _environment(out)
    from poleng_assets_tests.faults.quick_study import write_quick_study

    write_quick_study(out / "quick.yaml")
    _import_everything()
    if not (out / "data").exists():
        _make_data(arguments.data, out / "data")
    chapters = arguments.chapter or [one.name for one in STORY]
    told = out / "kills.jsonl"
    told.write_text("")
    forked = multiprocessing.get_context("fork")
    by_process = arguments.total - arguments.daemon
    injected = by_process // 2

    workers = [
        forked.Process(
            target=_work_off,
            args=(
                Place(out / f"place_{number}", out / "data"),
                Share(
                    number,
                    arguments.workers,
                    injected,
                    by_process - injected,
                    arguments.daemon,
                    arguments.seed,
                    chapters,
                    arguments.checked,
                ),
                told,
            ),
        )
        for number in range(arguments.workers)
    ]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    if any(one.exitcode for one in workers):
        sys.exit(2)
    result = read_result(out)
    print(result.summary(), flush=True)
    sys.exit(1 if result.unequal else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--total", type=int, default=100, help="kills in all")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="an empty or missing folder to work in")
    parser.add_argument("--data", type=Path, help="as poleng simulate --data; made-up people without it")
    parser.add_argument("--daemon", type=int, default=0, help="how many of them kill the daemon")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--unchecked", dest="checked", action="store_false", help="play undisturbed only once"
    )
    parser.add_argument("--chapter", action="append", help="kill in this chapter only; may be given again")
    return parser.parse_args()


if __name__ == "__main__":
    main()
