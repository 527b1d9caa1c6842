"""Clients that wrk is not: connections one after another, WebSocket echoes, idle connections.

Started by `handshakes`, `websockets` and `memory` as programs of their own; each prints a line of JSON at its
end, in the words of `bench.load`.
"""

import argparse
import asyncio
import json
import os
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from bench.ground import COOKIE

MESSAGE = 64  # bytes of an echo
FRAME = b"\x82" + bytes([0x80 | MESSAGE]) + bytes(4) + b"m" * MESSAGE  # masked with zeros: RFC 6455, 5.3


def context(root: Path, *, certificate: bool = False) -> ssl.SSLContext:
    """Return how to speak TLS; `openssl.cnf` of the ground limits it to one cipher and group."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificate:
        made.load_cert_chain(root / "client.pem", root / "client.key")
    return made


def head(name: str, path: str, *more: str) -> bytes:
    """Return a request."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {name}", "Accept: */*", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def connect(
    tls: ssl.SSLContext, port: int, name: str, session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    """Return a connection after its handshake."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=20)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls.wrap_socket(plain, server_hostname=name, session=session)


def report(times: list[float], failed: int, **more: int) -> None:
    """Print what was seen, times in seconds."""
    times.sort()
    at = [int(times[int(len(times) * share)] * 1e6) if times else 0 for share in (0.5, 0.99)]
    print(json.dumps({"requests": len(times), "failed": failed, "p50": at[0], "p99": at[1], **more}))


# ------------------------------------------------------------------ handshakes


def handshakes(options: argparse.Namespace) -> None:
    """Some processes, each opening one connection after another for one request."""
    pipes = []
    for _ in range(options.connections):
        mine, theirs = os.pipe()
        if os.fork() == 0:
            os.write(theirs, json.dumps(_connections(options)).encode())
            os._exit(0)
        os.close(theirs)
        pipes.append(mine)
    seen = [json.loads(Path(f"/dev/fd/{pipe}").read_text()) for pipe in pipes]
    times = [second for one in seen for second in one["times"]]
    report(times, sum(one["failed"] for one in seen), resumed=sum(one["resumed"] for one in seen))


def _connections(options: argparse.Namespace) -> dict[str, object]:
    name = options.name
    tls = context(options.root, certificate=options.mode == "mtls")
    identity = [] if options.mode == "mtls" else [f"Cookie: __Host-ztproxy={COOKIE}"]
    request = head(name, "/app0/tickets/42", *identity, "Connection: close")
    end, times, failed, resumed = time.monotonic() + options.seconds, [], 0, 0
    session: ssl.SSLSession | None = None
    while (begin := time.monotonic()) < end:
        try:
            stream = connect(tls, options.port, name, session)
            stream.sendall(request)
            answer = b""
            while more := stream.recv(65536):
                answer += more
        except OSError as error:
            print(error, file=sys.stderr)
            failed += 1
            time.sleep(0.05)
            continue
        times.append(time.monotonic() - begin)
        failed += not answer.startswith(b"HTTP/1.1 200 ")
        resumed += bool(stream.session_reused)
        if options.mode == "resumed":
            session = stream.session
        stream.close()
    return {"times": times, "failed": failed, "resumed": resumed}


# ------------------------------------------------------------------ WebSocket


class Echoes(asyncio.Protocol):
    """One WebSocket that sends a message as soon as the one before has come back."""

    def __init__(self, name: str, times: list[float], failures: list[str]) -> None:
        self._name, self._times, self._failures = name, times, failures
        self._left, self._opened, self._head, self._sent = 0, False, b"", 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask for the upgrade."""
        self._transport = transport
        wanted = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        wanted += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Origin: https://{self._name}"]
        wanted += [f"Cookie: __Host-ztproxy={COOKIE}"]
        transport.write(head(self._name, "/app0/echo", *wanted))

    def data_received(self, data: bytes) -> None:
        """Count what came back; its size says when it is whole."""
        if not self._opened:
            self._head += data
            if b"\r\n\r\n" not in self._head:
                return
            if not self._head.startswith(b"HTTP/1.1 101"):
                self._failures.append(self._head[:100].decode("latin-1"))
                self._transport.close()
                return
            self._opened, data = True, self._head.partition(b"\r\n\r\n")[2]
            self._send()
        self._left -= len(data)
        if self._left <= 0:
            self._times.append(time.monotonic() - self._sent)
            self._send()

    def _send(self) -> None:
        self._left, self._sent = MESSAGE + 2, time.monotonic()
        self._transport.write(FRAME)


def websockets(options: argparse.Namespace) -> None:
    """So many WebSockets at once."""
    times: list[float] = []
    failures: list[str] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        tls = None if options.mode == "direct" else context(options.root)
        name = f"{options.name}:{options.port}"
        for _ in range(options.connections):
            await loop.create_connection(
                lambda: Echoes(name, times, failures),
                "127.0.0.1",
                options.port,
                ssl=tls,
                server_hostname=options.name if tls else None,
            )
        await asyncio.sleep(options.seconds)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    if failures:
        print(failures[0], file=sys.stderr)
    report(times, len(failures))


# ------------------------------------------------------------------ idle connections


def idle(options: argparse.Namespace) -> None:
    """Open connections, send one request on each, say so, and keep them until the input ends."""
    tls = context(options.root)
    request = head(options.name, "/app0/tickets/42", f"Cookie: __Host-ztproxy={COOKIE}")
    kept = []
    for _ in range(options.connections):
        stream = connect(tls, options.port, options.name)
        stream.sendall(request)
        answer = b""
        while len(answer) < 1024 or b"\r\n\r\n" not in answer:
            more = stream.recv(65536)
            if not more:
                raise SystemExit(f"closed after {len(kept)} connections")
            answer += more
        kept.append(stream)
    print(json.dumps({"requests": len(kept), "failed": 0, "p50": 0, "p99": 0}), flush=True)
    sys.stdin.read()
    for stream in kept:  # a reset, so that no port waits
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()


CLIENTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "handshakes": handshakes,
    "websockets": websockets,
    "idle": idle,
}


def main() -> None:
    """Run one of the clients."""
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("mode", choices=["full", "mtls", "resumed", "direct"])
    parser.add_argument("root", type=Path)
    parser.add_argument("name")
    parser.add_argument("port", type=int)
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=int)
    options = parser.parse_args()
    CLIENTS[options.client](options)


if __name__ == "__main__":
    main()
