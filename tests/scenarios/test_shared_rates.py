"""Rates hold over all workers of all nodes: what is let pass in all is what the configuration says.

Never more than burst + rate * t, a credit for each worker, and one burst more where a control process died,
which had the tokens of its node in its memory.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from bench.callers import Caller, open_caller
from bench.causes import doors
from bench.nodes import Estate, Node
from bench.people import Person, sign_in
from ztproxy.net.clock import SystemClock
from ztproxy.service.state import StateDirectory
from ztproxy.service.storage import open_store

pytestmark = [pytest.mark.redis]

WORKERS = 2  # of each node
BURST = 60
CREDIT = BURST // 4  # at the most
FAST, FAST_BURST = 40, 40  # a second
QUOTAS = {
    "cell0": "{per: principal, rate: 60/h burst 60}",
    "cell1": "{per: route, rate: 60/h burst 60}",
    "cell2": "{per: principal, rate: 40/s burst 40}",
    "cell3": "{per: source, rate: 60/h burst 60}",
}
PATIENCE = 60.0


def limited(estate: Estate) -> None:
    """Write the quotas into the configurations."""
    for node in estate.nodes:
        text = node.config.read_text()
        for cell, quota in QUOTAS.items():
            text = text.replace(f"{{name: {cell}, app", f"{{name: {cell}, quotas: [{quota}], app")
        node.config.write_text(text)


@pytest.fixture(scope="module", params=[1, 2], ids=["one node", "two nodes"])
def estate(request: pytest.FixtureRequest) -> Iterator[Estate]:
    nodes: int = request.param
    with Estate(nodes=nodes, workers=WORKERS, redis=nodes > 1, feed_limit="120s", before=limited) as running:
        yield running


async def enter(estate: Estate, subject: str = "") -> Person:
    """Somebody who has just signed in."""
    settings = await asyncio.to_thread(estate.settings)
    records = await open_store(settings, StateDirectory(estate.nodes[0].folder / "state"), SystemClock())
    try:
        return await sign_in(records, subject=subject)
    finally:
        await records.close()


@asynccontextmanager
async def callers(estate: Estate, person: Person, path: str, each: int = 12) -> AsyncIterator[list[Caller]]:
    """So many connections to each node that each of its workers has some."""
    made = [
        await open_caller(door, path) for door in doors(estate, person.cookie) for _ in range(each)
    ]  # fmt: skip
    try:
        yield made
    finally:
        for one in made:
            one.leave()


async def ask_at_once(some: list[Caller], times: int) -> Counter[int]:
    """What all of them get, each asking so many times in a row."""

    async def one(caller: Caller) -> list[int]:
        return [await caller.status() for _ in range(times)]

    return Counter(status for answers in await asyncio.gather(*map(one, some)) for status in answers)


def workers(estate: Estate) -> int:
    return WORKERS * len(estate.nodes)


def bound(estate: Estate, began: float) -> float:
    return BURST + workers(estate) * (CREDIT + 1) + (time.monotonic() - began) / 60


# ------------------------------------------------------------------ a burst


async def test_connections_cookies_and_workers_add_nothing(estate: Estate) -> None:
    person, began = await enter(estate), time.monotonic()
    again = await enter(estate, person.subject)
    got: Counter[int] = Counter()
    async with callers(estate, person, "/cell0/") as some, callers(estate, again, "/cell0/") as more:
        got += await ask_at_once(some + more, 5)
    for who in (person, again):  # once more, on new connections
        async with callers(estate, who, "/cell0/") as some:
            got += await ask_at_once(some, 5)
    assert set(got) == {200, 429}
    assert BURST <= got[200] <= bound(estate, began)
    assert (await enter(estate)).principal != person.principal
    async with callers(estate, await enter(estate), "/cell0/", 1) as some:
        assert (await ask_at_once(some, 5))[200] == 5 * len(some)  # nobody else pays for it


async def test_one_request_after_the_other_gets_the_burst_wherever_it_arrives(estate: Estate) -> None:
    person, began, passed = await enter(estate), time.monotonic(), 0
    async with callers(estate, person, "/cell0/") as some:
        for turn in range(2 * BURST):
            passed += await some[turn % len(some)].status() == 200
            await asyncio.sleep(0.02)  # answers take time; charges less
    assert BURST - 1 <= passed <= bound(estate, began)
    assert passed <= BURST + workers(estate) + (time.monotonic() - began) / 60 + CREDIT


async def test_a_route_has_one_rate_for_everybody(estate: Estate) -> None:
    began, got = time.monotonic(), Counter[int]()
    for _ in range(3):
        async with callers(estate, await enter(estate), "/cell1/") as some:
            got += await ask_at_once(some, 5)
    assert set(got) == {200, 503}
    assert BURST <= got[200] <= bound(estate, began)


async def test_a_source_is_counted_by_each_node(estate: Estate) -> None:
    began, got = time.monotonic(), Counter[int]()
    async with callers(estate, await enter(estate), "/cell3/") as some:
        for _ in range(5):  # until a worker has heard from control it has no more than its credit
            got += await ask_at_once(some, 4)
            await asyncio.sleep(0.1)
    nodes = len(estate.nodes)
    assert nodes * BURST <= got[200] <= bound(estate, began) + (nodes - 1) * BURST


async def test_a_reload_gives_nothing_back(estate: Estate) -> None:
    person, began = await enter(estate), time.monotonic()
    async with callers(estate, person, "/cell0/") as some:
        got = await ask_at_once(some, 15)
        for node in estate.nodes:
            node.config.write_text(node.config.read_text() + "# once more\n")
            done = await asyncio.to_thread(node.cli, "reload")
            assert done.returncode == 0, done.stdout + done.stderr
        got += await ask_at_once(some, 5)
    async with callers(estate, person, "/cell0/") as some:
        got += await ask_at_once(some, 5)
    assert BURST <= got[200] <= bound(estate, began)


# ------------------------------------------------------------------ under load, and somebody dies


@dataclass
class Load:
    """Requests all the time, on all workers, at several times the rate."""

    callers: list[Caller]
    got: Counter[int] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    async def run(self, caller: Caller) -> None:
        while True:
            try:
                self.got[await caller.status()] += 1
            except TimeoutError:
                self.got[-1] += 1
            await asyncio.sleep(0.05)

    async def passes(self, more: int) -> None:
        """Return when so many more have passed."""
        aim = self.got[200] + more
        async with asyncio.timeout(PATIENCE):
            while self.got[200] < aim:
                await asyncio.sleep(0.05)

    def allowed(self, workers: int) -> float:
        seconds = time.monotonic() - self.began
        return FAST_BURST + FAST * (seconds + 0.2) + workers * (FAST_BURST // 4 + 1)


@asynccontextmanager
async def load(estate: Estate) -> AsyncIterator[Load]:
    async with callers(estate, await enter(estate), "/cell2/") as some:
        made = Load(some)
        running = [asyncio.create_task(made.run(one)) for one in some]
        try:
            yield made
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def control_of(node: Node, *, but: int = 0) -> int:
    async with asyncio.timeout(PATIENCE):
        while not (pids := [pid for pid in node.parts("control") if pid != but]):
            await asyncio.sleep(0.05)
    return pids[0]


async def test_the_rate_is_that_of_the_configuration_and_control_may_die(estate: Estate) -> None:
    async with load(estate) as running:
        await running.passes(3 * FAST)
        seconds = time.monotonic() - running.began
        assert running.got[200] <= running.allowed(workers(estate))
        assert running.got[429] > running.got[200] / 2, "not more was asked for than is allowed"
        assert running.got[200] >= 0.7 * FAST * seconds
        node = estate.nodes[0]
        before = await control_of(node)
        os.kill(before, signal.SIGKILL)
        await running.passes(FAST)
        await control_of(node, but=before)
        async with asyncio.timeout(PATIENCE):
            while not await asyncio.to_thread(node.ready):
                await asyncio.sleep(0.05)
        await running.passes(3 * FAST)
        assert running.got[200] <= running.allowed(workers(estate)) + FAST_BURST
        assert set(running.got) == {200, 429}


async def test_redis_dies_and_each_worker_keeps_its_share(estate: Estate) -> None:
    if estate.redis is None:
        pytest.skip("one node has no Redis")
    redis, node = estate.redis, estate.nodes[0]

    def apart() -> bool:
        return 1.0 in node.numbers("ztproxy_rates_apart")

    async with load(estate) as running:
        await running.passes(2 * FAST)
        await asyncio.to_thread(redis.end, signal.SIGKILL)
        died, passed = time.monotonic(), running.got[200]
        try:
            await running.passes(FAST)
            async with asyncio.timeout(PATIENCE):
                while not await asyncio.to_thread(apart):
                    await asyncio.sleep(0.05)
            assert running.got[200] <= running.allowed(workers(estate))
            seconds = time.monotonic() - died
            credits = workers(estate) * (FAST_BURST // 4 + 1)
            assert running.got[200] - passed <= FAST * (seconds + 0.2) + credits + FAST_BURST
        finally:
            await asyncio.to_thread(redis.start)
        async with asyncio.timeout(PATIENCE):
            while await asyncio.to_thread(apart):
                await asyncio.sleep(0.05)
        await running.passes(2 * FAST)
        assert running.got[200] <= running.allowed(workers(estate))
        assert set(running.got) == {200, 429}
