"""The guard of Dagster's and MLflow's web servers, before a small application that answers everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect

from poleng_assets.serving.dagster_ui import rules
from poleng_assets.serving.guard import Guard, Refusal, allowed_hosts, judge

HOST = "127.0.0.1:3000"
OWN = f"http://{HOST}"
RULES = rules(3000, "127.0.0.1", ["ui.example.org"])
JSON = {"content-type": "application/json"}
FOREIGN_LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
OWN_SCRIPT = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}


def judged(
    method: str = "GET",
    path: str = "/",
    headers: Mapping[str, str] | list[tuple[str, str]] = {},  # noqa: B006 - is never changed
    *,
    host: str | None = HOST,
    query: str = "",
    kind: str = "http",
) -> int:
    """Return the status of the refusal, 200 when the request is handed on."""
    pairs = list(headers.items()) if isinstance(headers, Mapping) else headers
    pairs = ([("host", host)] if host is not None else []) + pairs
    scope: Scope = {
        "type": kind,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
    }
    if kind == "http":
        scope["method"] = method
    refusal = judge(scope, RULES)
    return refusal.status if isinstance(refusal, Refusal) else 200


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:3000",
        "localhost:3000",
        "LocalHost:3000",
        "[::1]:3000",
        "ui.example.org",
        "ui.example.org:3000",
    ],
)
def test_the_names_of_the_server_are_answered(host: str):
    assert judged(host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:3000",
        "localhost",
        "localhost:3001",
        "localhost:80",
        "localhost.:3000",
        "localhost:3000.",
        "localhost:03000",
        "localhost.evil.example:3000",
        "127.0.0.1.evil.example:3000",
        "evil@127.0.0.1:3000",
        "127.0.0.1:3000@evil.example",
        "127.0.0.1:3000, evil.example",
        "127.0.0.2:3000",
        "127.1:3000",
        "2130706433:3000",
        "0.0.0.0:3000",
        "0:3000",
        "[::]:3000",
        "[::ffff:127.0.0.1]:3000",
        "[::1]",
        "::1:3000",
        "ui.example.org.:3000",
        "ui.example.org:3001",
        "sub.ui.example.org",
    ],
)
def test_another_name_is_refused_whatever_else_is_said(host: str | None):
    assert judged(host=host) == 403
    assert judged(host=host, headers={"x-forwarded-host": HOST, "forwarded": f"host={HOST}"}) == 403
    assert judged("POST", "/graphql", JSON | {"origin": f"http://{host}"}, host=host) == 403
    assert judged(path="/graphql", host=host, kind="websocket") == 403


def test_a_forwarded_name_is_not_believed():
    assert judged(headers={"x-forwarded-host": "evil.example"}) == 200
    foreign = {"x-forwarded-host": "evil.example", "origin": "http://evil.example"}
    assert judged("POST", "/graphql", JSON | foreign) == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://evil.example",
        "null",
        "",
        "http://localhost:3000",  # a page of this very server, but under another of its names
        "http://127.0.0.1:3001",
        "http://127.0.0.1",
        "http://127.0.0.1:3000.evil.example",
        "http://127.0.0.1:3000@evil.example",
        "http://evil.example@127.0.0.1:3000",
        "http://127.0.0.1:3000/",
        "http://127.0.0.1:3000?x",
        "http://127.0.0.1.:3000",
        "ftp://127.0.0.1:3000",
        "file://",
        "chrome-extension://abcdef",
        "//127.0.0.1:3000",
        "127.0.0.1:3000",
        "http://[::1",
        "http://127.0.0.1:3000 http://evil.example",
    ],
)
def test_a_foreign_origin_is_refused_for_everything(origin: str):
    assert judged(headers={"origin": origin}) == 403
    assert judged("POST", "/graphql", JSON | {"origin": origin}) == 403
    assert judged("POST", "/graphql", JSON | OWN_SCRIPT | {"origin": origin}) == 403
    assert judged(path="/graphql", headers={"origin": origin}, kind="websocket") == 403


@pytest.mark.parametrize("host", [HOST, "localhost:3000", "[::1]:3000", "ui.example.org"])
def test_its_own_pages_use_it(host: str):
    for scheme in ("http", "https"):
        own = {"origin": f"{scheme}://{host.upper()}"}
        assert judged("POST", "/graphql", JSON | OWN_SCRIPT | own, host=host) == 200
        assert judged(path="/graphql", headers=own, host=host, kind="websocket") == 200
    assert judged(path="/logs/x", headers=OWN_SCRIPT, host=host) == 200
    assert judged(headers={"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, host=host) == 200


def test_programs_use_it():
    assert judged("POST", "/graphql", JSON) == 200
    assert judged("POST", "/graphql", {"content-type": "Application/JSON; charset=utf-8"}) == 200
    assert judged("POST", "/report_asset_materialization/x", JSON) == 200
    assert judged(path="/server_info") == 200
    assert judged(path="/graphql", kind="websocket") == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "anything", "cross-site, same-origin"])
def test_another_page_may_link_to_pages_and_nothing_else(site: str):
    link = FOREIGN_LINK | {"sec-fetch-site": site}
    assert judged(path="/", headers=link) == 200
    assert judged(path="/assets/drift_report", headers=link) == 200
    assert judged("HEAD", path="/runs", headers=link) == 200
    for path in ("/graphql", "/logs/a/b", "/notebook", "/dagit/notebook", "/download_debug/x", "//graphql"):
        assert judged(path=path, headers=link) == 403, path
    for more in ({"sec-fetch-dest": "iframe"}, {"sec-fetch-dest": "object"}, {"sec-fetch-mode": "no-cors"}):
        assert judged(path="/", headers=link | more) == 403
    assert judged(path="/", headers={"sec-fetch-site": site}) == 403
    assert judged("POST", "/", link | JSON) == 403
    assert judged("POST", "/graphql", link | JSON | {"origin": OWN}) == 403
    assert judged(path="/graphql", headers=link | {"origin": OWN}, kind="websocket") == 403


def test_older_browsers_say_a_referer_only():
    foreign = {"referer": "http://evil.example/page?a=b"}
    assert judged(path="/runs", headers=foreign) == 200
    assert judged(path="/logs/x", headers=foreign) == 403
    assert judged("POST", "/graphql", JSON | foreign) == 403
    assert judged("POST", "/graphql", JSON | {"referer": f"{OWN}/runs?a=b"}) == 200
    assert judged("POST", "/graphql", JSON | {"referer": f"{OWN}@evil.example/"}) == 403


def test_a_browser_that_hides_its_page_is_refused():
    assert judged("POST", "/graphql", JSON | {"sec-fetch-mode": "no-cors"}) == 403
    assert judged("POST", "/graphql", JSON | {"sec-fetch-site": "same-origin"}) == 403
    assert judged(path="/graphql", headers={"sec-fetch-mode": "websocket"}, kind="websocket") == 403


@pytest.mark.parametrize(
    "path",
    ["/graphql", "/report_asset_materialization/x", "/report_asset_check/x", "/report_asset_observation/x"],
)
@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "text/plain; application/json",
        "text/plain, application/json",
        "application/json, text/plain",
        "application/jsonp",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=application/json",
        "application/graphql",
        "application/octet-stream",
    ],
)
def test_what_a_form_can_send_is_refused_from_everybody(path: str, content_type: str | None):
    headers = {} if content_type is None else {"content-type": content_type}
    assert judged("POST", path, headers) == 415
    assert judged("POST", path, headers, query="query=mutation{a}") == 415
    assert judged("POST", path, headers | OWN_SCRIPT | {"origin": OWN}) == 415


def test_graphql_by_an_address_is_refused_however_it_is_written():
    for method in ("GET", "HEAD"):
        assert judged(method, "/graphql", query="query=mutation{a}") == 405
        assert judged(method, "/graphql", {"accept": "text/html"}, query="variables=x&query=y") == 405
        assert judged(method, "/graphql\n", query="query=mutation{a}") == 400
        assert judged(method, "http://127.0.0.1/graphql", query="query=mutation{a}") == 400
    assert judged(path="/graphql", headers={"accept": "text/html"}) == 200  # the page to write queries in


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT", "PROPFIND", "post", "get", "QUERY"])
def test_other_methods_are_refused_and_none_is_put_in_place_of_another(method: str):
    assert judged(method, "/graphql", JSON) == 405
    override = {"x-http-method-override": "POST", "x-http-method": "POST", "x-method-override": "POST"}
    assert judged("GET", "/graphql", override, query="query=mutation{a}") == 405


@pytest.mark.parametrize("name", ["host", "origin", "content-type", "sec-fetch-site", "referer"])
def test_a_header_that_stands_twice_is_refused(name: str):
    right = {"origin": OWN, "content-type": "application/json", "sec-fetch-site": "same-origin"}
    value = {"host": HOST, "referer": OWN}.get(name) or right[name]
    pairs = [*right.items(), (name, value), (name, value)]
    assert judged("POST", "/graphql", pairs) == 400


def test_an_application_that_refuses_methods_itself_is_asked_for_its_own_pages_only():
    own = replace(RULES, any_form=True, pages=())
    scope: Scope = {"type": "http", "path": "/predict", "method": "POST", "query_string": b""}
    host = (b"host", HOST.encode())
    assert judge({**scope, "headers": [host]}, own) is None
    for foreign in (
        (b"origin", b"null"),
        (b"sec-fetch-site", b"same-site"),
        (b"referer", b"http://evil.example"),
    ):
        assert judge({**scope, "headers": [host, foreign]}, own) is not None
    assert judge({**scope, "headers": [(b"host", b"evil.example:3000")]}, own) is not None
    link = [host, *((name.encode(), value.encode()) for name, value in FOREIGN_LINK.items())]
    assert judge({**scope, "method": "GET", "path": "/model", "headers": link}, own) is not None


def test_names_that_a_server_is_allowed():
    assert allowed_hosts(80, "::1") >= {"localhost", "localhost:80", "[::1]", "[::1]:80"}
    assert allowed_hosts(3000, "192.0.2.7") >= {"192.0.2.7:3000", "localhost:3000"}
    assert {one for one in allowed_hosts(3000, "0.0.0.0") if one.startswith("0.")} == set()
    assert "[::]:3000" not in allowed_hosts(3000, "::")
    named = allowed_hosts(3000, "127.0.0.1", ["UI.example ", "box:8080", "[2001:db8::1]"])
    assert named >= {"ui.example", "ui.example:3000", "box:8080", "[2001:db8::1]", "[2001:db8::1]:3000"}
    assert "box" not in named
    assert "box:3000" not in named


@pytest.fixture
def client() -> TestClient:
    """An application that answers everything and lets every page read it, behind the guard."""

    async def answer(_: Request) -> PlainTextResponse:
        return PlainTextResponse("carried out", headers={"Access-Control-Allow-Origin": "*"})

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("carried out")

    routes: list[Any] = [
        Route("/{path:path}", answer, methods=["GET", "POST", "OPTIONS"]),
        WebSocketRoute("/graphql", talk),
    ]
    return TestClient(Guard(Starlette(routes=routes), RULES), base_url=OWN)


def test_a_refusal_says_what_to_do_and_repeats_nothing_of_the_request(
    client: TestClient, caplog: pytest.LogCaptureFixture
):
    answer = client.get("/", headers={"host": "evil.example\x1b[31m"})
    assert answer.status_code == 403
    assert "--allow-host" in answer.text
    assert "evil" not in answer.text + caplog.text
    assert "Dagster's UI refused a request" in caplog.text
    assert client.options("/graphql").headers["allow"] == "GET, HEAD, POST, PUT, PATCH, DELETE"
    assert client.get("/graphql?query=x").headers["allow"] == "POST"


def test_no_answer_lets_another_page_read_or_show_it(client: TestClient):
    for answer in (client.get("/"), client.options("/graphql"), client.get("/", headers={"origin": "null"})):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["x-frame-options"] == "SAMEORIGIN"
        assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_a_websocket_is_open_to_its_own_pages_only(client: TestClient):
    with client.websocket_connect("/graphql", headers={"host": HOST, "origin": OWN}) as socket:
        assert socket.receive_text() == "carried out"
    for foreign in ({"origin": "http://evil.example"}, {"host": "evil.example"}, {"origin": "null"}):
        with (
            pytest.raises(WebSocketDisconnect),
            client.websocket_connect("/graphql", headers={"host": HOST, "origin": OWN} | foreign),
        ):
            pass
