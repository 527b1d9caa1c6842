"""The feed from control to workers: exact after start, gap, reconnect and restart; questions are answered."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from ztproxy.model.messages import AssertionSigned, AssertionWanted
from ztproxy.model.subject import ANONYMOUS, Handle, Session
from ztproxy.net.clock import SystemClock
from ztproxy.service.hub import Hub
from ztproxy.service.link import Link
from ztproxy.store.sqlite import SqliteStore
from ztproxy.trust.memory import Concern, Memory

encode = msgspec.msgpack.encode


def session(number: int, *, ended_at: int = 0) -> Session:
    return Session(
        id=f"ses_{number}",
        principal=ANONYMOUS,
        provider="t",
        created_at=1,
        auth_time=1,
        expires_at=1 << 50,
        ended_at=ended_at,
    )


class Control:
    """A control process's hub over a real store and a real socket."""

    def __init__(self, store: SqliteStore, socket: Path, boot: str) -> None:
        self.touched: list[tuple[tuple[str, ...], int]] = []
        self.counted: list[tuple[int, bytes]] = []
        self.hub = Hub(
            store,
            store,
            boot=boot,
            sign=self._sign,
            touched=self._touch,
            counted=lambda worker, snapshot: self.counted.append((worker, snapshot)),
        )
        self._socket = socket
        self._tasks: set[asyncio.Task[None]] = set()

    async def _sign(self, wanted: AssertionWanted) -> AssertionSigned:
        return AssertionSigned(ask=wanted.ask, token=f"for {wanted.audience}", expires_at=7)

    async def _touch(self, sessions: tuple[str, ...], at: int) -> None:
        self.touched.append((sessions, at))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.hub.serve(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)

    async def start(self) -> None:
        self._socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._socket)

    async def stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def linked(
    socket: Path, memory: Memory, changed: Callable[[Sequence[Concern] | None], None]
) -> AsyncIterator[Link]:
    link = Link(socket, memory, worker=0, pid=1, journal="w0-1-1", now=SystemClock().now, changed=changed)
    task = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "s.db", SystemClock().now)
    yield store
    await store.close()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_worker_gets_what_is_there_then_every_change(store: SqliteStore, tmp_path: Path) -> None:
    for number in range(2500):  # more than two batches
        await store.put("session", f"ses_{number:05}", encode(session(number)))
    control = Control(store, tmp_path / "c.sock", "boot")
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
    control = Control(store, tmp_path / "c.sock", "boot")
    await control.start()
    memory = Memory(SystemClock().monotonic)
    await store.put("session", "a", encode(session(1)))
    async with linked(tmp_path / "c.sock", memory, lambda _: None) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        await control.stop()
        await store.delete("session", "a")
        await store.put("session", "b", encode(session(2)))
        assert "a" in memory.sessions, "a silent feed changes nothing by itself"
        again = Control(store, tmp_path / "c.sock", "boot")
        await again.start()
        await until(lambda: "b" in memory.sessions and "a" not in memory.sessions)
        await again.stop()


async def test_another_run_of_the_feed_starts_anew(store: SqliteStore, tmp_path: Path) -> None:
    control = Control(store, tmp_path / "c.sock", "first")
    await control.start()
    memory, concerns = Memory(SystemClock().monotonic), list[Sequence[Concern] | None]()
    await store.put("session", "a", encode(session(1)))
    async with linked(tmp_path / "c.sock", memory, concerns.append) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        await control.stop()
        other = await SqliteStore.open(tmp_path / "other.db", SystemClock().now)
        again = Control(other, tmp_path / "c.sock", "second")
        await again.start()
        await until(lambda: not memory.sessions)
        assert concerns.count(None) == 2
        await again.stop()
        await other.close()


async def test_questions_are_answered_and_end_when_control_is_gone(
    store: SqliteStore, tmp_path: Path
) -> None:
    control = Control(store, tmp_path / "c.sock", "boot")
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
    control = Control(store, tmp_path / "c.sock", "boot")
    await control.start()
    memory = Memory(SystemClock().monotonic)
    async with linked(tmp_path / "c.sock", memory, lambda _: None) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        await control.stop()
        asked = asyncio.gather(link.sync(), link.assertion(AssertionWanted(ask=0, audience="https://a")))
        await asyncio.sleep(0.2)
        following = Control(store, tmp_path / "c.sock", "boot")
        await following.start()
        synced, signed = await asyncio.wait_for(asked, 5)
        assert synced
        assert signed is not None and signed.token == "for https://a"
        await following.stop()


async def test_many_callers_share_a_sync(store: SqliteStore, tmp_path: Path) -> None:
    control = Control(store, tmp_path / "c.sock", "boot")
    await control.start()
    memory = Memory(SystemClock().monotonic)
    async with linked(tmp_path / "c.sock", memory, lambda _: None) as link:
        await asyncio.wait_for(link.ready.wait(), 5)
        before = link._last_ask
        assert all(await asyncio.gather(*(link.sync() for _ in range(500))))
        assert link._last_ask - before <= 2, "a flood of unknown cookies must not flood the control process"
    await control.stop()


async def test_garbage_on_the_socket_breaks_only_that_link(store: SqliteStore, tmp_path: Path) -> None:
    control = Control(store, tmp_path / "c.sock", "boot")
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
