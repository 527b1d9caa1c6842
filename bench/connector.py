"""What it costs to reach an application through a connector instead of directly: python -m bench.connector

One product, 25 routes that it dials itself and 25 of the same kind behind a connector, which was enrolled
and runs as people run it. Both take turns under the same load, forwards and backwards. The gateway has core
0; the connector shares core 1 with application, load and control process. In life these have machines of
their own, so the gateway's worker is what the others wait for. Here core 1 would be full first, and only
through the connector: a worker with little to do is woken more often and finds less to write together, so
each request costs it more. Therefore, while requests are counted, and in both ways alike, rivals that do
nothing have their share of core 0. `busy` says in how much of the time the worker ran or waited for its core:
near 100 % it was what the others waited for. What is counted is its CPU time, not that of its rivals.

A download has no rivals. Its client does not decrypt (`bench.ciphertext`): that costs about what a
connector's encryption does, on the same core. `curl` is what one sees that does.

The last line is one JSON object: `ratio_direct` is requests per second of the worker's CPU over those of the
direct way, `added_p50_ms` what one client alone waits longer, `ratio_mb` bytes per second of one download
over the direct way's. Medians of the rounds. `--rivals 0` leaves the worker alone on its core. `--idle N`
measures instead what N connectors cost that are connected and carry nothing.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from bench import report
from bench.ground import COOKIE, HOST, Ground
from bench.idle_connectors import Crowded, measure
from bench.load import Load, app_paths, finish
from bench.machine import cpu_seconds, ran_and_waited
from bench.pairs import ratios, turns
from bench.products.ztproxy import Variant
from bench.products.ztproxy_connected import ROUTES, Connected

SIZE = 512 << 20
CURLS = 128 << 20  # of which it takes this much
BUDGET = 49  # seconds in all
WAYS = ("direct", "connector")
RIVALS = 2  # each has as much of the worker's core as the worker
CURL = ["curl", "--silent", "--show-error", "--fail", "--insecure", "--http1.1", "--output", "/dev/null"]


class Contest:
    """Both ways, turn by turn."""

    def __init__(self, ground: Ground, product: Connected, rivals: int) -> None:
        half = ROUTES // 2
        self._ground = ground
        self._product = product
        self._workers = product.parts()["workers"]
        self._environment = {**os.environ, "OPENSSL_CONF": str(ground.root / "openssl.cnf")}
        paths = {"direct": app_paths(half), "connector": [_moved(path, half) for path in app_paths(half)]}
        self._loads = {way: Load(ground, way, paths=paths[way]) for way in WAYS}
        self._big = {"direct": "/app0/big", "connector": f"/app{half}/big"}
        self._rivals = rivals
        self.seen: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}

    def warm_up(self, way: str) -> None:
        """Have every connection to the application made, which takes a connector a while."""
        self._loads[way].run(self._product.port, 8, 2)
        self._loads[way].run(self._product.port, 64, 2)

    def requests(self, way: str, seconds: int) -> None:
        """64 connections that ask as fast as they are answered, while the worker has rivals."""
        with self._contended():
            load = self._loads[way].start(self._product.port, 64, seconds)
            time.sleep(0.4)  # handshakes do not count
            before, begin = self._state(), time.monotonic()
            time.sleep(seconds - 0.6)
            after, end = self._state(), time.monotonic()
            finish(load)
        requests, ran, waited = (one - other for one, other in zip(after, before, strict=True))
        self._note(way, "busy", (ran + waited) / (end - begin))
        self._note(way, "requests per CPU s", requests / ran)
        self._note(way, "requests/s", requests / (end - begin))

    def alone(self, way: str, seconds: int) -> None:
        """One connection."""
        self._note(way, "p50 ms alone", self._loads[way].run(self._product.port, 1, seconds).p50 / 1000)

    def download(self, way: str, _: int) -> None:
        """One large body, for a client that does not decrypt and for one that does."""
        before = cpu_seconds(self._workers)
        address = [str(self._product.port), self._big[way], str(SIZE)]
        done = self._run([sys.executable, "-m", "bench.ciphertext", *address])
        self._note(way, "MB/s", SIZE / 1e6 / float(done))
        self._note(way, "MB per CPU s", SIZE / 1e6 / (cpu_seconds(self._workers) - before))

    def curl(self, way: str, _: int) -> None:
        """A smaller part of it."""
        address = f"https://{HOST}:{self._product.port}{self._big[way]}"
        more = ["--range", f"0-{CURLS - 1}", "--write-out", "%{time_pretransfer} %{time_total}"]
        said = self._run([*CURL, *more, "-H", f"Cookie: __Host-ztproxy={COOKIE}", address])
        begin, end = map(float, said.split())
        self._note(way, "curl's MB/s", CURLS / 1e6 / (end - begin))

    def line(self) -> dict[str, float]:
        """Return the figures that count."""
        there, here = self.seen["connector"], self.seen["direct"]
        pairs = zip(there["p50 ms alone"], here["p50 ms alone"], strict=True)
        return {
            "ratio_direct": round(self.ratio("requests per CPU s"), 3),
            "added_p50_ms": round(median(one - other for one, other in pairs), 3),
            "ratio_mb": round(self.ratio("MB/s"), 3),
        }

    def ratio(self, what: str) -> float:
        """Return the median of the rounds' ratios."""
        return ratios(self.seen["connector"][what], self.seen["direct"][what]).median

    def table(self) -> list[dict[str, object]]:
        """Return a row for each way, and one of ratios."""
        digits = {"p50 ms alone": 3, "busy": 2}
        rows: list[dict[str, object]] = [
            {"way": way, **{what: round(median(of), digits.get(what)) for what, of in self.seen[way].items()}}
            for way in WAYS
        ]
        return [*rows, {"way": "ratio", **{what: self.ratio(what) for what in self.seen["direct"]}}]

    def _note(self, way: str, what: str, value: float) -> None:
        self.seen[way].setdefault(what, []).append(value)

    def _state(self) -> tuple[float, float, float]:
        """Return what the application has answered, and the seconds in which the worker ran and waited."""
        [worker] = self._workers
        return self._ground.answered(), *ran_and_waited(worker)

    @contextmanager
    def _contended(self) -> Iterator[None]:
        rivals = [
            self._ground.spawn("rival", ["sh", "-c", "while :; do :; done"]) for _ in range(self._rivals)
        ]
        try:
            yield
        finally:
            for rival in rivals:
                self._ground.stop(rival)

    def _run(self, command: list[str]) -> str:
        return subprocess.run(
            command, check=True, timeout=120, env=self._environment, stdout=subprocess.PIPE, text=True
        ).stdout


def main() -> None:
    """Measure, print a table, and the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=1, help="of one turn; twice that with rivals")
    parser.add_argument("--rivals", type=int, default=RIVALS, help="for the worker's core")
    parser.add_argument("--idle", type=int, default=0, help="measure so many idle connectors instead")
    options = parser.parse_args()
    if options.idle:
        idle(options.idle)
        return
    begin = time.monotonic()
    with Ground() as ground:
        with (ground.root / "big").open("wb") as file:
            file.truncate(SIZE)
        (ground.root / "big").chmod(0o644)
        product = Connected(ground, Variant(routes=ROUTES, control_apart=True))
        product.connect()
        contest = Contest(ground, product, options.rivals)
        for way in WAYS:  # warm up: connections to the application, caches, the connector's ready ones
            contest.warm_up(way)
        print(f"started and warm after {time.monotonic() - begin:.1f} s", flush=True)
        for number in range(options.rounds):
            started = time.monotonic()
            for measured in (contest.requests, contest.alone, contest.download, contest.curl):
                seconds = options.seconds * (2 if measured == contest.requests else 1)
                for way in turns(WAYS, number):
                    measured(way, seconds)
            another = time.monotonic() - started + 2
            if time.monotonic() - begin + another > BUDGET:
                break  # a slow machine has fewer rounds, not a longer run
        print(report.render("connector", {"64 connections, one, and a download": contest.table()}))
    print(f"{time.monotonic() - begin:.1f} s in all")
    sys.stdout.flush()
    print(json.dumps(contest.line()))


def idle(count: int) -> None:
    """Measure many connectors that carry nothing."""
    with Ground() as ground:
        Crowded.count = count
        product = Crowded(ground, Variant(routes=ROUTES, control_apart=True))
        print(json.dumps(measure(ground, product)))


def _moved(path: str, by: int) -> str:
    return re.sub(r"^/app(\d+)", lambda found: f"/app{int(found[1]) + by}", path)


if __name__ == "__main__":
    main()
