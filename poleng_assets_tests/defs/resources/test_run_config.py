"""The configuration of a run cannot lead it to another home, nor fill it from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from poleng_assets.definitions import build_defs
from poleng_assets.defs.resources.run_config import refuse_environment
from poleng_assets_tests.homes import new_home

OTHERS: dict[str, dict[str, object]] = {
    "warehouse": {"path": "/tmp/another.duckdb"},
    "landing": {"root": "/tmp/another", "settle_seconds": 0.0},
    "registry": {"root": "/tmp/another"},
    "mlflow": {
        "experiment_name": "another",
        "mlflow_tracking_uri": "https://models.example",
        "artifact_location": "file:///tmp/another",
    },
}


@pytest.fixture(scope="module")
def defs(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return build_defs(home=new_home(tmp_path_factory.mktemp("fixed") / "home"))


def jobs(defs: dg.Definitions) -> list[dg.JobDefinition]:
    return list(defs.get_repository_def().get_all_jobs())


def test_no_job_takes_another_place_from_the_configuration_of_its_run(defs: dg.Definitions):
    seen = set()
    for job in jobs(defs):
        for name in set(OTHERS) & set(job.resource_defs):
            seen.add(name)
            for field, value in OTHERS[name].items():
                asked = {"resources": {name: {"config": {field: value}}}}
                with pytest.raises(dg.DagsterInvalidConfigError):
                    dg.validate_run_config(job, asked)
    assert seen == set(OTHERS)


def test_no_resource_of_a_job_can_be_configured_at_all(defs: dg.Definitions):
    for job in jobs(defs):
        for name, resource in job.resource_defs.items():
            fields = getattr(resource.config_schema.config_type, "fields", {})
            assert name == "io_manager" or not fields, (job.name, name)


def test_a_secret_of_the_environment_gets_into_no_ledger(
    defs: dg.Definitions, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("POLENG_SERVE_TOKEN", "a-secret-that-nobody-reads")
    job = defs.resolve_job_def("rollback")
    asked = {"ops": {"put_back": {"config": {"reason": {"env": "POLENG_SERVE_TOKEN"}}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        ended = job.execute_in_process(asked, instance=instance, raise_on_error=False)
        told = [str(event) for event in ended.all_events]
    assert not ended.success
    assert any("ops.put_back.config.reason is to be read from an environment variable" in one for one in told)
    assert not any("a-secret" in one for one in told)


@pytest.mark.parametrize(
    "config",
    [
        {"file": {"env": "HOME"}},
        {"nested": {"deep": {"env": "HOME"}}},
        {"many": ["a", {"env": "HOME"}]},
        {"to": {"env": "HOME"}},
    ],
)
def test_the_environment_is_found_wherever_it_stands(config: dict[str, Any]):
    with pytest.raises(dg.Failure, match="environment variable"):
        refuse_environment({"ops": {"one": {"config": config}}})


def test_what_is_written_out_is_let_through():
    refuse_environment({"ops": {"one": {"config": {"reason": "env", "env": "x", "file": "march.csv"}}}})
    refuse_environment({})


def test_a_run_cannot_take_in_a_file_from_outside_of_landing(tmp_path: Path):
    from poleng_assets.defs.assets.arrivals import _landing_file
    from poleng_assets.storage.landing import Landing

    home = new_home(tmp_path / "home")
    (tmp_path / "march.csv").write_text("a\n1\n")
    (home.landing("batches") / "march.csv").symlink_to(tmp_path / "march.csv")
    for file in ("", "../../../march.csv", str(tmp_path / "march.csv"), "..", "/etc/passwd", "march.csv"):
        with pytest.raises(dg.Failure, match="nothing to ingest"):
            _landing_file(Landing(home), "batches", file, "march")
