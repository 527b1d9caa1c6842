"""The control process's end of the links: feeds each worker exactly, answers what workers ask.

Each worker has its own pump that reads the feed after the version that worker has, so a slow or new worker
holds nobody up and misses nothing.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from ztproxy.model.messages import (
    AssertionSigned,
    AssertionWanted,
    Beat,
    Changed,
    Counted,
    Fresh,
    FromWorker,
    Hello,
    Sync,
    Synced,
    Touched,
)
from ztproxy.net.channel import Channel, ChannelBroken
from ztproxy.service.process import journal_alive
from ztproxy.store.interface import Feed, Records, StoreUnavailable
from ztproxy.trust.memory import KINDS

log = logging.getLogger("ztproxy.hub")

BATCH: Final = 1000
BEAT: Final = 1.0  # seconds between beats at the most


class Hub:
    """All workers of a node.

    Callbacks: `sign` an assertion, `touched(sessions, at)`, `counted(pid, snapshot)`, with an empty one when
    that worker is gone. In an upgrade two workers of one number live side by side: pids tell them apart.
    """

    def __init__(
        self,
        records: Records,
        feed: Feed,
        *,
        boot: str,
        sign: Callable[[AssertionWanted], Awaitable[AssertionSigned]],
        touched: Callable[[tuple[str, ...], int], Coroutine[Any, Any, None]],
        counted: Callable[[int, bytes], None],
    ) -> None:
        self._records = records
        self._feed = feed
        self._boot = boot
        self._sign = sign
        self._touched = touched
        self._counted = counted
        self.workers: dict[int, int] = {}  # pid -> index of workers that are linked and fed
        self.journals: dict[int, str] = {}  # pid -> journal of workers that were linked, until they end
        self._channels: set[Channel[FromWorker]] = set()

    def close(self) -> None:
        """End all links."""
        for channel in list(self._channels):
            channel.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one worker until it goes (the callback of asyncio.start_unix_server)."""
        with suppress(asyncio.CancelledError):  # we stop; Python 3.11 would log that as an error
            await self._serve(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel: Channel[FromWorker] = Channel(reader, writer, FromWorker)
        self._channels.add(channel)
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
        self._version = hello.version if hello.boot == hub._boot else 0
        self._syncs: list[int] = []
        self._asked = asyncio.Event()

    async def run(self, incoming: AsyncIterator[FromWorker]) -> None:
        """Feed and answer until the worker goes."""
        workers, hello = self._hub.workers, self._hello
        try:
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(self._pump())
                async for message in incoming:
                    await self._take(message, group)
                pump.cancel()
        finally:
            workers.pop(hello.pid, None)
            self._hub._counted(hello.pid, b"")

    async def _take(self, message: FromWorker, group: asyncio.TaskGroup) -> None:
        if isinstance(message, Sync):
            self._syncs.append(message.ask)
            self._asked.set()
        elif isinstance(message, AssertionWanted):
            group.create_task(self._answer(message))
        elif isinstance(message, Touched):
            group.create_task(self._hub._touched(message.sessions, message.at))
        elif isinstance(message, Counted):
            self._hub._counted(self._hello.pid, message.snapshot)

    async def _answer(self, wanted: AssertionWanted) -> None:
        self._channel.send(await self._hub._sign(wanted))

    async def _pump(self) -> None:
        """Send what is newer, then a beat, then wait for more: in that order, so a beat is never a lie."""
        feed = self._hub._feed
        if not self._version:
            await self._snapshot()
        while True:
            self._asked.clear()
            syncs, self._syncs = self._syncs, []  # asked before the feed is read: this reading answers them
            changes = await feed.after(self._version, limit=BATCH)
            if changes is None:
                self._syncs += syncs
                await self._snapshot()
                continue
            for change in changes:
                self._send(change.version, change.kind, change.key, change.value)
                self._version = change.version
            if len(changes) == BATCH:
                self._syncs += syncs
                await self._channel.drain()
                continue
            self._channel.send(Beat(version=self._version))
            for ask in syncs:
                self._channel.send(Synced(ask=ask))
            self._hub.workers[self._hello.pid] = self._hello.worker
            await self._channel.drain()
            await self._wait()

    async def _wait(self) -> None:
        newer = asyncio.create_task(self._hub._feed.wait(self._version, BEAT))
        asked = asyncio.create_task(self._asked.wait())
        try:
            await asyncio.wait({newer, asked}, timeout=BEAT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            newer.cancel()
            asked.cancel()

    async def _snapshot(self) -> None:
        """Send every record that workers hold. What changes meanwhile follows from the feed."""
        version = await self._hub._feed.head()
        self._channel.send(Fresh(boot=self._hub._boot))
        for kind in KINDS:
            after = ""
            while True:
                page = await self._hub._records.scan(kind, after=after, limit=BATCH)
                for record in page:
                    self._send(record.version, kind, record.key, record.value)
                await self._channel.drain()
                if len(page) < BATCH:
                    break
                after = page[-1].key
        self._version = version

    def _send(self, version: int, kind: str, key: str, value: bytes | None) -> None:
        if kind in KINDS:
            self._channel.send(Changed(version=version, kind=kind, key=key, value=value))
