"""What a client has taken, on real sockets."""

import asyncio
import socket
import ssl
from typing import Any

import aiofastnet
from gateway_pki import Authority

from ztproxy.net.taken import taken

NAME = "open.example"


async def test_it_is_known_though_our_buffer_stands_still(authority: Authority) -> None:
    """The kernel takes more from us in steps that a slow client needs minutes for."""
    seen: list[tuple[int, int]] = []

    class Source(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            transport.write(b"x" * 8_000_000)

        def look(self) -> None:
            seen.append((taken(self.transport), self.transport.get_write_buffer_size()))

    files = authority.server(NAME)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    source, loop = Source(), asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.connect(listening.getsockname())
        sock, _ = listening.accept()
        sock.setblocking(False)

        def read(secure: ssl.SSLSocket | None) -> ssl.SSLSocket:
            secure = secure or authority.trust().wrap_socket(client, server_hostname=NAME)
            for _ in range(64):
                secure.recv(1024)
            return secure

        reading = asyncio.create_task(asyncio.to_thread(read, None))
        transport, _ = await aiofastnet.connect_accepted_socket(loop, lambda: source, sock, ssl=context)
        secure = await reading
        source.look()
        await asyncio.to_thread(read, secure)
        source.look()
        await asyncio.sleep(0.05)
        source.look()
        transport.abort()
        secure.close()
    (before, waiting), (after, still), (end, _) = seen
    assert after > before
    assert waiting == still > 0
    assert end - after < 65536


async def test_without_tcp_our_own_buffer_has_to_do() -> None:
    class Transport(asyncio.Transport):
        def get_write_buffer_size(self) -> int:
            return 7

    ours, other = socket.socketpair()
    with ours, other:
        assert taken(Transport({"socket": ours})) == -7
    assert taken(Transport()) == -7
