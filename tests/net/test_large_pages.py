"""What lives long is put into large pages, on the real allocator and kernel, and stays what it was."""

import subprocess
import sys
from pathlib import Path

import pytest

from ztproxy.net import large_pages

MODES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

#: Keeps many small objects, has them gathered, and looks whether they are still the same.
STORY = """
import os, sys
from ztproxy.net import large_pages
def large():
    lines = open("/proc/self/smaps_rollup").readlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("AnonHuge"))
kept = [{"number": number} for number in range(300_000)]
before, gathered = large(), large_pages.gather()
assert [one["number"] for one in kept] == list(range(300_000))
print(before, gathered, large(), large_pages.gather())
"""


def offered() -> bool:
    """Tell whether this kernel gathers when it is asked to (Linux 6.1), and may."""
    try:
        version = Path("/proc/sys/kernel/osrelease").read_text().split(".")[:2]
        return tuple(map(int, version)) >= (6, 1) and "[never]" not in MODES.read_text()
    except (OSError, ValueError):
        return False


@pytest.mark.skipif(not offered(), reason="this kernel has no large pages to give")
def test_what_is_kept_lies_in_large_pages() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STORY],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    before, gathered, after, again = map(int, done.stdout.split())
    assert gathered >= 10
    assert after - before >= gathered * large_pages.LARGE // 1024 * 3 // 4
    assert again >= gathered * 3 // 4


def test_where_the_kernel_tells_nothing_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(large_pages, "_MAPS", tmp_path / "none")
    assert large_pages.gather() == 0


def test_heap_shared_memory_files_and_sparse_memory_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full, sparse = "Rss: 4096 kB", "Rss: 2048 kB"
    maps = tmp_path / "smaps"
    maps.write_text(
        "\n".join(
            [
                "00200000-00600000 rw-p 00000000 00:00 0 ",
                full,
                "00800000-00c00000 rw-p 00000000 00:00 0   [heap]",
                full,
                "01000000-01400000 rw-s 00000000 00:01 77  /dev/zero (deleted)",
                full,
                "02000000-02400000 rw-p 00000000 fe:00 99  /usr/lib/some.so",
                full,
                "03000000-03400000 ---p 00000000 00:00 0 ",
                full,
                "04000000-04400000 rw-p 00000000 00:00 0 ",
                sparse,
                "05100000-05500000 rw-p 00000000 00:00 0 ",
                full,
                "VmFlags: rd wr mr mw me ac",
            ]
        )
    )
    monkeypatch.setattr(large_pages, "_MAPS", maps)
    assert list(large_pages._places()) == [0x200000, 0x400000, 0x5200000]
