"""What processes of a node do first."""

import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from ztproxy.service.process import give_way

PROGRAM = """
import resource
from ztproxy.net.descriptors import use_all_descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2048))
use_all_descriptors()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_node_uses_all_descriptors_it_may_have() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "(2048, 2048)\n"
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


REPORT = """
import asyncio
from ztproxy.net.loop import run

async def main():
    report = asyncio.get_running_loop().call_exception_handler
    report({"message": "a peer went away", "exception": ConnectionResetError(), "transport": object()})
    report({"message": "a bug of ours", "exception": ValueError("broken")})

run(main())
"""


def test_what_peers_do_to_their_connections_does_not_fill_the_log() -> None:
    done = subprocess.run([sys.executable, "-c", REPORT], capture_output=True, text=True, check=True)
    assert "a bug of ours" in done.stderr
    assert "a peer went away" not in done.stderr


def test_only_the_thread_that_wants_to_gives_way() -> None:
    with ThreadPoolExecutor(1, initializer=give_way) as thread:
        assert thread.submit(os.sched_getscheduler, 0).result() == os.SCHED_BATCH
    assert os.sched_getscheduler(0) != os.SCHED_BATCH
