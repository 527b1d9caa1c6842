"""A control process's hub and a worker's link, over a real store and a real socket."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from ztproxy.model.messages import (
    AssertionSigned,
    AssertionWanted,
    CertificateIssued,
    CertificateWanted,
    Charge,
    Charged,
    Rechecked,
    RecheckWanted,
)
from ztproxy.model.quota import Spent
from ztproxy.model.subject import ANONYMOUS, Session
from ztproxy.net.clock import SystemClock
from ztproxy.service.hub import Hub
from ztproxy.service.link import Link
from ztproxy.store.interface import Store
from ztproxy.trust.memory import Concern, Memory

encode = msgspec.msgpack.encode
_CLOCK = SystemClock()


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

    def __init__(self, store: Store, socket: Path) -> None:
        self.touched: list[tuple[tuple[str, ...], int]] = []
        self.charged: list[Spent] = []
        self.carried: list[tuple[int, tuple[str, ...]]] = []
        self.counted: list[tuple[int, bytes]] = []
        self.hub = Hub(
            store,
            store,
            monotonic=SystemClock().monotonic,
            sign=self._sign,
            recheck=self._recheck,
            charge=self._charge,
            certify=self._certify,
            carries=lambda worker, names: self.carried.append((worker, names)),
            touched=self._touch,
            counted=lambda worker, snapshot: self.counted.append((worker, snapshot)),
        )
        self._socket = socket
        self._tasks: set[asyncio.Task[None]] = set()

    async def _sign(self, wanted: AssertionWanted) -> AssertionSigned:
        return AssertionSigned(ask=wanted.ask, token=f"for {wanted.audience}", expires_at=7)

    async def _recheck(self, wanted: RecheckWanted) -> Rechecked:
        return Rechecked(ask=wanted.ask, outcome="kept", retry_at=wanted.seen + wanted.after)

    async def _charge(self, charge: Charge) -> Charged:
        self.charged += charge.spent
        return Charged(ask=charge.ask, left=tuple(one.left - 1 for one in charge.spent), nodes=3)

    async def _certify(self, wanted: CertificateWanted) -> CertificateIssued:
        if not wanted.key:
            raise ValueError("no key")
        return CertificateIssued(ask=wanted.ask, pem=wanted.key.hex(), not_after=7)

    def _touch(self, sessions: tuple[str, ...], at: int) -> None:
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
        self.hub.close()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def linked(
    socket: Path,
    memory: Memory,
    changed: Callable[[Sequence[Concern] | None], None],
    now: Callable[[], int] = _CLOCK.now,
) -> AsyncIterator[Link]:
    link = Link(socket, memory, worker=0, pid=1, journal="w0-1-1", now=now, changed=changed)
    task = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
