"""Limits for the connections of ``poleng serve``: their number, time and size.

Slow clients could block a server that waits for them. Therefore headers have a time and a size limit, and if
there are too many connections, the one that the server has waited for longest is closed. A client that sends
its complete request at once is never closed. So ``/health`` responds while a thousand connections are open,
also on loopback, where all clients share one address.

``app.py`` has the limits for bodies, which it reads.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import resource
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

HEAD_BYTES = 16_384
HEAD_SECONDS = 10.0
STALLED_SECONDS = 10.0
LINGER_SECONDS = 2.0
BODY_BEGINS, BODY_BEGINS_SECONDS = 32_768, 0.5
# A normal client sends chunks of some thousand bytes; a short chunk costs as much work as a long one.
CHUNKS, BYTES_PER_CHUNK = 1_000, 64
MOST_CONNECTIONS, MOST_PER_PEER, MOST_BODIES = 512, 256, 64
MOST_WAITING = 1_024
DESCRIPTORS, OWN_DESCRIPTORS = 4_096, 256
Reason = Literal["slow", "crowded", "malformed", "too_large"]
REASONS: tuple[Reason, ...] = ("slow", "crowded", "malformed", "too_large")
_MESSAGES = {
    408: f"the headers were not received within {HEAD_SECONDS:.0f} s",
    431: f"the headers are larger than {HEAD_BYTES:,} bytes",
}


@dataclass(frozen=True)
class Room:
    """The largest numbers of connections.

    Attributes:
        total: open at a time.
        per_peer: open at a time from one address (IPv6: from one /64 network).
        queue: waiting in the kernel to be accepted.
        bodies: with a partly received body.
    """

    total: int = MOST_CONNECTIONS
    per_peer: int = MOST_PER_PEER
    queue: int = MOST_WAITING
    bodies: int = MOST_BODIES


def make_room() -> Room:
    """Raise the limit of open files of this process, and return how many connections it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    # All connections of the queue are accepted at once before one is closed.
    free = (DESCRIPTORS if soft == resource.RLIM_INFINITY else soft) - OWN_DESCRIPTORS
    total = max(8, min(MOST_CONNECTIONS, free // 3))
    return Room(total, max(4, min(MOST_PER_PEER, total // 2)), max(8, min(MOST_WAITING, free - total)))


class Connections:
    """All open connections of a server, ordered by how long it has waited for them."""

    def __init__(self, room: Room, refused: Callable[[Reason], None] = lambda _: None) -> None:
        self._room, self.refused = room, refused
        self._of_peer: dict[str, dict[BoundedProtocol, None]] = {}
        self._waiting: dict[BoundedProtocol, None] = {}
        self._bodies: dict[BoundedProtocol, None] = {}

    def __len__(self) -> int:
        return sum(map(len, self._of_peer.values()))

    def enter(self, connection: BoundedProtocol) -> None:
        """Add a connection, and close the longest waiting one if there are too many."""
        own = self._of_peer.setdefault(connection.peer, {})
        if len(own) >= self._room.per_peer:
            self._drop(own)
        elif len(self) >= self._room.total:
            self._drop(max(self._of_peer.values(), key=len))
        own = self._of_peer.setdefault(connection.peer, {})
        own[connection] = None
        self._waiting[connection] = None

    def leave(self, connection: BoundedProtocol) -> None:
        """Remove a connection, if it is known."""
        self._waiting.pop(connection, None)
        self._bodies.pop(connection, None)
        own = self._of_peer.get(connection.peer, {})
        own.pop(connection, None)
        if not own:
            self._of_peer.pop(connection.peer, None)

    def waits(self, connection: BoundedProtocol, waits: bool) -> None:
        """Record whether the server waits for the client now."""
        if not waits:
            self._waiting.pop(connection, None)
        elif connection in self._of_peer.get(connection.peer, {}):
            self._waiting.setdefault(connection)

    def expects_body(self, connection: BoundedProtocol, expects: bool) -> None:
        """Record whether a part of a body is missing; if there are too many such bodies, close the oldest."""
        if not expects:
            self._bodies.pop(connection, None)
        elif connection not in self._bodies and connection in self._of_peer.get(connection.peer, {}):
            if len(self._bodies) >= self._room.bodies:
                self._drop(self._bodies)
            self._bodies[connection] = None

    def _drop(self, among: dict[BoundedProtocol, None]) -> None:
        """Close the connection that the server has waited for longest, if it waits for any."""
        longest = next((connection for connection in self._waiting if connection in among), None)
        if longest is not None:
            self.leave(longest)
            self.refused("crowded")
            longest.abort()


class _Parser(h11.Connection):
    """h11's parser, which also stores the status for an error, and counts chunks and bytes."""

    fault = 400
    _chunks = _bytes = 0

    def next_event(self) -> Any:
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                self._chunks = self._bytes = 0
                names = [name for name, _ in event.headers]
                if b"content-length" in names and b"transfer-encoding" in names:
                    # A proxy in front of this server may use the other one: https://www.rfc-editor.org/rfc/rfc9112#section-6.1
                    raise h11.RemoteProtocolError("two lengths", error_status_hint=400)
                # h11 has no limit for headers that arrive in one piece.
                size = len(event.target) + sum(len(name) + len(value) + 4 for name, value in event.headers)
                if size > HEAD_BYTES:
                    raise h11.RemoteProtocolError("headers too large", error_status_hint=431)
            elif isinstance(event, h11.Data):
                self._chunks += 1
                self._bytes += len(event.data)
                if self._chunks > CHUNKS and self._bytes < self._chunks * BYTES_PER_CHUNK:
                    raise h11.RemoteProtocolError("chunks too small", error_status_hint=400)
        except h11.RemoteProtocolError as error:
            self.fault = error.error_status_hint
            raise
        return event


class BoundedProtocol(H11Protocol):
    """One connection with its limits; uvicorn's own limits neither the size of headers nor their time."""

    def __init__(self, *args: Any, connections: Connections, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._served, self.app = self.app, self._serve
        self.conn = _Parser(h11.SERVER, HEAD_BYTES)
        self._connections = connections
        self._head_deadline: asyncio.TimerHandle | None = None
        self._end_deadline: asyncio.TimerHandle | None = None
        self.peer = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the first request."""
        super().connection_made(transport)
        self.peer = _peer(self.client)
        self._connections.enter(self)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection and its timers."""
        self._connections.leave(self)
        self._head_arrived()
        self._set_end(None)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read data; the headers of a started request have a deadline."""
        super().data_received(data)
        if not self._answering and self._head_deadline is None:
            self._expect_head()

    def handle_events(self) -> None:
        """Handle the received data, and record whether more is expected."""
        super().handle_events()
        if self._answering:
            self._head_arrived()
        if not (
            self.transport.is_closing() or self.flow.write_paused or self.conn.their_state is h11.SEND_BODY
        ):
            self._set_end(None)
        self._connections.waits(self, self._is_waiting)
        self._connections.expects_body(self, self._answering and self.cycle.more_body)

    def on_response_complete(self) -> None:
        """Continue with the next request; limit the time for the rest of an unread body."""
        if self.transport.is_closing():
            self._set_end(STALLED_SECONDS)
        elif self.conn.their_state is h11.SEND_BODY:
            self._set_end(LINGER_SECONDS)
        super().on_response_complete()
        self._connections.waits(self, self._is_waiting)

    def pause_writing(self) -> None:
        """Set a deadline for a client that does not read its response."""
        super().pause_writing()
        self._set_end(STALLED_SECONDS)
        self._connections.waits(self, True)

    def resume_writing(self) -> None:
        """Continue after the client has read."""
        super().resume_writing()
        if self.transport is not None and not self.transport.is_closing():
            self._set_end(None)
            self._connections.waits(self, self._is_waiting)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, even if its client has not read the last response."""
        super().timeout_keep_alive_handler()
        self._set_end(STALLED_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Refuse an invalid request with an error in JSON instead of uvicorn's text."""
        fault = self.conn.fault  # type: ignore[attr-defined]
        self._connections.refused("too_large" if fault == 431 else "malformed")
        self._refuse(fault)

    def abort(self) -> None:
        """Close the connection at once and discard unsent data."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self.cycle is not None:
            self.cycle.disconnected = True
        self.transport.abort()

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request to the application, unless its connection was closed before.

        The application costs much more than this class: it starts when a body is complete or large, or after
        a moment of waiting, and so rarely for connections that are closed.
        """
        cycle = self.cycle
        if cycle.more_body and not cycle.waiting_for_100_continue:
            with suppress(TimeoutError):
                async with asyncio.timeout(BODY_BEGINS_SECONDS):
                    while (
                        cycle.more_body and len(cycle.body) < BODY_BEGINS and not self.transport.is_closing()
                    ):
                        cycle.message_event.clear()
                        await cycle.message_event.wait()
            cycle.message_event.set()  # the application waits for it as well
        if not self.transport.is_closing():
            await self._served(scope, receive, send)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_waiting(self) -> bool:
        return not self._answering or self.cycle.more_body or self.flow.write_paused

    def _expect_head(self) -> None:
        self._head_deadline = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _head_arrived(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _too_slow(self) -> None:
        self._head_deadline = None
        if self.transport.is_closing():
            return
        self._connections.refused("slow")
        if self.conn.trailing_data[0]:
            self._refuse(408)
        else:
            # A browser that opened a connection in advance would take this response for a later request.
            self.transport.close()

    def _set_end(self, seconds: float | None) -> None:
        if self._end_deadline is not None:
            self._end_deadline.cancel()
        self._end_deadline = None if seconds is None else self.loop.call_later(seconds, self.abort)

    def _refuse(self, status: int) -> None:
        """Send the reason once, and close the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            detail = _MESSAGES.get(status, "this is not an HTTP request")
            body = json.dumps({"detail": detail}).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                (b"connection", b"close"),
            ]
            response = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self._set_end(LINGER_SECONDS)


def _peer(client: tuple[str, int] | None) -> str:
    """Return the address of a client, for IPv6 its /64 network: one client has 2^64 addresses."""
    if client is None:
        return ""
    address = ipaddress.ip_address(client[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(getattr(address, "ipv4_mapped", None) or address)
