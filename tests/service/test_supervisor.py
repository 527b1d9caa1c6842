"""The supervisor: children die and come back, sockets stay, nobody survives it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ztproxy.service.process import journal_alive, started_at
from ztproxy.service.supervisor import Program, bind, programs, supervise

WRITES_PID = "import os,sys,time; open(sys.argv[1],'a').write(f'{os.getpid()}\\n'); time.sleep(60)"

DIES_WITH_PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c",
    "import os,time; from ztproxy.service.process import die_with_parent;"
    "die_with_parent(int(os.environ['P'])); print('up', flush=True); time.sleep(60)"],
    env={**os.environ, "P": str(os.getpid())}, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def pids(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


async def until(condition, seconds: float = 10.0) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_killed_child_is_started_again_and_all_stop_on_sigterm(tmp_path: Path) -> None:
    children = [
        Program(name=name, arguments=("-c", WRITES_PID, str(tmp_path / name))) for name in ("control", "w0")
    ]
    running = asyncio.create_task(supervise(children))
    await until(lambda: pids(tmp_path / "w0") and pids(tmp_path / "control"))
    os.kill(pids(tmp_path / "w0")[-1], signal.SIGKILL)
    os.kill(pids(tmp_path / "control")[-1], signal.SIGKILL)
    await until(lambda: len(pids(tmp_path / "w0")) == 2 and len(pids(tmp_path / "control")) == 2)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 10)
    everyone = pids(tmp_path / "w0") + pids(tmp_path / "control")
    assert all(started_at(pid) is None for pid in everyone)


async def test_a_child_that_keeps_dying_is_not_started_in_a_storm(tmp_path: Path) -> None:
    file = tmp_path / "starts"
    dies = Program(name="w0", arguments=("-c", "import sys; open(sys.argv[1],'a').write('1\\n')", str(file)))
    stays = Program(name="control", arguments=("-c", WRITES_PID, str(tmp_path / "control")))
    running = asyncio.create_task(supervise([stays, dies]))
    await asyncio.sleep(1.5)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 10)
    assert 2 <= len(pids(file)) <= 6


def test_workers_listen_on_one_port_each_on_its_own_socket() -> None:
    sockets = bind("127.0.0.1", 0, 3)
    try:
        assert len({listener.getsockname() for listener in sockets}) == 1
        assert len({listener.fileno() for listener in sockets}) == 3
        made = programs(Path("/c.yaml"), sockets)
        assert [program.name for program in made] == ["control", "worker-0", "worker-1", "worker-2"]
        assert made[1].descriptors == (sockets[0].fileno(),)
        with socket.create_connection(sockets[0].getsockname()):
            pass  # accepted by the kernel although no worker runs: nothing is refused
    finally:
        for listener in sockets:
            listener.close()


def test_a_single_worker_does_not_share_its_port() -> None:
    (listener,) = bind("127.0.0.1", 0, 1)
    with listener, pytest.raises(OSError, match="in use"):
        bind("127.0.0.1", listener.getsockname()[1], 1)


@pytest.mark.parametrize("count", [1, 2])
def test_a_port_that_others_share_is_not_joined(count: int) -> None:
    others = bind("127.0.0.1", 0, 2)
    port = others[0].getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        bind("127.0.0.1", port, count)
    for other in others:
        other.close()
    for listener in bind("127.0.0.1", port, count):
        listener.close()


def test_children_die_with_a_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", DIES_WITH_PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while started_at(child) is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert started_at(child) is None


def test_a_journal_is_alive_only_with_its_very_process() -> None:
    pid, start = os.getpid(), started_at(os.getpid())
    assert journal_alive(f"w0-{pid}-{start}")
    assert not journal_alive(f"w0-{pid}-{(start or 0) + 1}"), "the pid was used again"
    assert not journal_alive("w0-999999999-5")
    assert not journal_alive("rubbish")
