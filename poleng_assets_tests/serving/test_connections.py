"""What slow, endless and malformed peers do to ``poleng serve``: sockets against its server."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from statistics import median

import psutil
import pytest

from poleng_assets.serving import app as app_module
from poleng_assets.serving import connections, server
from poleng_assets.serving.app import BODY_SECONDS, build_app
from poleng_assets.serving.champion_watcher import Seen
from poleng_assets.serving.connections import Connections, Reason, Room, make_room
from poleng_assets.serving.server import build_server
from poleng_assets.study.loading import load_study

GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY_TO_COME = b"Content-Length: 1000\r\n\r\n"


@dataclass
class Running:
    """A server in a thread of this process."""

    port: int
    refused: Counter[Reason]

    def connect(self, *sent: bytes) -> socket.socket:
        peer = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        for part in sent:
            peer.sendall(part)
        return peer

    def connections(self) -> int:
        """Return how many connections the server holds."""
        own = psutil.Process().net_connections("tcp")
        return sum(one.status == "ESTABLISHED" and one.laddr.port == self.port for one in own)

    def health(self) -> float:
        """Ask for health, and return how many seconds it took."""
        begun = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/health/live")
        assert connection.getresponse().status == 200
        connection.close()
        return time.monotonic() - begun


@contextmanager
def running(token: str = "") -> Iterator[Running]:
    refused: Counter[Reason] = Counter()
    app = build_app(load_study(), lambda: Seen(doubt="no model"), max_rows=100, token=token)
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    serving = build_server(app, lambda reason: refused.update([reason]))
    thread = threading.Thread(target=serving.run, args=([listening],))
    thread.start()
    try:
        yield Running(listening.getsockname()[1], refused)
    finally:
        serving.should_exit = True
        thread.join()


@pytest.fixture
def served() -> Iterator[Running]:
    with running() as served:
        yield served


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Shorten time limits for a server that is made afterwards."""

    def shorten(**seconds: float) -> None:
        for name, value in seconds.items():
            module = next(one for one in (connections, server, app_module) if hasattr(one, name))
            monkeypatch.setattr(module, name, value)

    return shorten


def read_all(peer: socket.socket) -> bytes:
    """Read until the server ends the connection."""
    parts = []
    try:
        while part := peer.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        parts.append(b"(reset)")
    return b"".join(parts)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def goes_on(peer: socket.socket) -> bool:
    """Whether the server still waits for a peer."""
    peer.settimeout(0)
    try:
        peer.recv(1)
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
    raise AssertionError("it was answered")


@pytest.mark.parametrize(
    "half",
    [b"", GET, GET + b"X-Slow: " + b"a" * 8_000, POST + BODY_TO_COME + b"{"],
    ids=["nothing", "half headers", "a long header", "half a body"],
)
def test_health_is_answered_within_a_second_while_a_thousand_peers_hang_on(served: Running, half: bytes):
    make_room()  # for the peers, which are in this process as well
    memory = psutil.Process().memory_info().rss
    with ExitStack() as stack:
        for _ in range(1_000):
            stack.enter_context(served.connect(half))
        served.health()  # after those that came before it
        assert median(served.health() for _ in range(5)) < 1
        assert served.connections() <= connections.MOST_PER_PEER
        assert psutil.Process().memory_info().rss - memory < 100_000_000


def test_who_sends_a_whole_request_is_answered_while_others_come_on_and_on(served: Running):
    done = threading.Event()

    def crowd() -> None:
        with ExitStack() as stack:
            while not done.wait(0.001):
                stack.enter_context(served.connect(GET))

    crowding = threading.Thread(target=crowd)
    crowding.start()
    try:
        while not served.refused["crowded"]:
            served.health()
        assert median(served.health() for _ in range(5)) < 1
    finally:
        done.set()
        crowding.join()


def test_one_peer_cannot_take_the_room_of_all():
    class Peer:
        def __init__(self, peer: str) -> None:
            self.peer, self.ended = peer, False

        def abort(self) -> None:
            self.ended = True

    refused: Counter[str] = Counter()
    room = Connections(Room(total=10, per_peer=6), lambda reason: refused.update([reason]))
    quiet = [Peer("quiet") for _ in range(3)]
    many = [Peer("many") for _ in range(40)]
    for one in [*quiet, *many]:
        room.enter(one)  # type: ignore[arg-type]
    assert not any(one.ended for one in quiet)
    assert [one.ended for one in many] == [True] * 34 + [False] * 6
    for one in many[34:]:  # are answered now
        room.waits(one, False)  # type: ignore[arg-type]
    others = [Peer(f"other {number}") for number in range(3)]
    for one in others:
        room.enter(one)  # type: ignore[arg-type]
    assert not any(one.ended for one in many[34:])
    assert refused["crowded"] == 34


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (GET + b"X-Endless: " + b"a" * 400_000, 431),
        (b"GET /" + b"a" * 400_000, 431),
        (GET + b"".join(b"X-%d: 1\r\n" % number for number in range(40_000)), 431),
        (GET + b"X-In-One-Piece: " + b"a" * 30_000 + b"\r\n\r\n", 431),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 400_000, 431),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 4_000, 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (GET + b"Host: twice\r\n\r\n", 400),
        (GET + b"X: a\x00b\r\n\r\n", 400),
        (POST + b"Connection: close\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (GET.replace(b"GET", b"POST") + b"Connection: close\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
    ],
)
def test_what_is_no_request_or_too_large_is_refused_at_once_in_the_form_of_all_errors(
    served: Running, sent: bytes, status: int
):
    begun = time.monotonic()
    with served.connect() as peer:
        with suppress(OSError):  # it may have ended the connection already
            peer.sendall(sent)
        answer = read_all(peer)
    assert time.monotonic() - begun < 3
    if not answer.startswith(b"HTTP"):
        assert answer == b"(reset)"  # sent on while it was refused
        assert served.refused["too_large"] == 1
        return
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status_of(answer) == status
    assert b"application/json" in head
    assert list(json.loads(body.removesuffix(b"(reset)"))) == ["detail"]


def test_headers_have_a_time(quick: Callable[..., None]):
    quick(HEAD_SECONDS=0.3)
    with running() as served, served.connect(GET) as slow, served.connect() as silent:
        for _ in range(3):  # a byte now and then is not enough
            time.sleep(0.05)
            slow.sendall(b"X")
        assert status_of(read_all(slow)) == 408
        assert read_all(silent) == b""
        assert served.refused["slow"] == 2
        with served.connect(GET + b"\r\n") as later:
            assert later.recv(1) == b"H"
            later.sendall(GET)  # the second request of a connection
            time.sleep(0.4)
            assert b"408" in read_all(later)


def test_a_body_has_a_time(quick: Callable[..., None]):
    quick(BODY_SECONDS=0.3)
    with running() as served, served.connect(POST + BODY_TO_COME, b"{") as slow:
        answer = read_all(slow)
    assert status_of(answer) == 408
    assert b"connection: close" in answer.lower()
    assert BODY_SECONDS == 30


def test_of_too_many_slow_bodies_the_oldest_have_to_go_and_honest_ones_come_through(served: Running):
    with ExitStack() as stack:
        slow = [stack.enter_context(served.connect(POST + BODY_TO_COME, b"{")) for _ in range(200)]
        served.health()
        with served.connect(POST + b"Content-Length: 2\r\n\r\n") as honest:
            time.sleep(0.05)
            honest.sendall(b"{}")
            assert status_of(honest.recv(1000)) == 503  # there is no model: it was read to its end
        assert [goes_on(one) for one in slow] == [False] * 137 + [True] * 63


def test_a_body_that_nobody_wants_is_not_read_for_ever(quick: Callable[..., None]):
    quick(LINGER_SECONDS=0.3)
    with running(token="t" * 20) as served, served.connect(POST + BODY_TO_COME) as peer:
        assert status_of(peer.recv(1000)) == 401
        begun = time.monotonic()
        with pytest.raises(OSError, match=r"reset|Broken"):
            while time.monotonic() - begun < 5:
                peer.sendall(b" ")
                time.sleep(0.05)
        assert time.monotonic() - begun < 2


def test_a_refused_body_that_ends_lets_the_connection_be_used_again(quick: Callable[..., None]):
    quick(LINGER_SECONDS=0.2)
    with running(token="t" * 20) as served, served.connect(POST + b"Content-Length: 2\r\n\r\n") as peer:
        assert status_of(peer.recv(1000)) == 401
        peer.sendall(b"{}")
        time.sleep(0.4)
        peer.sendall(GET + b"\r\n")
        assert status_of(peer.recv(1000)) == 200


def test_a_peer_that_does_not_read_its_answers_is_let_go(quick: Callable[..., None]):
    quick(STALLED_SECONDS=0.3)
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 400
    with running() as served, served.connect() as peer:
        peer.sendall(asked)
        served.health()  # after it was taken
        give_up = time.monotonic() + 30
        while served.connections():
            assert time.monotonic() < give_up
            time.sleep(0.1)
        assert len(read_all(peer)) < 300 * 37_000  # what the kernel had taken
        assert served.health() < 1


def test_an_idle_connection_is_ended(quick: Callable[..., None]):
    quick(IDLE_SECONDS=0.2)
    with running() as served, served.connect(GET + b"\r\n") as peer:
        assert status_of(peer.recv(10_000)) == 200
        begun = time.monotonic()
        assert read_all(peer) == b""
        assert time.monotonic() - begun < 2


def test_a_slow_peer_does_not_keep_the_server_from_ending(quick: Callable[..., None]):
    quick(GOODBYE_SECONDS=1)
    with ExitStack() as stack:
        with running() as served:
            for half in (b"", GET, POST + BODY_TO_COME):
                stack.enter_context(served.connect(half))
            served.health()
            begun = time.monotonic()
        assert time.monotonic() - begun < 3


def test_who_has_an_address_of_ipv6_has_a_network_of_them():
    assert connections._peer(("2001:db8:1:2::7", 1)) == connections._peer(("2001:db8:1:2:ffff::9", 2))
    assert connections._peer(("2001:db8:1:3::7", 1)) != connections._peer(("2001:db8:1:2::7", 1))
    assert connections._peer(("::ffff:192.0.2.1", 1)) == connections._peer(("192.0.2.1", 1)) == "192.0.2.1"
    assert connections._peer(("fe80::1%eth0", 1)) == "fe80::/64"
    assert connections._peer(None) == ""


def test_the_process_may_open_as_many_files_as_it_needs(monkeypatch: pytest.MonkeyPatch):
    def room(soft: int, hard: int) -> tuple[Room, list[tuple[int, int]]]:
        asked: list[tuple[int, int]] = []
        monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (soft, hard))
        monkeypatch.setattr(connections.resource, "setrlimit", lambda _, limits: asked.append(limits))
        return make_room(), asked

    unlimited = connections.resource.RLIM_INFINITY
    assert room(1024, 1_048_576) == (Room(), [(4096, 1_048_576)])
    assert room(unlimited, unlimited) == (Room(), [])
    for few in (300, 512, 1024):
        made, asked = room(few, few)
        assert asked == []
        assert 8 <= made.total + made.queue <= few - 16
