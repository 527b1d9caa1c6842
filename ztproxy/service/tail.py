"""The newest part of the feed, read from the store once for all workers of a node.

Run by `service.hub`. Says what came after a position, and as of when that is all there is: `as_of` is the
moment at which the reading began that found nothing newer, so that a slow store or a stopped process never
makes old news look fresh. While the store does not answer nothing moves, and `as_of` least of all.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple

from ztproxy.store.interface import Change, Feed, StoreUnavailable

log = logging.getLogger("ztproxy.feed")

BATCH: Final = 1000
KEEP: Final = 10_000  # changes kept for workers that are a little behind
KEEP_BYTES: Final = 16 << 20
INTERVAL: Final = 1.0  # seconds between readings at the most
RETRY: Final = 0.2  # seconds between attempts while the store does not answer


class Position(NamedTuple):
    """How far a reader has come: the newest change it has, by number and stamp."""

    version: int = 0
    stamp: int = 0


class Tail:
    """Follows the feed. `start()`, later `stop()`."""

    def __init__(self, feed: Feed, monotonic: Callable[[], float]) -> None:
        self._feed = feed
        self._monotonic = monotonic
        self._known = False  # whether `position` is one of the history that the store has now
        self._base = Position()  # where the kept changes begin
        self._kept: deque[Change] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._failing = False
        self.position = Position()
        self.as_of = float("-inf")

    def start(self) -> None:
        """Begin to follow; once."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._listen())]

    def stop(self) -> None:
        """Follow no more."""
        for task in self._tasks:
            task.cancel()

    # ------------------------------------------------------------------ for those who are fed

    def since(self, position: Position) -> Sequence[Change] | None:
        """Return up to BATCH changes after a position; None when it is not known here."""
        if position == self.position and self._known:
            return ()
        index = position.version - self._base.version
        if not self._known or not 0 <= index <= len(self._kept):
            return None
        found = self._base if index == 0 else _position(self._kept[index - 1])
        return tuple(islice(self._kept, index, index + BATCH)) if found == position else None

    def poke(self) -> None:
        """Have the store read as soon as can be."""
        self._wake.set()

    async def news(self) -> None:
        """Wait for the next reading, also for one that failed."""
        await self._news.wait()

    async def fresh(self) -> None:
        """Wait for a reading that begins after this call and succeeds."""
        asked = self._monotonic()
        while self.as_of < asked:
            self._wake.set()
            await self._news.wait()

    # ------------------------------------------------------------------ reading

    async def _read(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._catch_up()
                self._fails(None)
            except Exception as failed:  # noqa: BLE001  also a bug: else nobody here would hear anything again
                self._fails(failed)
                await asyncio.sleep(RETRY)
                self._wake.set()
            self._announce()
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._wake.wait()

    async def _catch_up(self) -> None:
        while True:
            began = self._monotonic()
            if not self._known:
                self._base = self.position = Position(*await self._feed.position())
                self._kept.clear()
                self._bytes = 0
                self._known = True
            version, stamp = self.position
            changes = await self._feed.after(version, stamp=stamp, limit=BATCH)
            if changes is None:
                self._known = False  # another history, or we slept too long
                log.warning("the feed goes on elsewhere: workers start anew", extra={"version": version})
                continue
            for change in changes:
                self._keep(change)
            if len(changes) < BATCH:
                self.as_of = began
                return
            self._announce()

    def _keep(self, change: Change) -> None:
        self._kept.append(change)
        self._bytes += len(change.value or b"")
        self.position = _position(change)
        while len(self._kept) > KEEP or self._bytes > KEEP_BYTES:
            gone = self._kept.popleft()
            self._bytes -= len(gone.value or b"")
            self._base = _position(gone)

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _fails(self, why: Exception | None) -> None:
        """Log when it begins and when it ends, not in between."""
        if why is not None and not self._failing:
            bug = None if isinstance(why, StoreUnavailable) else why
            log.error("the store does not answer", extra={"reason": str(why)}, exc_info=bug)
        elif why is None and self._failing:
            log.warning("the store answers again")
        self._failing = why is not None

    async def _listen(self) -> None:
        """Wake the reader as soon as there is something new."""
        while True:
            try:
                if await self._feed.wait(self.position.version, INTERVAL):
                    self._wake.set()
                    await self._news.wait()
            except Exception:  # noqa: BLE001  the reader meets the same trouble, and says so
                await asyncio.sleep(RETRY)


def _position(change: Change) -> Position:
    return Position(change.version, change.stamp)
