"""The store fails at every operation once, before or after it did what it was asked: nodes end up alike.

What was acknowledged holds on both, what workers have in memory is what the store has, and a worker that
could not be fed says so by the age of what it knows.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ztproxy.administrator.locks import Locks
from ztproxy.administrator.sessions import Limits, Sessions
from ztproxy.administrator.standing import Standings
from ztproxy.model.messages import AssertionSigned, AssertionWanted, Charge, Charged, Rechecked, RecheckWanted
from ztproxy.model.subject import Principal
from ztproxy.net.clock import SystemClock
from ztproxy.service.hub import Hub
from ztproxy.service.link import Link
from ztproxy.store.interface import Store, StoreUnavailable
from ztproxy.store.sqlite import SqliteStore
from ztproxy.trust.identity.provider import SignIn
from ztproxy.trust.memory import KINDS, Memory

HOUR = 3_600_000
RECORDS = frozenset({"get", "put", "scan", "delete"})
FEED = frozenset({"head", "position", "after"})
clock = SystemClock()


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


@asynccontextmanager
async def node(store: Any, socket: Path) -> AsyncIterator[tuple[Link, Memory]]:
    """A hub over the store, and one worker."""

    async def sign(_: AssertionWanted) -> AssertionSigned:
        raise AssertionError("nobody asks")

    async def recheck(_: RecheckWanted) -> Rechecked:
        raise AssertionError("nobody doubts")

    async def charge(_: Charge) -> Charged:
        raise AssertionError("nobody pays")

    async def touched(*_: Any) -> None:
        raise AssertionError("nobody tells")

    hub = Hub(
        store,
        store,
        monotonic=clock.monotonic,
        sign=sign,
        recheck=recheck,
        charge=charge,
        certify=sign,  # type: ignore[arg-type]  # nobody asks
        carries=lambda *_: None,
        touched=touched,
        counted=lambda *_: None,
    )
    server = await asyncio.start_unix_server(hub.serve, socket)
    memory = Memory(clock.monotonic)
    link = Link(socket, memory, worker=0, pid=1, journal="w0-1-1", now=clock.now, changed=lambda _: None)
    running = asyncio.create_task(link.run())
    try:
        yield link, memory
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        server.close()
        hub.close()


class Desk:
    """What a control process does, again where it was refused, as people and programs do."""

    def __init__(self, records: Any) -> None:
        self.sessions = Sessions(records, clock, os.urandom, lambda _: None, Limits(idle=HOUR, absolute=HOUR))
        self.locks = Locks(records, clock, os.urandom, lambda _: None, ("app",))
        self.standings = Standings(records, clock, lambda _: None, HOUR)
        self.failures = 0

    async def again(self, step: Callable[[], Awaitable[Any]]) -> Any:
        for _ in range(3):
            try:
                return await step()
            except StoreUnavailable:
                self.failures += 1
        raise AssertionError("one fault, and refused three times")

    async def sign_in(self, name: str) -> str:
        person = Principal("User", f"corp:{name}", "https://idp.example", name)
        proved = SignIn(person, "corp", clock.now(), sid=f"sid-{name}", began=clock.now())
        session = await self.again(lambda: self.sessions.start(proved))
        await self.again(lambda: self.sessions.new_handle(session.id, "app.example"))
        return str(session.id)

    async def day(self) -> dict[str, str]:
        """Sign some people in, end some of it; return what was acknowledged."""
        carol, dave, erin = [await self.sign_in(name) for name in ("carol", "dave", "erin")]
        await self.again(lambda: self.sessions.bind_device(erin, "dev_erin", clock.now()))
        lock = await self.again(lambda: self.locks.add("user", "corp:dave", "lost his badge", "test"))
        await self.again(lambda: self.sessions.end(carol, "sign-out"))
        await self.again(lambda: self.standings.end_sessions("user", "corp:frank", "test"))
        gone = await self.again(lambda: self.locks.add("route", "app", "for a moment", "test"))
        await self.again(lambda: self.locks.remove(gone.id, "test"))
        return {"ended": carol, "alive": dave, "bound": erin, "lock": lock.id, "unlocked": gone.id}


async def held(store: Store) -> dict[str, dict[str, Any]]:
    """What a worker's memory has to be."""
    found = {}
    for kind, type_ in KINDS.items():
        values = {one.key: msgspec.msgpack.decode(one.value, type=type_) for one in await store.scan(kind)}
        found[kind] = {key: value for key, value in values.items() if not getattr(value, "ended_at", 0)}
    return found


def tables(memory: Memory) -> dict[str, dict[str, Any]]:
    return {kind: dict(memory._tables[kind]) for kind in KINDS}


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
        wanted = await held(store)
        for link, memory in (near, far):
            async with asyncio.timeout(10):
                while not await link.sync():
                    await asyncio.sleep(0.01)
            assert tables(memory) == wanted
            assert memory.feed_age() < 3000
        assert said["ended"] not in wanted["session"]
        assert wanted["session"][said["bound"]].device_id == "dev_erin"
        assert said["alive"] in wanted["session"]
        assert said["lock"] in wanted["lock"]
        assert said["unlocked"] not in wanted["lock"]
        assert "user:corp:frank" in wanted["standing"]
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
