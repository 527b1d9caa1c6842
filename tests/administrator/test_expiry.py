"""Marking what is over: by whichever node, after any gap, and without reading what is not due."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ztproxy.administrator.audit import AuditUnavailable
from ztproxy.administrator.expiry import REPORTING_DELAY, Expiry
from ztproxy.administrator.sessions import Limits, Sessions
from ztproxy.model.record import SessionRecord
from ztproxy.model.subject import Principal, Session
from ztproxy.net.clock import FixedClock
from ztproxy.store.sqlite import SqliteStore
from ztproxy.trust.identity.provider import SignIn

IDLE, ABSOLUTE = 1_800_000, 36_000_000


class Counting:
    """A store that counts what is read of it."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def get(self, kind: str, key: str) -> Any:
        self.reads += 1
        return await self.store.get(kind, key)

    async def scan(self, kind: str, **options: Any) -> Any:
        self.reads += 1
        return await self.store.scan(kind, **options)


class Nodes:
    """Two control processes on one store: `here` sweeps, `there` only writes."""

    def __init__(self, store: SqliteStore, clock: FixedClock) -> None:
        self.clock = clock
        self.full = False
        self.told: list[SessionRecord] = []
        self.counting = Counting(store)
        limits = Limits(idle=IDLE, absolute=ABSOLUTE)
        self.here = Sessions(self.counting, clock, os.urandom, self.witness, limits)
        self.there = Sessions(store, clock, os.urandom, lambda _: None, limits)
        self.expiry = self.another()

    def another(self) -> Expiry:
        return Expiry(self.counting, self.counting, self.clock.now)

    def witness(self, record: SessionRecord) -> None:
        if self.full:
            raise AuditUnavailable("full")
        self.told.append(record)

    async def sweep(self) -> int:
        return await self.expiry.sweep(self.here)

    async def ended(self, session: Session) -> str:
        found = await self.here.get(session.id)
        return found.ended_by if found is not None else "gone"


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    clock = FixedClock()
    store = await SqliteStore.open(tmp_path / "ztproxy.db", clock.now, keep=40)
    yield Nodes(store, clock)
    await store.close()


def person(number: int) -> SignIn:
    return SignIn(principal=Principal(kind="User", id=f"corp:{number}"), provider="corp", auth_time=1)


def over(nodes: Nodes) -> None:
    nodes.clock.advance((IDLE + REPORTING_DELAY) / 1000)


async def test_what_is_not_due_is_not_read(nodes: Nodes) -> None:
    for number in range(20):
        await nodes.there.start(person(number))
    assert await nodes.sweep() == 0
    for number in range(5):
        await nodes.there.start(person(number))
    nodes.counting.reads = 0
    for _ in range(10):
        nodes.clock.advance(15)
        assert await nodes.sweep() == 0
    assert nodes.counting.reads == 0
    over(nodes)
    assert await nodes.sweep() == 25
    nodes.counting.reads = 0
    assert await nodes.sweep() == 0 and nodes.counting.reads == 0


async def test_sessions_of_other_nodes_end_too_and_used_ones_later(nodes: Nodes) -> None:
    first = await nodes.here.start(person(1))
    assert await nodes.sweep() == 0
    second, third = await nodes.there.start(person(2)), await nodes.there.start(person(3))
    nodes.clock.advance(IDLE / 2000)
    await nodes.there.touch({second.id: nodes.clock.now()})
    await nodes.there.end(third.id, "sign-out")
    nodes.clock.advance((IDLE / 2 + REPORTING_DELAY) / 1000)
    assert await nodes.sweep() == 1
    assert [await nodes.ended(one) for one in (first, second, third)] == ["expired", "", "sign-out"]
    nodes.clock.advance(IDLE / 2000)
    assert await nodes.sweep() == 1
    assert await nodes.ended(second) == "expired"


async def test_a_restart_and_a_feed_that_does_not_go_on_lose_nobody(nodes: Nodes) -> None:
    first = await nodes.there.start(person(1))
    assert await nodes.sweep() == 0
    second = await nodes.there.start(person(2))
    for number in range(60):  # more changes than the store keeps
        await nodes.there.start(person(number + 3))
    over(nodes)
    assert await nodes.sweep() == 62
    assert [await nodes.ended(one) for one in (first, second)] == ["expired", "expired"]
    last = await nodes.there.start(person(0))
    over(nodes)
    nodes.expiry = nodes.another()
    assert await nodes.sweep() == 1
    assert await nodes.ended(last) == "expired"


async def test_what_could_not_be_done_is_done_by_the_next_sweep(nodes: Nodes) -> None:
    sessions = [await nodes.there.start(person(number)) for number in range(3)]
    over(nodes)
    nodes.full = True
    with pytest.raises(AuditUnavailable):
        await nodes.sweep()
    nodes.full = False
    assert await nodes.sweep() == 2, "the first was ended before it could not be witnessed"
    assert [await nodes.ended(one) for one in sessions] == ["expired"] * 3
    assert await nodes.sweep() == 0


async def test_what_is_remembered_does_not_grow_with_use(nodes: Nodes) -> None:
    for number in range(700):
        session = await nodes.there.start(person(number % 3))
        await nodes.there.end(session.id, "sign-out")
        if number % 10 == 0:
            await nodes.sweep()
    assert await nodes.sweep() == 0
    assert not nodes.expiry._ends and len(nodes.expiry._queue) <= 600


async def test_what_can_not_be_read_keeps_nobody_else_alive(nodes: Nodes) -> None:
    session = await nodes.here.start(person(1))
    await nodes.counting.store.put("session", "ses_0", b"garbage")
    await nodes.counting.store.put("standing", "user:corp:9", b"garbage")
    over(nodes)
    assert await nodes.sweep() == 1
    later = await nodes.here.start(person(2))
    await nodes.counting.store.put("session", "ses_0", b"other garbage")
    await nodes.counting.store.put("standing", "user:corp:9", b"other garbage")
    over(nodes)
    assert await nodes.sweep() == 1
    assert await nodes.ended(session) == await nodes.ended(later) == "expired"
    assert {one.id for one in await nodes.here.list(ended=True)} == {session.id, later.id}


async def test_uses_of_others_are_noted_beside_a_session_that_can_not_be_read(nodes: Nodes) -> None:
    session = await nodes.here.start(person(1))
    await nodes.counting.store.put("session", "ses_0", b"garbage")
    nodes.clock.advance(IDLE / 2_000)
    now = nodes.clock.now()
    assert await nodes.here.touch({"ses_0": now, session.id: now}) == []
    found = await nodes.here.get(session.id)
    assert found is not None
    assert found.last_seen_at == now
