"""Requests a second: proxies take turns under the same load, in short rounds, the order reversed each round.

A turn is a run of wrk with a window inside it, in which requests are counted where they arrive (at the
application) and CPU time where it is used (/proc). So neither handshakes at the start nor stragglers count.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from bench.ground import Ground
from bench.load import Load, finish
from bench.machine import LOAD_CORE, busy_seconds, cpu_seconds
from bench.pairs import turns
from bench.products import Running

T = TypeVar("T")
RAMP = 0.25  # seconds of a run before the window
TAIL = 0.1


@dataclass(frozen=True)
class Turn:
    """What one proxy did in one window."""

    rate: float  # requests/s
    cpu: dict[str, float]  # µs per request of each part
    p50: int  # µs, of the whole run
    p99: int
    load_busy: float  # share of the load's core that was busy

    @property
    def cpu_us(self) -> float:
        """CPU µs per request of all that counts."""
        return sum(self.cpu.values())


@dataclass
class Contest:
    """Proxies under one load, and what they did."""

    ground: Ground
    load: Load
    runners: Sequence[Running]
    connections: int = 64
    seconds: int = 2
    results: dict[str, list[Turn]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)  # all requests so far, warming up included

    def warm_up(self, seconds: int = 1) -> None:
        """Let everybody open connections, fill caches and compile what it compiles."""
        for runner in self.runners:
            self._count(runner, lambda runner=runner: self.load.run(runner.port, self.connections, seconds))
            runner.settle()

    def round(self, number: int) -> None:
        """Give each proxy a turn."""
        for runner in turns(self.runners, number):
            turn = self._count(runner, lambda runner=runner: self._turn(runner))
            self.results.setdefault(runner.name, []).append(turn)
            runner.settle()

    def rates(self, name: str) -> list[float]:
        """Return requests/s of each round."""
        return [turn.rate for turn in self.results[name]]

    def _count(self, runner: Running, act: Callable[[], T]) -> T:
        before = self.ground.answered()
        done = act()
        arrived = self.ground.answered() - before
        self.asked[runner.name] = self.asked.get(runner.name, 0) + arrived
        return done

    def _turn(self, runner: Running) -> Turn:
        pids = runner.pids()
        wrk = self.load.start(runner.port, self.connections, self.seconds)
        time.sleep(RAMP)
        begin, first = time.monotonic(), self.ground.answered()
        busy, cpu = busy_seconds(LOAD_CORE), {part: cpu_seconds(found) for part, found in pids.items()}
        time.sleep(self.seconds - RAMP - TAIL)
        took, count = time.monotonic() - begin, self.ground.answered() - first
        busy = (busy_seconds(LOAD_CORE) - busy) / took
        used = {part: cpu_seconds(found) - cpu[part] for part, found in pids.items()}
        seen = finish(wrk)
        each = {part: seconds / count * 1e6 for part, seconds in used.items()}
        return Turn(count / took, each, seen.p50, seen.p99, busy)
