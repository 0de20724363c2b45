"""``poleng mlflow``: the links of Dagster's UI lead to pages that MLflow has."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from poleng_assets.models.mlflow_links import ADDRESS, run_page, version_page
from poleng_assets_tests.homes import new_home


def test_links_lead_to_this_machine_or_where_the_setting_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(ADDRESS, raising=False)
    assert version_page("poleng", 2) == "http://127.0.0.1:5001/#/models/poleng/versions/2"
    monkeypatch.setenv(ADDRESS, "https://models.example/mlflow/")
    assert run_page("1", "f00d") == "https://models.example/mlflow/#/experiments/1/runs/f00d"


@pytest.mark.slow
def test_mlflow_opens_on_the_home_and_writes_nothing_beside_it(tmp_path: Path):
    home = new_home(tmp_path / "home")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("poleng")
    command = [str(program), "mlflow", "--home", str(home.root), "--port", str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        page = _answer(f"http://127.0.0.1:{port}/", process)
        assert "<title>MLflow</title>" in page
        found = _answer(f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/registered-models/search", process)
        assert isinstance(json.loads(found), dict)
        made_by_others = [_experiment(port, headers) for headers in (*FOREIGN, {})]
        assert made_by_others == [403] * (len(FOREIGN) - 1) + [415, 200]
    finally:
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=30)
    assert f"POLENG_MLFLOW_URL=http://127.0.0.1:{port}" in told
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


JSON = {"Content-Type": "application/json"}
FOREIGN = (
    {"Origin": "http://evil.example"},
    {"Origin": "http://localhost:8888"},  # MLflow itself lets every port of this machine in
    {"Origin": "null"},
    {"Host": "10.evil.example"},  # and what begins like a private network
    {"Host": "192.168.0.evil.example"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
    {"Content-Type": "text/plain"},
)


def _experiment(port: int, headers: dict[str, str]) -> int:
    """Ask MLflow to make an experiment; return the status of its answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    body = json.dumps({"name": f"made with {sorted(headers.items())}"})
    connection.request("POST", "/api/2.0/mlflow/experiments/create", body, JSON | headers)
    status = connection.getresponse().status
    connection.close()
    return status


def _answer(address: str, process: subprocess.Popen[str]) -> str:
    ends = time.monotonic() + 120
    while True:
        try:
            with urlopen(address) as answer:
                return str(answer.read().decode())
        except URLError:
            assert process.poll() is None
            assert time.monotonic() < ends
            time.sleep(0.5)
