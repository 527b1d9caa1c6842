"""The supervisor: children die and come back, sockets stay, nobody survives it, all or none are reloaded."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from ztproxy.service import supervisor as supervising
from ztproxy.service import upgrade
from ztproxy.service.child import Child
from ztproxy.service.configuration import Configuration, Summary, memory, seal
from ztproxy.service.crew import Post, Program, programs
from ztproxy.service.process import journal_alive, started_at
from ztproxy.service.sockets import Descriptors, Sockets, bind
from ztproxy.service.supervisor import Refused, Supervisor

#: A child that does what it is told, writes down what it does, and fails as its script says.
CHILD = """
import json, os, socket, sys
sys.stdout = open(sys.argv[1], "a", buffering=1)
end = socket.socket(fileno=int(sys.argv[sys.argv.index("--orders") + 1]))
number = int(sys.argv[sys.argv.index("--configuration") + 1])
print("up", os.getpid(), os.pread(number, 99, 0).decode())
end.send(b'{"type":"ready"}')
while True:
    data, descriptors, _, _ = socket.recv_fds(end, 65536, 1)
    if not data:
        break
    order = json.loads(data)
    what = order["type"]
    read = os.pread(descriptors[0], 99, 0).decode() if descriptors else ""
    for one in descriptors:
        os.close(one)
    print(what, read)
    if what in sys.argv[2].split(",") and os.path.exists(sys.argv[1] + ".fails"):
        why = "broken"
    elif what in sys.argv[2].split(",") and os.path.exists(sys.argv[1] + ".dies"):
        os.unlink(sys.argv[1] + ".dies")
        os._exit(3)
    else:
        why = ""
    if "ask" in order:
        end.send(json.dumps({"type": "done", "ask": order["ask"], "why": why}).encode())
"""

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


def configuration(text: str) -> Configuration:
    descriptor = memory()
    os.write(descriptor, text.encode())
    seal(descriptor)
    return Configuration(Summary(text, text, 1, drain=1.0, watch=False), descriptor)


class House:
    """A supervisor over children of our own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.next: Configuration | supervising.Captured = configuration("second")
        self.became: list[str] = []

    def said(self, name: str) -> list[str]:
        file = self.root / name
        return file.read_text().splitlines() if file.exists() else []

    def pids(self, name: str) -> list[int]:
        return [int(line.split()[1]) for line in self.said(name) if line.startswith("up")]

    def fail(self, name: str, how: str = "fails") -> None:
        (self.root / f"{name}.{how}").touch()


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    made = House(tmp_path)

    def ours(config: Path, sockets: Descriptors) -> list[Program]:
        fails = {"control": "note", "w0": "prepare", "w1": "prepare"}
        return [Program(name, ("-c", CHILD, str(tmp_path / name), at)) for name, at in fails.items()]

    async def captured(config: Path, in_force: Configuration, standby: object) -> object:
        return made.next

    monkeypatch.setattr(supervising, "programs", ours)
    monkeypatch.setattr(supervising, "capture_apart", captured)
    pairs = [socket.socket() for _ in range(5)]
    sockets = Sockets(pairs[:1], *pairs[1:])
    made.supervisor = Supervisor(  # type: ignore[attr-defined]
        tmp_path / "c.yaml", sockets, configuration("first"), lambda *_: made.became.append("new")
    )
    running = asyncio.create_task(made.supervisor.run(Supervisor.start))  # type: ignore[attr-defined]
    await until(lambda: all(made.said(name) for name in ("control", "w0", "w1")))
    await until(lambda: any(line.startswith("note") for line in made.said("control")))
    yield made
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 20)
    everyone = [pid for name in ("control", "w0", "w1") for pid in made.pids(name)]
    assert all(started_at(pid) is None for pid in everyone)
    sockets.close()


def nothing(_: str) -> None:
    """Nobody waits."""


async def test_killed_children_are_started_again(house: House) -> None:
    for name in ("w0", "control"):
        os.kill(house.pids(name)[-1], signal.SIGKILL)
    await until(lambda: len(house.pids("w0")) == 2 and len(house.pids("control")) == 2)
    await until(lambda: [line.split()[0] for line in house.said("control")].count("go") == 2)


async def test_a_child_that_keeps_dying_is_not_started_in_a_storm(house: House) -> None:
    for _ in range(4):
        seen = len(house.pids("w0"))
        os.kill(house.pids("w0")[-1], signal.SIGKILL)
        await until(lambda seen=seen: len(house.pids("w0")) > seen)
    began = time.monotonic()
    os.kill(house.pids("w0")[-1], signal.SIGKILL)
    await until(lambda: len(house.pids("w0")) == 6)
    assert time.monotonic() - began > 0.7


async def test_a_reload_is_prepared_by_all_then_noted_then_in_force_for_all(house: House) -> None:
    text = await house.supervisor.reload("test", nothing)  # type: ignore[attr-defined]
    assert text.startswith("in force: configuration second")
    for name in ("control", "w0", "w1"):
        lines = house.said(name)
        assert lines.index("prepare second") < lines.index("commit ")
    control = house.said("control")
    assert control.index("prepare second") < control.index("note ", 3) < control.index("commit ")
    os.kill(house.pids("w1")[-1], signal.SIGKILL)
    await until(lambda: len(house.pids("w1")) == 2)
    assert house.said("w1")[-1].endswith("second"), "who is started anew serves what is in force"


@pytest.mark.parametrize("who", ["w1", "control"])
async def test_when_one_can_not_nobody_does(house: House, who: str) -> None:
    house.fail(who)
    with pytest.raises(Refused, match="broken"):
        await house.supervisor.reload("test", nothing)  # type: ignore[attr-defined]
    await until(lambda: all("forget " in house.said(name) for name in ("control", "w0", "w1")))
    assert not any("commit " in house.said(name) for name in ("control", "w0", "w1"))
    os.kill(house.pids("w0")[-1], signal.SIGKILL)
    await until(lambda: len(house.pids("w0")) == 2)
    assert house.said("w0")[-1].endswith("first")


async def test_a_worker_that_dies_while_it_prepares_is_asked_again(house: House) -> None:
    house.fail("w0", "dies")
    text = await house.supervisor.reload("test", nothing)  # type: ignore[attr-defined]
    assert text.startswith("in force")
    lines = house.said("w0")
    assert [line.split()[0] for line in lines if line != "go "] == [
        "up",
        "prepare",
        "up",
        "prepare",
        "commit",
    ]


async def test_the_same_files_change_nothing(house: House) -> None:
    house.next = configuration("first")
    assert (await house.supervisor.reload("test", nothing)).startswith("unchanged")  # type: ignore[attr-defined]
    assert not any(line.startswith("prepare") for line in house.said("w0"))


async def test_a_storm_of_hangups_is_one_reload_or_two(house: House) -> None:
    for _ in range(10):
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.001)
    await until(lambda: "commit " in house.said("w0"))
    await asyncio.sleep(0.2)
    assert house.said("w0").count("prepare second") == 1  # what follows finds nothing new
    assert sum(line.startswith("note") for line in house.said("control")) <= 3


async def test_what_is_asked_for_while_an_upgrade_is_checked_is_not_forgotten(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next program reloads, or this one when there is none; who waits for an answer gets one."""
    reading, go_on = asyncio.Event(), asyncio.Event()
    supervisor: Supervisor = house.supervisor  # type: ignore[attr-defined]
    handed_over: list[upgrade.HandOver] = []
    told: list[tuple[bool, str]] = []

    async def captured(*_: object) -> object:
        reading.set()
        await go_on.wait()
        return configuration("second")

    def execve(program: str, arguments: list[str], environ: dict[str, str]) -> None:
        handed_over.append(msgspec.json.decode(environ[upgrade.VARIABLE], type=upgrade.HandOver))
        raise OSError("not here")

    monkeypatch.setattr(supervising, "capture_apart", captured)
    monkeypatch.setattr(upgrade.os, "execve", execve)
    supervisor._become = upgrade.becoming(supervisor.sockets.link.fileno())
    supervisor.want("upgrade", "test")
    await reading.wait()
    supervisor.want("reload", "SIGHUP")
    supervisor.want("reload", "carol", lambda done, text, problems: told.append((done, text)))
    go_on.set()
    await until(lambda: "commit " in house.said("w0"))
    assert [one.reload for one in handed_over] == ["SIGHUP, carol"]
    assert told == [(False, "the program is just being replaced: ask again")]
    assert supervisor.in_force.summary.digest == "second"


async def test_whoever_could_not_be_replaced_still_hears_what_is_asked(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor: Supervisor = house.supervisor  # type: ignore[attr-defined]
    tried: list[bool] = []

    async def captured(*_: object) -> object:
        return configuration("second")

    def become(*_: object) -> None:
        tried.append(True)
        raise OSError("no room for another program")

    monkeypatch.setattr(supervising, "capture_apart", captured)
    supervisor._become = become
    supervisor.want("upgrade", "test")
    await until(lambda: tried)
    await until(lambda: not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & supervising.ASKING)


async def test_those_who_leave_and_those_who_serve_end_at_the_same_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever stops a node right after an upgrade waits for `drain` twice. The fixture stops it."""
    supervisor: Supervisor = house.supervisor  # type: ignore[attr-defined]
    workers_end, dismiss = asyncio.Event(), supervisor.crew.dismiss

    class Leaving:
        async def stop(self, patience: float) -> None:
            await workers_end.wait()

    async def dismissed(posts: Iterable[Post], patience: float) -> None:
        workers_end.set()
        await dismiss(posts, patience)

    monkeypatch.setattr(supervisor.crew, "dismiss", dismissed)
    supervisor.leaving.append(Leaving())  # type: ignore[arg-type]


async def test_a_reload_changes_how_the_supervisor_itself_logs(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured: list[tuple[str, str]] = []
    monkeypatch.setattr(supervising, "configure", lambda *how: configured.append(how))
    await house.supervisor.reload("test", nothing)  # type: ignore[attr-defined]
    assert configured == []
    third = configuration("third")
    house.next = replace(third, summary=replace(third.summary, log=("debug", "text")))
    await house.supervisor.reload("test", nothing)  # type: ignore[attr-defined]
    assert configured == [("debug", "text")]


def test_workers_listen_on_one_port_each_on_its_own_socket() -> None:
    sockets = bind("127.0.0.1", 0, 3)
    try:
        assert len({listener.getsockname() for listener in sockets}) == 1
        numbers = tuple(listener.fileno() for listener in sockets)
        assert len(set(numbers)) == 3
        made = programs(Path("/c.yaml"), Descriptors(numbers, 91, 92, 93, 94))
        assert [program.name for program in made] == ["control", "worker-0", "worker-1", "worker-2"]
        assert made[0].descriptors == (91, 92, 93, 94)
        assert made[1].descriptors == (numbers[0],)
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


LOOKS_UP = """
import asyncio, os, uvloop
async def main():
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    return len(os.listdir("/proc/self/task"))
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    os._exit(runner.run(main()))
"""


async def test_names_that_nobody_answers_for_do_not_take_all_threads() -> None:
    child = Child.start(("-c", LOOKS_UP), ())
    assert await asyncio.wait_for(child.ended, 20) > 100
    child.orders.close()


async def test_children_import_nothing_from_where_the_node_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    child = Child.start(("-c", "import msgspec"), ())
    assert await asyncio.wait_for(child.ended, 20) == 0
    child.orders.close()


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
