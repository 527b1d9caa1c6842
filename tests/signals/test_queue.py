"""What waits for a receiver: bounded, and no dearer the more of it there is."""

import secrets

import pytest

from ztproxy.administrator.signals import streams
from ztproxy.administrator.signals.streams import Stream, Streams, Told
from ztproxy.administrator.signals.telling import TOLD, compliance
from ztproxy.net.clock import FixedClock
from ztproxy.store.sqlite import SqliteStore
from ztproxy.trust.signals.events import URIS
from ztproxy.trust.signals.transmitter import POLL

MOST = 400
RX = Told("rx", "s", "https://receiver.example", "complex", TOLD)


class Counting:
    """Counts the records that are read of a kind."""

    def __init__(self, store):
        self.store, self.read = store, 0

    def __getattr__(self, name):
        return getattr(self.store, name)

    async def scan(self, kind, **options):
        found = await self.store.scan(kind, **options)
        self.read += len(found)
        return found


@pytest.fixture
async def store(tmp_path):
    clock = FixedClock()
    store = await SqliteStore.open(tmp_path / "ztproxy.db", clock.now)
    yield Counting(store)
    await store.close()


@pytest.fixture
async def queue(store, monkeypatch):
    monkeypatch.setattr(streams, "MOST", MOST)
    monkeypatch.setattr(streams, "_PAGE", 50)
    made = node(store)
    await made.create("rx", Stream("s1", POLL, requested=tuple(URIS[name] for name in TOLD)))
    return made


def node(store):
    return Streams(store, FixedClock(), lambda claims: secrets.token_hex(8), "https://portal.example")


async def fill(queue, count):
    for number in range(count):
        await queue.tell(RX, compliance(f"dev_{number}", 1_800_000_000_000, healthy=False))


async def test_telling_does_not_read_what_waits_each_time(queue, store):
    await fill(queue, MOST // 2)
    store.read = 0
    await fill(queue, MOST // 4)
    assert len(await queue.waiting("rx", MOST)) == MOST * 3 // 4
    assert store.read < (MOST // 4) * (MOST // 2) / 10, "a tenth of one reading for each event"


async def test_a_queue_that_is_always_nearly_full_is_not_read_each_time(queue, store):
    await fill(queue, MOST - 2)
    taken = await queue.waiting("rx", 50)
    store.read = 0
    for key, _ in taken:  # as many come as go
        await queue.delivered(key)
        await fill(queue, 1)
    assert (await queue.get("rx")).status == "enabled"
    assert store.read <= 50 * MOST / 4 + MOST


async def test_it_is_bounded_all_the_same(queue, store):
    nodes = [queue, node(store)]
    for number in range(2 * MOST):
        await fill(nodes[number % 2], 1)
        stream = await queue.get("rx")
        if stream.status == "disabled":
            break
    assert stream.reason == "too many events wait"
    assert MOST <= number <= MOST + 2 * MOST // streams.STEPS
    assert len(await queue.waiting("rx", MOST)) == 1, "only that it is disabled"
    await queue.set_status(RX, stream, "enabled")
    await fill(queue, 5)
    assert len(await queue.waiting("rx", MOST)) == 7


async def test_acknowledging_reads_no_further_than_need_be(queue, store):
    await fill(queue, MOST // 2)
    oldest = [one.jti for _, one in await queue.waiting("rx", 10)]
    store.read = 0
    await queue.acknowledged("rx", set(oldest))
    assert store.read == 50
    await queue.acknowledged("rx", {"nothing of ours"})
    assert len(await queue.waiting("rx", MOST)) == MOST // 2 - 10
