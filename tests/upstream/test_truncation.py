"""What lasts until close over TLS ends with a close_notify; anybody on the way can end TCP."""

import asyncio
import socket
import ssl
import threading

import pytest
from gateway_fakes import HOST, ROUTE, permit_of
from gateway_pki import Authority

from ztproxy.model.request import AccessRequest, Context, Evidence, Resource
from ztproxy.model.resource import Upstream
from ztproxy.net.clock import SystemClock
from ztproxy.net.dial import Dialler
from ztproxy.net.outbox import Outbox
from ztproxy.net.tls import client_contexts
from ztproxy.net.wheel import Wheel
from ztproxy.upstream.receiver import Receiver
from ztproxy.upstream.request import Request
from ztproxy.upstream.upstreams import Upstreams
from ztproxy.wire.http1 import ResponseHead

GET = b"GET /x HTTP/1.1\r\nHost: app.example\r\n\r\n"
HEADS = {
    "until close": b"HTTP/1.1 200 OK\r\n\r\n",
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
}


class Keeper(Receiver):
    def __init__(self) -> None:
        self.body = b""
        self.how = ""
        self.over = asyncio.Event()

    def responded(self, head: ResponseHead, body: bytes, ended: bool) -> None:
        self.received(body, ended)

    def received(self, body: bytes, ended: bool) -> None:
        self.body += body
        if ended:
            self.how = "ended"
            self.over.set()

    def failed(self, code: str, flaw: str = "") -> None:
        self.how = "failed"
        self.over.set()

    def flow(self, full: bool) -> None: ...


def answer(listening: socket.socket, context: ssl.SSLContext, data: bytes, notify: bool) -> None:
    accepted, _ = listening.accept()
    accepted.settimeout(5)
    with context.wrap_socket(accepted, server_side=True) as wrapped:
        wrapped.recv(1000)
        wrapped.sendall(data)
        if notify:
            try:
                wrapped.unwrap()
            except OSError:
                pass
            return
        with socket.socket(fileno=wrapped.detach()) as bare:
            bare.shutdown(socket.SHUT_WR)
            bare.settimeout(5)
            try:
                bare.recv(1000)
            except OSError:
                pass


@pytest.mark.parametrize(
    ("kind", "notify", "how"),
    [
        ("until close", True, "ended"),
        ("until close", False, "failed"),
        ("length", True, "failed"),
        ("upgrade", True, "ended"),
        ("upgrade", False, "failed"),
    ],
)
async def test_truncation(authority: Authority, kind: str, notify: bool, how: str) -> None:
    files = authority.server("inside.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        upstream = Upstream(
            scheme="https",
            host="127.0.0.1",
            port=listening.getsockname()[1],
            server_name="inside.example",
            ca=str(authority.file),
        )
        arguments = (listening, context, HEADS[kind] + b"half", notify)
        server = threading.Thread(target=answer, args=arguments)
        server.start()
        clock = SystemClock()
        pool = Upstreams(Dialler(client_contexts([upstream])), wheel=Wheel(clock), outbox=Outbox())
        route = ROUTE.replaced(upstream=upstream)
        asked = AccessRequest(
            Evidence(), Resource("Route", "app", route), "GET", Context("0" * 32, "192.0.2.7", HOST, "/x")
        )
        keeper = Keeper()
        request = Request(GET, True, False, framed=False, upgrade=kind == "upgrade")
        pool.open(permit_of(asked, route), request, keeper)
        await asyncio.wait_for(keeper.over.wait(), 5)
        pool.close()
        await asyncio.to_thread(server.join, 5)
    assert (keeper.how, keeper.body[-4:]) == (how, b"half")
    assert len(pool) == 0
