"""The ground of the journeys through connectors: what it says is so, or they would prove nothing."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from namespaces import PROXY, SITE, apart

from ztproxy.demo.namespace import Namespace

LISTEN = """
import socket, sys
with socket.create_server((sys.argv[1], 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        one, _ = server.accept()
        one.close()
"""
DIAL = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()"


@contextmanager
def listening(inside: Namespace, address: str) -> Iterator[int]:
    """Somebody who listens in a namespace; the port."""
    command = [*inside.enter, sys.executable, "-c", LISTEN, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


def test_only_one_side_can_begin_a_connection_and_a_scan_finds_what_there_is() -> None:
    with apart() as two, listening(two.site, "0.0.0.0") as at_site, listening(two.proxy, PROXY) as at_proxy:
        assert two.ports(two.proxy, SITE) == [at_site]
        two.close_site()
        assert two.ports(two.proxy, SITE) == []
        assert two.ports(two.site, "127.0.0.1") == [at_site]
        two.site.run(sys.executable, "-c", DIAL, PROXY, str(at_proxy))


def test_nothing_is_left_of_it() -> None:
    with apart() as two:
        holders = [two.proxy.pid, two.site.pid]
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in holders):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_ends_with_whoever_made_it() -> None:
    made = (
        "from ztproxy.demo.namespace import Namespace; one = Namespace(); print(one.pid, flush=True); input()"
    )
    with (
        apart(),
        subprocess.Popen(  # apart: skips where there are none
            [sys.executable, "-c", made], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as maker,
    ):
        assert maker.stdout is not None
        holder = Path(f"/proc/{int(maker.stdout.readline())}")
        assert holder.exists()
        maker.kill()
        deadline = time.monotonic() + 10
        while holder.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
