"""An application for streams and WebSockets: swallows uploads, echoes messages, says how many there were.

Below a path that ends in `/events` it sends an event a second for as long as somebody listens.

Run on the load's core by `python -m bench.upstream PORT`.
"""

import asyncio
import base64
import hashlib
import re
import signal
import sys
from typing import ClassVar

import uvloop

from bench.ground import Ground, python
from bench.machine import LOAD_CORE, free_port

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_KEY = re.compile(rb"(?i)\r\nSec-WebSocket-Key: *([^\r ]+)")
EVENT = b"9\r\ndata: 1\n\n\r\n"
_LENGTH = re.compile(rb"(?i)\r\nContent-Length: *(\d+)")


class Application(asyncio.Protocol):
    """One connection. Messages are small and masked with zeros, so an echo changes two bytes."""

    echoes = 0
    listening: ClassVar[set[asyncio.Transport]] = set()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with a request."""
        self._transport = transport
        self._received, self._swallow, self._echo = b"", 0, False

    def connection_lost(self, _: Exception | None) -> None:
        """Nobody listens any more."""
        Application.listening.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        """Take a head, a piece of a body, or messages."""
        if self._echo:
            self._messages(data)
        elif self._swallow:
            self._body(len(data))
        else:
            self._received += data
            head, end, rest = self._received.partition(b"\r\n\r\n")
            if end:
                self._received = b""
                self._head(head, rest)

    def _head(self, head: bytes, rest: bytes) -> None:
        if key := _KEY.search(head):
            accept = base64.b64encode(hashlib.sha1(key[1] + _GUID).digest())
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
            self._echo = True
            if rest:
                self._messages(rest)
        elif length := _LENGTH.search(head):
            self._swallow = int(length[1])
            self._body(len(rest))
        elif head.partition(b"\r\n")[0].endswith(b"/events HTTP/1.1"):
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                + EVENT
            )
            Application.listening.add(self._transport)
        else:
            if head.startswith(b"GET /count "):
                Application.echoes += 1  # whoever counts takes own questions off
            self._answer(b"requests 0 0 %d" % Application.echoes)

    def _body(self, size: int) -> None:
        self._swallow -= size
        if not self._swallow:
            self._answer(b"taken")

    def _answer(self, body: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def _messages(self, data: bytes) -> None:
        data = self._received + data
        while len(data) >= 6 and len(data) >= (size := 6 + (data[1] & 0x7F)):
            self._transport.write(bytes((data[0], size - 6)) + data[6:size])
            Application.echoes += 1
            data = data[size:]
        self._received = data


def start(ground: Ground) -> int:
    """Start it; return its port."""
    port = free_port()
    ground.spawn("upstream", [python(), "-m", "bench.upstream", str(port)], core=LOAD_CORE)
    ground.wait_for(port)
    return port


async def _serve(port: int) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await loop.create_server(Application, "127.0.0.1", port, backlog=4096)
    telling = asyncio.create_task(_tell())
    await stop.wait()
    telling.cancel()


async def _tell() -> None:
    while True:
        await asyncio.sleep(1.0)
        for transport in list(Application.listening):
            transport.write(EVENT)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1])))
