"""The guard in front of Dagster's and MLflow's web servers: no foreign web page can use them.

Both have no password, and trust whoever reaches their port. A browser does, on behalf of any page that its
user looks at: by a form, a script, a picture, a frame, a websocket, or a name that its owner lets point to
127.0.0.1 (DNS rebinding). Dagster's carries out GraphQL mutations by GET and by POST of any content type.

The rules are those of the Fetch standard (https://fetch.spec.whatwg.org/#cors-safelisted-request-header) and
of Fetch Metadata (https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header). Programs of this machine,
which say neither ``Origin`` nor ``Sec-Fetch-*``, are let through when they send JSON.
"""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("poleng.guard")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
DEFAULT_PORTS = {"http": "80", "https": "443"}
READING = ("GET", "HEAD")
CHANGING = ("POST", "PUT", "PATCH", "DELETE")
OWN = ("same-origin", "none")
# Told to the browser with every answer: in nobody's frame, in nobody's picture or script, in nobody's window.
ANSWER_HEADERS = (
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"content-security-policy", b"frame-ancestors 'self'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(frozen=True)
class Rules:
    """What one web server may be asked, and by whom.

    Attributes:
        hosts: what ``Host`` may say, in lower case, with the port unless it is that of the scheme.
        pages: the first parts of paths (``""`` is the root) that a link of another page may lead to; None:
            all but those of ``data``.
        data: the first parts of paths that hold data or do something; no link of another page leads there.
        operations: paths that carry out what the query of an address says; by GET they are refused.
        any_form: whether the application itself refuses methods and content types that it does not want.
        name: of the server, for its refusals.
    """

    hosts: Collection[str]
    pages: Collection[str] | None = None
    data: Collection[str] = ()
    operations: Collection[str] = ("/graphql",)
    any_form: bool = False
    name: str = field(default="this server")


@dataclass(frozen=True)
class Refusal:
    """Why a request is not handed on: an HTTP status, and words that repeat nothing of the request.

    ``allow`` names the methods that would be, of a request with another one.
    """

    status: int
    words: str
    allow: str = ""


class Guard:
    """Around a whole ASGI application: hands on what ``Rules`` allow, and answers everything else itself."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        """Take the application, and what it may be asked."""
        self._app, self._rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a connection on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = judge(scope, self._rules)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send) if scope["type"] == "http" else send)
            return
        log.warning("%s refused a request: %s", self._rules.name, refusal.words)
        if scope["type"] == "websocket":
            # Before it is accepted: the server below answers the handshake with 403.
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.words[:120]})
            return
        answer = JSONResponse(
            {"detail": refusal.words}, refusal.status, {"Allow": refusal.allow} if refusal.allow else None
        )
        await answer(scope, receive, _with_headers(send))


def allowed_hosts(port: int, host: str = "", others: Iterable[str] = ()) -> frozenset[str]:
    """Return what ``Host`` may say to a server.

    Args:
        port: that it listens on.
        host: that it is bound to; one that means every address of the machine names none.
        others: names by which it is reached as well, ``NAME`` or ``NAME:PORT``. A name alone is meant with
            the server's port, and without one, as behind a proxy.
    """
    bound = f"[{host}]" if ":" in host and not host.startswith("[") else host
    names = [*LOOPBACK, *([bound] if bound and bound not in ("0.0.0.0", "[::]") else [])]  # noqa: S104
    hosts = {f"{name.lower()}:{port}" for name in names}
    if str(port) in DEFAULT_PORTS.values():
        hosts |= {name.lower() for name in names}
    for other in (one.strip().lower() for one in others):
        has_port = other.rpartition("]")[2].count(":") == 1
        hosts |= {other} if has_port else {other, f"{other}:{port}"}
    return frozenset(hosts)


def judge(scope: Scope, rules: Rules) -> Refusal | None:
    """Return why a request or websocket handshake is refused, None when it may be handed on.

    Args:
        scope: of an ASGI connection of type ``http`` or ``websocket``.
    """
    headers = _Headers(scope)
    return (
        _wrong_shape(scope, headers)
        or _wrong_host(headers, rules)
        or _foreign_origin(headers)
        or _foreign_page(scope, headers, rules)
        or _not_plain(scope, headers, rules)
    )


class _Headers:
    """The headers of a connection; all of one name, as two of a name are no agreement."""

    def __init__(self, scope: Scope) -> None:
        self._all: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            self._all.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())

    def __call__(self, name: str) -> str:
        """Return the value of a header, empty when it is not there."""
        return (self._all.get(name) or [""])[0]

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def twice(self, *names: str) -> bool:
        """Whether one of these headers stands there more than once."""
        return any(len(self._all.get(name, ())) > 1 for name in names)

    @property
    def of_browser(self) -> bool:
        """Whether a browser says who asks."""
        return any(name.startswith("sec-fetch-") for name in self._all)


def _wrong_shape(scope: Scope, headers: _Headers) -> Refusal | None:
    path = str(scope["path"])
    # A router's "$" matches before a last line break, too: "/graphql%0A" would be "/graphql".
    if not path.startswith("/") or any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        return Refusal(400, "the address holds what no address of this server does")
    if headers.twice("host", "origin", "content-type", "referer", "sec-fetch-site"):
        return Refusal(400, "a header stands twice, and nobody knows which one is meant")
    return None


def _wrong_host(headers: _Headers, rules: Rules) -> Refusal | None:
    if headers("host").lower() in rules.hosts:
        return None
    return Refusal(
        403,
        "it was asked for under another name than its own. If that name is right, say --allow-host NAME when "
        "it is started",
    )


def _foreign_origin(headers: _Headers) -> Refusal | None:
    foreign = Refusal(403, "another web page asks (Origin)")
    if "origin" in headers:
        return None if _is_own(headers("origin"), headers("host"), bare=True) else foreign
    return None


def _foreign_page(scope: Scope, headers: _Headers, rules: Rules) -> Refusal | None:
    """Refuse what another page makes a browser do, but for a link that is followed to a page."""
    method = scope.get("method", "GET")
    link = scope["type"] == "http" and method in READING and _is_page(scope["path"], rules)
    if "sec-fetch-site" in headers and headers("sec-fetch-site") not in OWN:
        how = (headers("sec-fetch-mode"), headers("sec-fetch-dest"))
        followed = link and how == ("navigate", "document")
        return None if followed else Refusal(403, "another web page asks (Sec-Fetch-Site)")
    if "origin" in headers:
        return None
    if headers.of_browser:
        changing = method in CHANGING or scope["type"] == "websocket"
        missing = Refusal(403, "a browser asks, and does not say for which web page (Origin)")
        return missing if changing else None
    if link or "referer" not in headers:
        return None  # older browsers say nothing but the referer
    own = _is_own(headers("referer"), headers("host"), bare=False)
    return None if own else Refusal(403, "another web page asks (Referer)")


def _not_plain(scope: Scope, headers: _Headers, rules: Rules) -> Refusal | None:
    if scope["type"] != "http" or rules.any_form:
        return None
    method = scope["method"]
    if method not in (*READING, *CHANGING):
        return Refusal(405, "it knows no such method", allow=", ".join((*READING, *CHANGING)))
    if method in READING and scope["path"] in rules.operations and scope["query_string"]:
        return Refusal(405, "GraphQL is carried out by POST only, not by an address", allow="POST")
    # By itself, this keeps out the forms and scripts of older browsers that say nothing of who asks: a page
    # may send JSON to another server only if that allows it.
    if method == "POST" and headers("content-type").partition(";")[0].strip().lower() != "application/json":
        return Refusal(415, "a POST has to be JSON, with Content-Type: application/json")
    return None


def _is_page(path: str, rules: Rules) -> bool:
    first = path.lstrip("/").partition("/")[0]
    return first not in rules.data and (rules.pages is None or first in rules.pages)


def _is_own(address: str, host: str, *, bare: bool) -> bool:
    """Whether an address is one of the server that was asked for by ``host``; ``bare``: an Origin."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    default = DEFAULT_PORTS.get(parts.scheme)
    if default is None or "@" in parts.netloc or (bare and (parts.path or parts.query or parts.fragment)):
        return False
    return _with_port(parts.netloc, default) == _with_port(host, default)


def _with_port(place: str, default: str) -> str:
    has_port = place.rpartition("]")[2].count(":") == 1
    return (place if has_port else f"{place}:{default}").lower()


def _with_headers(send: Send) -> Send:
    """Say with every answer that no other page may show or read it, whatever the server below says."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [
                (name, value)
                for name, value in message.get("headers", [])
                if not name.lower().startswith(b"access-control-")
            ]
            said = {name.lower() for name, _ in own} - {b"content-security-policy"}  # two are both in force
            more = [pair for pair in ANSWER_HEADERS if pair[0] not in said]
            message = {**message, "headers": [*own, *more]}
        await send(message)

    return sending
