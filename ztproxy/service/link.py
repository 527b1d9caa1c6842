"""A worker's link to the control process: the feed into memory, questions and answers, counters back.

While the link is down the worker goes on from memory; `Memory.feed_age` grows and closes doors in time.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ztproxy.model.messages import (
    AssertionSigned,
    AssertionWanted,
    Beat,
    Carries,
    CertificateIssued,
    CertificateWanted,
    Changed,
    Charge,
    Charged,
    Counted,
    Fresh,
    FromControl,
    Hello,
    Page,
    Rechecked,
    RecheckWanted,
    Shown,
    Sync,
    Synced,
    Touched,
)
from ztproxy.model.quota import Spent
from ztproxy.net.channel import Channel, ChannelBroken, dial
from ztproxy.trust.digest import Holding, digest, holding
from ztproxy.trust.memory import Concern, Memory

log = logging.getLogger("ztproxy.link")

ASK_TIMEOUT: Final = 3.0  # seconds
SILENCE: Final = 5.0  # seconds without a beat after which the link is dialled anew
RETRY: Final = 0.2  # seconds between dials
ASKS: Final = 4096  # questions under way at most
TOGETHER: Final = 100  # ms: uses of sessions so close to each other are told as one, as of the earlier end


class Link:
    """One worker's end.

    `changed(concerns)` is called after memory took changes, with None when everything may have changed.
    """

    def __init__(
        self,
        path: Path,
        memory: Memory,
        *,
        worker: int,
        pid: int,
        journal: str,
        now: Callable[[], int],
        changed: Callable[[Sequence[Concern] | None], None],
    ) -> None:
        self._path = path
        self._memory = memory
        self._worker = worker
        self._pid = pid
        self._journal = journal
        self._now = now
        self._changed = changed
        self._channel: Channel[FromControl] | None = None
        self._version, self._stamp = 0, 0  # how far memory has come in the feed
        self._snapshot: Memory | None = None  # what is coming in to replace memory
        self._asks: dict[int, asyncio.Future[FromControl]] = {}
        self._last_ask = 0
        self._syncing: asyncio.Task[bool] | None = None
        self._next_sync: asyncio.Task[bool] | None = None
        self._touched: dict[str, int] = {}  # session id -> ms of a use that was not told yet
        self._carries: tuple[str, ...] = ()
        self._up = asyncio.Event()
        self._asking = 0
        self._showing: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()

    # ------------------------------------------------------------------ running

    async def run(self) -> None:
        """Stay linked until cancelled."""
        while True:
            try:
                self._channel = await dial(self._path, FromControl)
            except OSError:
                await asyncio.sleep(RETRY)
                continue
            self._up.set()
            try:
                await self._converse(self._channel)
            except (ChannelBroken, TimeoutError) as broken:
                log.warning("link to the control process broke", extra={"reason": str(broken) or "silence"})
            finally:
                self._drop()
            await asyncio.sleep(RETRY)

    async def _converse(self, channel: Channel[FromControl]) -> None:
        channel.send(
            Hello(
                worker=self._worker,
                pid=self._pid,
                version=self._version,
                journal=self._journal,
                stamp=self._stamp,
            )
        )
        if self._carries:
            channel.send(Carries(connectors=self._carries))
        incoming = aiter(channel.messages())
        while True:
            async with asyncio.timeout(SILENCE):
                message = await anext(incoming, None)
            if message is None:
                return
            self._take(message)

    def _drop(self) -> None:
        self._up.clear()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._snapshot = None
        for answer in self._asks.values():
            if not answer.done():
                answer.cancel()
        self._asks.clear()

    # ------------------------------------------------------------------ what comes in

    def _take(self, message: FromControl) -> None:
        if isinstance(message, Changed):
            self._take_change(message)
        elif isinstance(message, Beat):
            self._take_beat(message)
        elif isinstance(message, Page):
            self._take_page(message)
        elif isinstance(message, Fresh):
            self._snapshot = self._memory.another()
        else:
            answer = self._asks.pop(message.ask, None)
            if answer is not None and not answer.done():
                answer.set_result(message)

    def _take_change(self, change: Changed) -> None:
        if self._snapshot is not None:
            self._snapshot.apply(change)
            return
        self._version, self._stamp = change.version, change.stamp
        concerns = self._memory.apply(change)
        if change.key in self._memory.unread:
            self._changed(None)
        elif concerns:
            self._changed(concerns)

    def _take_page(self, page: Page) -> None:
        """Take a part of a snapshot: decoded as it comes, so that no request waits for the whole of it."""
        if self._snapshot is not None:
            for key, value in page.records:
                self._snapshot.apply(Changed(version=0, kind=page.kind, key=key, value=value))

    def _take_beat(self, beat: Beat) -> None:
        """A snapshot replaces memory in one step: no request ever sees half of it."""
        self._version, self._stamp = beat.version, beat.stamp
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None:
            self._memory.become(snapshot)
        self._memory.heard(beat.version, beat.as_of)
        if snapshot is not None:
            self._changed(None)
            self.ready.set()
        self._send_touched()
        if beat.show and (self._showing is None or self._showing.done()):
            self._showing = asyncio.create_task(self._show(beat.version, holding(self._memory)))

    async def _show(self, version: int, held: Holding) -> None:
        """Say what memory held at that version, beside everything else."""
        records, found = await digest(held)
        if self._channel is not None:
            self._channel.send(Shown(version=version, records=records, digest=found))

    # ------------------------------------------------------------------ what goes out

    async def sync(self) -> bool:
        """Return True once memory holds all that was in the store when this was called.

        Callers share: at most one question is under way and one more waits for it.
        """
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.create_task(self._sync())
            return await asyncio.shield(self._syncing)
        if self._next_sync is None or self._next_sync.done():
            self._next_sync = asyncio.create_task(self._sync_after(self._syncing))
        return await asyncio.shield(self._next_sync)

    async def _sync_after(self, first: asyncio.Task[bool]) -> bool:
        await asyncio.wait({first})
        self._syncing, self._next_sync = asyncio.current_task(), None
        return await self._sync()

    async def _sync(self) -> bool:
        return isinstance(await self._ask(lambda ask: Sync(ask=ask)), Synced)

    async def assertion(self, wanted: AssertionWanted) -> AssertionSigned | None:
        """Have an assertion signed; None when the control process does not answer."""
        answer = await self._ask(lambda ask: msgspec.structs.replace(wanted, ask=ask))
        return answer if isinstance(answer, AssertionSigned) else None

    async def recheck(self, wanted: RecheckWanted) -> Rechecked | None:
        """Have the provider of a session asked again; None when the control process does not answer."""
        answer = await self._ask(lambda ask: msgspec.structs.replace(wanted, ask=ask))
        return answer if isinstance(answer, Rechecked) else None

    async def charge(self, spent: tuple[Spent, ...]) -> Charged | None:
        """Charge tokens of shared rates; None when the control process does not answer."""
        answer = await self._ask(lambda ask: Charge(ask=ask, spent=spent))
        return answer if isinstance(answer, Charged) else None

    async def certificate(self, key: bytes) -> CertificateIssued | None:
        """Have a public key (SubjectPublicKeyInfo, DER) certified as one of this node; None: it is not."""
        answer = await self._ask(lambda ask: CertificateWanted(ask=ask, key=key))
        return answer if isinstance(answer, CertificateIssued) and answer.pem else None

    async def _ask(self, question: Callable[[int], msgspec.Struct]) -> FromControl | None:
        """Ask, and once more when the link broke meanwhile: control may have changed hands."""
        if self._asking >= ASKS:
            return None
        self._asking += 1
        try:
            async with asyncio.timeout(ASK_TIMEOUT):
                while True:
                    await self._up.wait()
                    answer = await self._ask_once(question)
                    if answer is not None:
                        return answer
        except TimeoutError:
            return None
        finally:
            self._asking -= 1

    async def _ask_once(self, question: Callable[[int], msgspec.Struct]) -> FromControl | None:
        """Return the answer, None when the link broke."""
        channel = self._channel
        if channel is None:
            return None
        self._last_ask += 1
        ask = self._last_ask
        answer: asyncio.Future[FromControl] = asyncio.get_running_loop().create_future()
        self._asks[ask] = answer
        channel.send(question(ask))
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.cancelled() and not _cancelling():
                return None  # the link broke, not our caller
            raise
        finally:
            self._asks.pop(ask, None)

    def touched(self, session_id: str) -> None:
        """Note that a session is in use; told with the next beat, however late that comes."""
        self._touched[session_id] = self._now()

    def _send_touched(self) -> None:
        """Tell when uses were, not when they are told: what waited must not lengthen a session's life."""
        if self._channel is None:
            return
        touched, self._touched = self._touched, {}
        together: dict[int, list[str]] = {}
        for session_id, at in touched.items():
            together.setdefault(at // TOGETHER, []).append(session_id)
        for span, sessions in together.items():
            self._channel.send(Touched(sessions=tuple(sessions), at=span * TOGETHER))

    def carries(self, connectors: tuple[str, ...]) -> None:
        """Tell the names of the connectors that are ready here, if they are others than before."""
        if connectors != self._carries:
            self._carries = connectors
            if self._channel is not None:
                self._channel.send(Carries(connectors=connectors))

    def counted(self, snapshot: bytes) -> None:
        """Hand the worker's counters over (an encoded telemetry snapshot)."""
        if self._channel is not None:
            self._channel.send(Counted(snapshot=snapshot))


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
