"""The HTTP API: routes, authorization and errors.

No part of a request body appears in a log or in an error, and there is no access log: requests contain
answers of people. An unexpected error is logged by its class and location only: its message may contain them.
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
from poleng_assets.serving.requests import FAULTS_SHOWN, Asked, NotUnderstood, Reader, Refused, TooMany
from poleng_assets.study.schema import Study

log = logging.getLogger("poleng.serve")
ROUTES = ("/predict", "/model", "/health", "/health/live", "/metrics", "/openapi.json")
OPEN = ("/health", "/health/live")  # for health checks: no token is required
BYTES_PER_ROW, BYTES_BESIDE = 4_096, 65_536
BODY_SECONDS = 30.0
# Bodies stay in memory while they are received, and while they wait for a core.
BODY_MEMORY, MOST_BODIES = 2**28, 64
LOADING_SECONDS, BUSY_SECONDS = 5, 1
CLIENT_CLOSED_REQUEST = 499  # the client did not wait for the response


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
        seen: returns the last state of the champion watcher.
        max_rows: most respondents in one request.
        token: required for all routes but health; empty: no token is required.
        clock: seconds since 1970.
    """
    # No pages for the OpenAPI description: they load their script from a CDN. No redirect for a trailing
    # slash: it would repeat the requested host name.
    app = FastAPI(title=study.title, docs_url=None, redoc_url=None, redirect_slashes=False, version="1")
    app.state.metrics = metrics = Metrics(seen, len(study.feature_names), clock)
    _add_prediction(app, study, seen, max_rows, bool(token))
    _add_state(app, seen, clock, bool(token))
    openapi.finish(app, tuple(path for path in ROUTES if path not in OPEN) if token else ())
    app.add_middleware(_Boundary, metrics=metrics, token=token)
    return app


def _add_prediction(app: FastAPI, study: Study, seen: Callable[[], Seen], max_rows: int, token: bool) -> None:
    """Add the route that scores people; ``token``: whether one is required."""
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
            raise HTTPException(415, "send JSON with Content-Type: application/json")
        async with bodies.of(request) as body:
            champion = seen().champion
            if champion is None:
                raise _not_ready(seen())
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
        metrics.scored(sum(prediction["contact"] for prediction in predictions), len(predictions))
        return _json(answer)


def _add_state(app: FastAPI, seen: Callable[[], Seen], clock: Callable[[], float], token: bool) -> None:
    """Add the routes for the health, the metrics and the model of the server."""
    metrics: Metrics = app.state.metrics
    errors = partial(openapi.errors, token=token)
    facts = openapi.json_answer("Facts about the model.", {"type": "object"})

    @app.get("/model", responses={**facts, **errors(503)}, response_model=None)
    async def model() -> Response:
        """Return the serving version, its training, its metrics and its vocabulary."""
        champion = seen().champion
        if champion is None:
            raise _not_ready(seen())
        return _json({**champion.facts, "loaded_at": champion.loaded_at.isoformat()})

    open_to_all = openapi.errors(token=False)

    @app.get("/health", responses={**open_to_all, **openapi.health_answers()}, response_model=None)
    async def health() -> Response:
        """Report whether people can be scored (200) or not (503), and current problems."""
        state = seen()
        return _json(_health(state, clock()), 200 if state.champion else 503)

    @app.get("/health/live", responses={**open_to_all, **openapi.live_answers()}, response_model=None)
    async def live() -> Response:
        """Report whether the process works (200) or must be restarted (503)."""
        return _json({"alive": not seen().replaced}, 503 if seen().replaced else 200)

    @app.get(
        "/metrics",
        responses={**openapi.text_answer("Metrics for Prometheus."), **errors()},
        response_model=None,
    )
    async def scrape() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(metrics.as_text(), media_type=CONTENT_TYPE)

    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> Response:
        return _json({"detail": error.detail}, error.status_code, error.headers)


class _Boundary:
    """Wraps all routes: checks the token, counts requests, and hides the message of unexpected errors."""

    def __init__(self, app: ASGIApp, metrics: Metrics, token: str) -> None:
        self._app, self._metrics = app, metrics
        self._digest = _digest(token) if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def send_without_cache(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Neither a proxy nor a browser may store the scores of a person.
                message["headers"] = [*message["headers"], (b"cache-control", b"no-store")]
            await send(message)

        try:
            if self._may_ask(scope):
                await self._app(scope, receive, send_without_cache)
            else:
                refusal = _json(
                    {"detail": "send Authorization: Bearer with the token of this server"},
                    401,
                    {"WWW-Authenticate": "Bearer"},
                )
                await refusal(scope, receive, send_without_cache)
        except ClientDisconnect:
            status = CLIENT_CLOSED_REQUEST
        except Exception as error:
            # The last boundary: uvicorn would log the message of the error.
            log.error("Internal error: %s", _location(error))
            if not status:
                message = "internal error; the log of the server has its location, and no part of the request"
                await _json({"detail": message}, 500)(scope, receive, send_without_cache)
        finally:
            route = scope["path"] if scope["path"] in ROUTES else "other"
            self._metrics.requests.labels(route, str(status or CLIENT_CLOSED_REQUEST)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)

    def _may_ask(self, scope: Scope) -> bool:
        if self._digest is None or scope["path"] in OPEN:
            return True
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
        # Hashes have the same length: the time of their comparison reveals nothing about the token.
        is_valid = secrets.compare_digest(hashlib.sha256(token.strip()).digest(), self._digest)
        return is_valid and scheme.lower() == b"bearer"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("ascii")).digest()


def _predict(reader: Reader, champion: Champion, body: bytes) -> dict[str, Any]:
    asked: Asked = reader.read(body)
    return champion.answer(asked)


class _Bodies:
    """The request bodies in memory, with limits for their size, their time and their number."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._most = max(4, min(MOST_BODIES, BODY_MEMORY // max_bytes))
        self._incoming: dict[asyncio.Timeout, None] = {}  # the oldest first
        self._received = 0

    @asynccontextmanager
    async def of(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the body of a request, and count it until the request is handled.

        Raises:
            HTTPException: it is too large or too slow, or too many requests wait.
        """
        if self._received >= self._most:
            raise HTTPException(
                503, "too many requests: try again in a moment", {"Retry-After": str(BUSY_SECONDS)}
            )
        body = await self._read(request)
        self._received += 1
        try:
            yield body
        finally:
            self._received -= 1

    async def _read(self, request: Request) -> bytes:
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_bytes:
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
                    self._incoming.pop(deadline, None)
        except TimeoutError:
            message = (
                f"the request was not received within {BODY_SECONDS:.0f} s, or was the slowest of too many "
                "requests"
            )
            raise HTTPException(408, message, {"Connection": "close"}) from None
        return b"".join(parts)

    def _begin(self, deadline: asyncio.Timeout) -> None:
        """Count a new incoming body; if there are too many, cancel the oldest one.

        A normal client sends its body at once, and is never the slowest for long.
        """
        if len(self._incoming) >= self._most:
            slowest = next(iter(self._incoming))
            del self._incoming[slowest]
            slowest.reschedule(asyncio.get_running_loop().time())
        self._incoming[deadline] = None

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the request is larger than {self._max_bytes:,} bytes")


def _not_ready(seen: Seen) -> HTTPException:
    return HTTPException(
        503, f"No one can be scored: {seen.doubt or seen.failed}", {"Retry-After": str(LOADING_SECONDS)}
    )


def _refusal(error: Refused) -> Response:
    shown = [vars(fault) for fault in error.faults[:FAULTS_SHOWN]]
    detail = f"{error}; no one in this request was scored"
    if len(shown) < len(error.faults):
        detail += f". The first {FAULTS_SHOWN} are shown"
    return _json({"detail": detail, "errors": shown}, 422)


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
    facts["not_as_it_should_be"] = [problem for problem in (seen.doubt, seen.failed) if problem]
    facts["looked_at"] = datetime.fromtimestamp(seen.looked_at, UTC).isoformat() if seen.looked_at else None
    return facts


def _json(content: Any, status: int = 200, headers: Any = None) -> Response:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return Response(text, status, headers, media_type="application/json")


def _location(error: Exception) -> str:
    """Return the class and the location of an error; its message may repeat parts of the request."""
    frames = traceback.extract_tb(error.__traceback__)
    location = (
        f"{frames[-1].filename}, line {frames[-1].lineno}, in {frames[-1].name}" if frames else "unknown"
    )
    return f"{type(error).__name__} in {location}"
