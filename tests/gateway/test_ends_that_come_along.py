"""An end that TLS says with the last bytes is one, although whoever gets those takes no more just then."""

import asyncio
import socket
import ssl
import threading
import time

import pytest
from gateway_fakes import ROUTE
from gateway_live import HOST, Gateway, bundle
from gateway_pki import Authority

from ztproxy.model.resource import Upstream

#: What the gateway keeps without holding the application back, and what it does not; that comes with the end,
#: all in one reading.
FIRST, LAST = 110_000, 50_000
CHUNKS = b"HTTP/1.1 200 OK\r\n\r\n"
PIPE = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


class Application(threading.Thread):
    """Says what it is told to and when, and waits for the other side's end."""

    def __init__(self, authority: Authority, head: bytes) -> None:
        super().__init__()
        files = authority.server("inside.example")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(files.certificate, files.key)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.head = head
        self.asked, self.go, self.on = threading.Event(), threading.Event(), threading.Event()

    def run(self) -> None:
        accepted, _ = self.listening.accept()
        accepted.settimeout(10)
        with self.listening, self.context.wrap_socket(accepted, server_side=True) as wrapped:
            wrapped.recv(4096)
            self.asked.set()
            self.go.wait(10)
            try:
                wrapped.sendall(self.head + b"x" * FIRST)
                self.on.wait(10)
                wrapped.sendall(b"x" * LAST)
                wrapped.unwrap()
            except OSError:
                pass


def everything(connection: ssl.SSLSocket, end: bytes) -> bytes:
    got = b""
    while not got.endswith(end) and (data := connection.recv(1 << 16)):
        got += data
    return got


@pytest.mark.parametrize(
    ("head", "lines", "end"),
    [(CHUNKS, b"", b"0\r\n\r\n"), (PIPE, b"Connection: Upgrade\r\nUpgrade: tcp\r\n", b"never")],
)
async def test_it_is_heard(authority: Authority, head: bytes, lines: bytes, end: bytes) -> None:
    application = Application(authority, head)
    application.start()
    port = application.listening.getsockname()[1]
    upstream = Upstream("https", "127.0.0.1", port, "inside.example", str(authority.file))
    gateway = Gateway(
        ROUTE.replaced(upstream=upstream, upgrades=frozenset({"tcp"})), authority, [bundle(authority)]
    )
    gateway.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    gateway.start()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so little fits into the line

    def connect() -> ssl.SSLSocket:
        client.settimeout(5)
        client.connect(("127.0.0.1", gateway.port))
        wrapped = gateway.trust.wrap_socket(client, server_hostname=HOST)
        wrapped.sendall(b"GET / HTTP/1.1\r\nHost: app.example\r\n%b\r\n" % lines)
        application.asked.wait(5)
        return wrapped

    with await asyncio.to_thread(connect) as connection:
        application.go.set()
        await asyncio.sleep(0.3)
        application.on.set()
        time.sleep(0.3)  # the gateway, too, is to find all of it at once
        got = await asyncio.to_thread(everything, connection, end)
    assert got.count(b"x") == FIRST + LAST
    await asyncio.to_thread(application.join)
    await gateway.stop()
    assert [record.end for record in gateway.records] == ["complete"]
