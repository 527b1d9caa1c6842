"""Which connectors a node has: written when that changes, again in time, and gone with the node."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from ztproxy.model.node import Node, name_of, node_of
from ztproxy.service.whereabouts import AGAIN, BELIEVED, Whereabouts
from ztproxy.store.sqlite import SqliteStore

ADDRESS = "gw1.example:8443"
NAME = "gw1-example-8443"


class Room:
    """A node's whereabouts in a real store, and a clock that only the test moves."""

    def __init__(self, store: SqliteStore, now: list[int]) -> None:
        self.store, self.now = store, now
        self.address = ADDRESS
        self.here = Whereabouts(store, lambda: now[0], lambda: self.address)

    async def told(self, key: str = NAME) -> Node | None:
        found = await self.store.get("node", key)
        return None if found is None else msgspec.msgpack.decode(found.value, type=Node)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    now = [1_000_000]
    store = await SqliteStore.open(tmp_path / "db", lambda: now[0])
    yield Room(store, now)
    await store.close()


async def test_it_tells_what_all_workers_have_and_writes_only_what_changed(room: Room) -> None:
    await room.here.tell()
    assert await room.store.head() == 0, "a node without connectors writes nothing"
    room.here.note(1, ("b", "a"))
    room.here.note(2, ("b", "c"))
    await room.here.tell()
    assert await room.told() == Node(NAME, ADDRESS, ("a", "b", "c"))
    written = await room.store.head()
    room.here.note(2, ("c",))  # the other worker still has b
    await room.here.tell()
    assert await room.store.head() == written
    room.here.note(1, ())  # it is gone
    await room.here.tell()
    assert await room.told() == Node(NAME, ADDRESS, ("c",))


async def test_it_says_it_again_in_time_and_is_forgotten_within_seconds_when_it_does_not(room: Room) -> None:
    room.here.note(1, ("a",))
    for _ in range(5):
        await room.here.tell()
        room.now[0] += AGAIN
    assert await room.told() is not None
    room.now[0] += BELIEVED
    assert await room.told() is None


async def test_it_takes_its_word_back(room: Room) -> None:
    room.here.note(1, ("a",))
    await room.here.tell()
    room.here.note(1, ())
    await room.here.tell()
    assert await room.told() is None
    room.here.note(1, ("a",))
    await room.here.tell()
    assert await room.told() is not None


async def test_a_successor_goes_on_from_what_the_one_before_said(room: Room) -> None:
    """While control changes hands the workers and their connectors are there all the time."""
    room.here.note(1, ("a",))
    await room.here.tell()
    successor = Whereabouts(room.store, lambda: room.now[0], lambda: room.address)
    await successor.tell()
    assert await room.told() is not None
    successor.note(2, ("a", "b"))
    await successor.tell()
    told = await room.told()
    assert told is not None
    assert told.connectors == ("a", "b")


async def test_a_node_that_moves_leaves_nothing_where_it_was(room: Room) -> None:
    room.here.note(1, ("a",))
    await room.here.tell()
    room.address = "gw1.example:9443"
    await room.here.tell()
    assert await room.told() is None
    assert await room.told("gw1-example-9443") == Node("gw1-example-9443", "gw1.example:9443", ("a",))
    room.address = ""  # it shares no store any more
    await room.here.tell()
    assert await room.told("gw1-example-9443") is None


def test_a_node_is_named_by_its_address_and_by_nothing_else() -> None:
    assert name_of("[2001:db8::7]:443") == "-2001-db8--7--443"
    assert node_of("spiffe://corp.example/node/" + NAME) == NAME
    assert node_of("spiffe://corp.example/node/" + name_of("[2001:db8::7]:443")) is not None
    for other in ("connector/a/b", "node/a/b", "node/", "node/.", "node/..", "node/a:1", "nodes/a"):
        assert node_of("spiffe://corp.example/" + other) is None
