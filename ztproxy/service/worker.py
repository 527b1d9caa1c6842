"""A worker: the gateway on one listening socket, deciding from memory.

Started by the supervisor: `python -m ztproxy.service.worker`. Read `serve` from top to bottom. It holds TLS
keys, because it terminates TLS, and no key that vouches for anybody.
"""

import argparse
import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from ztproxy.administrator.audit import Audit, AuditUnavailable
from ztproxy.administrator.floods import INTERVAL
from ztproxy.administrator.paths import Paths
from ztproxy.config.load import load
from ztproxy.config.policies import load_policies
from ztproxy.config.settings import Settings
from ztproxy.gateway.connection import Connection
from ztproxy.gateway.crowd import Crowd
from ztproxy.gateway.limits import Limits
from ztproxy.net.clock import JumpWatch, SystemClock
from ztproxy.net.listener import Arrival, Listener
from ztproxy.net.sources import Sources
from ztproxy.net.wheel import Wheel
from ztproxy.recording.journal import JournalWriter
from ztproxy.service.assemble import Assembly, Lasting, assemble, bounds_of
from ztproxy.service.link import Link
from ztproxy.service.process import die_with_parent, journal_name, run, stop_event
from ztproxy.service.state import StateDirectory
from ztproxy.telemetry.log import configure
from ztproxy.telemetry.metrics import Counters, pack
from ztproxy.trust.memory import Concern, Memory

log = logging.getLogger("ztproxy.worker")

TICK: Final = 1.0  # seconds between looks at live paths; counters go with it
DRAIN: Final = 5.0  # seconds for exchanges to finish when the worker stops


async def serve(settings: Settings, index: int, listening: socket.socket) -> None:
    """Serve until SIGTERM."""
    stop = stop_event()
    clock = SystemClock()
    state = StateDirectory(settings.state_dir)
    memory = Memory(clock.monotonic)
    name = journal_name(f"w{index}")
    journal = JournalWriter(state.journals, name)

    def changed(concerns: Sequence[Concern] | None) -> None:
        if concerns is None:
            paths.all_changed()
        else:
            paths.changed(concerns)

    link = Link(
        state.control, memory, worker=index, pid=os.getpid(), journal=name, now=clock.now, changed=changed
    )
    wheel = Wheel(clock)
    sources = Sources(bounds_of(settings), clock.monotonic())
    paths = Paths(lambda permit: assembly.door.reconsider(permit), clock.now)
    lasting = Lasting(
        state=state,
        clock=clock,
        wheel=wheel,
        counters=Counters(str(index)),
        memory=memory,
        link=link,
        audit=Audit(journal),
        paths=paths,
        groups={},
        tables=WeakValueDictionary(),
        sources=sources,
        crowd=Crowd(sources, wheel, Limits()),
    )

    async with asyncio.TaskGroup() as group:
        linking = group.create_task(link.run())
        await _either(link.ready, stop)  # without facts there is nothing to decide by
        assembly = assemble(settings, load_policies(settings), lasting)
        listener = _listener(listening, assembly, lasting)
        lasting.wheel.start()
        listener.start()
        assembly.start(lasting)
        ticking = group.create_task(_tick(lasting, lambda: assembly))
        log.info("worker is up", extra={"worker": index})
        await stop.wait()
        listener.stop()
        await _drain(paths)
        paths.cut_all("stopping")
        await asyncio.sleep(0)
        assembly.retire()
        lasting.wheel.stop()
        ticking.cancel()
        linking.cancel()
    _sum_up(lasting)
    journal.close()


async def _either(one: asyncio.Event, other: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in (one, other)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


async def _tick(lasting: Lasting, current: Callable[[], Assembly]) -> None:
    counters, memory, paths = lasting.counters, lasting.memory, lasting.paths
    watch = JumpWatch(lasting.clock)
    sum_up_at = lasting.clock.monotonic() + INTERVAL
    while True:
        await asyncio.sleep(TICK)
        if jump := watch.look():
            counters.clock_jumps += 1
            log.warning("the wall clock was set", extra={"by_seconds": round(jump, 1)})
        paths.tick()
        counters.paths, counters.cuts = len(paths), paths.cuts
        counters.feed_age_seconds = memory.feed_age() / 1000
        counters.sessions, counters.devices = len(memory.sessions), len(memory.devices)
        counters.counted_refusals = lasting.audit.counted
        counters.pressed, counters.too_slow = lasting.crowd.pressed, lasting.crowd.slow
        counters.targets = current().upstreams.states()
        lasting.link.counted(pack(counters.snapshot()))
        if lasting.clock.monotonic() >= sum_up_at:
            sum_up_at = lasting.clock.monotonic() + INTERVAL
            _sum_up(lasting)


def _sum_up(lasting: Lasting) -> None:
    """Write down the refusals that were only counted, or count on."""
    with suppress(AuditUnavailable):
        lasting.audit.sum_up(lasting.clock.now())


async def _drain(paths: Paths) -> None:
    """Give exchanges under way a moment to finish by themselves."""
    loop = asyncio.get_running_loop()
    end = loop.time() + DRAIN
    while len(paths) and loop.time() < end:  # noqa: ASYNC110 - seldom, and paths carry no event for it
        await asyncio.sleep(0.05)


def _listener(listening: socket.socket, assembly: Assembly, lasting: Lasting) -> Listener:
    world = assembly.world
    settings = assembly.settings

    def connection(arrival: Arrival) -> asyncio.Protocol:
        return Connection(lambda: world, arrival)

    return Listener(
        listening,
        assembly.contexts,
        connection,
        wheel=lasting.wheel,
        clock=lasting.clock,
        tally=lasting.counters,
        sources=lasting.sources,
        handshake_timeout=settings.limits.handshake_timeout / 1000,
    )


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
