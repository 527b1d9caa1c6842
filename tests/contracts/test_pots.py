"""Rates that several nodes keep together: never more than one node alone would allow, and their credits."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ztproxy.gateway.leases import Leases, Pot
from ztproxy.model.quota import Grant, Quota, Rate, Wish
from ztproxy.net.rate import Bucket
from ztproxy.store.interface import StoreUnavailable
from ztproxy.store.redis_client import RedisOptions
from ztproxy.store.redis_pot import RedisPot

SLOW = Rate(0.001, 10)  # nothing comes back while a test runs


class LocalPot:
    """The contract in memory, on a clock set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.buckets: dict[str, Bucket] = {}
        self.gone = False

    async def draw(self, wishes: Sequence[Wish]) -> Sequence[Grant] | None:
        if self.gone:
            return None
        return [self._one(wish) for wish in wishes]

    def _one(self, wish: Wish) -> Grant:
        bucket = self.buckets.setdefault(wish.key, Bucket(wish.rate, self.now))
        tokens = sum(not bucket.take(self.now) for _ in range(wish.tokens))
        return Grant(tokens, bucket.wait(self.now))


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def pot(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pot]:
    if request.param == "memory":
        yield LocalPot()
        return
    server = request.getfixturevalue("redis_server")
    redis = RedisPot.open(server.options, name=str(tmp_path))
    yield redis
    await redis.close()


async def draw(pot: Pot, *wishes: Wish) -> list[Grant]:
    grants = await pot.draw(wishes)
    assert grants is not None
    return list(grants)


async def test_a_pot_gives_its_burst_and_says_when_there_is_more(pot: Pot) -> None:
    (first,) = await draw(pot, Wish("a", SLOW, 4))
    assert first == Grant(4, 0.0)
    (second,) = await draw(pot, Wish("a", SLOW, 40))
    assert second.tokens == 6
    assert 990 < second.wait <= 1000
    assert (await draw(pot, Wish("a", SLOW, 0)))[0].tokens == 0


async def test_callers_are_settled_together_and_told_apart(pot: Pot) -> None:
    grants = await draw(pot, Wish("a", SLOW, 10), Wish("b", SLOW, 3), Wish("a", SLOW, 1))
    assert [grant.tokens for grant in grants] == [10, 3, 0]


async def test_many_who_draw_at_once_get_no_more_than_there_is(pot: Pot) -> None:
    taken = await asyncio.gather(*(draw(pot, Wish("a", Rate(0.001, 100), 7)) for _ in range(40)))
    assert sum(grants[0].tokens for grants in taken) == 100


@pytest.mark.redis
async def test_redis_fills_on_its_own_clock(redis_server: Any, tmp_path: Path) -> None:
    pot = RedisPot.open(redis_server.options, name=str(tmp_path))
    rate = Rate(20.0, 2)
    assert [one.tokens for one in await draw(pot, Wish("a", rate, 9))] == [2]
    await asyncio.sleep(0.12)
    assert [one.tokens for one in await draw(pot, Wish("a", rate, 9))] == [2]
    await pot.close()


@pytest.mark.redis
async def test_a_server_that_is_gone_is_told_by_none(redis_server: Any, tmp_path: Path) -> None:
    server = type(redis_server)(tmp_path)
    await asyncio.to_thread(server.start)
    pot = RedisPot.open(server.options)
    assert await pot.draw([Wish("a", SLOW, 1)]) == [Grant(1, 0.0)]
    await asyncio.to_thread(server.kill)
    assert await pot.draw([Wish("a", SLOW, 1)]) is None
    await asyncio.to_thread(server.start)
    try:
        assert await pot.draw([Wish("a", SLOW, 1)]) is not None
    finally:
        await asyncio.to_thread(server.kill)
        await pot.close()


def test_an_address_with_a_password_is_not_repeated() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        RedisPot.open(RedisOptions(url="http://:s3cr3t@127.0.0.1/"))
    assert "s3cr3t" not in str(caught.value)


# ------------------------------------------------------------------ leases


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


QUOTA = Quota("principal", SLOW)


async def test_nodes_together_allow_the_burst_and_their_credits(pot: Pot) -> None:
    clock, nodes = Clock(), 3
    leases = [Leases(pot, share=nodes, now=clock) for _ in range(nodes)]
    callers = [each.mint(QUOTA, SLOW, "carol", 0.0) for each in leases]
    allowed = 0
    for _ in range(30):
        for each, caller in zip(leases, callers, strict=True):
            allowed += sum(not caller.take(clock.now) for _ in range(5))
            await each.settle()
        clock.now += 0.1
    credit = SLOW.burst // nodes
    assert SLOW.burst <= allowed <= SLOW.burst + nodes * credit
    assert callers[0].take(clock.now) > 1.0


async def test_a_busy_caller_is_answered_from_memory_and_gets_its_rate(pot: Pot) -> None:
    if not isinstance(pot, LocalPot):
        pytest.skip("runs on a clock set by hand")
    clock, rate = Clock(), Rate(100.0, 20)
    leases = Leases(pot, share=1, now=clock)
    caller = leases.mint(Quota("principal", rate), rate, "carol", 0.0)
    allowed = 0
    for _ in range(100):  # ten seconds, at twice the rate
        allowed += sum(not caller.take(clock.now) for _ in range(20))
        await leases.settle()
        clock.now += 0.1
        pot.now = clock.now
    assert 900 <= allowed <= 20 + 1000 + 20


async def test_without_the_pot_each_keeps_its_share_and_says_so() -> None:
    pot, clock = LocalPot(), Clock()
    pot.gone = True
    leases = Leases(pot, share=2, now=clock)
    caller = leases.mint(QUOTA, SLOW, "carol", 0.0)
    assert not caller.take(0.0)
    await leases.settle()
    assert (leases.down, leases.failures) == (True, 1)
    assert sum(not caller.take(0.0) for _ in range(20)) == SLOW.burst // 2
    pot.gone = False
    await leases.settle()
    assert not leases.down
    assert caller.wait(0.0) == 0.0


async def test_callers_of_different_quotas_do_not_meet() -> None:
    pot, clock = LocalPot(), Clock()
    leases = Leases(pot, share=1, now=clock)
    for quota in (QUOTA, Quota("session", SLOW), Quota("principal", SLOW, scope="app")):
        leases.mint(quota, SLOW, "carol", 0.0).take(0.0)
    await leases.settle()
    assert len(pot.buckets) == 3
