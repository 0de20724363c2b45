"""The guard in front of Dagster's and MLflow's web servers: other web pages cannot use them.

Both have no password and trust every client. A browser sends requests for any page that its user opens: by a
form, a script, an image, a frame, a websocket, or a host name that resolves to 127.0.0.1 (DNS rebinding).
Dagster executes GraphQL mutations by GET and by POST of any content type.

The rules are those of the Fetch standard (https://fetch.spec.whatwg.org/#cors-safelisted-request-header) and
of Fetch Metadata (https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header). Programs of this machine,
which send neither ``Origin`` nor ``Sec-Fetch-*``, are allowed if they send JSON.
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
# Sent with every response: no other page may embed it as a frame, image or script, or open it as a window.
RESPONSE_HEADERS = (
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"content-security-policy", b"frame-ancestors 'self'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(frozen=True)
class Rules:
    """The allowed requests to one web server.

    Attributes:
        hosts: allowed values of ``Host``, in lower case, with the port unless it is the default one.
        pages: the first parts of paths (``""`` is the root) to which another page may link; None: all but
            those of ``data``.
        data: the first parts of paths with data or operations, to which another page may not link.
        operations: paths that execute the query of a URL; they are refused by GET.
        any_form: whether the application itself checks methods and content types.
        name: of the server, for log messages.
    """

    hosts: Collection[str]
    pages: Collection[str] | None = None
    data: Collection[str] = ()
    operations: Collection[str] = ("/graphql",)
    any_form: bool = False
    name: str = field(default="this server")


@dataclass(frozen=True)
class Refusal:
    """Why a request is refused: an HTTP status, and a message that repeats nothing of the request.

    ``allow`` lists the allowed methods, after a request with another one.
    """

    status: int
    message: str
    allow: str = ""


class Guard:
    """Wraps an ASGI application: passes on what ``Rules`` allow, and refuses everything else."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app, self._rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a connection on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = judge(scope, self._rules)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send) if scope["type"] == "http" else send)
            return
        log.warning("%s refused a request: %s", self._rules.name, refusal.message)
        if scope["type"] == "websocket":
            # Before it is accepted: the server responds to the handshake with 403.
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.message[:120]})
            return
        answer = JSONResponse(
            {"detail": refusal.message}, refusal.status, {"Allow": refusal.allow} if refusal.allow else None
        )
        await answer(scope, receive, _with_headers(send))


def allowed_hosts(port: int, host: str = "", others: Iterable[str] = ()) -> frozenset[str]:
    """Return the allowed values of ``Host`` for a server.

    Args:
        port: of the server.
        host: to which it is bound; one that means every address of the machine adds no name.
        others: other names of the server, ``NAME`` or ``NAME:PORT``. A name alone is allowed with the
            server's port, and without a port, as behind a proxy.
    """
    bound = f"[{host}]" if ":" in host and not host.startswith("[") else host
    names = [*LOOPBACK, *([bound] if bound and bound not in ("0.0.0.0", "[::]") else [])]  # noqa: S104
    hosts = {f"{name.lower()}:{port}" for name in names}
    if str(port) in DEFAULT_PORTS.values():
        hosts |= {name.lower() for name in names}
    for other in (name.strip().lower() for name in others):
        has_port = other.rpartition("]")[2].count(":") == 1
        hosts |= {other} if has_port else {other, f"{other}:{port}"}
    return frozenset(hosts)


def judge(scope: Scope, rules: Rules) -> Refusal | None:
    """Return why a request or websocket handshake is refused, None if it is allowed.

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
    """The headers of a connection, with all values of each name."""

    def __init__(self, scope: Scope) -> None:
        self._all: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            self._all.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())

    def __call__(self, name: str) -> str:
        """Return the value of a header, empty if it is missing."""
        return (self._all.get(name) or [""])[0]

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def twice(self, *names: str) -> bool:
        """Whether one of these headers occurs more than once."""
        return any(len(self._all.get(name, ())) > 1 for name in names)

    @property
    def of_browser(self) -> bool:
        """Whether the request comes from a browser with Fetch Metadata."""
        return any(name.startswith("sec-fetch-") for name in self._all)


def _wrong_shape(scope: Scope, headers: _Headers) -> Refusal | None:
    path = str(scope["path"])
    # A router's "$" matches before a last line break, too: "/graphql%0A" would be "/graphql".
    if not path.startswith("/") or any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        return Refusal(400, "the path is invalid: it contains a control character or has no leading slash")
    if headers.twice("host", "origin", "content-type", "referer", "sec-fetch-site"):
        return Refusal(400, "a header occurs twice")
    return None


def _wrong_host(headers: _Headers, rules: Rules) -> Refusal | None:
    if headers("host").lower() in rules.hosts:
        return None
    return Refusal(
        403,
        "the Host header has an unknown name. If the name is right, start the server with --allow-host NAME",
    )


def _foreign_origin(headers: _Headers) -> Refusal | None:
    foreign = Refusal(403, "the request comes from another web page (Origin)")
    if "origin" in headers:
        return None if _is_own(headers("origin"), headers("host"), bare=True) else foreign
    return None


def _foreign_page(scope: Scope, headers: _Headers, rules: Rules) -> Refusal | None:
    """Refuse requests that another page causes, except for a followed link to a page."""
    method = scope.get("method", "GET")
    link = scope["type"] == "http" and method in READING and _is_page(scope["path"], rules)
    if "sec-fetch-site" in headers and headers("sec-fetch-site") not in OWN:
        mode = (headers("sec-fetch-mode"), headers("sec-fetch-dest"))
        followed = link and mode == ("navigate", "document")
        return None if followed else Refusal(403, "the request comes from another web page (Sec-Fetch-Site)")
    if "origin" in headers:
        return None
    if headers.of_browser:
        changing = method in CHANGING or scope["type"] == "websocket"
        missing = Refusal(403, "the request of a browser has no Origin header")
        return missing if changing else None
    if link or "referer" not in headers:
        return None  # older browsers send only the referer
    own = _is_own(headers("referer"), headers("host"), bare=False)
    return None if own else Refusal(403, "the request comes from another web page (Referer)")


def _not_plain(scope: Scope, headers: _Headers, rules: Rules) -> Refusal | None:
    if scope["type"] != "http" or rules.any_form:
        return None
    method = scope["method"]
    if method not in (*READING, *CHANGING):
        return Refusal(405, "the method is not supported", allow=", ".join((*READING, *CHANGING)))
    if method in READING and scope["path"] in rules.operations and scope["query_string"]:
        return Refusal(405, "GraphQL is executed by POST only", allow="POST")
    # This also stops forms and scripts in older browsers without these headers: a page may send JSON to
    # another server only if that server allows it.
    if method == "POST" and headers("content-type").partition(";")[0].strip().lower() != "application/json":
        return Refusal(415, "a POST must be JSON, with Content-Type: application/json")
    return None


def _is_page(path: str, rules: Rules) -> bool:
    first = path.lstrip("/").partition("/")[0]
    return first not in rules.data and (rules.pages is None or first in rules.pages)


def _is_own(address: str, host: str, *, bare: bool) -> bool:
    """Whether a URL belongs to the server named by ``host``; ``bare``: it is an Origin."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    default = DEFAULT_PORTS.get(parts.scheme)
    if default is None or "@" in parts.netloc or (bare and (parts.path or parts.query or parts.fragment)):
        return False
    return _with_port(parts.netloc, default) == _with_port(host, default)


def _with_port(host: str, default: str) -> str:
    has_port = host.rpartition("]")[2].count(":") == 1
    return (host if has_port else f"{host}:{default}").lower()


def _with_headers(send: Send) -> Send:
    """Add the headers to every response that forbid other pages to embed or read it."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [
                (name, value)
                for name, value in message.get("headers", [])
                if not name.lower().startswith(b"access-control-")
            ]
            present = {name.lower() for name, _ in own} - {
                b"content-security-policy"
            }  # two are both in force
            added = [pair for pair in RESPONSE_HEADERS if pair[0] not in present]
            message = {**message, "headers": [*own, *added]}
        await send(message)

    return send_with_headers
