"""What a process loads before anything is asked of it, and how long that takes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SLOW_LIBRARIES = (
    "apprise",
    "dagster_mlflow",
    "fastapi",
    "joblib",
    "matplotlib",
    "mlflow",
    "nannyml",
    "numpy",
    "optuna",
    "pandas",
    "plotly",
    "pyarrow",
    "scipy",
    "sklearn",
    "statsmodels",
    "xgboost",
)
BAR_SECONDS = 1.5


def python(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "POLENG_HOME": str(home), **environment},
    )
    assert told.returncode == 0, told.stderr
    return told


def test_the_code_location_loads_without_the_slow_libraries(tmp_path: Path):
    """The daemon, the web server, every run and every tick of a schedule load it."""
    code = f"""
import sys
import poleng_assets.definitions
print(*(name for name in {SLOW_LIBRARIES} if name in sys.modules))
"""
    assert python(code, tmp_path / "home").stdout.split() == []


def test_loading_any_module_makes_no_file_and_leaves_the_umask(tmp_path: Path):
    """Who imports a library does not ask for a home: that is made when work begins in it."""
    code = """
import importlib, os, pkgutil
import poleng_assets
os.umask(0o027)
for module in pkgutil.walk_packages(poleng_assets.__path__, "poleng_assets."):
    importlib.import_module(module.name)
from poleng_assets.definitions import build_defs
assert list(build_defs().get_repository_def().get_all_jobs())
print(oct(os.umask(0)))
"""
    assert python(code, tmp_path / "folder" / "home").stdout.split() == ["0o27"]
    assert list(tmp_path.iterdir()) == []


def test_a_tick_of_every_sensor_loads_no_slow_library(tmp_path: Path):
    code = f"""
import logging, sys
import dagster as dg
from poleng_assets.definitions import defs
from poleng_assets.storage.home import Home
from poleng_assets.defs.instance import open_instance
with open_instance(Home.default()) as instance:
    for sensor in defs.sensors:
        resources = {{"landing": defs.resources["landing"]}}
        with dg.build_sensor_context(instance, definitions=defs, resources=resources) as context:
            context.log.setLevel(logging.CRITICAL)
            assert sensor(context) is not None
print(*(name for name in {SLOW_LIBRARIES} if name in sys.modules))
"""
    assert python(code, tmp_path / "home").stdout.split() == []


@pytest.mark.parametrize(
    "first",
    ["poleng_assets", "poleng_assets.definitions", "poleng_assets.cli.main"],
    ids=["package", "run of the daemon", "command line"],
)
def test_openmp_threads_do_not_spin_while_they_wait(tmp_path: Path, first: str):
    """Beside a busy neighbour, spinning makes training 3 to 10 times slower."""
    said = python(f"import {first}, xgboost, sklearn", tmp_path / "home", OMP_DISPLAY_ENV="VERBOSE").stderr
    spins = [line.split("=")[1].strip() for line in said.splitlines() if "GOMP_SPINCOUNT" in line]
    if not spins:
        pytest.skip("this OpenMP is not GNU's, and does not tell how long it spins")
    assert set(spins) == {"'0'"}


def test_who_runs_the_project_may_let_openmp_threads_spin(tmp_path: Path):
    said = python("import os, poleng_assets; print(os.environ['OMP_WAIT_POLICY'])", tmp_path).stdout
    assert said.strip() == "PASSIVE"
    asked = python(
        "import os, poleng_assets; print(os.environ['OMP_WAIT_POLICY'])", tmp_path, OMP_WAIT_POLICY="ACTIVE"
    )
    assert asked.stdout.strip() == "ACTIVE"


@pytest.mark.slow
@pytest.mark.timed
def test_the_code_location_loads_in_a_second_and_a_half(tmp_path: Path):
    """``dagster definitions validate``, less that of an empty project; twice the bar on a noisy machine."""
    (tmp_path / "nothing.py").write_text("import dagster as dg\n\ndefs = dg.Definitions()\n")
    (tmp_path / "dagster").mkdir()

    def seconds(module: str) -> float:
        started = time.monotonic()
        subprocess.run(
            [str(Path(sys.executable).with_name("dagster")), "definitions", "validate", "-m", module],
            capture_output=True,
            check=True,
            timeout=120,
            cwd=tmp_path,
            env={
                **os.environ,
                "POLENG_HOME": str(tmp_path / "home"),
                "DAGSTER_HOME": str(tmp_path / "dagster"),
            },
        )
        return time.monotonic() - started

    ours = min(seconds("poleng_assets.definitions") for _ in range(2))
    empty = min(seconds("nothing") for _ in range(2))
    assert ours - empty < 2 * BAR_SECONDS
