"""One of two nodes does what only one should do: over a real Redis, whatever happens to it or its clock."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from bench.nodes import RedisServer
from bench.wires import Wire
from ztproxy.administrator.signals import lease as lease_module
from ztproxy.administrator.signals.lease import Lease
from ztproxy.net.clock import SystemClock
from ztproxy.store.interface import StoreUnavailable
from ztproxy.store.redis import RedisStore
from ztproxy.store.redis_client import RedisOptions

pytestmark = pytest.mark.redis

HELD, WATCHED, RENEW = 1.5, 3.0, 0.3
clock = SystemClock()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("the redis-server program is not installed")
    running = RedisServer(tmp_path / "redis")
    running.start()
    yield running
    running.end()


class Slow(SystemClock):
    """A wall clock that is off by so much (ms)."""

    def __init__(self, off: int) -> None:
        super().__init__()
        self.off = off

    def now(self) -> int:
        return super().now() + self.off


class Node:
    """Renews its lease again and again, and works whenever it has it; `acts` are the moments of its work."""

    def __init__(self, name: str, off: int = 0) -> None:
        self.name, self.clock = name, Slow(off)
        self.acts: list[float] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self, server: RedisServer, stack: AsyncExitStack) -> None:
        self.wire = Wire(server.port)
        await asyncio.to_thread(self.wire.start)
        stack.callback(self.wire.end)
        options = RedisOptions(url=f"redis://127.0.0.1:{self.wire.port}", timeout=1.0, connect_timeout=1.0)
        store = await RedisStore.open(options, self.clock.now)
        stack.push_async_callback(store.close)
        self.lease = Lease(store, self.clock, "signals", self.name)
        self.tasks = [asyncio.create_task(self._renew()), asyncio.create_task(self._work())]
        stack.callback(self.die)

    def die(self) -> None:
        """Stop without a word."""
        for task in self.tasks:
            task.cancel()

    async def _renew(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                await self.lease.renew()
            await asyncio.sleep(RENEW)

    async def _work(self) -> None:
        while True:
            if self.lease.held:
                await self.lease.while_held(self._for_ever())
            await asyncio.sleep(0.01)

    async def _for_ever(self) -> bool:
        while True:
            self.acts.append(clock.monotonic())
            await asyncio.sleep(0.01)


@pytest.fixture
async def place(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[RedisServer, AsyncExitStack]]:
    monkeypatch.setattr(lease_module, "HELD", HELD)
    monkeypatch.setattr(lease_module, "WATCHED", WATCHED)
    async with AsyncExitStack() as stack:
        yield server, stack


async def works(node: Node, since: float, seconds: float = 30) -> float:
    """Return when it began to work after a moment."""
    async with asyncio.timeout(seconds):
        while not node.acts or node.acts[-1] <= since:
            await asyncio.sleep(0.01)
    return next(at for at in node.acts if at > since)


def never_both(one: Node, other: Node) -> None:
    """One worked, then the other."""
    turns = sorted([(at, one.name) for at in one.acts] + [(at, other.name) for at in other.acts])
    changes = sum(before != after for (_, before), (_, after) in pairwise(turns))
    assert changes == 1, "they worked at the same time"


@pytest.mark.parametrize("off", [0, 3_600_000, -3_600_000])
async def test_another_takes_over_from_a_holder_that_died(
    place: tuple[RedisServer, AsyncExitStack], off: int
) -> None:
    """Also where its wall clock is an hour ahead or behind."""
    server, stack = place
    first, second = Node("first"), Node("second", off)
    await first.start(server, stack)
    await works(first, 0)
    await second.start(server, stack)
    await asyncio.sleep(WATCHED * 1.5)
    assert not second.acts, "it works beside one that is well"
    first.die()
    died = clock.monotonic()
    began = await works(second, died)
    assert began - died > HELD / 2
    assert began - died < WATCHED + 10, "it renewed at most once more, and a machine may be busy"
    assert first.acts[-1] < began
    never_both(first, second)


async def test_a_holder_that_is_parted_stops_before_another_begins_and_stays_out(
    place: tuple[RedisServer, AsyncExitStack],
) -> None:
    server, stack = place
    first, second = Node("first"), Node("second")
    await first.start(server, stack)
    await works(first, 0)
    await second.start(server, stack)
    await asyncio.to_thread(first.wire.hold)
    parted = clock.monotonic()
    began = await works(second, parted)
    assert first.acts[-1] < began
    assert not first.lease.held
    await asyncio.to_thread(first.wire.heal)
    await asyncio.sleep(RENEW * 6)
    assert second.lease.held and not first.lease.held
    assert first.acts[-1] < began
    never_both(first, second)


async def test_what_is_under_way_when_the_lease_ends_is_broken_off(
    place: tuple[RedisServer, AsyncExitStack],
) -> None:
    server, stack = place
    node = Node("first")
    await node.start(server, stack)
    await works(node, 0)
    node.tasks[0].cancel()  # renews no more
    ended = clock.monotonic() + HELD
    async with asyncio.timeout(20):
        while node.lease.held:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    acts = len(node.acts)
    await asyncio.sleep(0.3)
    assert len(node.acts) == acts
    assert node.acts[-1] <= ended + 0.5  # a step that was due already


async def test_a_holder_that_goes_leaves_it_to_the_other_at_once(
    place: tuple[RedisServer, AsyncExitStack],
) -> None:
    server, stack = place
    first, second = Node("first"), Node("second")
    await first.start(server, stack)
    await works(first, 0)
    await second.start(server, stack)
    first.die()
    left = clock.monotonic()
    await first.lease.release()
    await works(second, left)
    never_both(first, second)
