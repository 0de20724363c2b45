"""The warehouse's tables and columns, and how they follow the study."""

import hashlib
from collections.abc import Mapping

import duckdb
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.storage.home import Kind
from poleng_assets.study.schema import Study, StudyError
from poleng_assets.warehouse.writes import transaction

# For each kind of file: its table, and the column that holds the file's name.
ROW_TABLES: dict[Kind, tuple[str, str]] = {
    "batches": ("batch_rows", "batch"),
    "field_studies": ("field_study_rows", "field_study"),
    "outcomes": ("outcomes", "source"),
}

_FIXED_TABLES = """
CREATE TABLE IF NOT EXISTS ingested_files (
    kind VARCHAR NOT NULL, name VARCHAR NOT NULL, content_hash VARCHAR NOT NULL,
    rows_read BIGINT NOT NULL, rows_kept BIGINT NOT NULL, rows_quarantined BIGINT NOT NULL,
    ignored_columns VARCHAR NOT NULL, ingested_at TIMESTAMPTZ NOT NULL, rows_erased BIGINT DEFAULT 0,
    data_hash VARCHAR, -- of the data since rows were released; before, they are what the file is
    rows_fingerprint VARCHAR, -- of the rows in any order and format (core/ingestion/duplicates.py)
    archived_hash VARCHAR, -- of the archived file since people were erased from it
    withdrawn_at TIMESTAMPTZ,
    PRIMARY KEY (kind, name));
CREATE TABLE IF NOT EXISTS refused_files (
    kind VARCHAR NOT NULL, file VARCHAR NOT NULL, content_hash VARCHAR NOT NULL, rows BIGINT,
    reason VARCHAR NOT NULL, refused_at TIMESTAMPTZ NOT NULL);
CREATE TABLE IF NOT EXISTS quarantine (
    source VARCHAR NOT NULL, row_number BIGINT NOT NULL, column_name VARCHAR NOT NULL,
    reason VARCHAR NOT NULL, payload VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS training_sets (
    training_data_hash VARCHAR NOT NULL, field_study VARCHAR NOT NULL,
    content_hash VARCHAR NOT NULL, created_at TIMESTAMPTZ NOT NULL);
CREATE TABLE IF NOT EXISTS predictions (
    batch VARCHAR NOT NULL, "{id}" VARCHAR NOT NULL, model_version INTEGER NOT NULL,
    score DOUBLE NOT NULL, contact BOOLEAN NOT NULL, scored_at TIMESTAMPTZ NOT NULL,
    audit BOOLEAN NOT NULL DEFAULT false);
CREATE TABLE IF NOT EXISTS contact_lists (
    batch VARCHAR NOT NULL, "{id}" VARCHAR NOT NULL, model_version INTEGER NOT NULL,
    score DOUBLE NOT NULL, created_at TIMESTAMPTZ NOT NULL, remark VARCHAR NOT NULL,
    reasons VARCHAR NOT NULL, list_number INTEGER DEFAULT 1);
CREATE TABLE IF NOT EXISTS issued_lists (
    batch VARCHAR NOT NULL, list_number INTEGER NOT NULL, model_version INTEGER NOT NULL,
    issued_at TIMESTAMPTZ NOT NULL, contacts BIGINT NOT NULL, remark VARCHAR NOT NULL,
    file VARCHAR, dagster_run_id VARCHAR, PRIMARY KEY (batch, list_number));
CREATE TABLE IF NOT EXISTS drift_reports (
    batch VARCHAR NOT NULL, model_version INTEGER NOT NULL, verdict VARCHAR NOT NULL,
    rows BIGINT NOT NULL, drifted_columns INTEGER NOT NULL, reported_at TIMESTAMPTZ NOT NULL,
    outside_support DOUBLE, flagged_share DOUBLE, estimated_auc DOUBLE, reference_auc DOUBLE,
    rows_measured BIGINT, reasons VARCHAR, held BOOLEAN, alarm BOOLEAN, weak BOOLEAN, trusted BOOLEAN,
    causes VARCHAR, estimated_loss DOUBLE, figures JSON, judgement JSON,
    first_reported_at TIMESTAMPTZ);
CREATE TABLE IF NOT EXISTS drift_metrics (
    batch VARCHAR NOT NULL, model_version INTEGER NOT NULL, column_name VARCHAR NOT NULL,
    method VARCHAR NOT NULL, value DOUBLE, lower_threshold DOUBLE, upper_threshold DOUBLE,
    alert BOOLEAN NOT NULL);
CREATE TABLE IF NOT EXISTS performance (
    batch VARCHAR NOT NULL, model_version INTEGER NOT NULL, kind VARCHAR NOT NULL,
    metric VARCHAR NOT NULL, value DOUBLE, lower DOUBLE, upper DOUBLE);
CREATE TABLE IF NOT EXISTS field_study_requests (
    requested_at TIMESTAMPTZ NOT NULL, batch VARCHAR NOT NULL, "{id}" VARCHAR NOT NULL,
    stratum VARCHAR NOT NULL, why VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS erasures (
    table_name VARCHAR NOT NULL, name VARCHAR NOT NULL, rows BIGINT NOT NULL,
    erased_at TIMESTAMPTZ NOT NULL, rule VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS decisions (
    decided_at TIMESTAMPTZ NOT NULL, kind VARCHAR NOT NULL, champion_version INTEGER,
    challenger_version INTEGER, reason VARCHAR NOT NULL, evidence JSON NOT NULL,
    training_data_hash VARCHAR, batch VARCHAR, dagster_run_id VARCHAR, mlflow_run_id VARCHAR);
"""

# The columns of these tables that stand before the answers.
_FIRST_COLUMNS: dict[Kind, str] = {
    "batches": "batch VARCHAR NOT NULL, row_number BIGINT NOT NULL",
    "field_studies": "field_study VARCHAR NOT NULL, row_number BIGINT NOT NULL, part VARCHAR NOT NULL",
    "outcomes": "batch VARCHAR NOT NULL, source VARCHAR NOT NULL, row_number BIGINT NOT NULL",
}

# Columns that warehouses of earlier releases lack. DuckDB adds a column with a default, not with NOT NULL.
_NEW_COLUMNS = """
ALTER TABLE ingested_files ADD COLUMN IF NOT EXISTS rows_erased BIGINT DEFAULT 0;
ALTER TABLE ingested_files ADD COLUMN IF NOT EXISTS data_hash VARCHAR;
ALTER TABLE ingested_files ADD COLUMN IF NOT EXISTS rows_fingerprint VARCHAR;
ALTER TABLE ingested_files ADD COLUMN IF NOT EXISTS archived_hash VARCHAR;
ALTER TABLE ingested_files ADD COLUMN IF NOT EXISTS withdrawn_at TIMESTAMPTZ;
ALTER TABLE predictions ADD COLUMN IF NOT EXISTS audit BOOLEAN DEFAULT false;
ALTER TABLE drift_reports ADD COLUMN IF NOT EXISTS held BOOLEAN;
ALTER TABLE drift_reports ADD COLUMN IF NOT EXISTS alarm BOOLEAN;
ALTER TABLE drift_reports ADD COLUMN IF NOT EXISTS weak BOOLEAN;
ALTER TABLE drift_reports ADD COLUMN IF NOT EXISTS trusted BOOLEAN;
ALTER TABLE drift_reports ADD COLUMN IF NOT EXISTS causes VARCHAR;
ALTER TABLE drift_reports ADD COLUMN IF NOT EXISTS estimated_loss DOUBLE;
ALTER TABLE drift_reports ADD COLUMN IF NOT EXISTS figures JSON;
ALTER TABLE drift_reports ADD COLUMN IF NOT EXISTS judgement JSON;
ALTER TABLE drift_reports ADD COLUMN IF NOT EXISTS first_reported_at TIMESTAMPTZ;
UPDATE drift_reports SET first_reported_at = reported_at WHERE first_reported_at IS NULL;
ALTER TABLE contact_lists ADD COLUMN IF NOT EXISTS list_number INTEGER DEFAULT 1;
"""

# Lists of earlier releases: of several for a batch, the file of the newest replaced the others.
_EARLIER_LISTS = """
UPDATE contact_lists SET list_number = numbered.place FROM (
    SELECT DISTINCT batch, model_version,
        dense_rank() OVER (PARTITION BY batch ORDER BY created_at, model_version)::INTEGER AS place
    FROM contact_lists) numbered
WHERE contact_lists.batch = numbered.batch AND contact_lists.model_version = numbered.model_version
    AND contact_lists.batch NOT IN (SELECT batch FROM issued_lists)
    AND contact_lists.list_number <> numbered.place;
INSERT INTO issued_lists (batch, list_number, model_version, issued_at, contacts, remark, file)
SELECT batch, list_number, model_version, max(created_at), count(*), min(remark),
    CASE WHEN list_number = max(list_number) OVER (PARTITION BY batch) THEN batch END
FROM contact_lists WHERE batch NOT IN (SELECT batch FROM issued_lists)
GROUP BY batch, list_number, model_version;
"""

# The newest scoring of a batch is the current one: a rescoring adds a version and takes nothing away.
CURRENT_PREDICTIONS = """
CREATE OR REPLACE VIEW current_predictions AS
SELECT p.* FROM predictions p
JOIN (SELECT batch, max(scored_at) AS scored_at FROM predictions GROUP BY batch) newest
USING (batch, scored_at);
"""

# Tells the hash of all that a warehouse was last made to have, by which it is known to lack nothing. To ask
# DuckDB's catalogue for a comment instead takes half as long as to open the file.
_LAYOUT = "warehouse_layout"


def storage_types(study: Study, kind: Kind) -> dict[str, str]:
    """Return the DuckDB type of each column of a file: ids are text, codes of every kind are numbers."""
    features = {} if kind == "outcomes" else dict.fromkeys(study.feature_names, "INTEGER")
    target = {} if kind == "batches" else {study.target.name: "INTEGER NOT NULL"}
    return {study.id: "VARCHAR NOT NULL"} | features | target


def create_tables(con: Connection, study: Study) -> None:
    """Make the tables and columns that are missing; the row tables get the study's columns.

    Codes that earlier releases kept as text become numbers, all of them or none. A question that the study
    asks anew is empty for the people of before; one that it asks no more is kept for them.

    Raises:
        StudyError: the id or the target has another name than when the warehouse was made.
    """
    made, columns, fixed, layout = _wanted(study)
    with transaction(con):
        con.execute(f"CREATE MACRO IF NOT EXISTS {_LAYOUT}() AS ''")
        # To ask for every column takes as long as to open the file, at each of a run's steps.
        if con.execute(f"SELECT {_LAYOUT}()").fetchall() != [(layout,)]:
            for statement in made:
                con.execute(statement)
            for table, types in columns.items():
                sync_columns(con, study, table, types)
            for statement in fixed:
                con.execute(statement)
            con.execute(f"CREATE OR REPLACE MACRO {_LAYOUT}() AS '{layout}'")
        # Whatever there is: by a commit DuckDB gives back what a full disk left in the file.
        con.execute(CURRENT_PREDICTIONS)


def is_up_to_date(con: Connection, study: Study) -> bool:
    """Return whether a warehouse has all tables and columns of this release and of the study."""
    try:
        made_for = con.execute(f"SELECT {_LAYOUT}()").fetchall()
    except duckdb.CatalogException:  # of an earlier release; to look for it in the catalogue takes longer
        return False
    return made_for == [(_wanted(study)[-1],)]


def _wanted(study: Study) -> tuple[list[str], dict[str, dict[str, str]], list[str], str]:
    """Return what makes the row tables, their columns, what makes the others, and the hash of all that."""
    columns = {table: storage_types(study, kind) for kind, (table, _) in ROW_TABLES.items()}
    made = [
        f"CREATE TABLE IF NOT EXISTS {table} ({_FIRST_COLUMNS[kind]}, {_listed(columns[table])})"
        for kind, (table, _) in ROW_TABLES.items()
    ]
    fixed = [_FIXED_TABLES.format(id=study.id), _NEW_COLUMNS, _EARLIER_LISTS]
    layout = hashlib.sha256("".join(made + fixed).encode()).hexdigest()
    return made, columns, fixed, layout


def _listed(columns: Mapping[str, str]) -> str:
    return ", ".join(f'"{name}" {type_}' for name, type_ in columns.items())


def sync_columns(con: Connection, study: Study, table: str, columns: Mapping[str, str]) -> None:
    """Add the columns that the study has and the table lacks, and give the others their type."""
    present = dict(
        con.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ?", [table]
        ).fetchall()
    )
    for name in study.feature_names:
        if present.get(name, "INTEGER") != "INTEGER":
            con.execute(f'ALTER TABLE {table} ALTER COLUMN "{name}" TYPE INTEGER')
    for name in [name for name in columns if name not in present]:
        if name in (study.id, study.target.name):
            raise StudyError(
                f"the study calls its {'id' if name == study.id else 'target'} {name}, and the warehouse was "
                f"made by a study that called it otherwise (table {table}: {', '.join(sorted(present))}). "
                "Name it as before, or begin another home (POLENG_HOME)"
            )
        con.execute(f'ALTER TABLE {table} ADD COLUMN "{name}" {columns[name]}')
