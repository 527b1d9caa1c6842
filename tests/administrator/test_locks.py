"""Locks on the real store: what can be locked, what is written down when, and what ends one."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ztproxy.administrator import locks as locks_module
from ztproxy.administrator.audit import AuditUnavailable
from ztproxy.administrator.locks import FRESH, LockRefused, Locks, LockTable
from ztproxy.model.record import StandingRecord
from ztproxy.net.clock import FixedClock
from ztproxy.store.sqlite import SqliteStore

PRINT = "0123456789abcdef" * 4


class World:
    def __init__(self, store: SqliteStore, clock: FixedClock) -> None:
        self.store, self.clock = store, clock
        self.told: list[StandingRecord] = []
        self.full = False
        self.locks = Locks(store, clock, os.urandom, self.witness, ["wiki", "support"])

    def witness(self, record: StandingRecord) -> None:
        if self.full:
            raise AuditUnavailable("full")
        self.told.append(record)

    async def on(self, target: str, value: str) -> bool:
        return await LockTable(self.store, self.clock).on([(target, value)]) is not None


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = FixedClock()
    store = await SqliteStore.open(tmp_path / "ztproxy.db", clock.now)
    yield World(store, clock)
    await store.close()


async def test_a_lock_is_in_force_and_written_down_and_gone_when_it_is_removed(world: World) -> None:
    lock = await world.locks.add("user", "corp:alice", "laptop stolen\n\x1b[31m", "root")
    assert lock.id.startswith("lck_")
    assert lock.reason == "laptop stolen[31m"
    assert await world.on("user", "corp:alice")
    for like in ("corp:Alice", "corp:alic", "corp:alice2", "alice"):
        assert not await world.on("user", like)
    assert not await world.on("workload", "corp:alice")
    assert await world.locks.list() == [lock]
    assert await world.locks.remove(lock.id, "root")
    assert not await world.locks.remove(lock.id, "root")
    assert not await world.on("user", "corp:alice")
    events = [(told.event, told.id, told.target, told.value, told.by) for told in world.told]
    assert events == [
        ("locked", lock.id, "user", "corp:alice", "root"),
        ("unlocked", lock.id, "user", "corp:alice", "root"),
    ]


async def test_a_failing_audit_keeps_no_door_open(world: World) -> None:
    world.full = True
    with pytest.raises(AuditUnavailable):
        await world.locks.add("user", "corp:alice", "r", "root")
    assert await world.on("user", "corp:alice"), "locked all the same"
    (lock,) = await world.locks.list()
    with pytest.raises(AuditUnavailable):
        await world.locks.remove(lock.id, "root")
    assert await world.on("user", "corp:alice"), "what is not written down opens nothing"


async def test_a_lock_ends_by_its_own_expiry_to_the_millisecond_and_by_no_other(world: World) -> None:
    now = world.clock.now()
    await world.locks.add("device", "dev_1", "r", "root", now + 1000)
    world.clock.ms = now + 999
    assert await world.on("device", "dev_1")
    world.clock.ms = now + 1000
    assert not await world.on("device", "dev_1")
    assert await world.locks.list() == [], "the store forgets it by itself"
    await world.locks.add("device", "dev_1", "r", "root")
    world.clock.ms += 10**12
    assert await world.on("device", "dev_1")


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("people", "alice"),
        ("", ""),
        ("user", ""),
        ("user", " corp:alice"),
        ("user", "corp:alice\n"),
        ("user", "x" * 513),
        ("route", "wikki"),
        ("route", "Wiki"),
        ("credential", "ab"),
        ("credential", PRINT[:-1] + "g"),
    ],
)
async def test_what_would_lock_nothing_is_refused(world: World, target: str, value: str) -> None:
    with pytest.raises(LockRefused):
        await world.locks.add(target, value, "r", "root")
    with pytest.raises(LockRefused):
        await world.locks.add("user", "corp:alice", "r", "root", world.clock.now())
    assert await world.locks.list() == []
    assert not world.told


async def test_a_fingerprint_is_taken_however_a_tool_writes_it(world: World) -> None:
    pairs = ":".join(PRINT[at : at + 2] for at in range(0, 64, 2)).upper()
    lock = await world.locks.add("credential", pairs, "r", "root")
    assert lock.value == PRINT


async def test_the_number_of_locks_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks_module, "MOST", 2)
    for name in ("a", "b"):
        await world.locks.add("user", name, "r", "root")
    with pytest.raises(LockRefused, match="remove some"):
        await world.locks.add("user", "c", "r", "root")


async def test_a_lock_set_by_another_process_is_seen_when_what_was_read_is_old(world: World) -> None:
    table = LockTable(world.store, world.clock)
    assert await table.on([("route", "wiki")]) is None
    lock = await world.locks.add("route", "wiki", "r", "root", world.clock.now() + 1000)
    world.clock.seconds += FRESH
    assert await table.on([("user", "wiki"), ("route", "wiki")]) == lock
    world.clock.ms += 1000
    assert await table.on([("route", "wiki")]) is None, "its end is seen without reading"


async def test_a_lock_that_can_not_be_read_keeps_nobody_from_setting_and_removing_locks(world: World) -> None:
    await world.store.put("lock", "lck_odd", b"\x81\xa2id\x07")
    lock = await world.locks.add("user", "corp:alice", "r", "root")
    assert await world.on("user", "corp:alice")
    assert {one.id: one.target for one in await world.locks.list()} == {
        lock.id: "user",
        "lck_odd": "unreadable",
    }
    assert await world.locks.remove("lck_odd", "root")
    assert [one.id for one in await world.locks.list()] == [lock.id]
