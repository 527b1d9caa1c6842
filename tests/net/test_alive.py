"""Noticing that nothing arrives: what the kernel says of a connection, read rightly.

Links that are really cut are in `tests/scenarios/test_cut_links.py`.
"""

import asyncio
import socket
import struct
from typing import Any

from ztproxy.net.alive import unheard

SIZE = 148  # of struct tcp_info, up to tcpi_notsent_bytes (linux/tcp.h)


class Transport(asyncio.BaseTransport):
    def __init__(self, sock: Any) -> None:
        super().__init__({"socket": sock})


class Told:
    """A socket of which the kernel says this."""

    family = socket.AF_INET

    def __init__(self, unacknowledged: int, silence: int, unsent: int = 0, asked: int = 0) -> None:
        self.info = bytearray(SIZE)
        self.info[3] = asked
        for at, number in ((24, unacknowledged), (56, silence), (144, unsent)):
            struct.pack_into("I", self.info, at, number)

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        return bytes(self.info[:size])


def test_what_waits_and_is_not_acknowledged_is_unheard() -> None:
    assert unheard(Transport(Told(1, 900))) == 900
    assert unheard(Transport(Told(0, 20_000))) == 0  # all of it has arrived
    assert unheard(Transport(Told(40, 100))) == 100  # a body on its way
    assert unheard(Transport(Told(40, 0))) == 1


def test_what_can_not_be_sent_is_unheard_once_nobody_answers() -> None:
    """As when our own end of the link is down: nothing is under way, and nobody answers the kernel."""
    assert unheard(Transport(Told(0, 1500, unsent=300, asked=2))) == 1500
    assert unheard(Transport(Told(0, 1500, unsent=300, asked=1))) == 1, "answers are rare: who takes no more"
    assert unheard(Transport(Told(0, 60_000, unsent=300))) == 1


def test_a_kernel_that_says_less_says_nothing() -> None:
    told = Told(1, 900)
    del told.info[104:]
    assert unheard(Transport(told)) == 0


def test_a_living_connection_is_heard_and_a_closed_one_nobodys_business() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        ours.sendall(b"something")
        assert theirs.recv(16) == b"something"
        info = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SIZE)
        assert struct.unpack_from("I", info, 24) == (0,)  # loopback acknowledges at once
        assert unheard(Transport(ours)) == 0
        theirs.close()
        ours.close()
        assert unheard(Transport(ours)) == 0
    assert unheard(Transport(None)) == 0


def test_a_busy_program_is_no_cut_link() -> None:
    """A listening socket whose process never accepts acknowledges all the same: its machine is there."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as ours,
    ):
        ours.sendall(b"something")
        assert unheard(Transport(ours)) == 0
