"""Tables of the warehouse, for reading only, as codes or in the survey's words; and the study of a home."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from duckdb import DuckDBPyConnection as Connection

from poleng_assets.api.rows import NULLABLE
from poleng_assets.core.statistics.groups import NO_ANSWER
from poleng_assets.storage.home import Home
from poleng_assets.storage.home_study import study_of
from poleng_assets.study import loading
from poleng_assets.study.schema import Feature, Study
from poleng_assets.warehouse.connection import PATIENCE_SECONDS, Warehouse
from poleng_assets.warehouse.erasures import erasures_of, summary
from poleng_assets.warehouse.tables import read_rows, table_columns

log = logging.getLogger("poleng")

HomeFolder: TypeAlias = str | os.PathLike[str] | Home | None


def load_study(path: Path | None = None, *, home: HomeFolder = None) -> Study:
    """Read a study file, or the study of a home.

    Args:
        path: of a study file; by default the one of the home.
        home: folder; by default the one that ``POLENG_HOME`` names, or ``data/`` of the checkout. Before it
            has a study, the one that ``POLENG_STUDY`` names, or the one that ships.

    Raises:
        StudyError: the file is missing or wrong; the message names the line and the field.
    """
    return study_of(home_of(home)) if path is None else loading.load_study(path)


def read_table(
    name: str,
    *,
    columns: Sequence[str] | None = None,
    where: Mapping[str, object] | None = None,
    home: HomeFolder = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> pd.DataFrame:
    """Read a table of the warehouse, for reading only.

    While it is read nobody can write, so the file is open no longer than it takes to copy the rows; a run
    that comes meanwhile waits. Ask for some rows of a large table, not for all.

    Args:
        name: of a table or view; :func:`tables` lists them.
        columns: to read; by default all.
        where: values that columns must have, such as ``{"batch": "march"}``; None: where it is empty.
        home: as for :func:`load_champion`.
        patience_seconds: how long to wait for a process that holds the file.

    Returns:
        A frame in no stated order. Numbers and truth values are of pandas' nullable types, so that a code
        stays whole where another is missing; times are in UTC. ``frame.attrs["erased"]`` tells in words what
        retention has erased from the table, when and by which rule.

    Raises:
        FileNotFoundError: the home has no warehouse yet.
        LookupError: there is no such table or column.
        WarehouseBusy: a process held the file for all that time; the message names it.
        WarehouseUnusable: the file is damaged, or may not be read.

    >>> scored = read_table("current_predictions", where={"batch": "march"})
    >>> scored["model_version"].unique().tolist()
    [1]
    >>> read_table("decisions", columns=["kind", "challenger_version"], where={"kind": "promote"})
          kind  challenger_version
    0  promote                   1
    """
    conditions = dict(where or {})
    with _reading(home, patience_seconds) as con:
        known = table_columns(con)
        if name not in known:
            raise LookupError(f"the warehouse has no table {name!r}; it has: {', '.join(known)}")
        chosen = list(known[name]) if columns is None else list(columns)
        if strangers := [column for column in (*chosen, *conditions) if column not in known[name]]:
            raise LookupError(
                f"the table {name} has no column {', '.join(map(repr, strangers))}; it has: "
                f"{', '.join(known[name])}"
            )
        rows = read_rows(con, name, chosen, conditions)
        erased = summary(erasures_of(con, name)) if "erasures" in known else []
    frame: pd.DataFrame = rows.to_pandas(types_mapper=NULLABLE.get)
    for column in frame.columns[[isinstance(kind, pd.DatetimeTZDtype) for kind in frame.dtypes]]:
        frame[column] = frame[column].dt.tz_convert("UTC")
    frame.attrs["erased"] = erased
    return frame


def tables(home: HomeFolder = None, *, patience_seconds: float = PATIENCE_SECONDS) -> dict[str, list[str]]:
    """Return the tables and views of the warehouse with their columns; raises as :func:`read_table`.

    >>> tables()["performance"]
    ['batch', 'model_version', 'kind', 'metric', 'value', 'lower', 'upper']
    """
    with _reading(home, patience_seconds) as con:
        return table_columns(con)


def in_words(frame: pd.DataFrame, study: Study | None = None) -> pd.DataFrame:
    """Return a copy with the survey's words instead of its codes.

    Args:
        frame: any; columns that are neither feature nor target of the study stay as they are.
        study: by default as for :func:`load_champion`.

    Returns:
        The same rows and columns. No answer becomes ``no answer``; a code that the study does not know
        becomes ``unknown (code)``.

    >>> study = load_study()
    >>> question = study.features[0]
    >>> codes = pd.DataFrame({question.name: [min(question.codes), None]})
    >>> in_words(codes)[question.name].tolist() == [question.codes[min(question.codes)], "no answer"]
    True
    """
    study = study or load_study()
    target = study.target
    asked = {feature.name: feature for feature in study.features}
    asked[target.name] = Feature(
        name=target.name, question=target.question, title=target.title, kind="binary", codes=target.codes
    )
    worded = frame.copy()
    for position, name in enumerate(frame.columns):
        if name in asked:
            seen, codes = pd.factorize(frame.iloc[:, position], use_na_sentinel=False)
            labels = [asked[name].label(None if pd.isna(code) else code) or NO_ANSWER for code in codes]
            worded.isetitem(position, np.array(labels, dtype=object)[seen])
    return worded


def home_of(home: HomeFolder) -> Home:
    """Return the home that is meant; its folders are not made."""
    if home is None:
        return Home.default()
    return home if isinstance(home, Home) else Home(Path(home).expanduser().resolve())


@contextmanager
def _reading(home: HomeFolder, patience_seconds: float) -> Iterator[Connection]:
    folder = home_of(home)
    try:
        with Warehouse(folder.warehouse, study_of(folder), patience_seconds, log.warning).read() as con:
            yield con
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there is no warehouse in {folder.root}. Is it the home folder (POLENG_HOME)? The first file "
            "that is taken in makes it"
        ) from error
