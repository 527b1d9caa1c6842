"""What the kernel says of a connection whose link is cut, at either end: a real link, between namespaces."""

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest
from namespaces import PROXY, Apart, apart, inside

from ztproxy.net.alive import unheard

PORT = 9555


class Transport(asyncio.BaseTransport):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__({"socket": sock})


@pytest.fixture
def two() -> Iterator[Apart]:
    with apart() as made:
        yield made


@pytest.fixture
def ends(two: Apart) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection that was begun at the site, as connectors do it: the proxy's end, and the site's."""
    with inside(two.proxy):
        server = socket.create_server((PROXY, PORT))
    with inside(two.site):
        theirs = socket.create_connection((PROXY, PORT))
    ours, _ = server.accept()
    with server, theirs, ours:
        ours.sendall(b"something")
        assert theirs.recv(16) == b"something"
        time.sleep(0.1)
        yield ours, theirs


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_a_cut_is_noticed_at_whichever_end(
    two: Apart, ends: tuple[socket.socket, socket.socket], whose: str
) -> None:
    """At ours there is no route any more: what is not sent does not stay unacknowledged."""
    ours, _ = ends
    assert unheard(Transport(ours)) == 0
    where = two.proxy if whose == "ours" else two.site
    where.run("ip", "link", "set", "wire0", "down")
    ours.sendall(b"a request")
    began = time.monotonic()
    while unheard(Transport(ours)) < 900:
        assert time.monotonic() < began + 2.5
        time.sleep(0.05)


def test_who_reads_nothing_is_no_cut_link(ends: tuple[socket.socket, socket.socket]) -> None:
    """Its kernel takes no more, and says so whenever it is asked, at longer and longer intervals."""
    ours, _ = ends
    ours.setblocking(False)
    try:
        while True:
            ours.send(bytes(1 << 16))
    except BlockingIOError:
        pass
    began, longest = time.monotonic(), 0
    while time.monotonic() < began + 4:
        longest = max(longest, unheard(Transport(ours)))
        time.sleep(0.02)
    assert longest < 900
