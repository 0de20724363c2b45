"""The files for Prometheus and Grafana, held against what the server really tells.

Grafana itself is in none of the registries; what its panels ask is asked of a real Prometheus instead.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml
from fastapi import FastAPI

from poleng_assets.storage.home import CHECKOUT
from poleng_assets_tests.end_to_end.conftest import wait_until
from poleng_assets_tests.serving.conftest import Client, Served, ask

DEPLOY = CHECKOUT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "poleng.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUESTIONS = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install prometheus): its files were not checked by it")
    return found


def test_prometheus_takes_its_configuration_and_the_alerts_fire_when_they_should():
    promtool = program("promtool")
    for words in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]):
        checked = subprocess.run(
            [promtool, *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "SUCCESS" in checked.stdout + checked.stderr


def test_panels_and_alerts_ask_for_metrics_that_the_server_has(served: Served, client: Client):
    with client() as asking:
        ask(asking, served.respondents()[0])
        told = asking.get("/metrics").text
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    asked = {
        name
        for expression in [*alerts, *(expression for _, expression in QUESTIONS)]
        for name in re.findall(r"\b(?:poleng|process)_[a-z_]+", expression)
    }
    assert len(asked) > 20
    # A counter of refusals by status has no sample before the first one; its name stands in the text.
    assert {name for name in asked if f"\n{name}" not in told} == set()


def test_every_panel_says_what_it_shows_and_none_covers_another():
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert all(panel["description"].endswith(".") for panel in PANELS)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_dashboard_is_provisioned_with_the_data_source_that_it_asks():
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "poleng.yml").read_text())["providers"]
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert source["type"] == variables["datasource"]["query"] == "prometheus"
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}
    assert provider["options"]["path"].startswith("/")


@contextmanager
def on_a_port(app: FastAPI) -> Iterator[int]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[str]:
    """Start a real Prometheus on the project's configuration, which looks every second at another port."""
    content = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    content["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    content["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{target}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    shutil.copy(PROMETHEUS / "alerts.yml", folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def asked_of(address: str, expression: str) -> list[dict[str, Any]]:
    # As Grafana fills them in.
    expression = expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"{address}/api/v1/query?{query}", timeout=10) as answer:
            return json.loads(answer.read())["data"]["result"]
    except OSError:
        return []  # it is starting


def test_a_real_prometheus_has_an_answer_for_every_panel(served: Served, client: Client, tmp_path: Path):
    program("prometheus")
    with client() as asking, on_a_port(asking.app) as port, prometheus(tmp_path, port) as address:  # type: ignore[arg-type]
        wait_until("it is scraped", lambda: bool(asked_of(address, "poleng_ready == 1")), 20)
        until = time.monotonic() + 4
        while time.monotonic() < until:
            ask(asking, served.respondents()[:3])
            time.sleep(0.5)
        asking.post("/predict", json={"respondents": [{}]})
        unanswered = [(title, one) for title, one in QUESTIONS if not asked_of(address, one)]
        silent = asked_of(address, "count(up == 1)")
    assert unanswered == []
    assert silent[0]["value"][1] == "1"


def test_the_guide_names_metrics_that_the_server_has(served: Served, client: Client):
    guide = (CHECKOUT / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
    with client() as asking:
        ask(asking, served.respondents()[0])
        told = asking.get("/metrics").text
    named = set(re.findall(r"`(poleng_[a-z_]+)", guide))
    assert len(named) > 15
    assert {name for name in named if f"\n{name}" not in told} == set()
