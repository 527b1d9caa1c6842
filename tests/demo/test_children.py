"""Children end with the demo, and are started again when they end by themselves."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from ztproxy.demo.children import RESTARTS, Children
from ztproxy.demo.errors import DemoProblem

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def gone(pid: int) -> bool:
    """Whether a process is no more (or only waits to be reaped)."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def until(fact) -> None:
    async with asyncio.timeout(10):
        while not fact():
            await asyncio.sleep(0.02)


@pytest.fixture
async def children(tmp_path):
    made = Children(lambda name: tmp_path / f"{name}.log", lambda name: None)
    yield made
    await made.stop()


async def test_a_killed_child_is_started_again(children):
    child = await children.start("one", SLEEP)
    first = child.process.pid
    watching = asyncio.create_task(children.watch())
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.process.pid != first and child.running)
    watching.cancel()
    await children.stop()
    assert gone(child.process.pid)


async def test_a_child_that_can_not_run_is_a_problem_not_a_loop(children, monkeypatch):
    monkeypatch.setattr("ztproxy.demo.children.PAUSE", 0.01)
    await children.start("one", [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(DemoProblem, match="one keeps ending"):
        async with asyncio.timeout(30):
            await children.watch()
    assert len(children._children[0].starts) == RESTARTS + 1


async def test_stopping_leaves_nothing_of_the_group(children, tmp_path):
    stubborn = textwrap.dedent("""
        import os, signal, subprocess, sys, time
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(grandchild.pid, flush=True)
        time.sleep(60)
    """)
    await children.start("one", [sys.executable, "-c", stubborn])
    log = tmp_path / "one.log"
    await until(lambda: log.exists() and log.read_text().endswith("\n"))
    await children.stop()
    await until(lambda: gone(int(log.read_text())))


def test_children_do_not_outlive_a_killed_demo(tmp_path):
    script = textwrap.dedent(f"""
        import asyncio, sys
        from pathlib import Path
        from ztproxy.demo.children import Children

        async def main():
            children = Children(lambda name: Path({str(tmp_path)!r}) / name, print)
            child = await children.start("one", {SLEEP!r})
            print(child.process.pid, flush=True)
            await asyncio.sleep(60)

        asyncio.run(main())
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as demo:
        pid = int(demo.stdout.readline())
        assert not gone(pid)
        demo.kill()
    deadline = time.monotonic() + 10
    while not gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
