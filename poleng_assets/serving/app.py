"""The HTTP surface: routes, who may ask, and what an error may say.

Nothing of a body ever stands in a log or in an error, and no access log is kept: what is asked is answers
of people. An unexpected fault is logged by its kind and its place in the code: its words may repeat them.
"""

import asyncio
import hashlib
import json
import logging
import os
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from poleng_assets.serving import openapi
from poleng_assets.serving.champion_watcher import Seen
from poleng_assets.serving.loaded_champion import Champion
from poleng_assets.serving.prometheus import CONTENT_TYPE, Metrics
from poleng_assets.serving.requests import FAULTS_TOLD, Asked, NotUnderstood, Reader, Refused, TooMany
from poleng_assets.study.schema import Study

log = logging.getLogger("poleng.serve")
ROUTES = ("/predict", "/model", "/health", "/health/live", "/metrics", "/openapi.json")
OPEN = ("/health", "/health/live")  # for whoever has to restart it: a token is not asked for
BYTES_PER_ROW, BYTES_BESIDE = 4_096, 65_536
BODY_SECONDS = 30.0
# Bodies are kept in memory while they come in, and while they wait for a core.
BODY_MEMORY, MOST_BODIES = 2**28, 64
LOADING_SECONDS, BUSY_SECONDS = 5, 1
GONE = 499  # who asked did not wait for the answer


def build_app(
    study: Study,
    seen: Callable[[], Seen],
    *,
    max_rows: int,
    token: str = "",
    clock: Callable[[], float] = time.time,
) -> FastAPI:
    """Build the application.

    Args:
        seen: what the watch has seen last.
        max_rows: respondents that one request may hold.
        token: that must be shown for all but health; empty: everybody who reaches the port may ask.
        clock: seconds since 1970.
    """
    # The pages that show an OpenAPI description load their script from a CDN: there are none. A redirect to
    # the same address without its last slash would repeat the name that was asked for.
    app = FastAPI(title=study.title, docs_url=None, redoc_url=None, redirect_slashes=False, version="1")
    app.state.metrics = metrics = Metrics(seen, len(study.feature_names), clock)
    _add_prediction(app, study, seen, max_rows, bool(token))
    _add_state(app, seen, clock, bool(token))
    openapi.finish(app, tuple(path for path in ROUTES if path not in OPEN) if token else ())
    app.add_middleware(_Boundary, metrics=metrics, token=token)
    return app


def _add_prediction(app: FastAPI, study: Study, seen: Callable[[], Seen], max_rows: int, token: bool) -> None:
    """Add the route that scores people; ``token``: whether it is asked for."""
    metrics: Metrics = app.state.metrics
    reader = Reader(study, max_rows)
    limiter = anyio.CapacityLimiter(os.cpu_count() or 1)
    bodies = _Bodies(BYTES_BESIDE + max_rows * BYTES_PER_ROW)

    @app.post(
        "/predict",
        openapi_extra=openapi.request_body(study, max_rows),
        responses={
            **openapi.json_answer("Everybody was scored.", openapi.predictions(study)),
            **openapi.errors(413, 415, 503, token=token),
            **openapi.broken_request(),
        },
        response_model=None,
    )
    async def predict(request: Request) -> Response:
        """Score one respondent or many with the champion."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "say Content-Type: application/json, and send JSON")
        async with bodies.of(request) as body:
            champion = seen().champion
            if champion is None:
                raise _nobody(seen())
            try:
                answer = await anyio.to_thread.run_sync(_predict, reader, champion, body, limiter=limiter)
            except NotUnderstood as error:
                raise HTTPException(400, str(error)) from None
            except TooMany as error:
                raise HTTPException(413, str(error)) from None
            except Refused as error:
                metrics.refused.inc(len(error.faults))
                return _refusal(error)
        predictions = answer["predictions"]
        metrics.scored(sum(one["contact"] for one in predictions), len(predictions))
        return _json(answer)


def _add_state(app: FastAPI, seen: Callable[[], Seen], clock: Callable[[], float], token: bool) -> None:
    """Add the routes that tell how the server fares and which version answers."""
    metrics: Metrics = app.state.metrics
    errors = partial(openapi.errors, token=token)
    facts = openapi.json_answer("What there is to tell of it.", {"type": "object"})

    @app.get("/model", responses={**facts, **errors(503)}, response_model=None)
    async def model() -> Response:
        """Tell which version answers, how it was made, how good it is, and what it knows."""
        champion = seen().champion
        if champion is None:
            raise _nobody(seen())
        return _json({**champion.facts, "loaded_at": champion.loaded_at.isoformat()})

    open_to_all = openapi.errors(token=False)

    @app.get("/health", responses={**open_to_all, **openapi.health_answers()}, response_model=None)
    async def health() -> Response:
        """Tell whether people can be scored (200) or not (503), and what is not as it should be."""
        now = seen()
        return _json(_health(now, clock()), 200 if now.champion else 503)

    @app.get("/health/live", responses={**open_to_all, **openapi.live_answers()}, response_model=None)
    async def live() -> Response:
        """Tell whether the process works (200) or has to be started again (503)."""
        return _json({"alive": not seen().replaced}, 503 if seen().replaced else 200)

    @app.get(
        "/metrics",
        responses={**openapi.text_answer("Figures for Prometheus."), **errors()},
        response_model=None,
    )
    async def scrape() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(metrics.as_text(), media_type=CONTENT_TYPE)

    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> Response:
        return _json({"detail": error.detail}, error.status_code, error.headers)


class _Boundary:
    """Around all routes: asks for the token, counts, and lets no unexpected fault out with its words."""

    def __init__(self, app: ASGIApp, metrics: Metrics, token: str) -> None:
        self._app, self._metrics = app, metrics
        self._digest = _digest(token) if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Neither a proxy nor a browser is to keep what was said of a person.
                message["headers"] = [*message["headers"], (b"cache-control", b"no-store")]
            await send(message)

        try:
            if self._may_ask(scope):
                await self._app(scope, receive, sending)
            else:
                refusal = _json(
                    {"detail": "say Authorization: Bearer and the token of this server"},
                    401,
                    {"WWW-Authenticate": "Bearer"},
                )
                await refusal(scope, receive, sending)
        except ClientDisconnect:
            status = GONE
        except Exception as error:
            # The last boundary: handed on, the server below would log the words of the error.
            log.error("A fault of the server, %s", _place(error))
            if not status:
                words = "a fault of the server, which its log tells of; nothing of the request is kept"
                await _json({"detail": words}, 500)(scope, receive, sending)
        finally:
            route = scope["path"] if scope["path"] in ROUTES else "other"
            self._metrics.requests.labels(route, str(status or GONE)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)

    def _may_ask(self, scope: Scope) -> bool:
        if self._digest is None or scope["path"] in OPEN:
            return True
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, given = shown[0].partition(b" ") if len(shown) == 1 else (b"", b"", b"")
        # Hashes have one length: how long it takes to compare them tells nothing of the token.
        right = secrets.compare_digest(hashlib.sha256(given.strip()).digest(), self._digest)
        return right and scheme.lower() == b"bearer"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("ascii")).digest()


def _predict(reader: Reader, champion: Champion, body: bytes) -> dict[str, Any]:
    asked: Asked = reader.read(body)
    return champion.answer(asked)


class _Bodies:
    """The bodies that are in memory: each has a size and a time, and there are only so many."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._most = max(4, min(MOST_BODIES, BODY_MEMORY // max_bytes))
        self._coming: dict[asyncio.Timeout, None] = {}  # the oldest first
        self._whole = 0

    @asynccontextmanager
    async def of(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the body of a request, and count it until it has been dealt with.

        Raises:
            HTTPException: it is too large, comes too slowly, or too many wait already.
        """
        if self._whole >= self._most:
            raise HTTPException(
                503, "too many ask at once: ask again in a moment", {"Retry-After": str(BUSY_SECONDS)}
            )
        body = await self._read(request)
        self._whole += 1
        try:
            yield body
        finally:
            self._whole -= 1

    async def _read(self, request: Request) -> bytes:
        said = request.headers.get("content-length", "")
        if said.isdecimal() and int(said) > self._max_bytes:
            raise self._too_large()
        parts, size = [], 0
        try:
            async with asyncio.timeout(BODY_SECONDS) as deadline:
                self._begin(deadline)
                try:
                    async for part in request.stream():
                        size += len(part)
                        if size > self._max_bytes:
                            raise self._too_large()
                        parts.append(part)
                finally:
                    self._coming.pop(deadline, None)
        except TimeoutError:
            words = (
                f"the request did not come within {BODY_SECONDS:.0f} s, or the slowest had to go because too "
                "many came at once"
            )
            raise HTTPException(408, words, {"Connection": "close"}) from None
        return b"".join(parts)

    def _begin(self, deadline: asyncio.Timeout) -> None:
        """Count a body that begins to come; of too many, the one that began first has to go.

        An honest client sends its body in one go, and is never among the slowest for long.
        """
        if len(self._coming) >= self._most:
            slowest = next(iter(self._coming))
            del self._coming[slowest]
            slowest.reschedule(asyncio.get_running_loop().time())
        self._coming[deadline] = None

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"a request may have {self._max_bytes:,} bytes, this one has more")


def _nobody(seen: Seen) -> HTTPException:
    return HTTPException(
        503, f"Nobody can be scored: {seen.doubt or seen.failed}", {"Retry-After": str(LOADING_SECONDS)}
    )


def _refusal(error: Refused) -> Response:
    told = [vars(fault) for fault in error.faults[:FAULTS_TOLD]]
    words = f"{error}; nobody of this request was scored"
    if len(told) < len(error.faults):
        words += f". The first {FAULTS_TOLD} are told"
    return _json({"detail": words, "errors": told}, 422)


def _health(seen: Seen, now: float) -> dict[str, Any]:
    champion = seen.champion
    facts: dict[str, Any] = {"alive": not seen.replaced, "ready": champion is not None}
    if champion is not None:
        facts |= {
            "model_version": champion.version,
            "loaded_at": champion.loaded_at.isoformat(),
            "seconds_since_loaded": round(now - champion.loaded_at.timestamp(), 1),
            "trained_at": champion.trained_at.isoformat() if champion.trained_at else None,
        }
    facts["not_as_it_should_be"] = [words for words in (seen.doubt, seen.failed) if words]
    facts["looked_at"] = datetime.fromtimestamp(seen.looked_at, UTC).isoformat() if seen.looked_at else None
    return facts


def _json(content: Any, status: int = 200, headers: Any = None) -> Response:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return Response(text, status, headers, media_type="application/json")


def _place(error: Exception) -> str:
    """Return the kind of an error and where it was raised; its words may repeat what was asked."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}, line {frames[-1].lineno}, in {frames[-1].name}" if frames else "unknown"
    return f"{type(error).__name__} in {place}"
