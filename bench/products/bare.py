"""ztproxy's data plane alone: TLS, one hop, and a door that permits everything and writes nothing down.

Beside the whole product it shows what decision and record cost. Nobody can run ztproxy this way: the door is
made here.
"""

import argparse
import asyncio
import gc
import signal
import socket
from pathlib import Path
from typing import Any

import uvloop

from bench.ground import HOST, Ground, python
from bench.machine import free_port
from bench.products import Running, with_children
from ztproxy.gateway.connection import Connection
from ztproxy.gateway.crowd import Crowd
from ztproxy.gateway.limits import Limits
from ztproxy.gateway.quotas import Quotas
from ztproxy.gateway.world import World
from ztproxy.model import ports
from ztproxy.model._seal import SEAL
from ztproxy.model.permit import Permit
from ztproxy.model.request import AccessRequest, Resource
from ztproxy.model.resource import Route, Upstream
from ztproxy.net.clock import SystemClock, entropy
from ztproxy.net.dial import Dialler
from ztproxy.net.listener import Listener
from ztproxy.net.sources import Bounds, Sources
from ztproxy.net.tls import KeyPair, ServerContexts
from ztproxy.net.wheel import Wheel
from ztproxy.upstream.carriers import Carriers
from ztproxy.upstream.upstreams import Upstreams


class Door(ports.Door):
    """Permits everything."""

    def __init__(self, route: Route) -> None:
        self.route = route

    def authorize(self, request: AccessRequest) -> Permit:
        return Permit(
            decision_id=request.context.request_id,
            request=request,
            route=self.route,
            principal_id="corp:bench",
            issuer="corp",
            session_id="ses_bench",
            device_id="",
            handle="",
            expires_at=1 << 60,
            identity=(b"Zt-Principal: corp:bench", b"Zt-Name: Bench", b"Zt-Assertion: " + b"e" * 300),
            obligations=(),
            seal=SEAL,
        )

    def refuse(self, request: Any, peer: Any, refusal: Any) -> None: ...

    def preflight(self, request: Any, peer: Any) -> None: ...


class Router(ports.Router):
    """Everything leads to one route."""

    def __init__(self, route: Route) -> None:
        self.resource = Resource("Route", "bench", route)

    def match(self, host: str, path: str) -> Resource:
        return self.resource


class Paths(ports.Paths):
    """Live paths, by number."""

    def __init__(self) -> None:
        self.live: dict[int, Any] = {}
        self.number = 0

    def open(self, permit: Permit, cut: Any) -> int:
        self.number += 1
        self.live[self.number] = cut
        return self.number

    def close(self, number: int) -> None:
        del self.live[number]


class Ledger(ports.Ledger):
    """Writes nothing down."""

    def decision(self, record: Any) -> None: ...

    def append(self, record: bytes) -> None: ...

    def outcome(self, record: Any) -> None: ...


class Counters(ports.Counters):
    """Counts requests; everything else is passed over."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, int], int] = {}

    def request(self, route: str, status: int, seconds: float) -> None:
        self.counts[route, status] = self.counts.get((route, status), 0) + 1

    def preflight(self) -> None: ...

    def refused(self, code: str) -> None: ...

    def limited(self, limit: str) -> None: ...

    def connections_opened(self) -> None: ...

    def connections_closed(self) -> None: ...

    def handshake_failed(self, reason: str) -> None: ...

    def accepting_paused(self) -> None: ...


async def serve(port: int, upstream: int, pair: KeyPair) -> None:
    """Serve on loopback until SIGTERM, with the collector set as a worker sets it."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    clock = SystemClock()
    wheel = Wheel(clock)
    target = Upstream(scheme="http", host="127.0.0.1", port=upstream)
    route = Route(name="bench", app="bench", host=HOST, prefix="/", upstream=target, client_certificate="off")
    counters = Counters()
    sources = Sources(Bounds(connections_per_source=10_000), clock.monotonic())
    world = World(
        door=Door(route),
        paths=Paths(),
        ledger=Ledger(),
        routes=Router(route),
        quotas=Quotas([], {}),
        upstreams=Upstreams(Dialler({}), wheel=wheel),
        counters=counters,
        clock=clock,
        wheel=wheel,
        carriers=Carriers(),
        crowd=Crowd(sources, wheel, Limits()),
        limits=Limits(),
        new_request_id=lambda: entropy(16).hex(),
    )
    listener = Listener(
        socket.create_server(("127.0.0.1", port), backlog=1024),
        ServerContexts([pair], {}, []),
        lambda arrival: Connection(lambda: world, arrival),
        wheel=wheel,
        clock=clock,
        tally=counters,
        sources=sources,
        handshake_timeout=10,
    )
    wheel.start()
    listener.start()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    await stop.wait()


def bare(ground: Ground) -> Running:
    """The data plane alone, started by `python -m bench.products.bare`."""
    port = free_port()
    command = [python(), "-m", "bench.products.bare", str(port), str(ground.app), ground.cert, ground.key]
    pid = ground.spawn("bare", [*command])
    ground.wait_for(port, tls=True)
    return Running("ztproxy-bare", port, {"proxy": with_children(pid)}, stop=lambda: ground.stop(pid))


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="The data plane alone")
    parser.add_argument("port", type=int)
    parser.add_argument("upstream", type=int)
    parser.add_argument("cert", type=Path)
    parser.add_argument("key", type=Path)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options.port, options.upstream, KeyPair(options.cert, options.key)))


if __name__ == "__main__":
    main()
