"""Rates that all workers keep together: what all let pass, whatever reaches whom and whoever is away."""

import asyncio
from typing import Any

import msgspec
import pytest
from gateway_fakes import ROUTE, permit_of
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.gateway.quotas import Claim, Quotas
from ztproxy.gateway.shared_rates import GRAIN, KEYS, MOST, SharedRates
from ztproxy.model.messages import Charged
from ztproxy.model.quota import Quota, Rate, Spent
from ztproxy.model.request import AccessRequest, Context, Evidence, Resource
from ztproxy.net.rate import Bucket
from ztproxy.store.local_pot import LocalPot

SLOW = Rate(0.001, 100)  # nothing comes back while a test runs
CREDIT = 25  # of SLOW, to each of two workers, as to one


class Estate:
    """Workers around one pot, on a clock set by hand."""

    def __init__(self, workers: int, rate: Rate = SLOW, nodes: int = 1) -> None:
        self.now = 0.0
        self.nodes = nodes
        self.pot = LocalPot(lambda: self.now)
        self.away = False
        self.quota = Quota("principal", rate)
        self.rates = [SharedRates(self.charge, lambda: self.now) for _ in range(workers)]
        for one in self.rates:
            one.workers = workers
        self.carol = [self.bucket(worker) for worker in range(workers)]

    def bucket(self, worker: int, key: str = "carol") -> Bucket:
        rate = self.quota.rate
        assert rate is not None
        return self.rates[worker].bucket(self.quota, rate, key, self.now)

    async def charge(self, spent: tuple[Spent, ...]) -> Charged | None:
        if self.away:
            return None
        return Charged(1, (await self.pot.charge(spent)).left, self.nodes)

    async def settle(self) -> None:
        for one in self.rates:
            await one.settle()

    def flood(self, worker: int, requests: int = 10_000) -> int:
        """How many of so many requests at once one worker lets pass."""
        take = self.carol[worker].take
        return next((number for number in range(requests) if take(self.now)), requests)


async def one_by_one(estate: Estate, worker: int) -> int:
    """How many requests pass of somebody who waits for each answer, which takes longer than a charge."""
    passed = 0
    while not estate.carol[worker].take(estate.now):
        passed += 1
        await estate.settle()
    return passed


# ------------------------------------------------------------------ a burst


async def test_a_burst_on_one_worker_is_whole() -> None:
    assert await one_by_one(Estate(2), 0) == 100


async def test_another_worker_gives_what_is_left_and_not_one_burst_more() -> None:
    estate = Estate(4)
    for _ in range(60):
        estate.carol[0].take(0.0)
        await estate.settle()
    assert await one_by_one(estate, 1) == 40
    assert [await one_by_one(estate, worker) for worker in (2, 3)] == [1, 1]  # until they have heard
    assert await one_by_one(estate, 1) == 0


@pytest.mark.parametrize(("workers", "credit"), [(1, 25), (2, 25), (4, 12), (10, 8)])
async def test_all_workers_at_once_give_a_credit_each_and_no_more(workers: int, credit: int) -> None:
    estate = Estate(workers)
    assert [estate.flood(worker) for worker in range(workers)] == [credit] * workers
    await estate.settle()
    passed = workers * credit + await drained(estate)
    assert 100 <= passed <= 100 + workers * credit


async def drained(estate: Estate) -> int:
    """How many more pass until nobody lets anybody pass."""
    passed = 0
    while some := sum(estate.flood(worker) for worker in range(len(estate.carol))):
        passed += some
        await estate.settle()
    return passed


async def test_what_was_too_much_is_paid_back_before_anything_else() -> None:
    estate = Estate(8, Rate(1.0, 100))
    passed = await drained(estate)
    assert 100 < passed <= 100 + 8 * 8
    seconds = passed + 400
    for second in range(1, seconds + 1):
        estate.now = float(second)
        passed += await drained(estate)
    assert seconds + 100 - 8 <= passed <= seconds + 100 + 8


async def test_a_refusal_says_when_the_next_token_of_all_comes() -> None:
    estate = Estate(2, Rate(0.5, 4))
    await drained(estate)
    for carol in estate.carol:
        wait = carol.wait(0.0)
        assert 2.0 <= wait <= 6.0
        assert carol.wait(wait - 0.01) > 0.0
        assert carol.wait(wait + 0.01) == 0.0


async def test_a_steady_caller_gets_the_rate_over_all_workers() -> None:
    estate = Estate(3, Rate(100.0, 20))
    passed = 0
    for step in range(200):  # twenty seconds at five times the rate, on all workers in turn
        estate.now = step * 0.1
        passed += sum(not estate.carol[number % 3].take(estate.now) for number in range(50))
        await estate.settle()
    assert 20 + 1900 * 0.97 <= passed <= 20 + 2000 + 3 * 5


# ------------------------------------------------------------------ nobody answers


async def test_without_the_pot_a_worker_keeps_its_share_and_says_so() -> None:
    rate = Rate(60.0, 100)
    estate = Estate(2, rate, nodes=3)
    estate.carol[0].take(0.0)
    await estate.settle()
    estate.away = True
    passed = 0
    for step in range(1, 200):
        estate.now = step * 0.125
        passed += estate.flood(0, 50)
        await estate.settle()
    assert estate.rates[0].apart
    share = rate.per_second / 6
    assert 0.9 * share * estate.now <= passed <= CREDIT + share * (estate.now + GRAIN) + 1
    assert estate.rates[0].by_share >= passed - CREDIT


async def test_what_passed_meanwhile_is_paid_when_the_pot_is_back() -> None:
    estate = Estate(2)
    estate.away = True
    passed = estate.flood(0) + estate.flood(1)
    await estate.settle()
    assert estate.rates[0].apart
    estate.away = False
    await estate.settle()
    assert not estate.rates[0].apart
    for worker in (0, 1):
        passed += await one_by_one(estate, worker)
    assert passed in (100, 101)


async def test_a_pot_that_lost_everything_is_told_what_was_left() -> None:
    estate = Estate(2)
    assert await one_by_one(estate, 0) == 100
    estate.pot = LocalPot(lambda: estate.now)
    estate.now = 2000.0  # two tokens
    assert await one_by_one(estate, 0) == 2
    assert await one_by_one(estate, 1) <= 1


async def test_requests_while_a_charge_is_under_way_are_charged_with_the_next() -> None:
    estate = Estate(1)
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(spent: tuple[Spent, ...]) -> Charged | None:
        entered.set()
        await go.wait()
        return await estate.charge(spent)

    rates = SharedRates(slow, lambda: estate.now)
    carol = rates.bucket(estate.quota, SLOW, "carol", 0.0)
    assert not carol.take(0.0)
    settling = asyncio.create_task(rates.settle())
    await entered.wait()
    assert sum(not carol.take(0.0) for _ in range(10)) == 10
    go.set()
    await settling
    await rates.settle()
    assert (await estate.pot.charge([spent_of(carol)])).left == (pytest.approx(89),)


def spent_of(bucket: Any) -> Spent:
    return msgspec.structs.replace(bucket.spent(0.0), tokens=0)


@pytest.mark.parametrize("answer", [Charged(1, (), 1), Charged(1, (1.0, 2.0), 1), Charged(1, (None,), 1)])
async def test_an_answer_that_does_not_fit_is_none(answer: Charged) -> None:
    asked: list[int] = []

    async def charge(spent: tuple[Spent, ...]) -> Charged | None:
        asked.append(spent[0].tokens)
        return answer

    rates = SharedRates(charge, lambda: 0.0)
    bucket = rates.bucket(Quota("principal", SLOW), SLOW, "carol", 0.0)
    for _ in range(3):
        bucket.take(0.0)
        await rates.settle()
    assert rates.apart
    assert asked == [1, 2, 3]


# ------------------------------------------------------------------ the loop


async def test_the_first_request_is_charged_at_once_and_a_half_used_credit_soon() -> None:
    charges: asyncio.Queue[int] = asyncio.Queue()

    async def charge(spent: tuple[Spent, ...]) -> Charged | None:
        charges.put_nowait(sum(one.tokens for one in spent))
        return Charged(1, tuple(one.left for one in spent), 1)

    rates = SharedRates(charge, lambda: 0.0)
    running = asyncio.create_task(rates.run())
    carol = rates.bucket(Quota("principal", SLOW), SLOW, "carol", 0.0)
    try:
        async with asyncio.timeout(20):
            carol.take(0.0)
            assert await charges.get() == 1
            for burst in (CREDIT // 2 + 1, CREDIT // 2 + 1):
                assert sum(not carol.take(0.0) for _ in range(burst)) == burst
                assert await charges.get() == burst
            carol.take(0.0)
            assert await charges.get() == 1  # nothing stays behind
            assert charges.empty()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_nothing_is_sent_while_nobody_asks_for_anything() -> None:
    async def charge(spent: tuple[Spent, ...]) -> Charged | None:
        raise AssertionError("nothing to charge")

    rates = SharedRates(charge, lambda: 0.0)
    running = asyncio.create_task(rates.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not running.done()
    running.cancel()


# ------------------------------------------------------------------ attackers


async def test_many_callers_while_the_pot_is_away_are_bounded() -> None:
    estate = Estate(1)
    estate.away = True
    for number in range(KEYS + 500):
        estate.bucket(0, f"p{number}").take(0.0)
    assert len(estate.rates[0]._noted) == KEYS
    await estate.settle()
    assert len(estate.rates[0]._noted) == KEYS


async def test_who_is_let_off_for_want_of_room_is_charged_again_later() -> None:
    estate = Estate(1)
    estate.away = True
    assert estate.flood(0) == CREDIT
    for number in range(KEYS):
        estate.bucket(0, f"p{number}").take(0.0)
    estate.away = False
    while estate.rates[0]._noted:
        await estate.settle()
    assert await one_by_one(estate, 0) == 100 - CREDIT  # as far as this worker believes
    assert (await estate.pot.charge([spent_of(estate.carol[0])])).left[0] == pytest.approx(0.0)


async def test_more_callers_than_one_message_holds_are_charged_without_a_pause() -> None:
    sizes: list[int] = []
    done = asyncio.Event()

    async def charge(spent: tuple[Spent, ...]) -> Charged | None:
        sizes.append(len(spent))
        if sum(sizes) == 3 * MOST + 7:
            done.set()
        return Charged(1, tuple(one.left for one in spent), 1)

    rates = SharedRates(charge, lambda: 0.0)
    for number in range(3 * MOST + 7):
        rates.bucket(Quota("principal", SLOW), SLOW, f"p{number}", 0.0).take(0.0)
    running = asyncio.create_task(rates.run())
    async with asyncio.timeout(20):
        await done.wait()
    running.cancel()
    assert sizes == [MOST, MOST, MOST, 7]


async def test_to_be_forgotten_by_a_worker_is_worth_a_credit_at_most() -> None:
    """Of a table that holds few callers, somebody who brings others along to be forgotten himself."""
    estate = Estate(1)
    route = ROUTE.replaced(quotas=(estate.quota,))
    quotas = Quotas([route], {}, estate.rates[0].bucket)
    next(iter(quotas._plans.values()))[0]._keys = 3

    def passes(principal: str) -> bool:
        request = AccessRequest(
            Evidence(), Resource("Route", "app", ROUTE), "GET", Context("0" * 32, "", "", "/")
        )
        claim = quotas.claim(
            permit_of(request, route, principal_id=principal, session_id=""), "192.0.2.7", 0.0
        )
        if isinstance(claim, Claim):
            claim.release()
        return isinstance(claim, Claim)

    passed = 0
    for turn in range(30):
        while passes("carol"):
            passed += 1
            await estate.settle()
        for number in range(4):
            assert passes(f"friend{turn}-{number}")
        await estate.settle()
    assert passed <= 100 + 30  # one each time, before the pot has said no


@given(
    workers=st.integers(1, 4),
    burst=st.integers(1, 60),
    per_second=st.sampled_from([0.5, 5.0, 200.0]),
    story=st.lists(
        st.tuples(
            st.integers(0, 3),  # which worker
            st.integers(1, 40),  # requests at once
            st.sampled_from([0.0, 0.0, 0.125, 1.0, 20.0]),  # seconds until then
            st.sampled_from(["settle", "settle", "nothing", "away", "back", "lost"]),
        ),
        max_size=60,
    ),
)
def test_no_story_gives_more_than_burst_rate_and_credits(
    workers: int, burst: int, per_second: float, story: list[tuple[int, int, float, str]]
) -> None:
    rate = Rate(per_second, burst)
    estate = Estate(workers, rate)
    credit = max(1, min(burst // 4, max(8, burst // (2 * workers))))
    passed, losses = 0, 0

    async def play() -> None:
        nonlocal passed, losses
        for worker, requests, pause, what in story:
            estate.now += pause
            passed += estate.flood(worker % workers, requests)
            if what == "settle":
                await estate.settle()
            elif what in ("away", "back"):
                estate.away = what == "away"
            elif what == "lost":
                estate.pot = LocalPot(lambda: estate.now)
                losses += 1
            slack = credit + per_second / workers * GRAIN + 1
            assert passed <= burst * (1 + losses) + per_second * estate.now + workers * slack

    asyncio.run(play())


# ------------------------------------------------------------------ names


def test_names_tell_quotas_and_callers_apart_and_nobody_who_they_are() -> None:
    names = set()
    rates = SharedRates(Estate(1).charge, lambda: 0.0)
    for quota in (
        Quota("principal", SLOW),
        Quota("session", SLOW),
        Quota("principal", SLOW, scope="app"),
        Quota("principal", SLOW, concurrent=1),
        Quota("principal", SLOW, strangers=True),
        Quota("principal", Rate(0.001, 99)),
    ):
        for key in ("carol@corp.example", "@192.0.2.7"):
            bucket: Any = rates.bucket(quota, quota.rate or SLOW, key, 0.0)
            spent = bucket.spent(0.0)
            assert spent.shared == (key[0] != "@")
            names.add(spent.key)
    assert len(names) == 12
    assert all(len(name) == 32 and "carol" not in name for name in names)
