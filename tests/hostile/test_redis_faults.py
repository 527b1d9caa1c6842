"""The wire to Redis fails at every command once, in every way, and then again and again at random.

Beside the day of a control process, all writes are compared with the history that Redis has: what was
acknowledged is in it once, what was reported as failed at the most once, and nothing else is.
"""

import asyncio
import random  # noqa: TID251 - seeded: a run that fails can be repeated
import secrets
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
from desk import Desk, agree, as_said, clock, node
from redis_wire import Fault, RedisWire

from bench.nodes import RedisServer
from ztproxy.store.interface import Change, Conflict, Store, StoreUnavailable
from ztproxy.store.redis import RedisStore
from ztproxy.store.redis_client import RedisOptions

pytestmark = pytest.mark.redis

PATIENCE = 0.5  # seconds for an answer, where time is what fails
CALM = 10.0  # where it is not: a busy machine is to be no second fault
FAULTS = get_args(Fault)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("the redis-server program is not installed")
    running = RedisServer(tmp_path_factory.mktemp("redis") / "server")
    running.start()
    yield running
    running.end()


@dataclass
class Noted:
    """A store whose writes are noted down, with what came of each."""

    store: Store
    done: Counter[tuple[str, str, bytes | None]] = field(default_factory=Counter)
    doubtful: Counter[tuple[str, str, bytes | None]] = field(default_factory=Counter)
    over: dict[int, int] = field(
        default_factory=dict
    )  # version that was written -> version it was written over

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def put(
        self, kind: str, key: str, value: bytes, *, if_version: int | None = None, **more: int
    ) -> int:
        try:
            version = await self.store.put(kind, key, value, if_version=if_version, **more)
        except StoreUnavailable:
            self.doubtful[kind, key, value] += 1
            raise
        self.done[kind, key, value] += 1
        if if_version is not None:
            self.over[version] = if_version
        return version

    async def delete(self, kind: str, key: str, *, if_version: int | None = None) -> bool:
        try:
            gone = await self.store.delete(kind, key, if_version=if_version)
        except StoreUnavailable:
            self.doubtful[kind, key, None] += 1
            raise
        self.done[kind, key, None] += gone
        return gone


async def history(store: Store) -> list[Change]:
    """All changes there ever were; whole, in order, and the records are what they come to."""
    changes = list(await store.after(0, limit=1_000_000) or ())
    assert [change.version for change in changes] == list(range(1, len(changes) + 1))
    last = {(change.kind, change.key): change for change in changes}
    for kind in {change.kind for change in changes}:
        found = {
            (one.kind, one.key): (one.version, one.value) for one in await store.scan(kind, limit=1_000_000)
        }
        live = {
            at: (one.version, one.value)
            for at, one in last.items()
            if at[0] == kind and one.value is not None
        }
        assert found == live
    return changes


def explained(changes: list[Change], noted: Noted, *, certain: bool = False) -> None:
    """Every change was asked for, none was made twice, and what was acknowledged is there.

    `certain`: what was reported as failed is not there.
    """
    made = Counter((change.kind, change.key, change.value) for change in changes)
    for one in made | noted.done:
        assert noted.done[one] <= made[one] <= noted.done[one] + noted.doubtful[one] * (not certain), one
    before: dict[tuple[str, str], int] = {}
    for change in changes:
        at = change.kind, change.key
        if change.version in noted.over:
            assert before.get(at, 0) == noted.over[change.version], "written over what nobody had seen"
        before[at] = change.version if change.value is not None else 0


@asynccontextmanager
async def wired(
    server: RedisServer, name: str, patience: float = PATIENCE
) -> AsyncIterator[tuple[RedisWire, Store]]:
    """A store whose wire can fail."""
    wire = RedisWire(server.port, patience)
    await wire.start()
    options = RedisOptions(url=f"redis://127.0.0.1:{wire.port}", timeout=patience, connect_timeout=patience)
    store = await RedisStore.open(options, clock.now, name=name)
    try:
        yield wire, store
    finally:
        await store.close()
        await wire.stop()


async def day(server: RedisServer, folder: Path, fault: Fault, n: int) -> bool:
    """A day with one fault at command n; False when there were not so many."""
    name, timely = secrets.token_hex(4), fault not in ("late", "heard late")
    folder.mkdir()
    async with (
        wired(server, name, CALM if timely else PATIENCE) as (wire, store),
        await RedisStore.open(RedisOptions(url=server.url), clock.now, name=name) as direct,
        node(store, folder / "near") as near,
        node(direct, folder / "far") as far,
    ):
        first = wire.carried + n
        wire.fault = lambda number: fault if number == first else None
        noted = Noted(store)
        desk = Desk(noted)
        said = await desk.day()
        while wire.held:
            await asyncio.sleep(0.01)
        as_said(said, await agree(direct, near, far))
        explained(await history(direct), noted, certain=timely)
        if timely:
            events = Counter((record.event, record.id) for record in desk.witnessed)
            assert events["ended", said["ended"]] == events["locked", said["lock"]] == 1
        return wire.faults > 0


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_wire_fails_at_a_command(server: RedisServer, tmp_path: Path, fault: Fault) -> None:
    n = 0
    while all(await asyncio.gather(*(day(server, tmp_path / f"{n + i}", fault, n + i) for i in range(1, 9)))):
        n += 8
    assert n >= 30, "the day has so many"


async def count(store: Store, key: str, until: float) -> int:
    """Count in a record until a time, as several do at once; return how often it was acknowledged."""
    acknowledged = 0
    while clock.monotonic() < until:
        try:
            found = await store.get("counter", key)
            number, version = (int(found.value), found.version) if found else (0, 0)
            await store.put("counter", key, b"%d" % (number + 1), if_version=version)
            acknowledged += 1
        except (Conflict, StoreUnavailable):
            await asyncio.sleep(0)
    return acknowledged


async def hand_out(store: Store, who: int, until: float) -> list[str]:
    """Make codes that are good once, and take them as two do at once; return those that were had twice."""
    twice, number = [], 0
    while clock.monotonic() < until:
        key, number = f"{who}-{number}", number + 1
        with suppress(StoreUnavailable):
            await store.put("code", key, b"v", if_version=0)
        taken = await asyncio.gather(*(store.delete("code", key) for _ in range(2)), return_exceptions=True)
        twice += [key] * (taken.count(True) > 1)
    return twice


@pytest.mark.parametrize("seed", range(3))
async def test_the_wire_fails_again_and_again(server: RedisServer, tmp_path: Path, seed: int) -> None:
    """Two control processes and their workers, eight who count in four records and two who hand out codes."""
    name, chance = secrets.token_hex(4), random.Random(seed)
    async with (
        wired(server, name) as (wire, store),
        await RedisStore.open(RedisOptions(url=server.url), clock.now, name=name) as direct,
        node(store, tmp_path / "near") as near,
        node(direct, tmp_path / "far") as far,
    ):
        noted = Noted(store)
        wire.fault = lambda _: chance.choice(FAULTS) if chance.random() < 0.08 else None
        until = clock.monotonic() + 4
        counting = [count(noted, f"{number % 4}", until) for number in range(8)]
        handing = [hand_out(noted, number, until) for number in range(2)]
        *counted, one, other = await asyncio.gather(*counting, *handing)
        wire.fault = lambda _: None
        while wire.held:
            await asyncio.sleep(0.01)
        assert one == other == []
        assert wire.faults > 20
        explained(await history(direct), noted)
        numbers = [int(found.value) for found in await direct.scan("counter")]
        assert sum(numbers) >= sum(counted) > 50
        await agree(direct, near, far)


@pytest.mark.parametrize("fault", ["unheard", "unanswered", "late"])
async def test_who_is_told_to_stop_while_the_wire_fails_stops(server: RedisServer, fault: Fault) -> None:
    """Background work tries again whatever happens to it: it must not take being cancelled for an outage."""

    async def try_for_ever(store: Store) -> None:
        while True:
            try:
                await store.get("session", "k")
            except StoreUnavailable:
                await asyncio.sleep(0)

    chance = random.Random(7)
    async with wired(server, secrets.token_hex(4)) as (wire, store):
        wire.fault = lambda _: chance.choice([fault, None, None])
        for _ in range(40):
            trying = [asyncio.create_task(try_for_ever(store)) for _ in range(8)]
            await asyncio.sleep(chance.random() * 0.02)
            for task in trying:
                task.cancel()
            _, left = await asyncio.wait(trying, timeout=5)
            assert not left, "goes on for ever"
