"""Heavy work is done in another thread, and what it leaves free goes back to the machine."""

import asyncio
import subprocess
import sys
import threading

import pytest

from ztproxy.service import preparing
from ztproxy.service.preparing import apart, aside

#: Texts of which one in a hundred stays, made apart or not. Prints the MiB that are in use then.
WORK = """
import sys
from pathlib import Path
from ztproxy.service.preparing import apart

def work():
    texts = [bytes(600 + number % 64) for number in range(200_000)]
    return texts[::100]

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))

before = resident()
kept = apart(work) if sys.argv[1] == "apart" else work()
print(resident() - before)
"""


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the threads in which memory was given back."""
    names: list[str] = []
    monkeypatch.setattr(preparing, "give_back", lambda: names.append(threading.current_thread().name))
    return names


def test_work_is_done_in_a_thread_of_its_own(given: list[str]) -> None:
    assert apart(lambda: threading.current_thread().name) == given[0] != threading.current_thread().name


async def test_beside_the_loop_it_is_the_same(given: list[str]) -> None:
    assert await aside(lambda: threading.current_thread().name) == given[0]
    assert given[0] != threading.current_thread().name


def test_what_fails_fails_and_is_tidied_up_after(given: list[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        apart(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(aside(lambda: 1 // 0))
    assert len(given) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's memory")
def test_what_is_free_again_goes_back() -> None:
    used = {}
    for how in ("apart", "here"):
        command = [sys.executable, "-c", WORK, how]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        used[how] = int(done.stdout)
    assert used["apart"] < used["here"] / 3, used
