"""Memory goes back to the machine after a crowd has gone: seldom, and really."""

import subprocess
import sys

from ztproxy.service.ebb import LEAST, PAUSE, Ebb

#: What a crowd leaves behind: buffers with something small that stays after each.
CROWD = """
from pathlib import Path
from ztproxy.service.ebb import Ebb

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

bytes(1 << 20)  # as the listener does: large blocks are not mapped one by one
before, kept, crowd = resident(), [], []
for _ in range(1000):
    crowd.append((bytearray(16448), bytearray(32896)))
    kept.append(bytearray(600))
crowd.clear()
left = resident() - before
ebb = Ebb()
ebb.look(1000, 0.0)
ebb.look(0, 1.0)
assert left > 30_000_000, left
assert resident() - before < 10_000_000, (left, resident() - before)
"""


class Counted:
    def __init__(self) -> None:
        self.times = 0
        self.ebb = Ebb(self._count)

    def _count(self) -> None:
        self.times += 1


def test_memory_goes_back_when_more_than_half_have_gone() -> None:
    seen = Counted()
    for second, connections in enumerate((0, 1000, 900, 500)):
        seen.ebb.look(connections, second)
    assert seen.times == 0
    seen.ebb.look(499, 4)
    assert seen.times == 1


def test_a_few_connections_more_or_less_stop_nobody() -> None:
    seen = Counted()
    seen.ebb.look(LEAST - 1, 0)
    seen.ebb.look(0, 1)
    assert seen.times == 0


def test_who_comes_and_goes_in_thousands_can_not_have_it_done_all_the_time() -> None:
    seen = Counted()
    for second in range(int(PAUSE) * 3):
        seen.ebb.look(0 if second % 2 else 5000, second)
    assert seen.times == 3


def test_a_crowd_that_went_too_soon_after_the_last_is_not_forgotten() -> None:
    seen = Counted()
    for second, connections in enumerate((1000, 0, 1000, 0)):
        seen.ebb.look(connections, second)
    assert seen.times == 1
    seen.ebb.look(0, 1 + PAUSE)
    assert seen.times == 2


def test_the_machine_has_it_again() -> None:
    done = subprocess.run([sys.executable, "-c", CROWD], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
