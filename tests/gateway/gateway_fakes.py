"""A stage for the gateway without sockets: the real connection, relay and pool between fake transports.

Everything observable is one ordered list of events, so a script also proves the order: authorize before dial,
the outcome's record before the last byte.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from ztproxy.crypto.ids import Entropy, RequestIds
from ztproxy.gateway.connection import Connection
from ztproxy.gateway.crowd import Crowd
from ztproxy.gateway.limits import Limits
from ztproxy.gateway.quotas import Quotas
from ztproxy.gateway.world import InForce, World
from ztproxy.model import ports
from ztproxy.model._seal import SEAL
from ztproxy.model.codes import CODES
from ztproxy.model.decision import Refusal
from ztproxy.model.permit import Permit
from ztproxy.model.record import OutcomeRecord
from ztproxy.model.request import NOWHERE, AccessRequest, ClientCertificate, Peer, Resource, TlsFacts
from ztproxy.model.resource import Upstream
from ztproxy.model.route import Route
from ztproxy.net.clock import FixedClock
from ztproxy.net.dial import Unreachable
from ztproxy.net.outbox import Outbox
from ztproxy.net.sources import Bounds, Source, Sources
from ztproxy.net.wheel import SPOKES, Wheel
from ztproxy.upstream.carriers import Carriers
from ztproxy.upstream.upstreams import Upstreams

HOST = "app.example"
#: What is added to answers that have no date, by the stage's clock.
DATE = b"Date: Fri, 15 Jan 2027 08:00:00 GMT\r\n"
APP = Upstream(scheme="http", host="127.0.0.1", port=9001)
ROUTE = Route(name="app", app="app", host=HOST, prefix="/", upstream=APP, max_body=1 << 20)
PORTAL = Route(
    name="portal",
    app="portal",
    host=HOST,
    prefix="/.ztproxy/",
    upstream=Upstream(scheme="unix", host="/run/portal.sock", port=0),
    portal=True,
)
CERTIFICATE = ClientCertificate(
    kind="device",
    bundle="devices",
    subject="spiffe://corp.example/device/dev_a",
    fingerprint="ab" * 32,
    spki="cd" * 32,
    not_before=0,
    not_after=1 << 62,
    serial="1f",
)
HANDLE = "h" * 43


def numbers() -> Entropy:
    """Return entropy by which request ids are 1, 2, 3 and so on."""
    count = itertools.count(1)
    return lambda size: b"".join(next(count).to_bytes(16) for _ in range(size // 16))


def permit_of(request: AccessRequest, route: Route, **changes: Any) -> Permit:
    values = {
        "decision_id": request.context.request_id,
        "request": request,
        "route": route,
        "principal_id": "demo:carol",
        "issuer": "demo",
        "session_id": "ses_a",
        "device_id": "",
        "handle": "",
        "expires_at": 1 << 62,
        "identity": b"Zt-Principal: demo:carol\r\nZt-Assertion: e.y.J\r\n",
        "obligations": (),
        **changes,
    }
    return Permit(**values, seal=SEAL)


def refusal(code: str, **changes: Any) -> Refusal:
    return Refusal(code=code, status=CODES[code][0], decision_id="0" * 32, **changes)


class Routes(ports.Router):
    def __init__(self, *routes: Route) -> None:
        self.routes = sorted(routes, key=lambda route: -len(route.prefix))

    def match(self, host: str, path: str) -> Resource:
        for route in self.routes:
            if route.host == host and path.startswith(route.prefix):
                return Resource("Route", route.name, route)
        return NOWHERE


class Door(ports.Door):
    """Permits everything that leads somewhere, unless `answer` says otherwise."""

    def __init__(self, events: list[Any]) -> None:
        self.events = events
        self.answer: Callable[[AccessRequest], Any] | None = None
        self.requests: list[AccessRequest] = []
        self.refusals: list[Refusal] = []  # those it was told of
        self.broken = False

    def authorize(self, request: AccessRequest) -> Any:
        self.requests.append(request)
        self.events.append(("authorize", request.action, request.context.path))
        if self.answer is not None:
            return self.answer(request)
        route = request.resource.route
        return permit_of(request, route) if route is not None else refusal("access-denied")

    def refuse(self, request: AccessRequest | None, peer: Peer, refusal: Refusal) -> None:
        self.refusals.append(refusal)
        self.events.append(("refuse", refusal.code))
        if self.broken:
            raise OSError("journal full")

    def preflight(self, request: AccessRequest, peer: Peer) -> None:
        self.events.append(("preflight", request.context.path))
        if self.broken:
            raise OSError("journal full")


class Paths(ports.Paths):
    def __init__(self) -> None:
        self.live: dict[int, ports.Live] = {}
        self.opened = 0

    def open(self, live: ports.Live) -> int:
        self.opened += 1
        self.live[self.opened] = live
        return self.opened

    def close(self, number: int) -> None:
        self.live.pop(number, None)

    def cut(self, reason: str) -> None:
        for number, live in list(self.live.items()):
            self.close(number)
            live.cut(reason)


class Ledger(ports.Ledger):
    def __init__(self, events: list[Any]) -> None:
        self.events = events
        self.records: list[Any] = []
        self.broken = False

    def decision(self, record: Any) -> None:
        raise AssertionError("the gateway decides nothing")

    def permit(self, *said: Any) -> None:
        raise AssertionError("the gateway encodes nothing")

    def outcome(self, *said: Any) -> None:
        if self.broken:
            raise OSError("journal full")
        record = OutcomeRecord(*said)
        self.records.append(record)
        self.events.append(("outcome", record.status, record.end))


class Counters(ports.Counters):
    def __init__(self) -> None:
        self.requests: list[tuple[str, int]] = []
        self.refusals: list[str] = []
        self.handshakes: list[str] = []
        self.open = 0
        self.pauses = 0
        self.limits: list[str] = []
        self.preflights = 0

    def preflight(self) -> None:
        self.preflights += 1

    def request(self, route: str, status: int, seconds: float) -> None:
        self.requests.append((route, status))

    def refused(self, code: str) -> None:
        self.refusals.append(code)

    def limited(self, limit: str) -> None:
        self.limits.append(limit)

    def connections_opened(self) -> None:
        self.open += 1

    def connections_closed(self) -> None:
        self.open -= 1

    def handshake_failed(self, reason: str) -> None:
        self.handshakes.append(reason)

    def accepting_paused(self) -> None:
        self.pauses += 1


class Transport(asyncio.Transport):
    """Notes what is written; loses the connection one turn of the loop after it was closed."""

    def __init__(self, name: str, events: list[Any], protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.name = name
        self.events = events
        self.protocol = protocol
        self.written = b""
        self.ended = ""
        self.reading = True
        self.unsent = 0

    def write(self, data: Any) -> None:
        if self.ended:
            return
        self.written += bytes(data)
        self.events.append((self.name, bytes(data)))

    def take(self) -> bytes:
        data, self.written = self.written, b""
        return data

    def close(self) -> None:
        self._end("close")

    def abort(self) -> None:
        self._end("abort")

    def _end(self, how: str, exc: Exception | None = None) -> None:
        if not self.ended:
            self.ended = how
            self.events.append((self.name, how))
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, exc)

    def lose(self, exc: Exception | None = None) -> None:
        """The other end goes away, in good order unless there is an exception."""
        if not self.ended and exc is None:
            self.protocol.eof_received()
        if not self.ended:
            self.ended = "lost"
            self.protocol.connection_lost(exc)

    def is_closing(self) -> bool:
        return bool(self.ended)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Dialler:
    def __init__(self, events: list[Any]) -> None:
        self.events = events
        self.refusing = False
        self.down: set[str] = set()  # hosts that refuse
        self.made: list[Transport] = []
        self.gate: asyncio.Event | None = None

    async def dial(self, upstream: Upstream, factory: Callable[[], Any], *, patience: float) -> Any:
        self.events.append(("dial", upstream.host))
        if self.gate is not None:
            await self.gate.wait()
        if self.refusing or upstream.host in self.down:
            raise Unreachable("refused")
        protocol = factory()
        transport = Transport("upstream", self.events, protocol)
        protocol.connection_made(transport)
        self.made.append(transport)
        return protocol


class Arrival:
    def __init__(self, peer: Peer, sources: Sources) -> None:
        self._peer = peer
        self._sources = sources
        source = sources.admit(peer.ip, 0.0)
        assert isinstance(source, Source), source
        sources.greeted(source)
        self.source = source
        self.left = False

    def peer(self, tls: object) -> Peer:
        return self._peer

    def gone(self) -> None:
        self.left = True
        self._sources.gone(self.source)


class Stage:
    """One client connection and everything around it."""

    def __init__(self, *routes: Route, sni: str = HOST, certificate: ClientCertificate | None = None) -> None:
        self.events: list[Any] = []
        self.clock = FixedClock()
        self.wheel = Wheel(self.clock)
        self.outbox = Outbox()
        self.sources = Sources(Bounds(), self.clock.seconds)
        self.crowd = Crowd(self.sources, self.wheel, Limits())
        self.door = Door(self.events)
        self.paths = Paths()
        self.ledger = Ledger(self.events)
        self.counters = Counters()
        self.dialler = Dialler(self.events)
        self.carriers = Carriers()
        self.upstreams = Upstreams(self.dialler, wheel=self.wheel, outbox=self.outbox)  # type: ignore[arg-type]
        self.world = World(
            door=self.door,
            paths=self.paths,
            ledger=self.ledger,
            routes=Routes(*(routes or (ROUTE, PORTAL))),
            quotas=Quotas(routes, {}),
            upstreams=self.upstreams,
            counters=self.counters,
            clock=self.clock,
            wheel=self.wheel,
            crowd=self.crowd,
            carriers=self.carriers,
            limits=Limits(),
            outbox=self.outbox,
            ids=RequestIds(numbers()),
        )
        self.peer = Peer(ip="192.0.2.7", port=4711, tls=TlsFacts("TLSv1.3", sni, certificate))
        self.client, self.connection, self.arrival = self.connect()
        self.source = self.arrival.source

    def connect(self, ip: str | None = None) -> tuple[Transport, Connection, Arrival]:
        arrival = Arrival(self.peer if ip is None else self.peer.replaced(ip=ip), self.sources)
        connection = Connection(InForce(self.world), arrival)  # type: ignore[arg-type]
        transport = Transport("client", self.events, connection)
        connection.connection_made(transport)
        return transport, connection, arrival

    @property
    def upstream(self) -> Transport:
        """The newest upstream connection."""
        return self.dialler.made[-1]

    async def says(self, data: bytes) -> None:
        """The client sends bytes."""
        self.connection.data_received(data)
        await self.turn()

    async def answers(self, data: bytes) -> None:
        """The upstream sends bytes."""
        self.upstream.protocol.data_received(data)  # type: ignore[attr-defined]
        await self.turn()

    async def turn(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)

    async def later(self, seconds: float) -> None:
        """Time passes, and the wheel turns once."""
        self.clock.advance(seconds)
        for _ in range(SPOKES):
            self.wheel.look()
        await self.turn()

    def happened(self) -> list[Any]:
        """What happened since the last call."""
        events = self.events[:]
        self.events.clear()
        return events


def head_of(data: bytes) -> tuple[bytes, dict[bytes, list[bytes]], bytes]:
    """Split a message into (first line, lower-case header names with their values, body)."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    fields: dict[bytes, list[bytes]] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields.setdefault(name.lower(), []).append(value.strip())
    return first, fields, body


async def soon(value: Any, gate: asyncio.Event) -> Any:
    await gate.wait()
    return value


Cold = Awaitable[Any]
