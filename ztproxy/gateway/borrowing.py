"""Borrowing a ready connection of a connector: from another worker of this node, or from another node.

`upstream.carriers` asks here when none is ready in this worker: the kernel chooses the worker that a
connector's connection comes to, and a node may have none of it at all. What is borrowed speaks with the
connector exactly as if it were ours, and is used once; it never enters the store of ready connections, so it
is never lent on. A neighbour is asked for a name and nothing else.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, cast

from ztproxy.gateway.carrier import WORDS, Carrier
from ztproxy.gateway.world import World
from ztproxy.model.endpoints import lending
from ztproxy.model.node import Node
from ztproxy.net.alive import keep_alive
from ztproxy.net.dial import Context, ask_node, ask_worker
from ztproxy.net.rate import Bucket
from ztproxy.net.wheel import NEVER
from ztproxy.upstream.carriers import Instance
from ztproxy.wire.carrying import (
    OF_CONNECTOR,
    OF_LENDER,
    PROTOCOL,
    BadFrame,
    Borrow,
    FrameReader,
    Lent,
    Status,
    written,
)
from ztproxy.wire.http1 import BadHead, ResponseReader

log = logging.getLogger("ztproxy.connectors")

#: Seconds that a worker, and a node, may take to lend or not.
WORKER: Final = 0.5
NODE: Final = 2.0
#: Seconds for which a node that did not answer is asked last.
DOUBTED: Final = 5.0
#: Nodes that are asked for one connection.
NODES: Final = 3
_HEAD: Final = 16384  # bytes of a node's answer


class Door(NamedTuple):
    """How nodes are asked: by the host of connectors, with this node's own certificate."""

    host: str
    authority: str  # as a Host field has it
    context: Callable[[], Awaitable[Context | None]]  # None as long as there is no certificate


class NotLent(Exception):
    """A neighbour lends nothing; the message says why."""


class Neighbourhood:
    """Implements `upstream.carriers.Neighbours`.

    `workers` gives the sockets of this node's other workers, `nodes` those nodes that have a connector.
    `door` gives None where there are no nodes to ask.
    """

    def __init__(
        self,
        current: Callable[[], World],
        workers: Callable[[], Sequence[str]],
        nodes: Callable[[str], Sequence[Node]],
        door: Callable[[], Door | None],
    ) -> None:
        self._current = current
        self._workers = workers
        self._nodes = nodes
        self._door = door
        self._doubted: dict[str, float] = {}  # name of a node -> until when

    async def ask_workers(self, name: str) -> Carrier | None:
        """Return a connection that another worker of this node lends, None when none does."""
        for path in self._workers():
            asking = Asking(written(Borrow(name)))
            try:
                async with asyncio.timeout(WORKER):
                    await ask_worker(path, lambda asking=asking: asking)  # type: ignore[misc]
                    return await self._lent(name, asking)
            except (OSError, NotLent):
                pass  # another may; `continue` in front of `finally` is nothing mypyc can compile
            finally:
                asking.leave()
        return None

    async def ask_nodes(self, name: str) -> Carrier | None:
        """Return a connection that another node lends, None when none does."""
        door, now = self._door(), _now()
        nodes = self._nodes(name)
        context = await _shown(door) if door is not None and nodes else None
        if door is None or context is None:
            return None
        for node in sorted(nodes, key=lambda one: self._doubted.get(one.name, 0.0) > now)[:NODES]:
            asking = Asking(_request(door.authority, name), head=True)
            try:
                async with asyncio.timeout(NODE):
                    await ask_node(node.address, lambda asking=asking: asking, context, door.host)  # type: ignore[misc]
                    return await self._lent(name, asking)
            except NotLent as why:
                log.info("a node lends no connector", extra={"node": node.name, "why": str(why)})
            except (OSError, ValueError) as failed:  # of TLS and time, too
                self._doubted[node.name] = _now() + DOUBTED
                log.warning(
                    "a node can not be asked for a connector",
                    extra={"node": node.name, "why": f"{type(failed).__name__}: {failed}"},
                )
            finally:
                asking.leave()
        return None

    def known(self, name: str) -> bool:
        """Tell whether another node that we may ask is known to have one."""
        return self._door() is not None and bool(self._nodes(name))

    async def _lent(self, name: str, asking: "Asking") -> Carrier:
        instance, rest = await asking.answer
        return Borrowed(self._current(), asking.take(), Instance(name, instance), rest)


class Asking(asyncio.Protocol):
    """The protocol of a connection to a neighbour until that has lent or not."""

    def __init__(self, question: bytes, *, head: bool = False) -> None:
        self.answer: asyncio.Future[tuple[str, bytes]] = asyncio.get_running_loop().create_future()
        self._question = question
        self._head = ResponseReader(_HEAD) if head else None
        self._frames = FrameReader(OF_LENDER)
        self._transport: asyncio.Transport | None = None

    def take(self) -> asyncio.Transport:
        """Let somebody else have the connection, who sets its protocol."""
        transport, self._transport = self._transport, None
        assert transport is not None
        return transport

    def leave(self) -> None:
        """End the connection, unless somebody else has it."""
        if self._transport is not None:
            self._transport.abort()
        if self.answer.done() and not self.answer.cancelled():
            self.answer.exception()  # is known, or of no interest
        self.answer.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.Transport", transport)
        keep_alive(transport)
        self._transport.write(self._question)

    def data_received(self, data: bytes) -> None:
        """An answer."""
        if self.answer.done():
            return
        try:
            self._read(data)
        except (BadHead, BadFrame, NotLent) as wrong:
            self.answer.set_exception(NotLent(str(wrong)))

    def _read(self, data: bytes) -> None:
        if self._head is not None:
            answered = self._head.feed(data)
            if answered is None:
                return
            head, data = answered
            if head.status != 101 or head.upgrade != PROTOCOL:
                raise NotLent(f"answered {head.status}")
            self._head = None
        found = self._frames.feed(data) if data else None
        if found is not None:
            frame, rest = found
            assert isinstance(frame, Lent) and self._transport is not None
            self._transport.pause_reading()  # until whoever takes it is there
            self.answer.set_result((frame.instance, rest))

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever has none says nothing."""
        if not self.answer.done():
            self.answer.set_exception(NotLent("has none"))


class Borrowed(Carrier):
    """A connection of somebody else's connector. It carries once, or is given back; it is nobody's live path:
    that is what it is where it came in."""

    __slots__ = ()

    def __init__(self, world: World, transport: asyncio.Transport, instance: Instance, rest: bytes) -> None:
        self._client = None
        self._world = world
        self._reader = FrameReader(OF_CONNECTOR)
        self._words = Bucket(WORDS, world.wheel.now)
        self._ready = True
        self._answer = None
        self._patience = None
        self._carried = None
        self._until = 0.0
        self._rest = b""
        self._over = False
        self.deadline = NEVER
        self.instance = instance
        self._transport = transport
        transport.set_protocol(self)
        if rest:
            self.data_received(rest)
        transport.resume_reading()

    @property
    def lent(self) -> bool:
        """The connector dialled somebody else."""
        return True

    def want(self) -> None:
        """Who lent it says how many are wanted."""

    def _keep(self) -> None:
        """It is asked once."""
        self._end("complete")

    def _settle(self, end: str, detail: str = "") -> bool:
        return True

    def _heard(self, frame: Status) -> None:
        if frame.draining and self._answer is None:
            self._end("complete", "draining")
        elif self._answer is not None:
            self._wait(self._until)  # it is at work


async def _shown(door: Door) -> Context | None:
    """Return what nodes are dialled with, None when that can not be had now."""
    try:
        return await door.context()
    except (OSError, ValueError) as failed:  # of TLS, too
        why = f"{type(failed).__name__}: {failed}"
        log.warning("this node can not show other nodes who it is", extra={"why": why})
        return None


def _request(authority: str, name: str) -> bytes:
    head = f"GET {lending(name)} HTTP/1.1\r\nHost: {authority}\r\n"
    return f"{head}Connection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n\r\n".encode("ascii")


def _now() -> float:
    return asyncio.get_running_loop().time()
