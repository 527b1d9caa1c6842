"""The control process's end of the links: feeds each worker exactly, answers what workers ask.

The feed is read once (`service.tail`). Each worker has its own pump from the position that worker has, so a
slow or new worker holds nobody up and misses nothing; one that is further behind than what is kept in memory
reads from the store until it is not.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

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
    FromWorker,
    Hello,
    Page,
    Rechecked,
    RecheckWanted,
    Shown,
    Sync,
    Synced,
    Touched,
)
from ztproxy.net.channel import Channel, ChannelBroken
from ztproxy.service.process import journal_alive
from ztproxy.service.tail import BATCH, INTERVAL, RETRY, Position, Tail
from ztproxy.store.interface import Change, Feed, Records, StoreUnavailable
from ztproxy.trust.memory import KINDS

log = logging.getLogger("ztproxy.hub")

PAGE: Final = 500  # records of a snapshot in one message
BEAT: Final = INTERVAL  # seconds between beats at the most


class Hub:
    """All workers of a node.

    Callbacks: `sign` an assertion, `recheck` a session, `charge` tokens, `certify` a worker's key,
    `touched(sessions, at)`, `carries(pid, connectors)` and `counted(pid, snapshot)`, both with nothing when
    that worker is gone. In an upgrade two workers of one number live side by side: pids tell them apart.
    """

    def __init__(
        self,
        records: Records,
        feed: Feed,
        *,
        monotonic: Callable[[], float],
        sign: Callable[[AssertionWanted], Awaitable[AssertionSigned]],
        recheck: Callable[[RecheckWanted], Awaitable[Rechecked]],
        charge: Callable[[Charge], Awaitable[Charged]],
        certify: Callable[[CertificateWanted], Awaitable[CertificateIssued]],
        carries: Callable[[int, tuple[str, ...]], None],
        touched: Callable[[tuple[str, ...], int], None],
        counted: Callable[[int, bytes], None],
    ) -> None:
        self._records = records
        self._feed = feed
        self._monotonic = monotonic
        self._tail = Tail(feed, monotonic)
        self._sign = sign
        self._recheck = recheck
        self._charge = charge
        self._certify = certify
        self._carries = carries
        self._touched = touched
        self._counted = counted
        self.workers: dict[int, int] = {}  # pid -> index of workers that are linked and fed
        self.journals: dict[int, str] = {}  # pid -> journal of workers that were linked, until they end
        self._channels: set[Channel[FromWorker]] = set()
        self._conversations: set[_Conversation] = set()

    async def held(self, seconds: float) -> list[tuple[int, Shown]]:
        """Return what each linked worker holds, by its number; without those that do not say so in time."""
        answers = {one.show(): one.worker for one in self._conversations}
        if not answers:
            return []
        self._tail.poke()
        done, _ = await asyncio.wait(answers, timeout=seconds)
        return [(answers[answer], answer.result()) for answer in done if not answer.cancelled()]

    def close(self) -> None:
        """End all links."""
        self._tail.stop()
        for channel in list(self._channels):
            channel.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one worker until it goes (the callback of asyncio.start_unix_server)."""
        with suppress(asyncio.CancelledError):  # we stop; Python 3.11 would log that as an error
            await self._serve(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel: Channel[FromWorker] = Channel(reader, writer, FromWorker)
        self._channels.add(channel)
        self._tail.start()
        try:
            incoming = aiter(channel.messages())
            hello = await anext(incoming, None)
            if isinstance(hello, Hello):
                living = {pid: name for pid, name in self.journals.items() if journal_alive(name)}
                self.journals = living | {hello.pid: hello.journal}
                await _Conversation(self, channel, hello).run(incoming)
        except* (ChannelBroken, StoreUnavailable) as broken:
            log.warning("link to a worker broke", extra={"reason": str(broken.exceptions[0])})
        finally:
            self._channels.discard(channel)
            channel.close()


class _Conversation:
    """One worker's pump and its questions."""

    def __init__(self, hub: Hub, channel: Channel[FromWorker], hello: Hello) -> None:
        self._hub = hub
        self._channel = channel
        self._hello = hello
        self._position = Position(hello.version, hello.stamp)
        self._syncs: list[tuple[float, int]] = []  # when each was asked, and its number
        self._shows: list[asyncio.Future[Shown]] = []  # who waits for what the worker holds
        self._asked = False  # whether the worker knows

    @property
    def worker(self) -> int:
        """Return the worker's number."""
        return self._hello.worker

    def show(self) -> "asyncio.Future[Shown]":
        """Have the worker say what it holds with the next beat. Cancelled when it goes."""
        self._shows.append(asyncio.get_running_loop().create_future())
        return self._shows[-1]

    async def run(self, incoming: AsyncIterator[FromWorker]) -> None:
        """Feed and answer until the worker goes."""
        workers, hello = self._hub.workers, self._hello
        self._hub._conversations.add(self)
        try:
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(self._pump())
                async for message in incoming:
                    await self._take(message, group)
                pump.cancel()
        finally:
            self._hub._conversations.discard(self)
            for waiting in self._shows:
                waiting.cancel()
            workers.pop(hello.pid, None)
            self._hub._carries(hello.pid, ())
            self._hub._counted(hello.pid, b"")

    async def _take(self, message: FromWorker, group: asyncio.TaskGroup) -> None:
        if isinstance(message, Sync):
            self._syncs.append((self._hub._monotonic(), message.ask))
            self._hub._tail.poke()
        elif isinstance(message, AssertionWanted):
            group.create_task(self._answer(message))
        elif isinstance(message, RecheckWanted):
            group.create_task(self._recheck(message))
        elif isinstance(message, Charge):
            group.create_task(self._charge(message))
        elif isinstance(message, CertificateWanted):
            group.create_task(self._certify(message))
        elif isinstance(message, Carries):
            self._hub._carries(self._hello.pid, message.connectors)
        elif isinstance(message, Touched):
            self._hub._touched(message.sessions, message.at)
        elif isinstance(message, Shown):
            self._shown(message)
        elif isinstance(message, Counted):
            self._hub._counted(self._hello.pid, message.snapshot)

    def _shown(self, shown: Shown) -> None:
        waiting, self._shows, self._asked = self._shows, [], False
        for one in waiting:
            if not one.done():
                one.set_result(shown)

    async def _answer(self, wanted: AssertionWanted) -> None:
        """What fails here is refused to one caller; the feed goes on for all."""
        try:
            answer = await self._hub._sign(wanted)
        except Exception as failed:  # noqa: BLE001  it is told below, and the caller is refused
            _log(failed, "an assertion can not be signed")
            answer = AssertionSigned(ask=wanted.ask, token="", expires_at=0)
        self._channel.send(answer)

    async def _certify(self, wanted: CertificateWanted) -> None:
        try:
            answer = await self._hub._certify(wanted)
        except Exception as failed:  # noqa: BLE001  as above
            _log(failed, "a key of a worker can not be certified")
            answer = CertificateIssued(ask=wanted.ask, pem="", not_after=0)
        self._channel.send(answer)

    async def _recheck(self, wanted: RecheckWanted) -> None:
        """What fails here is not answered: the worker waits no longer than it can."""
        try:
            answer = await self._hub._recheck(wanted)
        except Exception as failed:  # noqa: BLE001  as above
            _log(failed, "a provider can not be asked")
            return
        self._channel.send(answer)

    async def _charge(self, charge: Charge) -> None:
        """What fails here is charged again; until then each worker keeps its share."""
        try:
            answer = await self._hub._charge(charge)
        except Exception as failed:  # noqa: BLE001  as above
            _log(failed, "rates can not be charged")
            return
        self._channel.send(answer)

    async def _pump(self) -> None:
        """Send what is newer, then a beat, then wait for more: in that order, so a beat is never a lie."""
        tail = self._hub._tail
        if not self._position.version:
            await self._snapshot()
        while True:
            changes = tail.since(self._position)
            if changes is None:
                await self._follow()
            elif changes:
                await self._pass_on(changes)
            else:
                self._beat()
                await self._channel.drain()
                await self._wait()

    def _beat(self) -> None:
        """The worker has what the tail has: say as of when, and answer who asked before that."""
        tail, channel = self._hub._tail, self._channel
        show = bool(self._shows) and not self._asked
        self._asked = self._asked or show
        version, stamp = tail.position
        channel.send(Beat(version=version, stamp=stamp, as_of=tail.as_of, show=show))
        for asked, ask in self._syncs:
            if asked <= tail.as_of:
                channel.send(Synced(ask=ask))
        self._syncs = [one for one in self._syncs if one[0] > tail.as_of]
        self._hub.workers[self._hello.pid] = self._hello.worker

    async def _wait(self) -> None:
        """Wait for the next reading."""
        with suppress(TimeoutError):
            async with asyncio.timeout(BEAT):
                await self._hub._tail.news()

    async def _follow(self) -> None:
        """Read what the tail does not keep from the store, or start anew where that has another history."""
        hub, (version, stamp) = self._hub, self._position
        try:
            changes = await hub._feed.after(version, stamp=stamp, limit=BATCH)
            if changes is None:
                await self._snapshot()
                return
        except StoreUnavailable:
            await asyncio.sleep(RETRY)
            return
        await self._pass_on(changes)
        if len(changes) < BATCH:
            await hub._tail.fresh()

    async def _pass_on(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.kind in KINDS:
                self._channel.send(
                    Changed(
                        version=change.version,
                        kind=change.kind,
                        key=change.key,
                        value=change.value,
                        stamp=change.stamp,
                    )
                )
            self._position = Position(change.version, change.stamp)
        await self._channel.drain()

    async def _snapshot(self) -> None:
        """Send every record that workers hold. What changes meanwhile follows from the feed."""
        hub, channel = self._hub, self._channel
        position = Position(*await hub._feed.position())
        channel.send(Fresh())
        for kind in KINDS:
            after = ""
            while page := await hub._records.scan(kind, after=after, limit=PAGE):
                channel.send(Page(kind=kind, records=tuple((one.key, one.value) for one in page)))
                await channel.drain()
                after = page[-1].key
                if len(page) < PAGE:
                    break
        self._position = position
        await hub._tail.fresh()


def _log(failed: Exception, what: str) -> None:
    bug = None if isinstance(failed, StoreUnavailable) else failed
    log.warning(what, extra={"reason": str(failed)}, exc_info=bug)
