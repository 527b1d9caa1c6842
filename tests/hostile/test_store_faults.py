"""The store fails at every operation once, before or after it did what it was asked: nodes end up alike.

What was acknowledged holds on both, what workers have in memory is what the store has, and a worker that
could not be fed says so by the age of what it knows.
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from desk import Desk, agree, as_said, clock, node

from ztproxy.store.interface import Store, StoreUnavailable
from ztproxy.store.sqlite import SqliteStore

RECORDS = frozenset({"get", "put", "scan", "delete"})
FEED = frozenset({"head", "position", "after"})


class Faulty:
    """A store whose n-th operation of some fails once; `late`: it is done all the same, and nobody hears."""

    def __init__(self, store: Store, names: frozenset[str], n: int, *, late: bool) -> None:
        self._store, self._names, self._late = store, names, late
        self.left = n
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        done = getattr(self._store, name)
        if name not in self._names:
            return done

        async def perform(*arguments: Any, **more: Any) -> Any:
            self.left -= 1
            if self.broken or (self.left == 0 and not self._late):
                raise StoreUnavailable("injected")
            result = await done(*arguments, **more)
            if self.left == 0:
                raise StoreUnavailable("injected")
            return result

        return perform


async def run(tmp_path: Path, names: frozenset[str], n: int, *, late: bool) -> bool:
    """One run with a fault at operation n; False when there were not so many."""
    async with AsyncExitStack() as stack:
        folder = tmp_path / f"{n}-{late}"
        folder.mkdir()
        store = await SqliteStore.open(folder / "s.db", clock.now)
        stack.push_async_callback(store.close)
        faulty = Faulty(store, names, n, late=late)
        near = await stack.enter_async_context(node(faulty, folder / "near"))
        far = await stack.enter_async_context(node(store, folder / "far"))
        desk = Desk(faulty)
        said = await desk.day()
        as_said(said, await agree(store, near, far))
        return faulty.left <= 0


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_a_record_operation_fails(tmp_path: Path, late: bool) -> None:
    """Every one of them, the hub's own among them."""
    n = 1
    while await run(tmp_path, RECORDS, n, late=late):
        n += 1
    assert n > 20  # the day has so many


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_a_reading_of_the_feed_fails(tmp_path: Path, late: bool) -> None:
    for n in range(1, 9):
        assert await run(tmp_path, FEED, n, late=late)


async def test_a_worker_whose_store_does_not_answer_knows_how_old_its_facts_are(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "s.db", clock.now)
    faulty = Faulty(store, RECORDS | FEED | {"wait"}, 1 << 30, late=False)
    async with node(faulty, tmp_path / "near") as (link, memory):
        await asyncio.wait_for(link.ready.wait(), 10)
        faulty.broken = True
        began = clock.monotonic()
        await asyncio.sleep(1.5)
        assert memory.feed_age() >= (clock.monotonic() - began) * 1000 - 1100  # a beat, at the most
        assert not await link.sync()
        faulty.broken = False
        async with asyncio.timeout(10):
            while not await link.sync():
                await asyncio.sleep(0.01)
        assert memory.feed_age() < 1500
    await store.close()
