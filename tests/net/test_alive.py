"""Noticing that nothing arrives: what the kernel says of a connection, read rightly."""

import asyncio
import socket
import struct
from typing import Any

from ztproxy.net.alive import unheard


class Transport(asyncio.BaseTransport):
    def __init__(self, sock: Any) -> None:
        super().__init__({"socket": sock})


class Told:
    """A socket of which the kernel says this."""

    family = socket.AF_INET

    def __init__(self, unacknowledged: int, silence: int) -> None:
        words = [0] * 13  # from tcpi_rto on (linux/tcp.h)
        words[4], words[12] = unacknowledged, silence
        self._info = struct.pack("8x13I", *words)

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        return self._info[:size]


def test_what_waits_and_is_not_acknowledged_is_unheard() -> None:
    assert unheard(Transport(Told(1, 900)), 900)
    assert not unheard(Transport(Told(0, 20_000)), 900)  # all of it has arrived
    assert not unheard(Transport(Told(40, 100)), 900)  # a body on its way


def test_a_living_connection_is_heard_and_a_closed_one_nobodys_business() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        ours.sendall(b"something")
        assert theirs.recv(16) == b"something"
        size = struct.calcsize("8x13I")
        words = struct.unpack("8x13I", ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size))
        assert words[4] == 0  # loopback acknowledges at once
        assert not unheard(Transport(ours), 0)
        theirs.close()
        ours.close()
        assert not unheard(Transport(ours), 0)
    assert not unheard(Transport(None), 0)


def test_a_busy_program_is_no_cut_link() -> None:
    """A listening socket whose process never accepts acknowledges all the same: its machine is there."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as ours,
    ):
        ours.sendall(b"something")
        assert not unheard(Transport(ours), 0)
