"""The control process: portal and API, keys, the store's only writer, the feed, the sealed log, metrics.

One per node, started by the supervisor: `python -m ztproxy.service.control`. It loads the configuration and
waits for the supervisor's word; `_Tenure.enter` is how it is put together: everything is built in order and
handed on explicitly. In an upgrade there are two of it, and one of them waits.
"""

import argparse
import asyncio
import logging
import os
import socket
from pathlib import Path
from typing import Final

from ztproxy import __version__
from ztproxy.administrator.audit import Audit, AuditUnavailable
from ztproxy.api.node import Event, Outcome, State, Status
from ztproxy.config.problems import ConfigProblems
from ztproxy.config.settings import Settings
from ztproxy.crypto.ids import RequestIds
from ztproxy.model.record import ConfigurationRecord
from ztproxy.net.clock import SystemClock, entropy
from ztproxy.net.keyfiles import KeyFileError
from ztproxy.net.loop import run
from ztproxy.policy.engine import PolicySet
from ztproxy.recording.journal import JournalFull, JournalWriter
from ztproxy.recording.log import LogUnavailable
from ztproxy.service.alike import state
from ztproxy.service.configuration import unseal
from ztproxy.service.office import Office, furnish
from ztproxy.service.orders import (
    Commit,
    Done,
    Forget,
    Go,
    Hold,
    Note,
    Orders,
    Prepare,
    Ready,
    ToChild,
    Told,
    Wanted,
    of_child,
)
from ztproxy.service.preparing import aside
from ztproxy.service.process import die_with_parent, journal_name, stop_event
from ztproxy.service.state import StateDirectory
from ztproxy.service.tenure import Sockets, Tenure
from ztproxy.store.interface import StoreUnavailable
from ztproxy.telemetry.log import configure
from ztproxy.telemetry.metrics import Counters
from ztproxy.telemetry.snapshot import Configuration

log = logging.getLogger("ztproxy.control")

WISH: Final = 600.0  # seconds for a reload or an upgrade that somebody asked for

#: What keeps the state directory from being opened, or the parts of a configuration from being built.
_BROKEN: Final = (
    AuditUnavailable,
    ConfigProblems,
    JournalFull,
    KeyFileError,
    LogUnavailable,
    OSError,
    StoreUnavailable,
    ValueError,
)


class Control:
    """The process: does what the supervisor says, one thing after the other. Implements `api.node.Node`."""

    def __init__(
        self,
        settings: Settings,
        policies: PolicySet,
        orders: Orders[ToChild],
        sockets: Sockets,
        workers: int,
    ) -> None:
        self._settings = settings
        self._policies = policies
        self._orders = orders
        self._sockets = sockets
        self._workers = workers
        self._clock = SystemClock()
        self._state = StateDirectory(settings.state_dir)
        self._counters = Counters("control")
        self._audit: Audit | None = None
        self._tenure: Tenure | None = None
        self._next: Office | None = None
        self._since = self._clock.now()
        self._last: Event | None = None
        self._upgraded: Event | None = None
        self._ids = RequestIds(entropy)
        self._wishes: dict[int, asyncio.Future[Told]] = {}

    async def run(self) -> None:
        """Serve until SIGTERM, or until there is no supervisor."""
        stop = stop_event()
        obeying = asyncio.create_task(self._obey())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({obeying, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (obeying, stopping):
            task.cancel()
        await asyncio.wait({obeying, stopping})
        if self._tenure is not None:
            await self._tenure.leave()
        if not obeying.cancelled():
            obeying.result()

    # ------------------------------------------------------------------ what the supervisor says

    async def _obey(self) -> None:
        self._orders.send(Ready())
        while (heard := await self._orders.receive()) is not None:
            order, descriptor = heard
            try:
                await self._take(order, descriptor)
            finally:
                if descriptor is not None:
                    os.close(descriptor)

    async def _take(self, order: ToChild, descriptor: int | None) -> None:
        if isinstance(order, Told):
            wish = self._wishes.get(order.ask)
            if wish is not None and not wish.done():
                wish.set_result(order)
        elif isinstance(order, Forget):
            await self._forget()
        elif isinstance(order, Go | Hold | Prepare | Commit | Note):
            why = ""
            try:
                await self._do(order, descriptor)
            except _BROKEN as broken:
                why = f"control: {type(broken).__name__}: {broken}"
            except Exception as bug:  # as in a worker: those who are served go on
                log.exception("an order can not be followed")
                why = f"control: {type(bug).__name__}; see the log"
            self._orders.send(Done(order.ask, why[:8000]))

    async def _do(self, order: Go | Hold | Prepare | Commit | Note, descriptor: int | None) -> None:
        if isinstance(order, Go):
            await self._go()
        elif isinstance(order, Hold):
            await self._hold()
        elif isinstance(order, Prepare):
            await self._prepare(-1 if descriptor is None else descriptor)
        elif isinstance(order, Commit):
            await self._commit()
        else:
            self._note(order)

    async def _go(self) -> None:
        if self._tenure is not None:
            return
        if self._audit is None:  # one journal for all tenures of this process
            self._audit = Audit(JournalWriter(self._state.journals, journal_name("control")))
        tenure = Tenure(
            self._state, self._clock, self._audit, self._counters, self._sockets, self._workers, self
        )
        try:
            await tenure.enter(self._settings, self._policies)
        except BaseException:
            await tenure.leave()
            raise
        self._tenure = tenure
        self._show()
        log.info("control is up", extra={"portal": self._settings.portal_origin})

    async def _hold(self) -> None:
        tenure, self._tenure = self._tenure, None
        await self._forget()
        if tenure is not None:
            await tenure.leave()
        log.info("control holds")

    async def _prepare(self, descriptor: int) -> None:
        """Build the next office beside the one that answers."""
        await self._forget()
        if self._tenure is None:
            raise ValueError("does not serve yet")
        before = self._policies
        settings, policies = await aside(lambda: unseal(descriptor, self._settings.file, before))
        self._next = await furnish(settings, policies, self._tenure.ground)

    async def _commit(self) -> None:
        office, self._next = self._next, None
        if office is None or self._tenure is None:
            raise ValueError("nothing is prepared")
        await self._tenure.swap(office)
        self._settings, self._policies = office.settings, office.policies
        self._since = self._clock.now()
        configure(self._settings.log.level, self._settings.log.format)
        self._show()

    async def _forget(self) -> None:
        office, self._next = self._next, None
        if office is not None:
            await office.close()

    def _note(self, note: Note) -> None:
        """Write down what happened. Raises AuditUnavailable."""
        if self._audit is None:
            raise ValueError("does not serve yet")
        now = self._clock.now()
        self._audit.configuration(
            ConfigurationRecord(
                id=self._ids.new(),
                at=now,
                event=note.event,
                outcome=note.outcome,
                by=note.by,
                before=note.before,
                after=note.after,
                policy_set=note.policies,
                routes=note.routes,
                detail=note.detail,
            )
        )
        self._last = Event(now, note.event, note.outcome, note.by, note.detail)
        if note.event == "reload":
            self._counters.reloaded(note.outcome)
        elif note.event == "upgrade":
            self._upgraded = self._last

    def _show(self) -> None:
        self._counters.in_force(
            Configuration(self._settings.files.digest, self._policies.digest, self._since / 1000)
        )

    # ------------------------------------------------------------------ what administrators ask (api.node)

    def status(self) -> Status:
        """Return what runs."""
        ready = len(set(self._tenure.hub.workers.values())) if self._tenure is not None else 0
        return Status(
            version=__version__,
            pid=os.getpid(),
            workers=ready,
            configuration=self._settings.files.digest,
            policies=self._policies.digest,
            routes=len(self._settings.route_settings),
            since=self._since,
            last=self._last,
            upgraded=self._upgraded,
        )

    async def state(self) -> State:
        """Return what store and workers hold. Raises StoreUnavailable."""
        if self._tenure is None:
            return State(store=None, workers=())
        return await state(self._tenure.hub, self._tenure.ground.records)

    async def want(self, what: str, by: str) -> Outcome:
        """Ask the supervisor for a reload or an upgrade."""
        ask = max(self._wishes, default=0) + 1
        wish = self._wishes[ask] = asyncio.get_running_loop().create_future()
        try:
            if not self._orders.send(Wanted(ask, what, by)):
                return Outcome(done=False, text="the supervisor does not listen")
            async with asyncio.timeout(WISH):
                told = await wish
        except TimeoutError:
            return Outcome(done=False, text="the supervisor has not answered")
        finally:
            del self._wishes[ask]
        return Outcome(done=told.done, text=told.text, problems=told.problems)


def main() -> None:
    """Entry of the process."""
    parser = argparse.ArgumentParser(prog="ztproxy control")
    parser.add_argument("--config", type=Path, required=True)
    for number in ("--parent", "--workers", "--configuration", "--orders"):
        parser.add_argument(number, type=int, required=True)
    for listening in Sockets._fields:
        parser.add_argument(f"--{listening}", type=int, required=True, help="file descriptor")
    arguments = parser.parse_args()
    os.umask(0o077)
    die_with_parent(arguments.parent)
    settings, policies = unseal(arguments.configuration, arguments.config)
    os.close(arguments.configuration)
    configure(settings.log.level, settings.log.format)
    sockets = Sockets(*(socket.socket(fileno=getattr(arguments, name)) for name in Sockets._fields))
    run(Control(settings, policies, of_child(arguments.orders), sockets, arguments.workers).run())


if __name__ == "__main__":
    main()
