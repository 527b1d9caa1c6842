"""The same gateway with decision and record switched off: what both cost is seen beside it.

It is a worker put together from the configuration of a product that runs beside it, by the same assembly:
routes, quotas, limits, live paths, counters. Two parts are others: a door that permits everything without
asking who it is, and a ledger that writes nothing down. Nobody can run ztproxy this way: both are made here.
"""

import argparse
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.ground import python
from bench.machine import free_port
from bench.products import Running, with_children
from bench.products.ztproxy import Ztproxy
from ztproxy.administrator.audit import Audit
from ztproxy.administrator.paths import Paths, Shut
from ztproxy.config.load import load_all
from ztproxy.config.settings import Settings
from ztproxy.gateway.connection import Connection
from ztproxy.gateway.crowd import Crowd
from ztproxy.gateway.limits import Limits
from ztproxy.gateway.shared_rates import SharedRates
from ztproxy.gateway.world import InForce
from ztproxy.model import ports
from ztproxy.model._seal import SEAL
from ztproxy.model.permit import Permit
from ztproxy.model.request import AccessRequest
from ztproxy.net.clock import SystemClock, elapsed
from ztproxy.net.listener import Listener
from ztproxy.net.loop import run
from ztproxy.net.outbox import Outbox
from ztproxy.net.sources import Bounds, Sources
from ztproxy.net.wheel import Wheel
from ztproxy.policy.engine import PolicySet
from ztproxy.service.assemble import Lasting, assemble, contexts_of
from ztproxy.service.link import Link
from ztproxy.service.process import stop_event
from ztproxy.service.state import StateDirectory
from ztproxy.telemetry.metrics import Counters
from ztproxy.trust.memory import Memory
from ztproxy.upstream.carriers import Carriers

#: What upstreams are told of whoever asks: as many bytes as the product sends.
IDENTITY = b"Zt-Principal: bench:0\r\nZt-Name: Bench\r\nZt-Assertion: %b\r\n" % (b"e" * 700)


class Door(ports.Door):
    """Permits whatever leads somewhere."""

    def authorize(self, request: AccessRequest) -> Permit:
        route = request.resource.route
        assert route is not None
        context = request.context
        return Permit(
            context.request_id,
            request,
            route,
            "bench:0",
            "https://idp.bench.example",
            "ses_0",
            "dev_bench0",
            "",
            1 << 60,
            IDENTITY,
            (),
            SEAL,
        )

    def refuse(self, request: Any, peer: Any, refusal: Any) -> None: ...

    def preflight(self, request: Any, peer: Any) -> None: ...


class Ledger(ports.Ledger):
    """Writes nothing down."""

    def decision(self, record: Any) -> None: ...

    def permit(self, *said: Any) -> None: ...

    def outcome(self, *said: Any) -> None: ...


async def serve(settings: Settings, policies: PolicySet, port: int) -> None:
    """Serve on loopback until SIGTERM, as a worker does."""
    stop = stop_event()
    lasting = _lasting(settings)
    assembly = assemble(settings, policies, contexts_of(settings, lasting.state), lasting)
    world = replace(assembly.world, door=Door(), ledger=Ledger())
    listener = Listener(
        socket.create_server(("127.0.0.1", port), backlog=1024),
        assembly.contexts,
        lambda arrival: Connection(InForce(world), arrival),
        wheel=lasting.wheel,
        clock=lasting.clock,
        tally=lasting.counters,
        sources=lasting.sources,
        handshake_timeout=settings.limits.handshake_timeout / 1000,
    )
    lasting.wheel.start()
    listener.start()
    assembly.start(lasting)
    await stop.wait()


def _lasting(settings: Settings) -> Lasting:
    state, clock = StateDirectory(settings.state_dir), SystemClock()
    memory, wheel = Memory(clock.monotonic), Wheel(clock)
    sources = Sources(Bounds(), clock.monotonic())
    link = Link(  # to nobody: it is never begun
        state.control, memory, worker=9, pid=0, journal="", now=clock.now, changed=lambda _: None
    )
    return Lasting(
        state=state,
        clock=clock,
        wheel=wheel,
        counters=Counters("bare"),
        memory=memory,
        link=link,
        audit=Audit(_Nowhere()),
        paths=Paths(Shut(), clock.now, elapsed, lambda: None),
        groups={},
        tables={},
        rates=SharedRates(link.charge, clock.monotonic),
        sources=sources,
        crowd=Crowd(sources, wheel, Limits()),
        carriers=Carriers(),
        outbox=Outbox(),
    )


class _Nowhere(ports.Journal):
    """The journal of a ledger that is not in use."""

    def append(self, payload: bytes) -> None:
        raise AssertionError("the bare gateway writes nothing down")


def beside(product: Ztproxy) -> Running:
    """The gateway of a running product, by itself, started by `python -m bench.products.bare`."""
    ground, port = product.ground, free_port()
    config = product.folder / "ztproxy.yaml"
    pid = ground.spawn("bare", [python(), "-m", "bench.products.bare", str(config), str(port)])
    ground.wait_for(port, tls=True)
    return Running("ztproxy-bare", port, {"workers": with_children(pid)}, stop=lambda: ground.stop(pid))


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="The gateway without decision and record")
    parser.add_argument("config", type=Path)
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    settings, policies = load_all(options.config)
    run(serve(settings, policies, options.port))


if __name__ == "__main__":
    main()
