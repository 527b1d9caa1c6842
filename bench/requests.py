"""Proxies take turns under the same load, in short rounds, the order reversed each round.

A turn is a run of the load with a window inside it, in which requests are counted where they arrive (at the
application) and CPU time where it is used (/proc). So neither the start of a run nor its stragglers count.
"""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol, TypeVar

from bench.load import Answered, finish
from bench.machine import LOAD_CORE, PROXY_CORE, busy_seconds, cpu_seconds
from bench.pairs import Spread, ratios, spread, turns
from bench.products import Running

T = TypeVar("T")
RAMP = 0.25  # seconds of a run before the window
TAIL = 0.1


class Load(Protocol):
    """Something that asks: see `bench.load`, `bench.handshakes`, `bench.websockets`."""

    def start(self, port: int, connections: int, seconds: int) -> subprocess.Popen[str]:
        """Start asking. The process prints one line of JSON at its end."""


@dataclass(frozen=True)
class Turn:
    """What one proxy did in one window."""

    rate: float  # requests/s
    cpu: dict[str, float]  # µs per request of each part
    p50: int  # µs, of the whole run
    p99: int
    load_busy: float  # share of the load's core that was busy
    others: float  # share of the proxy's core that somebody else used: a noisy machine

    @property
    def cpu_us(self) -> float:
        """CPU µs per request of all that counts."""
        return sum(self.cpu.values())


@dataclass
class Contest:
    """Proxies under one load (or each under its own: `loads`), and what they did."""

    arrived: Callable[[], int]  # requests that reached the application so far
    load: Load
    runners: list[Running]
    connections: int = 64
    seconds: int = 2
    ramp: float = RAMP
    loads: dict[str, Load] = field(default_factory=dict)
    results: dict[str, list[Turn]] = field(default_factory=dict)
    answered: dict[str, int] = field(default_factory=dict)  # all answers so far, warming up included
    failed: dict[str, str] = field(default_factory=dict)

    def warm_up(self, seconds: int = 1) -> None:
        """Let everybody open connections, fill caches and compile what it compiles."""
        for runner in list(self.runners):
            self._try(runner, lambda runner=runner: self._warm(runner, seconds))

    def round(self, number: int) -> None:
        """Give each proxy a turn."""
        for runner in turns(self.runners, number):
            self._try(runner, lambda runner=runner: self._turn(runner))
        told = ((runner.name, self.results[runner.name][-1]) for runner in self.runners)
        line = ", ".join(f"{name} {turn.rate:.0f}/s {turn.cpu_us:.0f} µs" for name, turn in told)
        print(f"  round {number + 1}: {line}", flush=True)

    def finished(self) -> "Contest":
        """Return it without those that failed on the way: rounds must match."""
        for name in self.failed:
            self.results.pop(name, None)
        return self

    def rates(self, name: str) -> list[float]:
        """Return requests/s of each round."""
        return [turn.rate for turn in self.results[name]]

    def middle(self, name: str, what: Callable[[Turn], float]) -> float:
        """Return the median of something over the rounds."""
        return median(what(turn) for turn in self.results[name])

    def _try(self, runner: Running, act: Callable[[], None]) -> None:
        """A proxy that fails is out; the others go on."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - whatever it was, it is told in the table
            self.failed[runner.name] = str(error).strip()[-300:] or type(error).__name__
            self.runners.remove(runner)

    def _start(self, runner: Running, seconds: int) -> subprocess.Popen[str]:
        load = self.loads.get(runner.name, self.load)
        return load.start(runner.port, self.connections, seconds)

    def _finish(self, runner: Running, load: subprocess.Popen[str]) -> Answered:
        seen = finish(load)
        self.answered[runner.name] = self.answered.get(runner.name, 0) + seen.requests
        return seen

    def _warm(self, runner: Running, seconds: int) -> None:
        self._finish(runner, self._start(runner, seconds))
        runner.settle()

    def _turn(self, runner: Running) -> None:
        pids = runner.pids()
        load = self._start(runner, self.seconds)
        time.sleep(self.ramp)
        begin, first = time.monotonic(), self.arrived()
        cpu = {part: cpu_seconds(found) for part, found in pids.items()}
        cores = [busy_seconds(PROXY_CORE), busy_seconds(LOAD_CORE)]
        time.sleep(self.seconds - self.ramp - TAIL)
        took, count = time.monotonic() - begin, self.arrived() - first
        used = {part: cpu_seconds(found) - cpu[part] for part, found in pids.items()}
        busy = [busy_seconds(PROXY_CORE) - cores[0], busy_seconds(LOAD_CORE) - cores[1]]
        seen = self._finish(runner, load)
        if not count:
            raise RuntimeError("nothing arrived within the window")
        self.results.setdefault(runner.name, []).append(
            Turn(
                rate=count / took,
                cpu={part: seconds / count * 1e6 for part, seconds in used.items()},
                p50=seen.p50,
                p99=seen.p99,
                load_busy=busy[1] / took,
                others=max(0.0, busy[0] - sum(used.values())) / took,
            )
        )
        runner.settle()


def growth(contest: Contest, name: str, beside: str, part: str = "") -> Spread:
    """Return CPU µs of a request over those of another in the same round; of one part, or of all."""
    ours, theirs = (
        [turn.cpu[part] if part else turn.cpu_us for turn in contest.results[one]] for one in (name, beside)
    )
    return ratios(ours, theirs)


def percent(grown: Spread) -> str:
    """Say by how much something has grown."""
    low, high = grown.low - 1, grown.high - 1
    return f"{grown.median - 1:+.1%} (rounds {low:+.1%} to {high:+.1%})"


def table(contest: Contest, ours: str) -> list[dict[str, object]]:
    """Return a row for each proxy: medians, range, and the median of its rounds' ratios to ours."""
    rows: list[dict[str, object]] = []
    for name, done in contest.results.items():
        rate = spread(contest.rates(name))
        row: dict[str, object] = {
            "proxy": name,
            "per s": round(rate.median),
            "range": [round(rate.low), round(rate.high)],
            "CPU µs": round(contest.middle(name, lambda turn: turn.cpu_us), 1),
            "p50 ms": round(contest.middle(name, lambda turn: turn.p50) / 1000, 2),
            "p99 ms": round(contest.middle(name, lambda turn: turn.p99) / 1000, 2),
            "load busy": round(contest.middle(name, lambda turn: turn.load_busy), 2),
            "others": round(contest.middle(name, lambda turn: turn.others), 2),
        }
        if len(done[0].cpu) > 1:
            row["parts"] = {
                part: round(contest.middle(name, lambda turn, part=part: turn.cpu[part]), 1)
                for part in done[0].cpu
            }
        if name != ours and ours in contest.results:
            against = ratios(contest.rates(ours), contest.rates(name)).rounded(2)
            row["ratio"], row["ratio range"] = against.median, [against.low, against.high]
            mine, theirs = ([turn.cpu_us for turn in contest.results[one]] for one in (ours, name))
            if all(theirs):
                row["CPU ratio"] = ratios(mine, theirs).rounded(2).median
        rows.append(row)
    rows += [{"proxy": name, "failed": why} for name, why in contest.failed.items()]
    return rows
