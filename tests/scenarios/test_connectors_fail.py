"""Two connectors of one name, two nodes, callers all the time; then something dies, is cut off or is told to
stop. Only what it carried fails, and soon nothing does any more."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from connected import Connected, ConnectorProgram, until
from namespaces import PROXY, Apart, apart, inside

from bench.nodes import Running, eventually

#: Seconds in which the rest has moved, on a machine that is ours alone. It may be busy with others: what it
#: keeps those waiting who ask the application itself is added, as long as it is not more than as much again.
MOVED = 2.0
LONGEST = 2 * MOVED
#: Seconds that a cut link holds up a request at most, however long ago it was cut: two until it is noticed
#: that an idle connection does not take it, one more if who is asked next is silent. What hangs takes ten.
HELD_UP = 3.0
HICCUP = 0.05  # seconds that any answer may take longer than usual
CALLERS = 8
STREAMS = 16  # on each node


@pytest.fixture(scope="module")
def two() -> Iterator[Apart]:
    with apart() as made:
        yield made


@pytest.fixture(scope="module")
def estate(two: Apart) -> Iterator[Connected]:
    """One site is across the wire, the other where the nodes are: an application and a connector each."""
    with inside(two.proxy), Connected(beside=two.site.enter, proxy=PROXY) as running:
        near = Running(running.root / "near.log")
        running.application_at([], near)
        try:
            yield running
        finally:
            near.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def enrolled(estate: Connected) -> tuple[ConnectorProgram, ConnectorProgram]:
    """A connector at each site: across the wire, and here. How often somebody may enrol is bounded."""
    far, near = estate.connector(), estate.connector(beside=[])
    for one in (far, near):
        one.end(signal.SIGKILL)
    eventually(lambda: not estate.known(0) and not estate.known(1), 40)
    return far, near


@pytest.fixture
async def pair(
    estate: Connected, enrolled: tuple[ConnectorProgram, ConnectorProgram]
) -> AsyncIterator[tuple[ConnectorProgram, ConnectorProgram]]:
    """Both of them, running."""
    try:
        for one in enrolled:
            await asyncio.to_thread(estate.start, one)
        yield enrolled
    finally:
        await end(estate, *enrolled)


async def end(estate: Connected, *some: ConnectorProgram) -> None:
    """End them, and wait until no node has anything of any."""
    for one in some:
        await asyncio.to_thread(one.end, signal.SIGKILL)
    await until(lambda: not estate.known(0) and not estate.known(1), 40)


@dataclass
class Load:
    """Callers of some nodes: when each request began, when it ended, and how."""

    asked: list[tuple[float, float, int]] = field(default_factory=list)
    waiting: set[float] = field(default_factory=set)  # when requests began that are not answered yet
    itself: list[tuple[float, float]] = field(default_factory=list)  # the application: when, and how long
    over: bool = False

    async def watch(self, session: aiohttp.ClientSession, url: str) -> None:
        """Ask the application itself, so that it is known what the machine takes."""
        while not self.over:
            began = time.monotonic()
            async with session.get(url) as answer:
                await answer.read()
            self.itself.append((began, time.monotonic() - began))
            await asyncio.sleep(0.01)

    def kept_waiting(self, moment: float) -> float:
        """Seconds that the machine took for itself in the time that the rest had to move."""
        usual = min(took for _, took in self.itself) + HICCUP
        during = [took for began, took in self.itself if moment <= began + took and began < moment + MOVED]
        return sum(max(took - usual, 0.0) for took in during)

    async def call(self, session: aiohttp.ClientSession, url: str) -> None:
        while not self.over:
            began, status = time.monotonic(), 0
            self.waiting.add(began)
            try:
                async with asyncio.timeout(20), session.get(url) as answer:
                    await answer.read()
                    status = answer.status
            except (aiohttp.ClientError, TimeoutError):
                pass
            self.waiting.discard(began)
            self.asked.append((began, time.monotonic(), status))
            await asyncio.sleep(0.01)

    def failed_since(self, moment: float) -> list[tuple[float, float, int]]:
        return [one for one in self.asked if one[0] >= moment and one[2] != 200]

    def served_since(self, moment: float) -> int:
        return sum(one[0] >= moment and one[2] == 200 for one in self.asked)

    def trouble(self, moment: float) -> float:
        """Seconds from a moment until the last request that failed had begun, or was slow."""
        bad = [
            began
            for began, ended, status in self.asked
            if began >= moment - 1 and (status != 200 or ended - began > 2)
        ]
        bad += [began for began in self.waiting if time.monotonic() - began > 2]
        return max(bad, default=moment) - moment


@asynccontextmanager
async def load(estate: Connected, *nodes: int) -> AsyncIterator[Load]:
    """Callers of these nodes while the block runs; new connections and old ones."""
    made = Load()
    async with estate.session() as keeps, estate.session(force_close=True) as closes:
        tasks = [
            asyncio.create_task(made.call(session, estate.url(node, "/slow")))
            for node in nodes
            for session in [keeps, closes] * (CALLERS // 2)
        ]
        itself = f"http://127.0.0.1:{estate.site_port}/slow"
        tasks.append(asyncio.create_task(made.watch(keeps, itself)))
        await asyncio.sleep(1.0)
        try:
            yield made
        finally:
            made.over = True
            await asyncio.gather(
                *tasks
            )  # each has its bound; a handshake that is given up leaves things open


async def moves_on(made: Load, moment: float, what: str) -> None:
    """Nothing that began a while after the moment failed or hangs, and much was served since."""
    await asyncio.sleep(LONGEST + HELD_UP + 1.5)
    waited = made.kept_waiting(moment)
    moved = moment + min(MOVED + waited, LONGEST)
    failed = [(began - moment, ended - began, status) for began, ended, status in made.failed_since(moved)]
    assert not failed, (waited, failed[:5])
    latest = time.monotonic() - HELD_UP - waited
    held_up = [began - moment for began in made.waiting if moved < began < latest]
    assert not held_up, (waited, held_up)
    assert made.served_since(moved) > 20
    held = sum(began < time.monotonic() - 2 for began in made.waiting)
    failures = len(made.failed_since(moment - 1))
    print(f"{what}: trouble for {made.trouble(moment):.2f} s, {failures} failed, {held} held up")
    print(f"the machine took {waited:.2f} s for itself")


Pair = tuple[ConnectorProgram, ConnectorProgram]


def served(two: Apart, estate: Connected) -> list[int]:
    """How many requests the applications across the wire and here have seen."""
    ask = ["curl", "--silent", f"http://127.0.0.1:{estate.site_port}/slow"]
    return [int(place.run(*ask)) for place in (two.site, two.proxy)]


async def test_both_share_the_load(two: Apart, estate: Connected, pair: Pair) -> None:
    before = await asyncio.to_thread(served, two, estate)
    async with load(estate, 0, 1) as made:
        began = time.monotonic()
        await asyncio.sleep(2.0)
        assert not made.failed_since(began)
    counts = [
        now - then for now, then in zip(await asyncio.to_thread(served, two, estate), before, strict=True)
    ]
    assert min(counts) > max(counts) / 10, counts


@pytest.mark.parametrize("victim", [0, 1], ids=["across the wire", "near"])
async def test_a_connector_is_killed(estate: Connected, pair: Pair, victim: int) -> None:
    """Streams that it carried break, those of the other one do not; requests go on."""
    async with estate.session() as session, load(estate, 0, 1) as made:
        # so many that idle connections, whosever they are, do not do for all of them
        streams = [
            whole(session, estate.url(node, "/events?count=60")) for node in (0, 1) for _ in range(STREAMS)
        ]
        running = [asyncio.create_task(stream) for stream in streams]
        await asyncio.sleep(1.0)
        moment = time.monotonic()
        pair[victim].end(signal.SIGKILL)
        await moves_on(made, moment, "a connector was killed")
        counts = await asyncio.gather(*running)
        assert 0 < sum(count == 60 for count in counts) < len(counts), counts


async def whole(session: aiohttp.ClientSession, url: str) -> int:
    """How many events came until the stream ended, or broke."""
    count = 0
    try:
        async with session.get(url) as answer:
            async for line in answer.content:
                count += line.startswith(b"data:")
    except aiohttp.ClientError:
        pass
    return count


async def test_a_connectors_link_is_cut_and_it_comes_back(two: Apart, estate: Connected, pair: Pair) -> None:
    far, near = pair
    async with load(estate, 0, 1) as made:
        moment = time.monotonic()
        await asyncio.to_thread(two.cut)
        try:
            await moves_on(made, moment, "a link was cut")
        finally:
            await asyncio.to_thread(two.mend)
        near.end(signal.SIGKILL)
        moment = time.monotonic()
        async with asyncio.timeout(40):  # as long as a connector may wait until it dials again, and more
            await asyncio.sleep(2.5)
            while made.failed_since(time.monotonic() - 2) or made.served_since(time.monotonic() - 2) < 20:
                await asyncio.sleep(0.5)
        print(f"it was back after {time.monotonic() - moment - 2:.1f} s")
    assert far.pid


async def test_a_connector_is_stopped_and_finishes_what_it_carries(estate: Connected, pair: Pair) -> None:
    async with estate.session() as session, load(estate, 0, 1) as made:
        streams = [whole(session, estate.url(node, "/events?count=30")) for node in (0, 1) for _ in range(4)]
        running = [asyncio.create_task(stream) for stream in streams]
        await asyncio.sleep(0.5)
        moment = time.monotonic()
        os.kill(pair[1].pid, signal.SIGTERM)
        await asyncio.sleep(4.0)
        assert await asyncio.gather(*running) == [30] * 8
        failed = made.failed_since(moment - 1)
        assert not failed, failed[:5]
        await until(lambda: pair[1].process is None or pair[1].process.poll() is not None, 30)


async def test_a_node_is_killed(estate: Connected, pair: Pair) -> None:
    """The callers of the other one notice nothing, whatever it had borrowed."""
    async with load(estate, 0) as made:
        moment = time.monotonic()
        victim = estate.nodes[1]
        await asyncio.to_thread(victim.end, signal.SIGKILL)
        await moves_on(made, moment, "a node was killed")
    await asyncio.to_thread(victim.start)
    await asyncio.to_thread(victim.wait)
    await until(lambda: estate.ready(1) > 0, 40)
    async with load(estate, 1) as made:
        began = time.monotonic()
        await asyncio.sleep(2.0)
        assert not made.failed_since(began)


async def test_a_node_that_lends_is_killed(estate: Connected) -> None:
    """A connector knows both nodes, another one only the second: the first has none when its own is gone."""
    both, second = [await asyncio.to_thread(estate.connector, nodes, beside=[]) for nodes in ([0, 1], [1])]
    try:
        async with load(estate, 0) as made:
            moment = time.monotonic()
            both.end(signal.SIGKILL)
            await moves_on(made, moment, "the only connector of a node was killed")
        assert estate.borrowed(0, "node") > 0
    finally:
        await end(estate, both, second)


async def test_a_worker_is_killed(estate: Connected, pair: Pair) -> None:
    async with load(estate, 0, 1) as made:
        moment = time.monotonic()
        os.kill(estate.nodes[0].parts("worker")[0], signal.SIGKILL)
        await moves_on(made, moment, "a worker was killed")


async def test_a_reload_and_an_upgrade_cut_nothing(estate: Connected, pair: Pair) -> None:
    async with estate.session() as session, load(estate, 0) as made:
        began = time.monotonic()
        stream = asyncio.create_task(whole(session, estate.url(0, "/events?count=60")))
        await asyncio.sleep(0.5)
        done = await asyncio.to_thread(estate.nodes[0].cli, "reload")
        assert done.returncode == 0, done.stderr
        assert await stream == 60
        done = await asyncio.to_thread(estate.nodes[0].cli, "upgrade")
        assert done.returncode == 0, done.stderr
        await asyncio.sleep(3.0)
        failed = made.failed_since(began)
        assert not failed, failed[:5]
