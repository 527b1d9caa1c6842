"""A process that stands by to read: nothing passes from one check to the next, nor from who began it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ztproxy.service.process import started_at

#: A parent with a secret file open. It says what came of each check that it is told to have done.
PARENT = """
import asyncio, os, signal, sys
from ztproxy.service.standby import MOST, Standby

seen = []
secret = open(sys.argv[1])

def check(into, in_force):
    what = os.pread(in_force, 99, 0).decode()
    seen.append(what)
    if what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "raises":
        raise SystemError("whatever a file brings about")
    if what == "hangs":
        while True:
            pass
    if what == "talks":
        return b"x" * (MOST + 1)
    if what == "kills":
        os.kill(os.getppid(), signal.SIGKILL)
    os.write(into, b"filled by " + what.encode())
    return "|".join([what, str(len(seen)), *sorted(os.readlink(f"/proc/self/fd/{n}")
        for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}"))]).encode()

async def ask(standby, what):
    into, in_force = os.memfd_create("into"), os.memfd_create("in-force")
    os.write(in_force, what.encode())
    answer = await standby.ask(into, in_force)
    filled = os.pread(into, 99, 0).decode()
    os.close(into), os.close(in_force)
    if answer is None:
        return "nobody"
    return f"{filled}|{answer.decode()}" if answer else "died"

async def main(standby):
    print(standby.pid, flush=True)
    while what := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if what == "ends":
            standby.end()
            print(os.path.exists(f"/proc/{standby.pid}"), flush=True)
        else:
            print(await asyncio.wait_for(ask(standby, what), 60), flush=True)

asyncio.run(main(Standby.start(check, 1)))
"""


class Parent:
    def __init__(self, secret: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(secret)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.standby = int(self._said())

    def _said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, what: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self._said()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    secret = tmp_path / "secret"
    secret.touch()
    made = Parent(secret)
    yield made
    made.end()


def test_each_check_begins_where_nothing_was_ever_read(parent: Parent) -> None:
    for what in ("one", "two"):
        filled, said, seen, *open_files = parent.ask(what).split("|")
        assert (filled, said, seen) == (f"filled by {what}", what, "1")
        assert not any("secret" in one or "socket" in one for one in open_files), open_files
        assert sum("memfd" in one for one in open_files) == 2


@pytest.mark.parametrize("what", ["dies", "raises", "hangs", "talks"])
def test_a_check_that_does_not_end_well_is_told_and_harms_no_other(parent: Parent, what: str) -> None:
    assert parent.ask(what) == "died"
    assert parent.ask("next").startswith("filled by next|next|1|")
    children = Path(f"/proc/{parent.standby}/task/{parent.standby}/children")
    deadline = time.monotonic() + 20
    while children.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not children.read_text(), "nothing of it is left"


def test_when_nobody_stands_by_that_is_said(parent: Parent) -> None:
    os.kill(parent.standby, signal.SIGHUP)
    os.kill(parent.standby, signal.SIGINT)
    assert parent.ask("still").startswith("filled by still|")
    os.kill(parent.standby, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while (answer := parent.ask("gone")) != "nobody" and time.monotonic() < deadline:
        assert answer == "died"  # it had the question already
    assert answer == "nobody"
    assert parent.ask("ends") == "False"


def test_a_check_that_takes_the_one_who_stands_by_along_is_noticed(parent: Parent) -> None:
    assert parent.ask("kills").startswith(("died", "filled by kills|"))
    deadline = time.monotonic() + 20
    while (said := parent.ask("next")) == "died" and time.monotonic() < deadline:
        time.sleep(0.02)  # it was killed, and is not gone yet: it takes questions and answers none
    assert said == "nobody"


def test_it_ends_when_it_is_told_and_with_whoever_it_is_for(parent: Parent) -> None:
    assert parent.ask("ends") == "False"
    other = parent.ask("afterwards")
    assert other == "nobody"


def test_nobody_is_left_of_a_killed_parent(parent: Parent) -> None:
    assert started_at(parent.standby) is not None
    parent.end()
    deadline = time.monotonic() + 20
    while started_at(parent.standby) is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert started_at(parent.standby) is None
