"""What stands in a home when nothing is asked for any more, in a form that two homes can be compared by.

Every section is a sorted list of lines. What must differ between two runs of the same work is left out:
times, ids of runs and of MLflow's models, what only tells of attempts that died (their runs, their
artifacts), and in which order batches that were dropped together were reported: the ledger of each batch,
and of the model, is compared in its order, not one batch with another. Nothing else is: a score in its last
digit, a row of the ledger, a line of a list, which version scored a batch first.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import openpyxl

from poleng_assets.core.reports.overview import load_overview, render_overview
from poleng_assets.defs.instance import open_instance
from poleng_assets.defs.partitions import PARTITIONS
from poleng_assets.defs.resources.warehouse import WAREHOUSE_POOL
from poleng_assets.defs.run_history import runs_in_progress
from poleng_assets.models.registry import CHALLENGER, CHAMPION, HASHES_TAG, Registry
from poleng_assets.models.version_files import VersionFile
from poleng_assets.storage.home import KINDS, Home
from poleng_assets.study.loading import load_study

State = dict[str, list[str]]

# Who executed it is no part of what was done.
RUN_COLUMNS = {"dagster_run_id", "mlflow_run_id"}
RUN_TAGS = {"dagster_run_id"}
# Seconds that a fit took; keys of JSON.
MEASURED_TIME = re.compile(r"(^|_)(seconds|at)$")
# Read through their own libraries, not as bytes; a log tells of attempts.
OPENED = (
    "warehouse.duckdb",
    "mlflow.db",
    "mlartifacts/",
    "tuning/",
    "dagster/",
    "outbox.db",
    "clock.json",
    ".lock",
    "dev.log",
)
# MLflow writes times and ids into them: their hashes differ, and are compared with the files themselves.
SEALED = {"MLmodel"}
VARYING = re.compile(
    r"\d{4}-\d{2}-\d{2}|\b\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|\+\d{2}:?\d{2})?"
    r"|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|m-[0-9a-f]{32}|\b[0-9a-f]{32}\b|/tmp[\w]{8}/"
    # How many seconds a trial took, in the table of a model card.
    r'|<td class="number">[\d.]+</td>(?=<td class="long">(calibrated|uncalibrated|complete|pruned))'
)
# What an asset tells of its newest materialisation, and what later steps go by.
TOLD = (
    "dagster/row_count", "rows_read", "rows_quarantined", "content_hash", "training_data_hash", "version",
    "model_version", "verdict", "held", "alarm", "contacts", "remark", "promoted", "serving_version",
    "challenger_version", "batches", "interviews", "unknown_respondents", "losses", "judged_field_studies",
)  # fmt: skip


def end_state(home: Home, outside: Path | None = None) -> State:
    """Return all that stands in a home, each section as sorted lines.

    Args:
        home: that no process works on.
        outside: the folder of temporary files, None when nobody knows what else lies there.
    """
    state: State = {}
    with duckdb.connect(str(home.warehouse), read_only=True) as con:
        state |= _tables(con)
        page_of_all = list(_page_of_all_batches(home, con))
    state["files"] = sorted([*_files(home), *page_of_all])
    state["files that wait or were left"] = sorted(_leftovers(home, outside))
    state |= _models(home)
    with open_instance(home) as instance:
        state |= _history(instance)
    return state


def inconsistencies(home: Home) -> list[str]:
    """Return what must not be so at any moment, not even just after a kill; nobody works on the home."""
    if not home.warehouse.exists() or not (home.root / "mlflow.db").exists():
        return []
    registry = Registry(home, load_study())
    serving = registry.alias(CHAMPION)
    if serving is None:
        return []
    faults = []
    with duckdb.connect(str(home.warehouse), read_only=True) as con:
        appointed = con.execute(
            "SELECT champion_version FROM decisions WHERE kind IN ('promote', 'rollback')"
        ).fetchall()
        parts = {part for (part,) in con.execute("SELECT DISTINCT part FROM field_study_rows").fetchall()}
    if (serving.version,) not in appointed:
        faults.append(f"version {serving.version} serves and the ledger does not say why")
    reference = registry.reference(serving)
    if not np.array_equal(registry.model(serving).score(reference), reference["score"].to_numpy()):
        faults.append(f"version {serving.version} does not give the scores of its own reference")
    if not {"train", "holdout"} <= parts:
        faults.append(f"field data have lost a part: {sorted(parts)} are left")
    if not home.model_card(serving.version).exists():
        faults.append(f"version {serving.version} serves without a model card")
    return faults


def differences(
    expected: Mapping[str, list[str]], found: Mapping[str, list[str]], most: int = 6
) -> list[str]:
    """Return in words what two states do not have in common, at most some lines of each section."""
    told = []
    for section in sorted({*expected, *found}):
        here, there = Counter(expected.get(section, [])), Counter(found.get(section, []))
        lines = [f"{section}: missing: {line}" for line in (here - there).elements()]
        lines += [f"{section}: not expected: {line}" for line in (there - here).elements()]
        told += [_shortened(line) for line in lines[:most]]
        if len(lines) > most:
            told.append(f"{section}: and {len(lines) - most} more")
    return told


def _shortened(line: str, width: int = 700) -> str:
    return (
        line
        if len(line) <= width
        else f"{line[:width]} ... ({hashlib.sha256(line.encode()).hexdigest()[:12]})"
    )


def _tables(con: duckdb.DuckDBPyConnection) -> State:
    """Return the rows of every table and view; and the ledger's order, which the times would tell."""
    names = con.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main' ORDER BY 1"
    ).fetchall()
    state: State = {}
    for (name,) in names:
        columns = con.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = ? ORDER BY 1",
            [name],
        ).fetchall()
        kept = [
            (column, kind)
            for column, kind in columns
            if not kind.startswith("TIMESTAMP") and column not in RUN_COLUMNS
        ]
        listed = ", ".join(f'"{column}"' for column, _ in kept)
        rows = con.execute(f'SELECT {listed} FROM "{name}"').fetchall()
        state[f"table {name}"] = sorted(
            ", ".join(
                f"{column}={_value(value, kind)}" for (column, kind), value in zip(kept, row, strict=True)
            )
            for row in rows
        )
    ledger = con.execute("SELECT kind, batch, champion_version FROM decisions ORDER BY decided_at").fetchall()
    # Of one batch, and of the model: what several batches went through side by side may change places.
    state["ledger in order"] = sorted(
        f"{subject or 'the model'}: "
        + " ".join(f"{kind}/{version}" for kind, batch, version in ledger if batch == subject)
        for subject in {batch for _, batch, _ in ledger}
    )
    return state


def _value(value: object, kind: str) -> str:
    if kind == "JSON" and isinstance(value, str):
        return json.dumps(_timeless(json.loads(value)), sort_keys=True)
    return repr(value)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _timeless(one)
            for key, one in value.items()
            if key not in RUN_COLUMNS and not MEASURED_TIME.search(key)
        }
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def _files(home: Home) -> Iterator[str]:
    for path in sorted(home.root.rglob("*")):
        name = str(path.relative_to(home.root))
        if path.is_file() and not name.startswith(OPENED) and path != home.overview:
            yield f"{name} {_digest(path)}"


def _page_of_all_batches(home: Home, con: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Tell whether the page of all batches shows what the warehouse knows.

    It shows batches in the order of their reports, the one order that two runs of the same work need not
    have in common: a daemon works on batches that were dropped together side by side.
    """
    if not home.overview.exists():
        return
    study, name = load_study(), str(home.overview.relative_to(home.root))
    drawn = VARYING.sub("", render_overview(study, load_overview(con, study), made_at=datetime.now(UTC)))
    same = drawn == VARYING.sub("", home.overview.read_text(encoding="utf-8"))
    yield f"{name} {'as the warehouse has it' if same else _digest(home.overview)}"


def _digest(path: Path) -> str:
    """Return a hash of what a file says; of a page without its times and the ids of runs."""
    content = path.read_bytes()
    if path.suffix == ".xlsx":
        content = "\n".join(_cells(path)).encode("utf-8", "surrogateescape")
    if path.suffix in {".html", ".xlsx"} or path.name in SEALED:
        content = VARYING.sub("", content.decode("utf-8", "surrogateescape")).encode(
            "utf-8", "surrogateescape"
        )
    return hashlib.sha256(content).hexdigest()[:16]


def _cells(path: Path) -> Iterator[str]:
    """Yield every cell of a workbook but its dates, and the day that words about it tell."""
    workbook = openpyxl.load_workbook(path)
    for sheet in workbook.worksheets:
        for row in sheet.iter_rows():
            for cell in row:
                if not cell.is_date and cell.value is not None:
                    said = re.sub(r"\b\d{1,2} [A-Z][a-z]+ \d{4}\b", "", str(cell.value))
                    yield f"{sheet.title}!{cell.coordinate} {cell.number_format} {said}"


def _leftovers(home: Home, outside: Path | None) -> Iterator[str]:
    """Name what nobody took in, and what a killed process did not put in its place or take away."""
    for kind in KINDS:
        yield from (f"landing/{kind}/{path.name}" for path in home.landing(kind).iterdir())
    for path in home.root.rglob("*"):
        if path.name.endswith((".part", ".tmp", ".wal")):
            yield str(path.relative_to(home.root))
    yield from (f"tuning/{path.name}" for path in home.tuning.glob("*/*") if path.is_dir())
    for path in outside.rglob("*") if outside and outside.exists() else ():
        if path.suffix in {".parquet", ".csv"}:
            yield f"people's rows outside the home: {path.name}"


def _models(home: Home) -> State:
    """Return versions, aliases, and the bytes of what is kept with each version."""
    registry = Registry(home, load_study())
    client = registry._client()
    registered = client.search_model_versions(f"name = '{registry.model_name}'")
    versions, artifacts = [], []
    for one in registry.versions():
        run = client.get_run(one.run_id)
        # The folder that MLflow serves, with our own files in it.
        served = registry.model_folder(one).parent.parent
        versions += [
            f"version {one.version}: {_tags(of_mlflow.tags, served)}"
            for of_mlflow in registered
            if int(of_mlflow.version) == one.version
        ]
        if one.kept:
            versions.append(f"kept of version {one.version}: {_tags(one.kept.tags, served)}")
            versions += _contradictions(one.kept, client, registry)
        versions.append(f"run of version {one.version}: {run.info.status}")
        versions += [f"version {one.version}: {name}={value}" for name, value in run.data.params.items()]
        versions += [
            f"version {one.version}: {name}={value!r}"
            for name, value in run.data.metrics.items()
            if not MEASURED_TIME.search(name)
        ]
        folders = {
            "run": Path(run.info.artifact_uri.removeprefix("file://")),
            "model": served,
        }
        artifacts += [
            f"version {one.version} {role}: {path.relative_to(folder)} {_digest(path)}"
            for role, folder in folders.items()
            for path in folder.rglob("*")
            if path.is_file()
        ]
    aliases = {alias: registry.alias(alias) for alias in (CHALLENGER, CHAMPION)}
    experiments = [one.experiment_id for one in client.search_experiments()]
    running = client.search_runs(experiments, "attributes.status = 'RUNNING'")
    return {
        "model versions": sorted(versions),
        "model files": sorted(artifacts),
        "aliases": sorted(f"{alias} -> {one.version if one else None}" for alias, one in aliases.items()),
        "MLflow runs in progress": sorted(f"{run.data.tags.get('mlflow.runName')}" for run in running),
        "searches": sorted(
            f"{path.relative_to(home.tuning)} {_digest(path)}" for path in home.tuning.rglob("*.npy")
        ),
    }


def _tags(tags: Mapping[str, str], served: Path) -> str:
    """Return the tags of a version; of a sealed file, whether its hash is that of the file."""
    told = {key: value for key, value in tags.items() if key not in RUN_TAGS}
    hashes = json.loads(told.get(HASHES_TAG, "{}"))
    for name in SEALED & hashes.keys():
        if hashes[name] == hashlib.sha256((served / name).read_bytes()).hexdigest():
            hashes[name] = "of the file"
    return json.dumps(told | ({HASHES_TAG: json.dumps(hashes)} if hashes else {}), sort_keys=True)


def _contradictions(kept: VersionFile, client: Any, registry: Registry) -> Iterator[str]:
    """Name what the project's own file about a version says otherwise than MLflow: places and ids."""
    number, artifacts = str(kept.version), registry.home.artifacts
    run = client.get_run(kept.run_id).info
    kept_and_registered = {
        "run": (kept.run_id, client.get_model_version(registry.model_name, number).run_id),
        "experiment": (kept.experiment_id, run.experiment_id),
        "model": (
            (artifacts / kept.model).as_uri(),
            client.get_model_version_download_uri(registry.model_name, number),
        ),
        "reference": ((artifacts / kept.reference).as_uri(), f"{run.artifact_uri}/reference"),
    }
    for name, (here, there) in kept_and_registered.items():
        if here != there:
            yield f"kept of version {number}: not MLflow's {name}"


def _history(instance: dg.DagsterInstance) -> State:
    """Return what Dagster knows: partitions, what is materialised, and whether something still runs."""
    told = []
    for asset in instance.all_asset_keys():
        name = asset.to_user_string()
        partitions: list[str | None] = [*sorted(instance.get_materialized_partitions(asset))] or [None]
        for partition in partitions:
            records = instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[partition] if partition else None),
                limit=1,
            ).records
            for record in records:
                found = record.asset_materialization
                metadata = {key: one.value for key, one in (found.metadata if found else {}).items()}
                said = {key: metadata[key] for key in TOLD if key in metadata}
                told.append(f"{name} {partition or ''}: {json.dumps(said, sort_keys=True, default=str)}")
    slots = instance.event_log_storage.get_concurrency_info(WAREHOUSE_POOL)
    return {
        "partitions": sorted(
            f"{kind}: {key}"
            for kind, one in PARTITIONS.items()
            for key in instance.get_dynamic_partitions(one.name or "")
        ),
        "materialised": sorted(told),
        "runs in progress": sorted(
            f"{run.job_name}: {run.status.value}" for run in runs_in_progress(instance)
        ),
        "pool": [f"taken: {slots.active_slot_count}", f"waiting: {len(slots.pending_steps)}"],
    }
