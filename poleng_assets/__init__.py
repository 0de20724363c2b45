"""poleng_assets: finds politically disengaged people, and watches over the model that finds them.

What stands here is what must be true of every process before a slow library loads, and the names that
notebooks and scripts may use (``api/``): each is loaded when it is first asked for.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poleng_assets.api import (
        EncodingError,
        Explanation,
        LoadedModel,
        ModelUnusable,
        NoChampion,
        RegistryUnusable,
        StudyError,
        WarehouseBusy,
        WarehouseUnusable,
        in_words,
        load_champion,
        load_study,
        read_table,
        tables,
    )

__all__ = [
    "EncodingError",
    "Explanation",
    "LoadedModel",
    "ModelUnusable",
    "NoChampion",
    "RegistryUnusable",
    "StudyError",
    "WarehouseBusy",
    "WarehouseUnusable",
    "in_words",
    "load_champion",
    "load_study",
    "read_table",
    "tables",
]

# No telemetry leaves: set before NannyML or MLflow can be imported (dagster.yaml speaks for Dagster).
os.environ.setdefault("NML_DISABLE_USAGE_LOGGING", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

# OpenMP threads that spin while they wait make XGBoost train 3 to 10 times slower beside a busy
# neighbour, and the Dagster daemon and web server are such neighbours. Read when XGBoost loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Progress bars of files that are read from the same disk, and news of tables made, are noise.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from poleng_assets import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
