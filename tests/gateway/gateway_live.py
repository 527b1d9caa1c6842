"""A whole data plane on real sockets with a fake door, and connectors that dial in to it."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from typing import Any

import aiohttp
from gateway_fakes import Counters, Door, Ledger, Paths, Routes, numbers
from gateway_pki import Authority

from ztproxy.connector.allowed import Allowed
from ztproxy.connector.links import Limits as LinkLimits
from ztproxy.connector.links import Links, Proxy
from ztproxy.crypto.ids import RequestIds
from ztproxy.gateway.connection import Connection
from ztproxy.gateway.crowd import Crowd
from ztproxy.gateway.limits import Limits
from ztproxy.gateway.quotas import Quotas
from ztproxy.gateway.world import InForce, World
from ztproxy.model.record import OutcomeRecord
from ztproxy.model.resource import Upstream
from ztproxy.model.route import Route
from ztproxy.net.certificates import Bundle, read_bundle
from ztproxy.net.clock import SystemClock
from ztproxy.net.dial import Dialler
from ztproxy.net.listener import Listener
from ztproxy.net.outbox import Outbox
from ztproxy.net.sources import Bounds, Sources
from ztproxy.net.tls import KeyPair, ServerContexts, client_contexts, modes_of
from ztproxy.net.wheel import Wheel
from ztproxy.upstream.carriers import Carriers
from ztproxy.upstream.upstreams import Upstreams

HOST = "app.example"
DIAL_IN = "connect.example"
DOMAIN = "corp.example"
INSTANCES = ("a" * 13, "b" * 13, "c" * 13)
CARRY = Route(
    name="ztproxy-connectors",
    app="ztproxy-connectors",
    host=DIAL_IN,
    prefix="/",
    upstream=Upstream(scheme="unix", host="/nonexistent", port=0),
    client_certificate="required",
    upgrades=frozenset({"ztproxy-carry"}),
    carries=True,
)


class Gateway:
    """A whole data plane with a fake door, in this process."""

    def __init__(self, route: Route, authority: Authority, bundles: Sequence[Bundle] = ()) -> None:
        self.authority = authority
        self.events: list[Any] = []
        self.door, self.ledger = Door(self.events), Ledger(self.events)
        self.paths, self.counters = Paths(), Counters()
        clock = SystemClock()
        self.carriers = Carriers()
        self.wheel = Wheel(clock, turn=0.1)
        self.outbox = Outbox()
        sources = Sources(Bounds(), clock.monotonic())
        self.world = World(
            door=self.door,
            paths=self.paths,
            ledger=self.ledger,
            routes=Routes(route, CARRY),
            quotas=Quotas([route], {}),
            carriers=self.carriers,
            upstreams=Upstreams(
                Dialler(client_contexts([route.upstream]), self.carriers),
                wheel=self.wheel,
                outbox=self.outbox,
            ),
            counters=self.counters,
            clock=clock,
            wheel=self.wheel,
            crowd=Crowd(sources, self.wheel, Limits()),
            limits=Limits(),
            outbox=self.outbox,
            ids=RequestIds(numbers()),
        )
        self.sock = socket.create_server(("127.0.0.1", 0))
        files = authority.server(HOST, DIAL_IN)
        self.listener = Listener(
            self.sock,
            ServerContexts([KeyPair(files.certificate, files.key)], modes_of([route, CARRY]), bundles),
            lambda arrival: Connection(InForce(self.world), arrival),
            wheel=self.wheel,
            clock=clock,
            tally=self.counters,
            sources=sources,
            handshake_timeout=5,
        )
        self.port = self.sock.getsockname()[1]
        self.url = f"https://{HOST}:{self.port}"
        self.trust = authority.trust()

    @property
    def records(self) -> list[OutcomeRecord]:
        """How exchanges ended, without the connections of connectors."""
        ours = {
            request.context.request_id
            for request in self.door.requests
            if request.resource.route is not None and request.resource.route.carries
        }
        return [record for record in self.ledger.records if record.id not in ours]

    def start(self) -> None:
        self.wheel.start()
        self.listener.start()

    async def stop(self) -> None:
        self.listener.stop()
        self.carriers.close()
        self.world.upstreams.close()
        for _ in range(300):
            if not len(self.listener) and not len(self.world.upstreams):
                break
            await asyncio.sleep(0.01)
        self.wheel.stop()
        self.sock.close()
        assert len(self.listener) == 0
        assert self.paths.live == {}
        assert len(self.ledger.records) == self.paths.opened

    async def connect(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.trust, server_hostname=HOST, **options
        )

    def session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(resolver=Loopback(), ssl=self.trust, limit=50)
        return aiohttp.ClientSession(connector=connector)


class Loopback(aiohttp.abc.AbstractResolver):
    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[Any]:
        return [
            {
                "hostname": host,
                "host": "127.0.0.1",
                "port": port,
                "family": socket.AF_INET,
                "proto": 0,
                "flags": 0,
            }
        ]

    async def close(self) -> None: ...


def instance(authority: Authority, name: str = "partner-site", index: int = 0) -> ssl.SSLContext:
    """Return what a connector shows and believes."""
    files = authority.client(f"spiffe://{DOMAIN}/connector/{name}/{INSTANCES[index]}")
    context = ssl.create_default_context(cafile=str(authority.directory / "test-authority.pem"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(files.certificate, files.key)
    return context


def bundle(authority: Authority) -> Bundle:
    """Return the bundle of an authority of connectors."""
    return read_bundle("connectors", "connector", authority.file, DOMAIN)  # type: ignore[arg-type]


class Connecting:
    """A running connector."""

    def __init__(
        self,
        ports: Sequence[int],
        context: ssl.SSLContext,
        allow: Sequence[str],
        limits: LinkLimits | None = None,
    ) -> None:
        proxies = [Proxy("127.0.0.1", port, DIAL_IN) for port in ports]
        self.links = Links(proxies, lambda: context, Allowed(allow), limits, version="1.2.3")
        self.task = asyncio.create_task(self.links.run())

    async def ready(self, count: int = 1) -> None:
        """Wait until so many connections are ready."""
        async with asyncio.timeout(10):
            while self.links.ready < count:
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """End it, once what it is dialling stands: a handshake that is dropped half-way leaves litter."""
        self.links.draining = True
        async with asyncio.timeout(10):
            while any(keeper.dialling for keeper in self.links._all()):
                await asyncio.sleep(0.01)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
