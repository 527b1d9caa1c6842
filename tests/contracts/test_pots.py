"""The pot of rates that many keep together, in memory and on a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ztproxy.model.messages import Charge
from ztproxy.model.quota import Rate, Spent
from ztproxy.service.rates import Rates
from ztproxy.store import redis_pot
from ztproxy.store.interface import Pot, StoreUnavailable
from ztproxy.store.local_pot import LocalPot
from ztproxy.store.redis_client import RedisOptions
from ztproxy.store.redis_pot import RedisPot

SLOW = Rate(0.001, 10)  # nothing comes back while a test runs


class Clock:
    """Seconds, set by hand where the pot has no clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def pot(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Pot]:
    made: Pot
    if request.param == "memory":
        made = LocalPot(clock)
    else:
        server = request.getfixturevalue("redis_server")
        made = RedisPot.open(server.options, node="a", name=str(tmp_path))
    yield made
    await made.close()


def spent(key: str, tokens: int, rate: Rate = SLOW, left: float | None = None, shared: bool = True) -> Spent:
    """What a worker tells that has taken so many of a bucket it took for full."""
    return Spent(key, rate, tokens, rate.burst - tokens if left is None else left, shared)


async def left(pot: Pot, *some: Spent) -> list[float]:
    return [pytest.approx(one, abs=0.01) for one in (await pot.charge(some)).left]


async def test_what_is_spent_is_missing_to_all_and_can_be_owed(pot: Pot) -> None:
    assert await left(pot, spent("a", 4)) == [6]
    assert await left(pot, spent("a", 4)) == [2]
    assert await left(pot, spent("a", 40)) == [-38]
    assert await left(pot, spent("a", 0)) == [-38]


async def test_callers_are_charged_together_and_told_apart(pot: Pot) -> None:
    assert await left(pot, spent("a", 10), spent("b", 3), spent("a", 1)) == [0, 7, -1]
    assert await left(pot) == []


async def test_charges_that_come_at_once_all_count(pot: Pot) -> None:
    rate = Rate(0.001, 100)
    await asyncio.gather(*(pot.charge([spent("a", 7, rate)]) for _ in range(20)))
    assert await left(pot, spent("a", 0, rate)) == [100 - 140]


async def test_a_pot_that_has_forgotten_believes_who_remembers(pot: Pot) -> None:
    assert await left(pot, spent("a", 1, left=-3.5)) == [-3.5]
    assert await left(pot, spent("a", 1, left=9.0)) == [-4.5]  # now it knows
    assert await left(pot, spent("b", 1, left=1e9)) == [10]


async def test_a_pot_fills_and_runs_not_over(pot: Pot, clock: Clock) -> None:
    rate = Rate(50.0, 5)
    assert await left(pot, spent("a", 5, rate)) == [0]
    clock.now += 0.3
    await asyncio.sleep(0.3)
    assert await left(pot, spent("a", 0, rate)) == [5]


async def test_debts_are_paid_at_the_rate(clock: Clock) -> None:
    pot, rate = LocalPot(clock), Rate(2.0, 4)
    await pot.charge([spent("a", 10, rate)])
    clock.now += 4.0
    assert await left(pot, spent("a", 0, rate)) == [2]


# ------------------------------------------------------------------ bounds


async def test_memory_is_bounded_and_who_spent_last_is_remembered(clock: Clock) -> None:
    pot = LocalPot(clock, keys=100)
    await pot.charge([spent("drained", 10)])
    for number in range(1000):
        await pot.charge([spent(f"new{number}", 1), *([spent("drained", 0)] if number % 50 == 0 else [])])
    assert len(pot) == 100
    assert await left(pot, spent("drained", 0)) == [0]


@pytest.mark.redis
async def test_redis_keeps_a_bucket_only_until_it_is_full(redis_server: Any, tmp_path: Path) -> None:
    pot = RedisPot.open(redis_server.options, node="a", name=str(tmp_path))
    await pot.charge([spent("some", 1, Rate(2.0, 10)), spent("owing", 30, Rate(2.0, 10))])
    ask = pot._reached.client
    for key, most in (("some", 1500), ("owing", 16_000)):
        life = await ask.pttl(f"{{ztproxy:{tmp_path}}}:rates:{key}")
        assert most - 1000 < life <= most
    await pot.close()


async def test_a_flood_of_sources_fills_nothing_that_is_shared(clock: Clock) -> None:
    own, shared = LocalPot(clock, keys=10), LocalPot(clock)
    rates = Rates(own, shared)
    flood = [spent(f"@{number}", 1, shared=False) for number in range(500)]
    charged = await rates.charge(Charge(7, (spent("carol", 4), *flood, spent("dave", 1))))
    assert (charged.ask, len(charged.left)) == (7, 502)
    assert charged.left[0] == 6
    assert charged.left[-1] == 9
    assert (len(own), len(shared)) == (10, 2)


# ------------------------------------------------------------------ nodes


@pytest.mark.redis
async def test_nodes_count_each_other_until_they_are_silent(
    redis_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (RedisPot.open(redis_server.options, node=node, name=str(tmp_path)) for node in "ab")
    assert (await one.charge([])).nodes == 1
    assert (await other.charge([])).nodes == 2
    assert (await one.charge([])).nodes == 2
    monkeypatch.setattr(redis_pot, "NODE_SECONDS", 0.05)
    await asyncio.sleep(0.06)
    assert (await other.charge([])).nodes == 1
    await one.close()
    await other.close()


@pytest.mark.redis
async def test_the_server_dies_and_is_back(redis_server: Any, tmp_path: Path) -> None:
    server = type(redis_server)(tmp_path)
    await asyncio.to_thread(server.start)
    rates = Rates(LocalPot(Clock()), RedisPot.open(server.options, node="a"))
    charge = Charge(1, (spent("carol", 1), spent("@192.0.2.1", 1, shared=False)))
    assert [round(one or 0) for one in (await rates.charge(charge)).left] == [9, 9]
    await asyncio.to_thread(server.kill)
    assert (await rates.charge(charge)).left == (None, 8)
    await asyncio.to_thread(server.start)
    try:
        charged = await rates.charge(charge)
        assert charged.left[0] is not None
        assert charged.left[0] < 9
    finally:
        await asyncio.to_thread(server.kill)
        await rates.close()


@pytest.mark.redis
async def test_a_server_that_stands_still_holds_nobody_up(redis_server: Any, tmp_path: Path) -> None:
    pot = RedisPot.open(redis_server.options, node="a", name=str(tmp_path))
    await pot.charge([spent("a", 1)])
    redis_server.process.send_signal(19)
    try:
        async with asyncio.timeout(10):
            with pytest.raises(StoreUnavailable):
                await pot.charge([spent("a", 1)])
    finally:
        redis_server.process.send_signal(18)
        await pot.close()


def test_an_address_with_a_password_is_not_repeated() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        RedisPot.open(RedisOptions(url="http://:s3cr3t@127.0.0.1/"), node="a")
    assert "s3cr3t" not in str(caught.value)
