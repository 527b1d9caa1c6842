"""The feed is exact whatever happens to the store: another history, a gap, an outage, an error anywhere."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from feed_room import Control, encode, linked, session, until

from ztproxy.model.subject import Session
from ztproxy.net.clock import SystemClock
from ztproxy.store.interface import Change, Store, StoreUnavailable
from ztproxy.store.sqlite import SqliteStore
from ztproxy.trust.memory import Memory

OPERATIONS = ("get", "put", "scan", "delete", "head", "position", "after", "wait", "sweep")


class Faulty:
    """A store whose operations fail when told to."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.down = False
        self.every = 0
        self.count = 0
        self.failed = 0
        self.pause = 0.0

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.store, name)
        if name not in OPERATIONS:
            return operation

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.down or (self.every and self.count % self.every == 0):
                self.failed += 1
                raise StoreUnavailable("told to fail")
            result = await operation(*args, **kwargs)
            await asyncio.sleep(self.pause)
            return result

        return call


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "s.db", SystemClock().now)
    yield store
    await store.close()


async def put(store: Store, key: str, *, ended_at: int = 0) -> None:
    await store.put("session", key, encode(session(int(key[1:]), ended_at=ended_at)))


async def held(store: Store) -> dict[str, Session]:
    """What a worker has to hold by what is in the store."""
    found = {one.key: msgspec.msgpack.decode(one.value, type=Session) for one in await store.scan("session")}
    return {key: one for key, one in found.items() if not one.ended_at}


def memory() -> Memory:
    return Memory(SystemClock().monotonic)


async def test_a_restored_backup_that_went_on_is_another_history(tmp_path: Path) -> None:
    """Restored at 2, then three other changes: by numbers alone the worker misses only the last."""
    store = await SqliteStore.open(tmp_path / "a.db", SystemClock().now)
    await put(store, "s1")
    await put(store, "s2")
    await store.close()
    shutil.copy(tmp_path / "a.db", tmp_path / "backup.db")
    store = await SqliteStore.open(tmp_path / "a.db", SystemClock().now)
    await put(store, "s3")
    await put(store, "s4")
    control = Control(store, tmp_path / "c.sock")
    await control.start()
    mine = memory()
    async with linked(tmp_path / "c.sock", mine, lambda _: None) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        assert set(mine.sessions) == {"s1", "s2", "s3", "s4"}
        await control.stop()
        await store.close()
        restored = await SqliteStore.open(tmp_path / "backup.db", SystemClock().now)
        await restored.delete("session", "s1")
        await put(restored, "s5")
        await put(restored, "s6")
        again = Control(restored, tmp_path / "c.sock")
        await again.start()
        await until(lambda: "s6" in mine.sessions)
        assert set(mine.sessions) == {"s2", "s5", "s6"}
        await again.stop()
        await restored.close()


async def test_a_history_that_changes_under_a_running_control_is_noticed(
    store: SqliteStore, tmp_path: Path
) -> None:
    """The database behind the control process is exchanged, as a failover does it."""
    other = await SqliteStore.open(tmp_path / "other.db", SystemClock().now)
    for key in ("s1", "s2", "s3"):
        await put(store, key)
    for key in ("s7", "s8", "s9"):
        await put(other, key)
    faulty = Faulty(store)
    control = Control(faulty, tmp_path / "c.sock")
    await control.start()
    mine = memory()
    async with linked(tmp_path / "c.sock", mine, lambda _: None) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        faulty.store = other
        await until(lambda: set(mine.sessions) == {"s7", "s8", "s9"})
        await put(other, "s4")
        assert await link.sync()
        assert "s4" in mine.sessions
    await control.stop()
    await other.close()


async def test_while_the_store_is_away_the_age_grows_and_then_all_is_well(
    store: SqliteStore, tmp_path: Path
) -> None:
    faulty = Faulty(store)
    control = Control(faulty, tmp_path / "c.sock")
    await control.start()
    mine = memory()
    await put(store, "s1")
    async with linked(tmp_path / "c.sock", mine, lambda _: None) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        channel = link._channel
        faulty.down = True
        await until(lambda: mine.feed_age() > 1500)
        assert "s1" in mine.sessions
        assert await asyncio.wait_for(link.sync(), 5) is False, "nobody can say that nothing is newer"
        assert link._channel is channel, "the link stands: only the store is away"
        await store.delete("session", "s1")
        faulty.down = False
        await until(lambda: not mine.sessions and mine.feed_age() < 1000)
    await control.stop()


async def test_a_bug_met_while_reading_deafens_nobody_for_good(store: SqliteStore, tmp_path: Path) -> None:
    """An entry of the feed that is no entry, an answer of another shape: not told as a store that is away."""
    faulty, held_by_worker = Faulty(store), memory()
    control = Control(faulty, tmp_path / "c.sock")  # type: ignore[arg-type]
    await control.start()
    async with linked(tmp_path / "c.sock", held_by_worker, lambda _: None) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        faulty.store, working = object(), store  # type: ignore[assignment]  # every operation is an AttributeError
        await until(lambda: held_by_worker.feed_age() > 1_500)
        faulty.store = working
        await put(store, "s1")
        await until(lambda: "s1" in held_by_worker.sessions)
        await until(lambda: held_by_worker.feed_age() < 1_500)
    await control.stop()


async def test_what_took_long_to_read_is_as_old_as_the_question(store: SqliteStore, tmp_path: Path) -> None:
    faulty = Faulty(store)
    control = Control(faulty, tmp_path / "c.sock")
    await control.start()
    mine, ages = memory(), list[int]()
    async with linked(tmp_path / "c.sock", mine, lambda _: ages.append(mine.feed_age())) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        faulty.pause = 0.4
        await put(store, "s1")
        assert await link.sync()
        assert mine.feed_age() >= 390
    await control.stop()


@pytest.mark.parametrize("every", [2, 3, 5, 7])
async def test_an_error_at_every_nth_operation_loses_nothing_and_revives_nobody(
    store: SqliteStore, tmp_path: Path, every: int
) -> None:
    faulty = Faulty(store)
    control = Control(faulty, tmp_path / "c.sock")
    await control.start()
    mine = memory()
    revived: list[str] = []
    gone: set[str] = set()

    def changed(_: Sequence[Any] | None) -> None:
        revived.extend(gone & mine.sessions.keys())
        gone.update(seen - mine.sessions.keys())
        seen.update(mine.sessions)

    seen: set[str] = set()
    for number in range(20):
        await put(store, f"s{number}")
    async with linked(tmp_path / "c.sock", mine, changed) as link:
        await asyncio.wait_for(link.ready.wait(), 10)
        faulty.every = every
        for number in range(20, 60):
            await put(store, f"s{number}")
            await put(store, f"s{number - 20}", ended_at=5)
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.2)
        faulty.every = 0
        assert await link.sync()
        assert mine.sessions == await held(store)
        assert mine.version == await store.head()
        assert len(gone) == 40 and not revived
        assert faulty.failed
    await control.stop()


async def test_a_worker_behind_what_is_kept_in_memory_reads_the_rest_from_the_store(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ztproxy.service.tail.KEEP", 3)
    control = Control(store, tmp_path / "c.sock")
    await control.start()
    mine, concerns = memory(), list[Any]()
    async with linked(tmp_path / "c.sock", mine, concerns.append) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        await asyncio.gather(*(put(store, f"s{number}") for number in range(50)))
        assert await link.sync()
        assert mine.sessions == await held(store)
        told = [one[0][1] for one in concerns if one is not None]
        assert sorted(told) == sorted(f"s{number}" for number in range(50)), "each once, none by a snapshot"
    await control.stop()


async def test_a_change_is_passed_on_to_many_workers_by_one_reading(
    store: SqliteStore, tmp_path: Path
) -> None:
    faulty = Faulty(store)
    control = Control(faulty, tmp_path / "c.sock")
    await control.start()
    memories = [memory() for _ in range(6)]
    links = [linked(tmp_path / "c.sock", one, lambda _: None) for one in memories]
    opened = [await one.__aenter__() for one in links]
    try:
        await asyncio.wait_for(asyncio.gather(*(one.ready.wait() for one in opened)), 10)
        seen: list[Change] = []
        after = store.after

        async def counted(*args: Any, **kwargs: Any) -> Any:
            found = await after(*args, **kwargs)
            seen.extend(found or ())
            return found

        faulty.__dict__["after"] = counted
        await put(store, "s1")
        await until(lambda: all("s1" in one.sessions for one in memories))
        assert len(seen) == 1
    finally:
        for one in links:
            await one.__aexit__(None, None, None)
    await control.stop()
