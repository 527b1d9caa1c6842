"""A request that went to a connector and may not have arrived: when it is looked at, and what comes of it."""

import asyncio
import socket
import struct
from typing import Any

import pytest
from gateway_fakes import HOST, ROUTE, permit_of

from ztproxy.model.request import AccessRequest, Context, Evidence, Resource
from ztproxy.model.resource import Upstream
from ztproxy.net.clock import FixedClock
from ztproxy.net.dial import Dialler
from ztproxy.net.outbox import Outbox
from ztproxy.net.wheel import SPOKES, Wheel
from ztproxy.upstream.connection import UpstreamConnection
from ztproxy.upstream.receiver import Receiver
from ztproxy.upstream.request import Request
from ztproxy.upstream.upstreams import FRESH, Upstreams
from ztproxy.wire.http1 import ResponseHead

UPSTREAM = Upstream(scheme="http", host="127.0.0.1", port=9001, connector="partner-site")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Sock:
    """Its kernel says: so much unacknowledged, and nothing heard for so many ms."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.waiting, self.silence = 0, 0

    def getsockopt(self, *_: int) -> bytes:
        info = bytearray(148)
        struct.pack_into("I", info, 24, self.waiting)
        struct.pack_into("I", info, 56, self.silence)
        return bytes(info)


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        self.sock = Sock()
        super().__init__({"socket": self.sock})
        self.sent = b""
        self.over = ""

    def write(self, data: Any) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.over = self.over or "aborted"

    def close(self) -> None:
        self.over = self.over or "closed"

    def is_closing(self) -> bool:
        return bool(self.over)


class Carriage:
    def __init__(self, lent: bool) -> None:
        self.lent = lent
        self.doubts = 0

    def lost(self) -> None: ...

    def unheard(self) -> None:
        self.doubts += 1


class Nobody(Receiver):
    def responded(self, head: ResponseHead, body: bytes, ended: bool) -> None: ...

    def received(self, body: bytes, ended: bool) -> None: ...

    def failed(self, code: str, flaw: str = "") -> None: ...

    def flow(self, full: bool) -> None: ...


class Stage:
    """A pool with one idle connection to a connector, and a clock that is ours."""

    def __init__(self, *, lent: bool = False) -> None:
        self.clock = FixedClock()
        self.wheel = Wheel(self.clock)
        self.pool = Upstreams(Dialler({}), wheel=self.wheel, outbox=Outbox())
        self.wire, self.carriage = Wire(), Carriage(lent)
        connection = UpstreamConnection(self.pool, UPSTREAM, trusted=False)
        connection.carried = self.carriage
        connection.connection_made(self.wire)
        self.connection = connection
        self.pool.idle(connection)

    def ask(self, *, replayable: bool = True) -> None:
        route = ROUTE.replaced(upstream=UPSTREAM)
        context = Context(request_id="0" * 32, ip="192.0.2.7", host=HOST, path="/x")
        permit = permit_of(AccessRequest(Evidence(), Resource("Route", "app", route), "GET", context), route)
        head = b"GET /x HTTP/1.1\r\nHost: app.example\r\n\r\n"
        self.pool.open(permit, Request(head, True, replayable), Nobody())

    def pass_(self, seconds: float) -> None:
        for _ in range(int(seconds * SPOKES)):
            self.clock.advance(1 / SPOKES)
            self.wheel.look()


async def test_what_does_not_arrive_is_given_up_within_two_seconds() -> None:
    stage = Stage()
    stage.ask()
    await asyncio.sleep(0)
    assert stage.wire.sent
    stage.wire.sock.waiting, stage.wire.sock.silence = 1, 1500
    stage.pass_(2.1)
    assert (stage.wire.over, stage.carriage.doubts) == ("aborted", 1)


async def test_what_must_not_be_sent_twice_waits_for_the_link() -> None:
    stage = Stage()
    stage.ask(replayable=False)
    stage.wire.sock.waiting, stage.wire.sock.silence = 1, 1500
    stage.pass_(2.1)
    assert (stage.wire.over, stage.carriage.doubts) == ("", 1)


async def test_what_is_on_its_way_is_looked_at_again() -> None:
    """Something was heard just before the link was cut, or the look came early by our clock."""
    stage = Stage()
    stage.ask()
    stage.wire.sock.waiting, stage.wire.sock.silence = 1, 890
    stage.pass_(2.1)
    assert (stage.wire.over, stage.carriage.doubts) == ("", 0)
    stage.wire.sock.silence = 1900
    stage.pass_(2.1)
    assert (stage.wire.over, stage.carriage.doubts) == ("aborted", 1)


async def test_what_has_arrived_may_take_its_time() -> None:
    stage = Stage()
    stage.ask()
    await asyncio.sleep(0)
    stage.wire.sock.silence = 60_000
    stage.pass_(60)
    assert (stage.wire.over, stage.carriage.doubts) == ("", 0)
    stage.connection.data_received(ANSWER)
    assert len(stage.pool) == 1


@pytest.mark.parametrize("looked", [True, False], ids=["by the wheel", "before the wheel comes by"])
async def test_what_is_borrowed_and_idle_is_soon_given_up(looked: bool) -> None:
    """Of a link that is cut behind who lent it, no kernel of ours knows."""
    stage = Stage(lent=True)
    stage.pass_(FRESH / 2)
    stage.ask()
    await asyncio.sleep(0)
    assert stage.wire.sent, "who was in use just now is used again"
    stage.connection.data_received(ANSWER)
    assert len(stage.pool) == 1
    stage.wire.sent = b""
    if looked:
        stage.pass_(2 * FRESH + 0.2)
        assert stage.wire.over == "closed"
    else:
        stage.clock.advance(FRESH + 0.2)
        stage.wheel.now = stage.clock.monotonic()
    stage.ask()
    await asyncio.sleep(0)
    assert (stage.wire.over, stage.wire.sent) == ("closed", b"")


async def test_what_is_ours_and_idle_is_kept() -> None:
    stage = Stage()
    stage.pass_(30)
    stage.ask()
    await asyncio.sleep(0)
    assert stage.wire.sent
