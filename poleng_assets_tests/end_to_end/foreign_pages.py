"""What other web pages make a browser send to ``poleng dev``, and whether any of it was carried out."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import dagster as dg

from poleng_assets.defs.instance import open_instance
from poleng_assets.defs.partitions import PARTITIONS
from poleng_assets.storage.home import Home

_SELECTOR = '{repositoryLocationName: "poleng_assets", repositoryName: "__repository__"}'
_JOB = '{jobName: "draw_overview", repositoryLocationName: "poleng_assets", repositoryName: "__repository__"}'
PARTITION = "from_another_page"
ADD = (
    f'mutation {{ addDynamicPartition(partitionsDefName: "{PARTITIONS["batches"].name}", '
    f'partitionKey: "{PARTITION}", repositorySelector: {_SELECTOR}) {{ __typename }} }}'
)
LAUNCH = (
    f'mutation {{ launchRun(executionParams: {{selector: {_JOB}, runConfigData: "{{}}"}}) {{ __typename }} }}'
)
REPORT = f"/report_asset_materialization/champion?partition={PARTITION}"
JSON = {"Content-Type": "application/json"}
FOREIGN = {"Origin": "http://evil.example"}
CROSS_SITE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "graphql-ws",
}
Request = tuple[str, str, dict[str, str], str]


def carried_out(home: Home) -> dict[str, Any]:
    """Return what the requests of this module would change: partitions, runs and events of a home."""
    with open_instance(home) as instance:
        events = instance.fetch_materializations(dg.AssetKey("champion"), limit=100).records
        return {
            "partitions": sorted(instance.get_dynamic_partitions(PARTITIONS["batches"].name or "")),
            "runs": sorted(run.run_id for run in instance.get_runs()),
            "events": [event.storage_id for event in events],
        }


def foreign_requests(url: str) -> list[Request]:
    """Return 36 requests (method, address, headers, body) that other pages make a browser send."""
    host = urlsplit(url).netloc
    port = host.rpartition(":")[2]
    own = f"http://{host}"
    sent: list[Request] = []
    for mutation in (ADD, LAUNCH):
        body = json.dumps({"query": mutation})
        address = "/graphql?" + urlencode({"query": mutation})
        sent += [
            # An address: a picture, a link, a frame; once with the line break that a router overlooks.
            ("GET", address, {}, ""),
            ("GET", address, CROSS_SITE, ""),
            ("GET", address, LINK | {"Accept": "text/html"}, ""),
            ("GET", "/graphql%0A?" + urlencode({"query": mutation}), {}, ""),
            # A form and what a script may send without being asked about it first.
            ("POST", address, {"Content-Type": "application/x-www-form-urlencoded"} | FOREIGN, "a=b"),
            ("POST", address, {"Content-Type": "text/plain"}, ""),
            ("POST", address, {"Content-Type": "multipart/form-data; boundary=x"}, "--x--"),
            ("POST", "/graphql", {"Content-Type": "text/plain; application/json"}, body),
            ("POST", "/graphql", {"Content-Type": "application/graphql"}, mutation),
            # A script of an older browser, a page without an origin, another port, a browser that is told so.
            ("POST", "/graphql", JSON | FOREIGN, body),
            ("POST", "/graphql", JSON | {"Origin": "null"}, body),
            ("POST", "/graphql", JSON | {"Origin": f"http://127.0.0.1:{int(port) + 1}"}, body),
            ("POST", "/graphql", JSON | {"Sec-Fetch-Site": "same-site", "Origin": own}, body),
            ("POST", "/graphql", JSON | {"Referer": "http://evil.example/"}, body),
            # A name that its owner lets point to this machine.
            ("POST", "/graphql", JSON | {"Host": f"evil.example:{port}"}, body),
            (
                "POST",
                "/graphql",
                JSON | {"Host": f"0.0.0.0:{port}", "Origin": f"http://0.0.0.0:{port}"},
                body,
            ),
            ("POST", "/graphql", JSON | {"Host": f"localhost.:{port}"}, body),
        ]
    return [
        *sent,
        ("POST", REPORT, {}, ""),
        ("POST", REPORT, FOREIGN | JSON, "{}"),
        ("GET", "/graphql", HANDSHAKE | FOREIGN, ""),
        ("GET", "/graphql", HANDSHAKE | {"Host": f"evil.example:{port}", "Origin": own}, ""),
        ("OPTIONS", "/graphql", FOREIGN | {"Access-Control-Request-Method": "POST"}, ""),
        ("GET", "/logs/a/b.out", CROSS_SITE, ""),
    ]


def send(url: str, request: Request) -> tuple[int, dict[str, str]]:
    """Send one request as it stands; return the status and the headers of the answer."""
    method, address, headers, body = request
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    try:
        connection.request(method, address, body.encode() or None, headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


_PAGE = """<!doctype html><title>another page</title><body><iframe name="hidden"></iframe>
<form method="post" action="ADDRESS" target="hidden"></form>
<form method="post" action="ADDRESS" target="hidden" enctype="text/plain"></form>
<img src="ADDRESS"><iframe src="ADDRESS"></iframe><script src="ADDRESS"></script>
<script>
const said = [];
const sent = [
  fetch("ADDRESS", {mode: "no-cors"}),
  fetch("ADDRESS", {mode: "no-cors", method: "POST"}),
  fetch("URL/graphql", {mode: "no-cors", method: "POST", body: BODY}),
  fetch("URL/graphql", {method: "POST", body: BODY, headers: {"content-type": "application/json"}}),
  fetch("URLREPORT", {mode: "no-cors", method: "POST"}),
];
navigator.sendBeacon("URL/graphql", new Blob([BODY], {type: "application/json"}));
navigator.sendBeacon("ADDRESS");
for (const form of document.forms) form.submit();
const socket = new WebSocket("URL/graphql".replace("http", "ws"), "graphql-ws");
const closed = new Promise((done) => {
  socket.onopen = () => { said.push("websocket open"); done(); };
  socket.onerror = () => { said.push("websocket refused"); done(); };
});
Promise.allSettled([...sent, closed]).then(() => {
  setTimeout(() => { document.title = "done: " + said.join(); }, 1000);
});
</script>"""


@contextmanager
def another_page(url: str) -> Iterator[str]:
    """Serve a page that tries all that a page can on ``url``, under another address; yield that address."""
    page = _PAGE.replace("ADDRESS", f"{url}/graphql?query={quote(ADD)}").replace("URLREPORT", url + REPORT)
    page = page.replace("URL", url).replace("BODY", json.dumps(json.dumps({"query": LAUNCH})))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
