"""What each connector carries at each node: written when it is news, and shown with how old it is."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from ztproxy.api.connectors import Heard
from ztproxy.model.node import LOAD, Carried, Load
from ztproxy.service.loads import AGAIN, KEPT, MOST, SELDOM, Loads
from ztproxy.service.whereabouts import BELIEVED, Whereabouts
from ztproxy.store.sqlite import SqliteStore
from ztproxy.telemetry.snapshot import ConnectorState

A = "site/aaaaaaaaaaaaa"


def state(ready: int, carrying: int, *, draining: bool = False, instance: str = "a" * 13) -> ConnectorState:
    return ConnectorState("site", instance, "1.2", ready, carrying, draining)


class Node:
    """One of several nodes of a real store. Its clock is moved by the test."""

    def __init__(self, store: SqliteStore, now: list[int], address: str) -> None:
        self.address, self.states = address, list[ConnectorState]()
        self.loads = Loads(store, lambda: now[0], lambda: self.address, lambda: self.states)
        self.whereabouts = Whereabouts(store, lambda: now[0], lambda: self.address)

    async def tell(self) -> None:
        self.whereabouts.note(1, tuple(one.name for one in self.states))
        await self.whereabouts.tell()
        await self.loads.tell()


class Room:
    def __init__(self, store: SqliteStore, now: list[int]) -> None:
        self.store, self.now = store, now
        self.one, self.two = Node(store, now, "gw1.example:443"), Node(store, now, "gw2.example:443")

    async def elsewhere(self) -> list[Heard]:
        """What the first node knows of the others."""
        here, *others = await self.one.loads.all()
        assert here.here and not here.silent
        assert not any(one.here for one in others)
        return others

    async def told(self) -> int:
        """How often something was written of loads."""
        changes = await self.store.after(0)
        assert changes is not None
        return sum(change.kind == LOAD for change in changes)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    now = [1_000_000]
    store = await SqliteStore.open(tmp_path / "db", lambda: now[0])
    yield Room(store, now)
    await store.close()


async def test_a_node_knows_what_all_of_them_have(room: Room) -> None:
    room.one.states = [state(1, 2), state(3, 4)]  # of two workers
    room.two.states = [state(5, 6, draining=True)]
    await room.two.tell()
    here, other = await room.one.loads.all()
    assert here.load.connectors == (Carried(A, "1.2", 4, 6),)
    assert other.load == Load(
        "gw2-example-443", "gw2.example:443", 1_000_000, (Carried(A, "1.2", 5, 6, draining=True),)
    )
    assert (other.here, other.silent) == (False, False)


async def test_who_comes_and_goes_is_told_at_once_and_numbers_seldom(room: Room) -> None:
    await room.two.tell()
    assert await room.told() == 0, "a node without connectors writes nothing"
    room.two.states = [state(1, 0)]
    await room.two.tell()
    room.two.states = [state(1, 7)]
    await room.two.tell()
    assert await room.told() == 1
    room.now[0] += SELDOM
    await room.two.tell()
    assert await room.told() == 2
    for _ in range(3):
        room.now[0] += SELDOM
        await room.two.tell()
    assert await room.told() == 2, "nothing has changed"
    room.two.states = [state(1, 7), state(1, 0, instance="b" * 13)]
    await room.two.tell()
    room.two.states = [state(1, 7, draining=True)]
    await room.two.tell()
    assert await room.told() == 4
    room.now[0] += AGAIN
    await room.two.tell()
    assert await room.told() == 5, "it must not run out"
    room.two.states = []
    await room.two.tell()
    await room.two.tell()
    assert await room.told() == 6
    assert await room.elsewhere() == []


async def test_of_a_node_that_says_nothing_any_more_it_is_said_so_until_it_is_forgotten(room: Room) -> None:
    room.two.states = [state(1, 7)]
    await room.two.tell()
    room.now[0] += BELIEVED - 1
    assert [one.silent for one in await room.elsewhere()] == [False]
    room.now[0] += 2
    (silent,) = await room.elsewhere()
    assert silent.silent
    assert (silent.load.at, silent.load.connectors) == (1_000_000, (Carried(A, "1.2", 1, 7),))
    await room.two.tell()
    assert [one.silent for one in await room.elsewhere()] == [False]
    room.now[0] += KEPT + AGAIN
    assert await room.elsewhere() == []


async def test_a_node_that_was_started_again_takes_back_what_it_said_before(room: Room) -> None:
    room.two.states = [state(1, 7)]
    await room.two.tell()
    again = Node(room.store, room.now, room.two.address)
    await again.tell()
    assert await room.elsewhere() == []


async def test_one_record_stays_small_and_says_what_it_leaves_out(room: Room) -> None:
    room.two.states = [state(1, number, instance=f"{number:013}") for number in range(MOST + 20)]
    await room.two.tell()
    (found,) = await room.elsewhere()
    assert (len(found.load.connectors), found.load.left_out) == (MOST, 20)
    assert min(one.carrying for one in found.load.connectors) == 20, "those that carry most are there"
    stored = await room.store.get(LOAD, "gw2-example-443")
    assert stored is not None and len(stored.value) < 4096
    here, *_ = await room.two.loads.all()
    assert len(here.load.connectors) == MOST + 20, "of itself a node shows all"


async def test_what_another_version_wrote_hides_nothing_else(room: Room) -> None:
    room.two.states = [state(1, 7)]
    await room.two.tell()
    await room.store.put(LOAD, "gw0", msgspec.msgpack.encode({"node": 7}))
    assert [one.load.node for one in await room.elsewhere()] == ["gw2-example-443"]


async def test_a_node_of_its_own_writes_nothing_and_shows_itself(room: Room) -> None:
    room.one.address, room.one.states = "", [state(1, 2)]
    await room.one.loads.tell()
    assert await room.told() == 0
    (here,) = await room.one.loads.all()
    assert (here.load.address, here.load.connectors) == ("", (Carried(A, "1.2", 1, 2),))
