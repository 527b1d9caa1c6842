"""Buffers are made of pages that nobody has used, on the real allocator and kernel."""

import ctypes
import gc
import mmap
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from ztproxy.net import pages

PAGE = mmap.PAGESIZE
SIZE = 16 * PAGE

#: Uses what it allocates and frees it, as a handshake does, then allocates as much again and uses nothing.
STORY = """
import ctypes, sys
from ztproxy.net import pages
c = ctypes.PyDLL(None)
c.malloc.argtypes, c.malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
c.free.argtypes, c.free.restype = (ctypes.c_void_p,), None
size, kept = int(sys.argv[1]), []
def resident():
    return int(open("/proc/self/statm").read().split()[1])
before = resident()
for _ in range(200):
    used = c.malloc(size)
    ctypes.memset(used, 1, size)
    c.free(used)
    if sys.argv[2] == "clean":
        pages.clean(size)
    kept.append(c.malloc(size))
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts pages as Linux tells them")
def test_what_was_used_and_freed_is_not_paid_for_again() -> None:
    grown = {}
    for how in ("clean", "used"):
        command = [sys.executable, "-c", STORY, str(SIZE), how]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
        )
        grown[how] = int(done.stdout)
    assert grown["used"] > 200 * 14, "the allocator has become better than we thought: is `clean` needed?"
    assert grown["clean"] < 200 * 4


def test_nothing_that_is_in_use_changes() -> None:
    kept = [bytearray(struct.pack("=Q", number) * 2048) for number in range(64)]
    del kept[::2]
    gc.collect()
    for _ in range(100):
        pages.clean(SIZE)
    assert all(one == struct.pack("=Q", 2 * number + 1) * 2048 for number, one in enumerate(kept))


@pytest.mark.parametrize("size", [0, 1, PAGE - 1, PAGE, 1 << 62])
def test_any_size_is_borne(size: int) -> None:
    pages.clean(size)
    pages.clean(PAGE, size, 3 * PAGE)


def test_an_allocator_without_the_call_is_borne(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_DONTNEED", None)
    pages._cleaner()(SIZE)
    assert ctypes.PyDLL(None).getpid() > 0
