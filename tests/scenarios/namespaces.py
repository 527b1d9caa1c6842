"""Two network namespaces with one wire between them, on which only one of them can begin a connection.

The proxy and its callers live in one, an application and its connector in the other. A packet filter on the
application's side drops whatever is no answer to what was begun there; without it nothing would be lost
but the proof, for the application listens on loopback. Everything is gone when the block ends, and with us.
"""

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from ztproxy.demo.namespace import Namespace, NotAllowed

CLONE_NEWNET = 0x40000000  # setns(2)
PROXY, SITE = "10.213.0.1", "10.213.0.2"
FILTER = """
add table inet site
add chain inet site input { type filter hook input priority 0; policy drop; }
add rule inet site input iif lo accept
add rule inet site input ct state established,related accept
"""
#: Prints the ports that take a connection: every port there is, of the address given.
SCAN = """
import resource, select, socket, sys, time
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
many = min(most // 2, 4000)
def scan(ports):
    poll, waiting = select.epoll(), {}
    for port in ports:
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex((sys.argv[1], port))
        waiting[one.fileno()] = port, one
        poll.register(one, select.EPOLLOUT)
    end = time.monotonic() + float(sys.argv[2])
    while waiting and (left := end - time.monotonic()) > 0:
        for number, _ in poll.poll(left):
            port, one = waiting.pop(number)
            found = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            if found and one.getsockname() != one.getpeername():  # it may have met itself (RFC 9293)
                print(port)
            one.close()
    for _, one in waiting.values():
        one.close()
for first in range(1, 65536, many):
    scan(range(first, min(first + many, 65536)))
"""


class Apart(NamedTuple):
    """Where the proxy is, and where the application is."""

    proxy: Namespace
    site: Namespace

    def close_site(self) -> None:
        """From now on nobody can begin a connection to the application's namespace."""
        for line in FILTER.strip().splitlines():
            self.site.run("nft", line)

    def cut(self) -> None:
        """Cut the wire without a word to anybody: what is sent is lost."""
        self.proxy.run("ip", "link", "set", "wire0", "down")

    def mend(self) -> None:
        """Put the wire together again."""
        self.proxy.run("ip", "link", "set", "wire0", "up")

    def ports(self, at: Namespace, address: str, patience: float = 0.5) -> list[int]:
        """Return the open ports of an address, as somebody in a namespace finds them."""
        found = at.run(sys.executable, "-c", SCAN, address, str(patience), patience=120)
        return [int(port) for port in found.split()]


@contextmanager
def apart() -> Iterator[Apart]:
    """Two namespaces, joined; the test is skipped where that is not allowed."""
    if shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        pytest.skip("nft is not installed: scripts/packages test")
    try:
        with Namespace() as proxy, Namespace(beside=proxy) as site:
            _join(proxy, site)
            yield Apart(proxy, site)
    except NotAllowed as why:
        pytest.skip(f"no network namespaces here: {why}")


def _join(proxy: Namespace, site: Namespace) -> None:
    peer = ["peer", "name", "wire0", "netns", str(site.pid)]
    proxy.run("ip", "link", "add", "wire0", "type", "veth", *peer)
    for one, address in ((proxy, PROXY), (site, SITE)):
        one.run("ip", "address", "add", f"{address}/30", "dev", "wire0")
        one.run("ip", "link", "set", "wire0", "up")


@contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """This very process is in the namespace while the block runs, with all it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before, open(f"/proc/{namespace.pid}/ns/net") as there:
        if libc.setns(there.fileno(), CLONE_NEWNET):
            pytest.skip(f"a namespace can not be entered: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            libc.setns(before.fileno(), CLONE_NEWNET)
