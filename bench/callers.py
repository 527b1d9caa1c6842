"""Clients by the thousand in one process: streams that stay open, and callers that ask again and again.

Bytes on asyncio protocols, nothing more: two cores hold the product and this. Used by `bench.cut`.
"""

import asyncio
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

TEXT = b"\x81\x84" + bytes(4) + b"ping"  # masked with zeros: RFC 6455, 5.3
PATIENCE = 20.0  # seconds for an answer

now = time.perf_counter


@dataclass(frozen=True, slots=True)
class Door:
    """Where one node is asked, and as whom: a cookie, or a certificate that is in `tls`."""

    port: int
    host: str
    tls: ssl.SSLContext
    cookie: str = ""

    def ask(self, path: str, *more: str) -> bytes:
        """Return the head of a GET."""
        lines = [f"GET {path} HTTP/1.1", f"Host: {self.host}:{self.port}", "Accept: application/json", *more]
        if self.cookie:
            lines.append(f"Cookie: __Host-ztproxy={self.cookie}")
        return "\r\n".join([*lines, "", ""]).encode()

    async def connect(self, make: Callable[[], asyncio.Protocol]) -> None:
        """Open a connection for a protocol. Raises OSError."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(make, "127.0.0.1", self.port, ssl=self.tls, server_hostname=self.host)


def tls_to(ca: Path, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Return how the nodes are trusted, and what we show."""
    made = ssl.create_default_context(cafile=str(ca))
    if cert is not None:
        made.load_cert_chain(cert, key)
    return made


class NotOpened(Exception):
    """A stream was refused."""


class Stream(asyncio.Protocol):
    """A WebSocket, or an event stream, that stays open until somebody ends it.

    `over_at` is when that was, 0 before, and `how` what it looked like: "close 1008 reason", "end", "cut".
    """

    __slots__ = ("_ask", "_head", "_kind", "_opened", "_transport", "echoes", "how", "over", "over_at")

    def __init__(
        self, kind: Literal["websocket", "events"], ask: bytes, opened: asyncio.Future[None]
    ) -> None:
        self._kind, self._ask, self._opened = kind, ask, opened
        self._head: bytes | None = b""
        self._transport: asyncio.Transport | None = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.over_at, self.how, self.echoes = 0.0, "", 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask."""
        self._transport = transport
        transport.write(self._ask)

    def data_received(self, data: bytes) -> None:
        """Wait for the head, then for the end."""
        if self._head is not None:
            self._head += data
            head, whole, data = self._head.partition(b"\r\n\r\n")
            if not whole:
                return
            self._head = None
            wanted = b"HTTP/1.1 101" if self._kind == "websocket" else b"HTTP/1.1 200"
            if not head.startswith(wanted):
                self._failed(head[:200].decode("latin-1"))
                return
            if not self._opened.done():
                self._opened.set_result(None)
        if self._kind == "websocket":
            self._frames(data)
        elif data.endswith(b"0\r\n\r\n"):
            self._ended("end")

    def _frames(self, data: bytes) -> None:
        """Messages of the upstream are small and come whole, or nearly always; a close ends it."""
        while len(data) >= 2:
            size = data[1] & 0x7F
            if data[0] & 0x0F == 8:
                code = struct.unpack("!H", data[2:4])[0] if size >= 2 else 0
                self._ended(f"close {code} {data[4 : 2 + size].decode(errors='replace')}".rstrip())
                return
            self.echoes += 1
            data = data[2 + size :]

    def connection_lost(self, error: Exception | None) -> None:
        """It is over, with or without a word."""
        if not self._opened.done():
            self._failed(f"the connection ended: {error}")
        self._ended("cut")
        self.leave()

    def say(self) -> None:
        """Send a message that comes back."""
        if self._transport is not None and not self.over_at:
            self._transport.write(TEXT)

    def leave(self) -> None:
        """Go without a word."""
        if self._transport is not None:
            self._transport.abort()

    def _failed(self, why: str) -> None:
        if not self._opened.done():
            self._opened.set_exception(NotOpened(why))
        self.leave()

    def _ended(self, how: str) -> None:
        if not self.over_at:
            self.over_at, self.how = now(), how
            if not self.over.done():
                self.over.set_result(None)
        if how != "cut":
            self.leave()


async def open_stream(door: Door, kind: Literal["websocket", "events"], path: str) -> Stream:
    """Return a stream once it stands. Raises NotOpened, OSError, TimeoutError."""
    wanted = ["Accept: text/event-stream"]
    if kind == "websocket":
        wanted = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        wanted += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Origin: https://{door.host}:{door.port}"]
    opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stream = Stream(kind, door.ask(path, *wanted), opened)
    async with asyncio.timeout(PATIENCE):
        await door.connect(lambda: stream)
        await opened
    return stream


class Caller(asyncio.Protocol):
    """Asks for one thing on one connection, whenever it is told to. 0 is "no answer, only the end"."""

    __slots__ = ("_ask", "_buffer", "_transport", "_waiting")

    def __init__(self, ask: bytes) -> None:
        self._ask, self._buffer = ask, b""
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Be ready."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take an answer: its length is given, or it ends in an empty chunk."""
        self._buffer += data
        head, whole, body = self._buffer.partition(b"\r\n\r\n")
        if not whole:
            return
        lower = head.lower()
        _, found, rest = lower.partition(b"\r\ncontent-length:")
        done = len(body) >= int(rest.partition(b"\r\n")[0]) if found else body.endswith(b"0\r\n\r\n")
        if done:
            self._buffer = b""
            self._answered(int(head[9:12]))

    def connection_lost(self, _: Exception | None) -> None:
        """Nobody answers any more."""
        self.leave()
        self._transport = None
        self._answered(0)

    def _answered(self, status: int) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(status)

    async def status(self) -> int:
        """Ask once. Raises TimeoutError."""
        if self._transport is None:
            return 0
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(self._ask)
        async with asyncio.timeout(PATIENCE):
            return await self._waiting

    def leave(self) -> None:
        """Close."""
        if self._transport is not None:
            self._transport.abort()


async def open_caller(door: Door, path: str, *more: str) -> Caller:
    """Return a caller that is connected. Raises OSError."""
    caller = Caller(door.ask(path, *more))
    await door.connect(lambda: caller)
    return caller
