"""Records and Feed in one SQLite file: the embedded default.

Made by `service` in the control process. Every write waits for the disk before it returns; those that come
while the disk is busy wait for it together. Two threads do the work, one for writes and one for reads, so
that the event loop never waits and reads never stand behind an fsync. Never shared between event loops.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, ParamSpec, Self, TypeVar, cast

from ztproxy.store._lane import Lane
from ztproxy.store._sqlite import BUSY_SECONDS, SWEEP_BATCH, Tables
from ztproxy.store.interface import Change, Place, StoreUnavailable, Versioned

P = ParamSpec("P")
T = TypeVar("T")

KEEP: Final = 100_000  # changes kept for readers that fell behind
SWEEP_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.2  # how late `wait` may notice a write of another process
GROUP: Final = 256  # writes that wait for the disk together at most


class SqliteStore:
    """`Records` and `Feed` on one file. `await SqliteStore.open(...)`, later `await store.close()`."""

    __slots__ = ("_changed", "_loop", "_now", "_reader", "_sweeper", "_waiting", "_writer", "_writing")

    def __init__(self, reader: "_Connection", writer: "_Connection", now: Callable[[], int]) -> None:
        self._reader = reader
        self._writer = writer
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []  # writes, in order
        self._writing: asyncio.Task[None] | None = None
        self._sweeper = asyncio.create_task(self._sweep_for_ever())

    @classmethod
    async def open(cls, path: Path, now: Callable[[], int], *, keep: int = KEEP) -> Self:
        """Open or create the file. `now` is the wall clock in ms, `keep` how many changes stay readable.

        Raises StoreUnavailable when the file is damaged, locked, of another program or newer than we are.
        """
        writer = await _Connection.open(path, keep, "ztproxy-store-write")
        try:
            reader = await _Connection.open(path, keep, "ztproxy-store-read")
        except BaseException:
            await writer.close()
            raise
        return cls(reader, writer, now)

    async def close(self) -> None:
        """Finish the writes under way and close the file."""
        self._sweeper.cancel()
        with suppress(asyncio.CancelledError):
            await self._sweeper
        if self._writing is not None:
            await asyncio.wait({self._writing})
        await self._reader.close()
        await self._writer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Records

    async def get(self, kind: str, key: str) -> Versioned | None:
        """Return the live record, or None."""
        return await self._reader.call(self._reader.tables.get, kind, key, self._now())

    async def some(self, places: Sequence[Place]) -> Sequence[Versioned]:
        """Return those live records that there are: one way to the thread and back for all."""
        return await self._reader.call(self._reader.tables.some, places, self._now())

    async def put(
        self, kind: str, key: str, value: bytes, *, if_version: int | None = None, expires_at: int = 0
    ) -> int:
        """Write and publish in one step, on disk when this returns."""
        return await self._change(
            self._writer.tables.put, kind, key, value, if_version, expires_at, self._now()
        )

    async def scan(self, kind: str, *, after: str = "", limit: int = 1000) -> Sequence[Versioned]:
        """Return live records of a kind with keys greater than `after`, in key order."""
        return await self._reader.call(self._reader.tables.scan, kind, after, limit, self._now())

    async def delete(self, kind: str, key: str, *, if_version: int | None = None) -> bool:
        """Delete and publish; False when nothing was there."""
        return await self._change(self._writer.tables.delete, kind, key, if_version, self._now())

    # Feed

    async def head(self) -> int:
        """Return the number of the newest change."""
        return await self._reader.call(self._reader.tables.head)

    async def position(self) -> tuple[int, int]:
        """Return number and stamp of the newest change."""
        return await self._reader.call(self._reader.tables.position)

    async def after(
        self, version: int, *, stamp: int | None = None, limit: int = 1000
    ) -> Sequence[Change] | None:
        """Return changes after `version` in order; None when they are not kept, or of another history."""
        return await self._reader.call(self._reader.tables.after, version, stamp, limit)

    async def wait(self, version: int, seconds: float) -> bool:
        """Return True as soon as the head is past `version`; at once for writes of this process."""
        deadline = self._loop.time() + seconds
        while True:
            changed = self._changed
            if await self.head() > version:
                return True
            remaining = deadline - self._loop.time()
            if remaining <= 0:
                return False
            with suppress(TimeoutError):
                async with asyncio.timeout(min(remaining, POLL_SECONDS)):
                    await changed.wait()

    async def sweep(self) -> int:
        """Delete and publish every expired record; return how many."""
        total = 0
        while True:
            swept = await self._change(self._writer.tables.sweep, self._now())
            total += swept
            if swept < SWEEP_BATCH:
                return total

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            with suppress(StoreUnavailable):  # callers of the store see the same trouble themselves
                await self.sweep()

    async def _change(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((partial(do, *args, **kwargs), answer))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return cast("T", await answer)

    async def _write(self) -> None:
        """Write what waits, as much of it together as there is whenever the disk is free."""
        while self._waiting:
            group = [one for one in self._waiting[:GROUP] if not one[1].done()]
            del self._waiting[:GROUP]
            try:
                results = await self._writer.call(self._writer.tables.group, [write for write, _ in group])
            except Exception as failed:  # noqa: BLE001 - told to those who asked
                results = [failed] * len(group)
            self._wake()
            for (_, answer), result in zip(group, results, strict=True):
                if answer.done():
                    continue  # nobody waits for it any more
                if isinstance(result, Exception):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class _Connection:
    """A connection and its thread."""

    __slots__ = ("_closed", "_lane", "_path", "tables")

    def __init__(self, path: Path, lane: Lane, tables: Tables) -> None:
        self._path = path
        self._lane = lane
        self._closed = False
        self.tables = tables

    @classmethod
    async def open(cls, path: Path, keep: int, name: str) -> Self:
        lane = Lane(name)
        try:
            tables = await lane.do(partial(_told, path, partial(Tables, path, keep)))
        except BaseException:
            lane.stop()
            raise
        return cls(path, lane, tables)

    def call(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Raises StoreUnavailable."""
        if self._closed:
            raise StoreUnavailable(f"{self._path} is closed")
        return self._lane.do(partial(_told, self._path, partial(do, *args, **kwargs)))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._lane.do(partial(_told, self._path, self.tables.close))
            self._lane.stop()


def _told(path: Path, work: Callable[[], T]) -> T:
    """Say in words what is wrong with the file. The values concerned are never part of the message."""
    try:
        return work()
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{path}: {_explain(error)}") from error
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror or error}") from error


def _explain(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"locked by another process for more than {BUSY_SECONDS:g} s"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"damaged or not a database ({error}); restore it from a backup"
    if code == sqlite3.SQLITE_FULL:
        return "the disk is full"
    return str(error)
