"""The time in which a control process has the state directory: from the supervisor's Go to its Hold.

Made by `service.control`. Read `enter` from top to bottom; leaving is the same backwards: nobody is answered
any more, then the links end, then what was recorded is sealed, then the files are closed, last the lock.
"""

import asyncio
import fcntl
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from socket import socket
from typing import Any, Final, NamedTuple

from aiohttp import web

from ztproxy.administrator.audit import Audit
from ztproxy.administrator.expiry import Expiry
from ztproxy.administrator.issue import load_assertions
from ztproxy.api.node import Node
from ztproxy.config.settings import Settings
from ztproxy.net.clock import SystemClock
from ztproxy.policy.engine import PolicySet
from ztproxy.recording import journal as journals
from ztproxy.recording.sealer import Sealer
from ztproxy.service.hub import Hub
from ztproxy.service.loads import EVERY as LOADS_EVERY
from ztproxy.service.loads import Loads
from ztproxy.service.office import Ground, Office, furnish
from ztproxy.service.process import give_way, journal_alive
from ztproxy.service.rates import BEAT, Rates, open_rates
from ztproxy.service.repeat import Repeat
from ztproxy.service.state import StateDirectory
from ztproxy.service.storage import open_store
from ztproxy.service.uses import Uses
from ztproxy.service.whereabouts import EVERY as TELL_EVERY
from ztproxy.service.whereabouts import Whereabouts
from ztproxy.store.interface import Store
from ztproxy.telemetry import http as telemetry
from ztproxy.telemetry.health import Readiness
from ztproxy.telemetry.metrics import Counters, unpack
from ztproxy.telemetry.snapshot import ConnectorState, Snapshot

SEAL_EVERY: Final = 0.1  # seconds
SEAL_REST: Final = 0.001  # between batches: requests wait for one of them, not for all that came meanwhile
EXPIRE_EVERY: Final = 15.0
USES_EVERY: Final = 1.0
LOCK_PATIENCE: Final = 10.0  # seconds for the one before to be gone


class Sockets(NamedTuple):
    """Listening sockets that the supervisor holds."""

    link: socket
    portal: socket
    admin: socket
    telemetry: socket


class Tenure:
    """Serves from the state directory. `office` is what the configuration in force comes to."""

    office: Office
    hub: Hub
    ground: Ground

    def __init__(
        self,
        state: StateDirectory,
        clock: SystemClock,
        audit: Audit,
        counters: Counters,
        sockets: Sockets,
        workers: int,
        node: Node,
    ) -> None:
        self._state = state
        self._clock = clock
        self._audit = audit
        self._counters = counters
        self._sockets = sockets
        self._workers = workers
        self._node = node
        self._stack = AsyncExitStack()
        self._snapshots: dict[int, Snapshot] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def enter(self, settings: Settings, policies: PolicySet) -> None:
        """Open everything and serve. Raises OSError, StoreUnavailable, KeyFileError, LogUnavailable."""
        stack, state, clock = self._stack, self._state, self._clock
        stack.callback(os.close, await _lock(state))
        store = await open_store(settings, state, clock)
        stack.push_async_callback(store.close)
        rates = open_rates(settings, clock.monotonic)
        stack.push_async_callback(rates.close)
        stack.enter_context(Repeat(BEAT, rates.beat))
        uses = Uses(lambda some: self.office.sessions.touch(some))

        def address() -> str:
            return self.office.settings.node_address

        whereabouts = Whereabouts(store, clock.now, address)
        self.hub = self._hub(store, rates, whereabouts, uses)
        leaving = threading.Event()
        sealer = await asyncio.to_thread(self._sealer, settings, partial(leaving.wait, SEAL_REST))
        stack.callback(sealer.close)

        thread = ThreadPoolExecutor(1, "ztproxy-seal", initializer=give_way)
        stack.callback(thread.shutdown)

        async def seal() -> None:
            step = asyncio.get_running_loop().run_in_executor(thread, sealer.step)
            self._counters.sealed_records += await step

        sealing = stack.enter_context(Repeat(SEAL_EVERY, seal))
        stack.push_async_callback(sealing.finish)
        stack.callback(leaving.set)  # from here on without rests

        self.ground = Ground(
            state=state,
            clock=clock,
            audit=self._audit,
            records=store,
            assertions=load_assertions(state.root),
            node=self._node,
            counters=self._counters,
            snapshots=self._newest,
            loads=Loads(store, clock.now, address, self._connectors),
        )
        self.office = await furnish(settings, policies, self.ground)

        server = await asyncio.start_unix_server(
            self.hub.serve, sock=self._sockets.link.dup(), **_without_cleanup()
        )
        stack.callback(self.hub.close)
        stack.callback(server.close)
        await self._serve_telemetry()
        stack.push_async_callback(self._close_office)
        await self.office.open(self._sockets.portal, self._sockets.admin)
        stack.enter_context(Repeat(TELL_EVERY, whereabouts.tell))
        stack.enter_context(Repeat(LOADS_EVERY, self.ground.loads.tell))
        using = stack.enter_context(Repeat(USES_EVERY, uses.write))
        stack.push_async_callback(using.finish)
        expiry = Expiry(store, store, clock.now)
        stack.enter_context(Repeat(EXPIRE_EVERY, lambda: expiry.sweep(self.office.sessions)))

    async def leave(self) -> None:
        """Finish what is under way and close everything."""
        await self._stack.aclose()

    async def swap(self, office: Office) -> None:
        """Let another office answer from now on; the one before finishes what it has begun."""
        before, self.office = self.office, office
        await office.open(self._sockets.portal, self._sockets.admin)
        closing = asyncio.create_task(_closed(before))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    # ------------------------------------------------------------------ steps

    def _hub(self, store: Store, rates: Rates, whereabouts: Whereabouts, uses: Uses) -> Hub:
        """Return the links' end. What it asks the office for, it asks the one that is open by then."""
        return Hub(
            store,
            store,
            monotonic=self._clock.monotonic,
            sign=lambda wanted: self.office.voucher.sign(wanted),
            recheck=lambda wanted: self.office.rechecks.answer(wanted),
            charge=rates.charge,
            certify=lambda wanted: self.office.certifier.certify(wanted),
            carries=whereabouts.note,
            touched=uses.note,
            counted=self._counted,
        )

    async def _close_office(self) -> None:
        await self.office.close()
        if self._closing:
            await asyncio.wait(self._closing)

    def _counted(self, pid: int, snapshot: bytes) -> None:
        if snapshot:
            self._snapshots[pid] = unpack(snapshot)
        else:
            self._snapshots.pop(pid, None)

    def _newest(self) -> list[Snapshot]:
        """One for each name: of two workers of one number, the younger."""
        named = {snapshot.worker: snapshot for snapshot in self._snapshots.values()}
        return [*named.values(), self._counters.snapshot()]

    def _connectors(self) -> Iterator[ConnectorState]:
        """What the workers of this node have of connectors now."""
        return (one for snapshot in self._newest() for one in snapshot.connectors)

    def _unready(self) -> str:
        linked = len(set(self.hub.workers.values()))
        missing = self._workers - linked
        return f"{missing} of {self._workers} are not linked" if missing > 0 else ""

    def _sealer(self, settings: Settings, rest: Callable[[], object]) -> Sealer:
        def alive() -> Collection[str]:
            """Journals of living processes: those that lie there, and those that should."""
            named = {*journals.names(self._state.journals), *list(self.hub.journals.values())}
            return [name for name in named if journal_alive(name)]

        return Sealer(
            self._state.recordings,
            self._state.journals,
            self._state.keys / "log.pem",
            origin=f"{settings.portal.host}/log",
            now=self._clock.now,
            alive=alive,
            rest=rest,
        )

    async def _serve_telemetry(self) -> None:
        ready = Readiness({"workers": self._unready})
        runner = web.AppRunner(
            telemetry.make(self._newest, ready), access_log=None, handle_signals=False, shutdown_timeout=1.0
        )
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, self._sockets.telemetry.dup()).start()


async def _closed(office: Office) -> None:
    await office.close()


async def _lock(state: StateDirectory) -> int:
    """Hold what only one control process may write. Raises OSError when the one before does not let go."""
    lock = os.open(state.run / "control.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = asyncio.get_running_loop().time() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if asyncio.get_running_loop().time() > deadline:
                os.close(lock)
                raise
            await asyncio.sleep(0.05)
        else:
            return lock


def _without_cleanup() -> dict[str, Any]:
    """From Python 3.13 on closing a server removes its path; ours belongs to the supervisor."""
    return {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
