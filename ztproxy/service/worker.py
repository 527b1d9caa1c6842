"""A worker: the gateway on one listening socket, deciding from memory.

Started by the supervisor: `python -m ztproxy.service.worker`. Read `serve` from top to bottom. It holds TLS
keys, because it terminates TLS, and no key that vouches for anybody.
"""

import argparse
import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ztproxy.administrator.access import Access
from ztproxy.administrator.audit import Audit
from ztproxy.administrator.paths import Paths
from ztproxy.config.load import load
from ztproxy.config.policies import load_policies
from ztproxy.config.settings import Settings
from ztproxy.crypto.ids import RequestIds
from ztproxy.gateway.connection import Connection
from ztproxy.gateway.limits import Limits
from ztproxy.gateway.world import World
from ztproxy.net.certificates import Bundle, read_bundle
from ztproxy.net.clock import Clock, JumpWatch, SystemClock, entropy
from ztproxy.net.dial import Dialler
from ztproxy.net.listener import Arrival, Listener
from ztproxy.net.tls import KeyPair, ServerContexts, client_contexts, modes_of
from ztproxy.net.wheel import Wheel
from ztproxy.policy.routes import RouteTable
from ztproxy.recording.journal import JournalWriter
from ztproxy.service.identities import LinkedIdentities
from ztproxy.service.link import Link
from ztproxy.service.process import die_with_parent, journal_name, run, stop_event
from ztproxy.service.state import StateDirectory
from ztproxy.telemetry.log import configure
from ztproxy.telemetry.metrics import Counters, pack
from ztproxy.trust.gather import Gatherer
from ztproxy.trust.memory import Concern, Memory
from ztproxy.upstream.upstreams import Upstreams

log = logging.getLogger("ztproxy.worker")

TICK: Final = 1.0  # seconds between looks at live paths; counters go with it
DRAIN: Final = 5.0  # seconds for exchanges to finish when the worker stops


async def serve(settings: Settings, index: int, listening: socket.socket) -> None:
    """Serve until SIGTERM."""
    stop = stop_event()
    clock = SystemClock()
    state = StateDirectory(settings.state_dir)
    routes = settings.routes()
    counters = Counters(str(index))
    memory = Memory(clock.monotonic)
    name = journal_name(f"w{index}")
    journal = JournalWriter(state.journals, name)
    audit = Audit(journal)

    def changed(concerns: Sequence[Concern] | None) -> None:
        if concerns is None:
            paths.all_changed()
        else:
            paths.changed(concerns)

    link = Link(
        state.control, memory, worker=index, pid=os.getpid(), journal=name, now=clock.now, changed=changed
    )
    origins = {route.name: settings.external(route.host) for route in routes}
    access = Access(
        policies=load_policies(settings),
        gatherer=Gatherer(memory, groups=settings.workload_groups(), feed_limit=settings.policy.feed_limit),
        recorder=audit,
        identities=LinkedIdentities(link, origins),
        sync=link.sync,
        touched=link.touched,
        now=clock.now,
    )
    paths = Paths(access.reconsider, clock.now)

    async with asyncio.TaskGroup() as group:
        linking = group.create_task(link.run())
        await _either(link.ready, stop)  # without facts there is nothing to decide by
        wheel = Wheel(clock)
        upstreams = Upstreams(
            Dialler(client_contexts(route.upstream for route in routes)), wheel=wheel, clock=clock
        )
        world = World(
            door=access,
            paths=paths,
            ledger=audit,
            routes=RouteTable(routes, next(route for route in routes if route.portal)),
            upstreams=upstreams,
            counters=counters,
            clock=clock,
            wheel=wheel,
            limits=_limits(settings),
            new_request_id=RequestIds(entropy),
        )
        contexts = ServerContexts(_key_pairs(settings), modes_of(routes), _bundles(settings, state))
        listener = _listener(settings, listening, contexts, world, counters)
        wheel.start()
        listener.start()
        ticking = group.create_task(_tick(paths, memory, counters, link, clock))
        log.info("worker is up", extra={"worker": index})
        await stop.wait()
        listener.stop()
        await _drain(paths)
        paths.cut_all("stopping")
        await asyncio.sleep(0)
        upstreams.close()
        wheel.stop()
        ticking.cancel()
        linking.cancel()
    journal.close()


async def _either(one: asyncio.Event, other: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in (one, other)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


async def _tick(paths: Paths, memory: Memory, counters: Counters, link: Link, clock: Clock) -> None:
    watch = JumpWatch(clock)
    while True:
        await asyncio.sleep(TICK)
        if jump := watch.look():
            counters.clock_jumps += 1
            log.warning("the wall clock was set", extra={"by_seconds": round(jump, 1)})
        paths.tick()
        counters.paths, counters.cuts = len(paths), paths.cuts
        counters.feed_age_seconds = memory.feed_age() / 1000
        counters.sessions, counters.devices = len(memory.sessions), len(memory.devices)
        link.counted(pack(counters.snapshot()))


async def _drain(paths: Paths) -> None:
    """Give exchanges under way a moment to finish by themselves."""
    loop = asyncio.get_running_loop()
    end = loop.time() + DRAIN
    while len(paths) and loop.time() < end:  # noqa: ASYNC110 - seldom, and paths carry no event for it
        await asyncio.sleep(0.05)


def _listener(
    settings: Settings,
    listening: socket.socket,
    contexts: ServerContexts,
    world: World,
    counters: Counters,
) -> Listener:
    limits = world.limits

    def connection(arrival: Arrival) -> asyncio.Protocol:
        return Connection(lambda: world, arrival)

    return Listener(
        listening,
        contexts,
        connection,
        wheel=world.wheel,
        clock=world.clock,
        tally=counters,
        connections=limits.connections,
        connections_per_ip=limits.connections_per_ip,
        handshake_timeout=limits.handshake_timeout,
    )


def _limits(settings: Settings) -> Limits:
    limits = settings.limits
    return Limits(
        head=limits.head,
        head_timeout=limits.head_timeout / 1000,
        handshake_timeout=limits.handshake_timeout / 1000,
        keepalive_timeout=limits.keepalive_timeout / 1000,
        connections=limits.connections,
        connections_per_ip=limits.connections_per_ip,
    )


def _key_pairs(settings: Settings) -> list[KeyPair]:
    pairs = []
    for certificate in settings.tls.certificates:
        assert certificate.key.path is not None  # the configuration allows file: only
        pairs.append(KeyPair(certificate=certificate.cert, key=certificate.key.path))
    return pairs


def _bundles(settings: Settings, state: StateDirectory) -> list[Bundle]:
    """The configured bundles and the built-in one of enrolled devices."""
    own = read_bundle("devices", "device", state.ca / "devices.pem", settings.trust_domain)
    configured = [
        read_bundle(bundle.name, bundle.kind, bundle.ca, bundle.trust_domain or "")
        for bundle in settings.client_certificates
    ]
    return [own, *configured]


def main() -> None:
    """Entry of the process."""
    parser = argparse.ArgumentParser(prog="ztproxy worker")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--listen", type=int, required=True, help="file descriptor")
    arguments = parser.parse_args()
    os.umask(0o077)
    die_with_parent(arguments.parent)
    settings = load(arguments.config)
    configure(settings.log.level, settings.log.format)
    with socket.socket(fileno=arguments.listen) as listening:
        run(serve(settings, arguments.index, listening))


if __name__ == "__main__":
    main()
