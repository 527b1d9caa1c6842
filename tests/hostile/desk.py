"""A control process's day, a hub with one worker, and what that worker has to hold in the end.

For tests that break the store underneath.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from ztproxy.administrator.locks import Locks
from ztproxy.administrator.sessions import Limits, Sessions
from ztproxy.administrator.standing import Standings
from ztproxy.model.messages import AssertionSigned, AssertionWanted, Charge, Charged, Rechecked, RecheckWanted
from ztproxy.model.record import SessionRecord, StandingRecord
from ztproxy.model.subject import Principal
from ztproxy.net.clock import SystemClock
from ztproxy.service.hub import Hub
from ztproxy.service.link import Link
from ztproxy.store.interface import Store, StoreUnavailable
from ztproxy.trust.identity.provider import SignIn
from ztproxy.trust.memory import KINDS, Memory

HOUR = 3_600_000
clock = SystemClock()


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
        self.witnessed: list[SessionRecord | StandingRecord] = []
        note = self.witnessed.append
        self.sessions = Sessions(records, clock, os.urandom, note, Limits(idle=HOUR, absolute=HOUR))
        self.locks = Locks(records, clock, os.urandom, note, ("app",))
        self.standings = Standings(records, clock, note, HOUR)
        self.failures = 0

    async def again(self, step: Callable[[], Awaitable[Any]]) -> Any:
        for _ in range(8):
            try:
                return await step()
            except StoreUnavailable:
                self.failures += 1
        raise AssertionError("one fault, and refused again and again")

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


async def agree(store: Store, *nodes: tuple[Link, Memory]) -> dict[str, dict[str, Any]]:
    """Wait until each worker knows of everything, demand that it holds what the store holds, return that."""
    wanted = await held(store)
    for link, memory in nodes:
        async with asyncio.timeout(20):
            while not await link.sync():
                await asyncio.sleep(0.01)
        assert tables(memory) == wanted
        assert memory.feed_age() < 10_000
    return wanted


def as_said(said: dict[str, str], wanted: dict[str, dict[str, Any]]) -> None:
    """Demand that what was acknowledged in the day is what holds."""
    assert said["ended"] not in wanted["session"]
    assert wanted["session"][said["bound"]].device_id == "dev_erin"
    assert said["alive"] in wanted["session"]
    assert said["lock"] in wanted["lock"]
    assert said["unlocked"] not in wanted["lock"]
    assert "user:corp:frank" in wanted["standing"]
