"""Measure, print the table, keep and draw the history; exit with 1 when a bar is missed."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from poleng_assets.storage.files import write_atomically
from tools.bench import history
from tools.bench.ground import commit, prepare
from tools.bench.parts import FULL, PARTS, QUICK, USUAL, Sizes, measure
from tools.bench.processes import CHECKOUT, MeasurementFailed
from tools.bench.rows import Row, as_markdown, missed


def main() -> None:
    """Measure what was asked for."""
    arguments = _arguments()
    os.umask(0o077)  # the ground holds rows of people
    work: Path = arguments.out.resolve()
    work.mkdir(parents=True, exist_ok=True)
    mode = "quick" if arguments.quick else "full" if arguments.full else "usual"
    run: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "mode": mode if not arguments.rows else f"{mode}, {arguments.rows} rows",
        "data": arguments.data.name if arguments.data else "synthetic",
        "load": round(os.getloadavg()[0], 2),
        "machine": history.machine(),
    }
    if run["load"] > history.QUIET_LOAD:
        _say(f"the machine is not quiet (load {run['load']}): times measured now are worth little")
    started = time.monotonic()
    try:
        ground = prepare(work, arguments.data, _say)
    except MeasurementFailed as error:
        sys.exit(f"There is nothing to measure on: {error}")
    sizes = _sizes(arguments, {"quick": QUICK, "usual": USUAL, "full": FULL}[mode])
    rows: list[Row] = []
    for name in arguments.only:
        _say(f"{name} ...")
        rows += measure(name, ground, sizes)
    table = f"{_heading(run)}\n\n{as_markdown(rows)}\n"
    print(table)
    write_atomically(work / "latest.md", table)
    kept = work / "history.jsonl"
    history.append(kept, run, rows)
    # Only now: what is imported here is on the account of every process that is measured.
    from tools.bench.plot import draw  # noqa: PLC0415

    picture = work / "bench.png"
    draw(history.series(history.read(kept, run["mode"], run["data"])), _heading(run), picture)
    _say(f"{time.monotonic() - started:.0f} s; {work / 'latest.md'}, {kept}, {picture}")
    sys.exit(1 if missed(rows) else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--data", type=Path, help="a survey laid out as poleng simulate wants it")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small and once: does everything still run?")
    size.add_argument(
        "--full", action="store_true", help="ten million rows, too, and a million the seed's way"
    )
    parser.add_argument("--rows", type=int, help="rows to score, instead of the mode's own")
    parser.add_argument("--only", type=_parts, default=list(PARTS), help=f"parts of: {', '.join(PARTS)}")
    parser.add_argument("--tests", action="store_true", help="run make test, too")
    parser.add_argument("--tests-took", type=float, default=0.0, help="seconds that make test took before")
    parser.add_argument(
        "--out", type=Path, default=CHECKOUT / "data" / "bench", help="folder of table, history and picture"
    )
    return parser.parse_args()


def _parts(words: str) -> list[str]:
    wanted = words.split(",")
    if unknown := [name for name in wanted if name not in PARTS]:
        raise argparse.ArgumentTypeError(
            f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}"
        )
    return wanted


def _sizes(arguments: argparse.Namespace, sizes: Sizes) -> Sizes:
    told = {"tests": arguments.tests, "tests_took": arguments.tests_took}
    if not arguments.rows:
        return dataclasses.replace(sizes, **told)
    return dataclasses.replace(
        sizes,
        rows=arguments.rows,
        rivals_rows=min(arguments.rows, sizes.rivals_rows),
        many_rows=10 * arguments.rows if sizes.many_rows else 0,
        **told,
    )


def _heading(run: dict[str, Any]) -> str:
    machine = run["machine"]
    return (
        f"{run['at']}, commit {run['commit']}, {run['mode']}, {run['data']}; {machine['cores']} cores "
        f"{machine['processor']}, load {run['load']} at the start"
    )


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
