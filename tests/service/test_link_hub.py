"""The feed from control to workers: exact after start, gap, reconnect and restart; questions are answered."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from feed_room import Control, encode, linked, session, until

from ztproxy.model.messages import AssertionWanted, RecheckWanted
from ztproxy.model.quota import Rate, Spent
from ztproxy.model.subject import Handle
from ztproxy.net.clock import SystemClock
from ztproxy.store.interface import StoreUnavailable
from ztproxy.store.sqlite import SqliteStore
from ztproxy.trust.memory import Concern, Memory


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "s.db", SystemClock().now)
    yield store
    await store.close()


async def test_a_worker_gets_what_is_there_then_every_change(store: SqliteStore, tmp_path: Path) -> None:
    for number in range(2500):  # more than two batches
        await store.put("session", f"ses_{number:05}", encode(session(number)))
    control = Control(store, tmp_path / "c.sock")
    await control.start()
    memory, concerns = Memory(SystemClock().monotonic), list[Sequence[Concern] | None]()
    async with linked(tmp_path / "c.sock", memory, concerns.append) as link:
        await asyncio.wait_for(link.ready.wait(), 10)
        assert len(memory.sessions) == 2500
        assert concerns == [None]
        await store.put("handle", "h1", encode(Handle(session_id="ses_1", host="x", created_at=1)))
        await store.put("unheard", "k", b"workers do not hold this kind")
        await store.delete("session", "ses_00000")
        assert await link.sync()
        assert memory.handles["h1"].session_id == "ses_1"
        assert "ses_00000" not in memory.sessions
        assert concerns[1:] == [(("handle", "h1"),), (("session", "ses_00000"),)]
        assert memory.feed_age() < 2000
        assert control.hub.workers == {1: 0}
    await until(lambda: control.hub.workers == {})
    await control.stop()


async def test_after_a_gap_a_worker_has_exactly_what_the_store_has(
    store: SqliteStore, tmp_path: Path
) -> None:
    control = Control(store, tmp_path / "c.sock")
    await control.start()
    memory = Memory(SystemClock().monotonic)
    await store.put("session", "a", encode(session(1)))
    async with linked(tmp_path / "c.sock", memory, lambda _: None) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        await control.stop()
        await store.delete("session", "a")
        await store.put("session", "b", encode(session(2)))
        assert "a" in memory.sessions, "a silent feed changes nothing by itself"
        again = Control(store, tmp_path / "c.sock")
        await again.start()
        await until(lambda: "b" in memory.sessions and "a" not in memory.sessions)
        await again.stop()


async def test_another_run_of_the_feed_starts_anew(store: SqliteStore, tmp_path: Path) -> None:
    control = Control(store, tmp_path / "c.sock")
    await control.start()
    memory, concerns = Memory(SystemClock().monotonic), list[Sequence[Concern] | None]()
    await store.put("session", "a", encode(session(1)))
    async with linked(tmp_path / "c.sock", memory, concerns.append) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        await control.stop()
        other = await SqliteStore.open(tmp_path / "other.db", SystemClock().now)
        again = Control(other, tmp_path / "c.sock")
        await again.start()
        await until(lambda: not memory.sessions)
        assert concerns.count(None) == 2
        await again.stop()
        await other.close()


async def test_questions_are_answered_and_end_when_control_is_gone(
    store: SqliteStore, tmp_path: Path
) -> None:
    control = Control(store, tmp_path / "c.sock")
    await control.start()
    memory = Memory(SystemClock().monotonic)
    async with linked(tmp_path / "c.sock", memory, lambda _: None) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        signed = await link.assertion(AssertionWanted(ask=0, audience="https://a"))
        assert signed is not None
        assert (signed.token, signed.expires_at) == ("for https://a", 7)
        link.touched("ses_1")
        link.counted(b"snapshot")
        await until(lambda: bool(control.touched and control.counted))
        assert control.touched[0][0] == ("ses_1",)
        assert control.counted[0] == (1, b"snapshot")
        await control.stop()
        await asyncio.sleep(0.1)
        assert await link.sync() is False
        assert await link.assertion(AssertionWanted(ask=0, audience="https://a")) is None


async def test_a_question_outlives_the_control_process_it_was_put_to(
    store: SqliteStore, tmp_path: Path
) -> None:
    """In an upgrade control changes hands: who asks meanwhile waits a moment, and is not refused."""
    control = Control(store, tmp_path / "c.sock")
    await control.start()
    memory = Memory(SystemClock().monotonic)
    async with linked(tmp_path / "c.sock", memory, lambda _: None) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        await control.stop()
        asked = asyncio.gather(link.sync(), link.assertion(AssertionWanted(ask=0, audience="https://a")))
        await asyncio.sleep(0.2)
        following = Control(store, tmp_path / "c.sock")
        await following.start()
        synced, signed = await asyncio.wait_for(asked, 5)
        assert synced
        assert signed is not None and signed.token == "for https://a"
        await following.stop()


async def test_a_use_that_is_told_late_is_told_as_of_when_it_was(store: SqliteStore, tmp_path: Path) -> None:
    """While control stands still or is started again, sessions do not grow older than their idle limit."""
    control, clock = Control(store, tmp_path / "c.sock"), [1_000_000]
    await control.start()
    memory = Memory(SystemClock().monotonic)
    async with linked(tmp_path / "c.sock", memory, lambda _: None, lambda: clock[0]) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        await control.stop()
        link.touched("ses_1")
        clock[0] += 3_050
        link.touched("ses_2")
        link.touched("ses_3")
        clock[0] += 60_000
        again = Control(store, tmp_path / "c.sock")
        await again.start()
        await until(lambda: len(again.touched) == 2)
        told = {session: at for sessions, at in again.touched for session in sessions}
        assert told == {"ses_1": 1_000_000, "ses_2": 1_003_000, "ses_3": 1_003_000}, "never later than it was"
        await again.stop()


async def test_many_callers_share_a_sync(store: SqliteStore, tmp_path: Path) -> None:
    control = Control(store, tmp_path / "c.sock")
    await control.start()
    memory = Memory(SystemClock().monotonic)
    async with linked(tmp_path / "c.sock", memory, lambda _: None) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        before = link._last_ask
        assert all(await asyncio.gather(*(link.sync() for _ in range(500))))
        assert link._last_ask - before <= 2, "a flood of unknown cookies must not flood the control process"
    await control.stop()


async def test_garbage_on_the_socket_breaks_only_that_link(store: SqliteStore, tmp_path: Path) -> None:
    control = Control(store, tmp_path / "c.sock")
    await control.start()
    memory = Memory(SystemClock().monotonic)
    async with linked(tmp_path / "c.sock", memory, lambda _: None) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        for garbage in (b"\xff\xff\xff\xff", b"\0\0\0\x03abc", b"\0\0\0\x09half"):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "c.sock")
            writer.write(garbage)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
        assert await link.sync()
    await control.stop()


async def test_a_session_is_rechecked_over_the_link(store: SqliteStore, tmp_path: Path) -> None:
    control = Control(store, tmp_path / "c.sock")
    await control.start()
    async with linked(tmp_path / "c.sock", Memory(SystemClock().monotonic), lambda _: None) as link:
        answer = await link.recheck(RecheckWanted(ask=0, session="ses_1", seen=40, after=2))
        assert answer is not None
        assert (answer.outcome, answer.retry_at) == ("kept", 42)
    await control.stop()


async def test_a_worker_outlives_what_it_can_not_read_and_believes_nothing_beside_it(
    store: SqliteStore, tmp_path: Path
) -> None:
    """Written by a later version of us, or by somebody else: in the snapshot and in the feed."""
    control, memory = Control(store, tmp_path / "c.sock"), Memory(SystemClock().monotonic)
    changes: list[Sequence[Concern] | None] = []
    await store.put("session", "ses_1", b"\x81\xa2id\x07")
    await store.put("session", "ses_2", encode(session(2)))
    await control.start()
    async with linked(tmp_path / "c.sock", memory, changes.append) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        assert list(memory.sessions) == ["ses_2"]
        await store.put("session", "ses_2", b"garbage")
        await until(lambda: not memory.sessions)
        changes.clear()
        await store.put("lock", "lck_1", b"garbage")
        await until(lambda: memory.feed_age() > 1 << 62)
        assert None in changes, "live paths go on"
        await store.delete("lock", "lck_1")
        await until(lambda: memory.feed_age() < 10_000)
    await control.stop()


async def test_an_answer_that_fails_does_not_cost_a_worker_its_feed(
    store: SqliteStore, tmp_path: Path
) -> None:
    control, memory = Control(store, tmp_path / "c.sock"), Memory(SystemClock().monotonic)

    async def gone(*_: object) -> None:
        raise StoreUnavailable("told to fail")

    control.hub._sign = gone  # type: ignore[assignment]
    changes: list[Sequence[Concern] | None] = []
    await control.start()
    async with linked(tmp_path / "c.sock", memory, changes.append) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        answer = await link.assertion(AssertionWanted(ask=0, audience="a", session="ses_1"))
        assert answer is not None
        assert not answer.token
        await store.put("session", "ses_1", encode(session(1)))
        await until(lambda: bool(memory.sessions))
        assert changes.count(None) == 1, "the link broke"
        assert control.hub.workers == {1: 0}
    await control.stop()


async def test_tokens_are_charged_over_the_link(store: SqliteStore, tmp_path: Path) -> None:
    control = Control(store, tmp_path / "c.sock")
    await control.start()
    spent = tuple(Spent(f"k{number}", Rate(0.5, 9), number, 7.5, number == 2) for number in range(3))
    async with linked(tmp_path / "c.sock", Memory(SystemClock().monotonic), lambda _: None) as link:
        answer = await link.charge(spent)
        assert answer is not None
        assert (answer.left, answer.nodes) == ((6.5, 6.5, 6.5), 3)
        assert control.charged == list(spent)
    await control.stop()


async def test_what_fails_about_one_question_breaks_no_link(store: SqliteStore, tmp_path: Path) -> None:
    """Whatever a provider or a pot of rates brings about: the feed goes on, so nobody else is refused."""

    async def fails(_: object) -> None:
        raise RuntimeError("a bug of somebody's library")

    control, memory = Control(store, tmp_path / "c.sock"), Memory(SystemClock().monotonic)
    control.hub._charge = control.hub._recheck = fails  # type: ignore[assignment]
    changes: list[Sequence[Concern] | None] = []
    await control.start()
    async with linked(tmp_path / "c.sock", memory, changes.append) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        wanted = RecheckWanted(ask=0, session="ses_1", seen=1, after=1)
        charged, rechecked = await asyncio.gather(
            link.charge((Spent("k", Rate(0.5, 9), 1, 7.5, True),)), link.recheck(wanted)
        )
        assert charged is None and rechecked is None
        await store.put("session", "ses_1", encode(session(1)))
        await until(lambda: bool(memory.sessions))
        assert changes.count(None) == 1, "the link broke"
    await control.stop()


async def test_a_workers_key_is_certified_or_plainly_not(store: SqliteStore, tmp_path: Path) -> None:
    control = Control(store, tmp_path / "c.sock")
    await control.start()
    async with linked(tmp_path / "c.sock", Memory(SystemClock().monotonic), lambda _: None) as link:
        issued = await link.certificate(b"key")
        assert issued is not None
        assert (issued.pem, issued.not_after) == (b"key".hex(), 7)
        assert await link.certificate(b"") is None, "what fails in the control process is no certificate"
    await control.stop()


async def test_control_knows_what_its_workers_carry_and_that_they_are_gone(
    store: SqliteStore, tmp_path: Path
) -> None:
    control = Control(store, tmp_path / "c.sock")
    await control.start()
    async with linked(tmp_path / "c.sock", Memory(SystemClock().monotonic), lambda _: None) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        link.carries(("a",))
        link.carries(("a",))  # nothing new
        await until(lambda: control.carried == [(1, ("a",))])
        await control.stop()
        control.carried.clear()
        control = Control(store, tmp_path / "c.sock")
        await control.start()
        await until(lambda: control.carried == [(1, ("a",))])  # who has not heard it is told
    await until(lambda: control.carried[-1] == (1, ()))
    await control.stop()
