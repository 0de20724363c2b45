"""``poleng serve`` as a process: on a port, beside a graph that promotes, ended with Ctrl-C."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from poleng_assets_tests.end_to_end.conftest import wait_until
from poleng_assets_tests.serving.conftest import Served

POLENG = Path(sys.executable).with_name("poleng")
TOKEN = "a-long-token-that-nobody-guesses"


@dataclasses.dataclass
class Running:
    process: subprocess.Popen[str]
    url: str
    log: Path

    def call(self, path: str, content: object = None) -> tuple[int, Any]:
        request = urllib.request.Request(
            self.url + path,
            data=None if content is None else json.dumps(content).encode(),
            headers={"authorization": f"Bearer {TOKEN}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def version(self) -> int | None:
        return self.call("/health")[1].get("model_version")


@contextmanager
def running(served: Served, *arguments: str) -> Iterator[Running]:
    log = served.home.root / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(POLENG), "serve", "--home", str(served.home.root), "--port", "0", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "POLENG_SERVE_TOKEN": TOKEN, "POLENG_STUDY": str(served.study_file)},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )
    try:
        wait_until("the port is told", lambda: "Serving on" in log.read_text(), 60)
        (url,) = re.findall(r"http://[0-9.:]+", log.read_text())
        yield Running(process, url.rstrip("."), log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_a_promotion_is_taken_over_under_way_and_ctrl_c_ends_it(copied: Served):
    person = copied.respondents()[0]
    with running(copied) as server:
        assert server.call("/health/live")[0] == 200  # at once, before anything is loaded
        wait_until("the champion is loaded", lambda: server.version() == 1, 60)
        model = copied.registry.model(copied.registry.version(1))
        other = dataclasses.replace(model, rule=dataclasses.replace(model.rule, threshold=0.0))
        second = copied.register(other)
        answers: list[tuple[int, Any]] = []
        promoted = threading.Event()

        def keep_asking() -> None:
            while not promoted.is_set():
                answers.append(server.call("/predict", {"respondents": [person] * 5}))

        asking = threading.Thread(target=keep_asking)
        asking.start()
        copied.promote(second)
        wait_until("version 2 answers", lambda: server.version() == 2, 30)
        promoted.set()
        asking.join()
        answers.append(server.call("/predict", {"respondents": person}))
        assert {status for status, _ in answers} == {200}
        thresholds = {answer["model_version"]: answer["contact_rule"]["threshold"] for _, answer in answers}
        assert thresholds == {1: 0.5, 2: 0.0}
        versions = [answer["model_version"] for _, answer in answers]
        assert versions == sorted(versions)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=30) == 0
        said = server.log.read_text()
    assert said.endswith("Stopped.\n")
    assert "Traceback" not in said
    assert "Version 2 serves" in said
    assert TOKEN not in said
    assert person[copied.study.id] not in said


def test_what_cannot_be_served_is_said_before_anything_is_loaded(served: Served):
    def refused(*arguments: str, token: str = "") -> str:
        answer = subprocess.run(
            [str(POLENG), "serve", "--home", str(served.home.root), *arguments],
            env={**os.environ, "POLENG_SERVE_TOKEN": token},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert answer.returncode == 1
        assert "Traceback" not in answer.stderr
        return answer.stderr

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} cannot be bound" in refused("--port", port)
    assert "can be reached from other machines: set POLENG_SERVE_TOKEN" in refused("--host", "0.0.0.0")
    short = refused(token="short-secret")
    assert "POLENG_SERVE_TOKEN is not a valid token" in short
    assert "short-secret" not in short
