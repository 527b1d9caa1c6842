"""A worker: the gateway on one listening socket, deciding from memory.

Started by the supervisor: `python -m ztproxy.service.worker`. Read `Worker.run` from top to bottom. It holds
TLS keys, because it terminates TLS, and no key that vouches for anybody.
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

from ztproxy.administrator.audit import Audit, AuditUnavailable
from ztproxy.administrator.floods import INTERVAL
from ztproxy.administrator.paths import Paths, Shut
from ztproxy.config.problems import ConfigProblems
from ztproxy.config.settings import Settings
from ztproxy.gateway.connection import Connection
from ztproxy.gateway.crowd import Crowd
from ztproxy.gateway.limits import Limits
from ztproxy.gateway.shared_rates import SharedRates
from ztproxy.gateway.upgrade import STOPPING
from ztproxy.net import large_pages
from ztproxy.net.clock import JumpWatch, SystemClock, elapsed
from ztproxy.net.listener import Arrival, Listener
from ztproxy.net.loop import run
from ztproxy.net.outbox import Outbox
from ztproxy.net.sources import Bounds, Sources
from ztproxy.net.wheel import Wheel
from ztproxy.policy.engine import PolicySet
from ztproxy.recording.journal import JournalWriter
from ztproxy.service.assemble import Lasting
from ztproxy.service.configuration import unseal
from ztproxy.service.ebb import Ebb
from ztproxy.service.link import Link
from ztproxy.service.neighbours import listen, neighbourhood
from ztproxy.service.orders import Commit, Done, Drain, Forget, Orders, Prepare, Ready, ToChild, of_child
from ztproxy.service.pacing import Pacing
from ztproxy.service.preparing import apart
from ztproxy.service.process import die_with_parent, journal_name, node_name, stop_event
from ztproxy.service.serving import connections, first
from ztproxy.service.state import StateDirectory
from ztproxy.telemetry.log import configure
from ztproxy.telemetry.metrics import Counters, pack
from ztproxy.telemetry.snapshot import SourceState
from ztproxy.trust.memory import Concern, Memory
from ztproxy.upstream.carriers import Carriers

log = logging.getLogger("ztproxy.worker")

TICK: Final = 1.0  # seconds between looks at the clock; counters go with it
FLUSH: Final = 2.0  # seconds for the last words of connections that are cut


class Worker:
    """The process."""

    def __init__(
        self, state: StateDirectory, index: int, orders: Orders[ToChild], *, workers: int = 1
    ) -> None:
        self._index = index
        self._orders = orders
        self._clock = SystemClock()
        self._stop = stop_event()
        self._drain = float("inf")  # seconds; until then the configuration says how long
        self._draining = False
        memory, wheel = Memory(self._clock.monotonic), Wheel(self._clock)
        sources = Sources(Bounds(), self._clock.monotonic())
        name = journal_name(f"w{index}")
        self._journal = JournalWriter(state.journals, name)
        self._link = Link(
            state.control,
            memory,
            worker=index,
            pid=os.getpid(),
            journal=name,
            now=self._clock.now,
            changed=self._changed,
        )
        self._pacing = Pacing()
        self._paths = Paths(Shut(), self._clock.now, elapsed, self._pacing.wake)
        self._lasting = Lasting(
            state=state,
            clock=self._clock,
            wheel=wheel,
            counters=Counters(str(index)),
            memory=memory,
            link=self._link,
            audit=Audit(self._journal),
            paths=self._paths,
            groups={},
            tables={},
            rates=SharedRates(self._link.charge, self._clock.monotonic),
            sources=sources,
            crowd=Crowd(sources, wheel, Limits()),
            carriers=Carriers(node=node_name(), worker=index, workers=workers),
            outbox=Outbox(),
        )

    async def run(self, settings: Settings, policies: PolicySet, listening: socket.socket) -> None:
        """Serve until SIGTERM, or until told to drain."""
        async with asyncio.TaskGroup() as group:
            linking = group.create_task(self._link.run())
            await _either(self._link.ready, self._stop)  # without facts there is nothing to decide by
            self._serving = first(settings, policies, self._lasting)
            large_pages.gather()  # everything is here now, and nobody is served yet
            self._listener = self._listening_on(listening)
            self._lasting.wheel.start()
            lending = await self._lending(index=self._index)
            self._listener.start()
            self._serving.now.start(self._lasting)
            self._pacing.start(self._paths)
            charging = group.create_task(self._lasting.rates.run())
            ticking = group.create_task(self._tick())
            obeying = group.create_task(self._obey())
            log.info("worker is up", extra={"worker": self._index})
            await self._stop.wait()
            await self._finish()
            listening.close()
            lending.close()
            self._serving.now.retire()
            self._lasting.wheel.stop()
            self._pacing.stop()
            for task in (charging, ticking, obeying, linking):
                task.cancel()
        self._sum_up()
        self._journal.close()

    async def _lending(self, index: int) -> asyncio.Server:
        """Lend connections of connectors to neighbours, and borrow theirs."""
        lasting = self._lasting
        carriers = lasting.carriers
        carriers.neighbours = neighbourhood(lasting, lambda: self._serving.now, index)
        carriers.changed = lasting.link.carries
        return await listen(lasting, index)

    def _changed(self, concerns: Sequence[Concern] | None) -> None:
        if concerns is None:
            self._paths.all_changed()
        else:
            self._paths.changed(concerns)

    def _listening_on(self, listening: socket.socket) -> Listener:
        lasting, now = self._lasting, self._serving.now
        return Listener(
            listening,
            now.contexts,
            self._connection,
            wheel=lasting.wheel,
            clock=lasting.clock,
            tally=lasting.counters,
            sources=lasting.sources,
            handshake_timeout=now.settings.limits.handshake_timeout / 1000,
        )

    def _connection(self, arrival: Arrival) -> asyncio.Protocol:
        connection = Connection(self._serving.in_force, arrival)
        if self._draining:
            connection.retire()
        return connection

    async def _tick(self) -> None:
        lasting = self._lasting
        counters, memory, paths = lasting.counters, lasting.memory, lasting.paths
        watch, ebb = JumpWatch(lasting.clock), Ebb()
        sum_up_at = lasting.clock.monotonic() + INTERVAL
        while True:
            await asyncio.sleep(TICK)
            if jump := watch.look():
                counters.clock_jumps += 1
                log.warning("the wall clock was set", extra={"by_seconds": round(jump, 1)})
            ebb.look(len(self._listener), lasting.clock.monotonic())
            counters.paths, counters.cuts = len(paths), paths.cuts
            counters.feed_age_seconds, counters.feed_version = memory.feed_age() / 1000, memory.version
            door = self._serving.now.door
            counters.kept_stale, door.kept = counters.kept_stale + door.kept, 0
            counters.fresh = _states(memory, lasting.clock.now())
            counters.sessions, counters.devices = len(memory.sessions), len(memory.devices)
            counters.counted_refusals = lasting.audit.counted
            counters.pressed, counters.too_slow = lasting.crowd.pressed, lasting.crowd.slow
            counters.rates_apart = int(lasting.rates.apart)
            counters.passed_by_share = lasting.rates.by_share
            counters.targets = self._serving.now.upstreams.states()
            counters.connectors, counters.uncarried = lasting.carriers.states(), lasting.carriers.refused
            counters.borrowed, counters.lent = lasting.carriers.borrowed, lasting.carriers.lent
            lasting.link.counted(pack(counters.snapshot()))
            if lasting.clock.monotonic() >= sum_up_at:
                sum_up_at = lasting.clock.monotonic() + INTERVAL
                self._sum_up()

    def _sum_up(self) -> None:
        """Write down the refusals that were only counted, or count on."""
        with suppress(AuditUnavailable):
            self._lasting.audit.sum_up(self._clock.now())

    # ------------------------------------------------------------------ what the supervisor says

    async def _obey(self) -> None:
        self._orders.send(Ready())
        while (heard := await self._orders.receive()) is not None:
            order, descriptor = heard
            try:
                await self._take(order, -1 if descriptor is None else descriptor)
            finally:
                if descriptor is not None:
                    os.close(descriptor)

    async def _take(self, order: ToChild, descriptor: int) -> None:
        if isinstance(order, Drain):
            self._drain = min(self._drain, order.seconds)
            self._stop.set()
        elif isinstance(order, Forget):
            self._serving.forget()
        elif isinstance(order, Prepare | Commit):
            why = ""
            try:
                if isinstance(order, Prepare):
                    await self._serving.prepare(descriptor)
                else:
                    await self._serving.commit(self._listener)
            except (ConfigProblems, OSError, ValueError) as broken:
                why = f"worker {self._index}: {broken}"
            except Exception as bug:  # one of a configuration nobody serves yet: those who are served go on
                log.exception("a configuration can not be prepared")
                why = f"worker {self._index}: {type(bug).__name__}; see the log"
            self._orders.send(Done(order.ask, why[:8000]))

    # ------------------------------------------------------------------ the end

    async def _finish(self) -> None:
        """Take nobody new, let what is under way end, then end it."""
        self._draining = True
        self._lasting.counters.worker = f"{self._index}-{os.getpid()}"  # another may serve by our number
        self._listener.drain()
        self._lasting.carriers.leave()
        for connection in connections(self._lasting):
            connection.retire()
        await self._wait_for_callers(self._patience)
        cut = 0
        while some := self._paths.cut_some(STOPPING):
            cut += some
            await asyncio.sleep(0)
        self._listener.drop_handshakes()
        self._lasting.carriers.close()
        for connection in connections(self._lasting):
            connection.close()
        await self._wait_for_callers(lambda: FLUSH)
        log.info("worker is drained", extra={"worker": self._index, "cut": cut})

    async def _wait_for_callers(self, patience: Callable[[], float]) -> None:
        """Wait until everybody is gone, neighbours whom we lent to among them, or as long as patience lasts,
        which may become shorter meanwhile."""
        began, carriers = self._clock.monotonic(), self._lasting.carriers
        while len(self._listener) or carriers.lending:
            if self._clock.monotonic() >= began + patience():
                return
            await asyncio.sleep(0.05)

    def _patience(self) -> float:
        return min(self._drain, self._serving.now.settings.drain / 1000)


def _states(memory: Memory, now: int) -> tuple[SourceState, ...]:
    """Return how fresh the sources of facts are that were ever heard; a few by configuration."""
    known = memory.sources.values()
    return tuple(SourceState(one.name, (now - one.heard_at) / 1000, one.state == "ok") for one in known)


async def _either(one: asyncio.Event, other: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in (one, other)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


async def _serve(
    settings: Settings,
    policies: PolicySet,
    index: int,
    workers: int,
    orders: Orders[ToChild],
    listening: socket.socket,
) -> None:
    worker = Worker(StateDirectory(settings.state_dir), index, orders, workers=workers)
    await worker.run(settings, policies, listening)


def main() -> None:
    """Entry of the process."""
    parser = argparse.ArgumentParser(prog="ztproxy worker")
    parser.add_argument("--config", type=Path, required=True)
    for number in ("--parent", "--index", "--workers", "--listen", "--configuration", "--orders"):
        parser.add_argument(number, type=int, required=True)
    arguments = parser.parse_args()
    os.umask(0o077)
    die_with_parent(arguments.parent)
    settings, policies = apart(lambda: unseal(arguments.configuration, arguments.config))
    os.close(arguments.configuration)
    configure(settings.log.level, settings.log.format)
    listening = socket.socket(fileno=arguments.listen)
    orders = of_child(arguments.orders)
    run(_serve(settings, policies, arguments.index, arguments.workers, orders, listening))


if __name__ == "__main__":
    main()
