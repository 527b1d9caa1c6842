"""What every back end of `Records` and `Feed` promises."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from ztproxy.store.interface import Change, Conflict, Store, Versioned

Opener = Any
Wall = Any


def plain(changes: Sequence[Change] | None) -> list[Change]:
    """Changes without what is random in them."""
    assert changes is not None
    return [replace(change, stamp=0) for change in changes]


async def test_what_was_put_is_read_back(store: Store) -> None:
    version = await store.put("session", "a", b"\x00\xffone")
    assert version == 1
    assert await store.get("session", "a") == Versioned("session", "a", 1, b"\x00\xffone", 0)
    assert await store.get("session", "b") is None
    assert await store.get("device", "a") is None


async def test_some_are_read_at_once_in_the_order_asked_for(store: Store, wall: Wall) -> None:
    for key in ("a", "b", "c"):
        await store.put("standing", key, key.encode())
    await store.put("session", "d", b"of another kind")
    await store.put("standing", "over", b"x", expires_at=wall.ms + 1)
    wall.ms += 1
    keys = ("c", "nobody", "d", "over", "a")
    found = await store.some([*(("standing", key) for key in keys), ("session", "d")])
    assert [(one.kind, one.key, one.value, one.version) for one in found] == [
        ("standing", "c", b"c", 3),
        ("standing", "a", b"a", 1),
        ("session", "d", b"of another kind", 4),
    ]
    assert await store.some([]) == []


async def test_an_empty_value_is_a_value(store: Store) -> None:
    await store.put("session", "a", b"")
    found = await store.get("session", "a")
    assert found is not None and found.value == b""
    assert plain(await store.after(0)) == [Change(1, "session", "a", b"")]


async def test_versions_count_the_changes_of_all_kinds(store: Store) -> None:
    assert await store.head() == 0
    assert [await store.put(kind, "k", b"v") for kind in ("session", "device", "session")] == [1, 2, 3]
    assert await store.delete("device", "k") is True
    assert await store.head() == 4


async def test_a_version_that_is_not_there_conflicts_and_changes_nothing(store: Store) -> None:
    with pytest.raises(Conflict):
        await store.put("session", "a", b"x", if_version=1)
    first = await store.put("session", "a", b"x", if_version=0)
    with pytest.raises(Conflict):
        await store.put("session", "a", b"y", if_version=0)
    second = await store.put("session", "a", b"z", if_version=first)
    with pytest.raises(Conflict):
        await store.put("session", "a", b"y", if_version=first)
    with pytest.raises(Conflict):
        await store.delete("session", "a", if_version=first)
    found = await store.get("session", "a")
    assert found is not None and (found.version, found.value) == (second, b"z")
    assert await store.head() == second
    assert await store.delete("session", "a", if_version=second) is True
    assert await store.get("session", "a") is None


async def test_deleting_nothing_publishes_nothing(store: Store) -> None:
    assert await store.delete("session", "a") is False
    assert await store.delete("session", "a", if_version=0) is False
    with pytest.raises(Conflict):
        await store.delete("session", "a", if_version=7)
    assert await store.head() == 0


async def test_scan_pages_in_key_order(store: Store) -> None:
    keys = ["b", "a", "é", "~", "ab", "A", "z:1", "0"]
    for key in keys:
        await store.put("session", key, key.encode())
        await store.put("sessions", key, b"other kind")
    ordered = sorted(keys, key=str.encode)
    assert [found.key for found in await store.scan("session")] == ordered
    pages, after = [], ""
    while page := await store.scan("session", after=after, limit=3):
        assert len(page) <= 3
        pages += [found.key for found in page]
        after = page[-1].key
    assert pages == ordered
    assert await store.scan("nothing") == []


async def test_expired_records_are_gone_for_every_reader(store: Store, wall: Wall) -> None:
    for index in range(10):
        await store.put("code", f"k{index}", b"v", expires_at=wall.ms + (1000 if index % 2 else 0) + 1000)
    wall.ms += 1000
    assert [found.key for found in await store.scan("code", limit=3)] == ["k1", "k3", "k5"]
    assert [found.key for found in await store.scan("code")] == ["k1", "k3", "k5", "k7", "k9"]
    assert await store.get("code", "k0") is None
    found = await store.get("code", "k1")
    assert found is not None and found.expires_at == wall.ms + 1000


async def test_an_expired_record_counts_as_absent(store: Store, wall: Wall) -> None:
    old = await store.put("code", "k", b"old", expires_at=wall.ms + 1)
    wall.ms += 1
    with pytest.raises(Conflict):
        await store.put("code", "k", b"x", if_version=old)
    assert await store.delete("code", "k") is False
    await store.put("code", "k", b"new", if_version=0)
    found = await store.get("code", "k")
    assert found is not None and (found.value, found.expires_at) == (b"new", 0)
    wall.ms += 10_000
    assert await store.sweep() == 0
    assert await store.get("code", "k") is not None


async def test_the_sweep_publishes_each_expiry_once(store: Store, wall: Wall) -> None:
    for index in range(600):
        await store.put("code", f"k{index:03}", b"v", expires_at=wall.ms + 1)
    kept = await store.put("code", "kept", b"v", expires_at=wall.ms + 2)
    wall.ms += 1
    assert await store.sweep() == 600
    assert await store.sweep() == 0
    changes = await store.after(kept)
    assert changes is not None
    assert [change.version for change in changes] == list(range(kept + 1, kept + 601))
    assert {change.key for change in changes} == {f"k{index:03}" for index in range(600)}
    assert all(change.value is None for change in changes)


async def test_expired_records_are_swept_without_being_asked(store: Store, wall: Wall) -> None:
    version = await store.put("code", "k", b"v", expires_at=wall.ms + 1)
    wall.ms += 1
    assert await store.wait(version, 5.0)
    assert plain(await store.after(version)) == [Change(version + 1, "code", "k", None)]


async def test_the_feed_tells_everything_after_a_version(store: Store) -> None:
    for index in range(5):
        await store.put("session", f"k{index}", b"%d" % index)
    await store.delete("session", "k0")
    assert plain(await store.after(3)) == [
        Change(4, "session", "k3", b"3"),
        Change(5, "session", "k4", b"4"),
        Change(6, "session", "k0", None),
    ]
    assert plain(await store.after(3, limit=1)) == [Change(4, "session", "k3", b"3")]
    assert await store.after(6) == []


async def test_a_version_of_another_history_asks_for_a_snapshot(store: Store) -> None:
    assert await store.after(0) == []
    assert await store.after(9) is None
    await store.put("session", "k", b"v")
    assert await store.after(9) is None


async def test_a_number_with_another_stamp_is_of_another_history(store: Store) -> None:
    """A restored backup goes on counting: whoever was further must not believe that nothing is missing."""
    for index in range(4):
        await store.put("session", f"k{index}", b"v")
    changes = await store.after(0)
    assert changes is not None and len({change.stamp for change in changes}) == 4
    assert await store.position() == (4, changes[-1].stamp)
    third = changes[2]
    assert [one.version for one in await store.after(3, stamp=third.stamp) or ()] == [4]
    assert await store.after(3, stamp=third.stamp + 1) is None
    assert await store.after(4, stamp=changes[3].stamp) == []
    assert await store.after(4, stamp=third.stamp) is None
    assert await store.after(5, stamp=third.stamp) is None


async def test_pruned_changes_ask_for_a_snapshot(opener: Opener) -> None:
    store = await opener(keep=10)
    for index in range(25):
        await store.put("session", "k", b"%d" % index)
    assert await store.after(14) is None
    assert await store.after(0) is None
    changes = await store.after(15)
    assert [change.version for change in changes] == list(range(16, 26))
    assert await store.after(25) == []
    assert await store.head() == 25


async def test_of_two_writers_with_one_version_one_wins(opener: Opener) -> None:
    stores = [await opener(), await opener()]
    version = await stores[0].put("counter", "k", b"0")

    async def increment(store: Store) -> int:
        conflicts = 0
        for _ in range(20):
            while True:
                found = await store.get("counter", "k")
                assert found is not None
                try:
                    await store.put("counter", "k", b"%d" % (int(found.value) + 1), if_version=found.version)
                    break
                except Conflict:
                    conflicts += 1
        return conflicts

    await asyncio.gather(*(increment(store) for store in stores * 2))
    found = await stores[1].get("counter", "k")
    assert found is not None and found.value == b"80"
    assert await stores[0].head() == version + 80


async def test_only_one_of_many_takes_a_one_time_code(opener: Opener) -> None:
    stores = [await opener(), await opener()]
    for index in range(10):
        await stores[0].put("code", f"{index}", b"v")
        taken = await asyncio.gather(*(store.delete("code", f"{index}") for store in stores * 5))
        assert sorted(taken) == [False] * 9 + [True]


async def test_a_waiter_wakes_at_once(store: Store) -> None:
    assert await store.wait(0, 0.05) is False
    waiter = asyncio.create_task(store.wait(0, 10))
    await asyncio.sleep(0.05)
    start = time.monotonic()
    await store.put("session", "k", b"v")
    assert await waiter is True
    assert time.monotonic() - start < 1
    assert await store.wait(0, 0) is True


async def test_a_waiter_hears_of_other_writers(opener: Opener) -> None:
    one, two = await opener(), await opener()
    waiter = asyncio.create_task(one.wait(0, 10))
    await asyncio.sleep(0.05)
    start = time.monotonic()
    await two.put("session", "k", b"v")
    assert await waiter is True
    assert time.monotonic() - start < 1


async def test_a_cancelled_waiter_leaves_nothing_behind(store: Store) -> None:
    waiter = asyncio.create_task(store.wait(0, 10))
    await asyncio.sleep(0.05)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert await store.put("session", "k", b"v") == 1


async def test_a_second_opener_sees_everything(opener: Opener) -> None:
    first = await opener()
    await first.put("session", "k", b"v")
    await first.close()
    second = await opener()
    assert plain(await second.after(0)) == [Change(1, "session", "k", b"v")]
    assert await second.put("session", "k", b"w") == 2


async def test_a_snapshot_and_the_feed_meet(opener: Opener) -> None:
    """head, then scan, then after(head): whoever follows this misses nothing while others write."""
    writer, reader = await opener(), await opener()

    async def write() -> None:
        for index in range(60):
            await writer.put("session", f"k{index % 7}", b"%d" % index)
            if index % 5 == 0:
                await writer.delete("session", f"k{index % 3}")

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.02)
    head = await reader.head()
    memory = {found.key: (found.version, found.value) for found in await reader.scan("session")}
    await writing
    for change in await reader.after(head):
        if change.value is None:
            memory.pop(change.key, None)
        else:
            memory[change.key] = (change.version, change.value)
    final = await reader.scan("session")
    assert memory == {found.key: (found.version, found.value) for found in final}
