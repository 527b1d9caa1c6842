"""What it costs to reach an application through a connector instead of directly: python -m bench.connector

One product, 25 routes that it dials itself and 25 of the same kind behind a connector, which was enrolled
and runs as people run it. Both take turns under the same load, forwards and backwards. The gateway has core
0; the connector shares core 1 with application, load and control process. So what counts is what the
gateway's own CPU time is good for.

The last line is one JSON object: `ratio_direct` is requests per second of the worker's CPU over those of the
direct way, `added_p50_ms` what one client alone waits longer, `ratio_mb` bytes per second of one download
over the direct way's. Medians of the rounds. `--idle N` measures instead what N connectors cost that are
connected and carry nothing.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from statistics import median

from bench import report
from bench.ground import COOKIE, HOST, Ground
from bench.idle_connectors import Crowded, measure
from bench.load import Load, app_paths
from bench.machine import cpu_seconds
from bench.pairs import ratios, turns
from bench.products.ztproxy import Variant
from bench.products.ztproxy_connected import ROUTES, Connected

SIZE = 512 << 20
BUDGET = 49  # seconds in all
WAYS = ("direct", "connector")
CURL = ["curl", "--silent", "--show-error", "--fail", "--insecure", "--http1.1", "--output", "/dev/null"]


class Contest:
    """Both ways, turn by turn."""

    def __init__(self, ground: Ground, product: Connected) -> None:
        half = ROUTES // 2
        self._product = product
        self._ground = ground
        paths = {"direct": app_paths(half), "connector": [_moved(path, half) for path in app_paths(half)]}
        self._loads = {way: Load(ground, way, paths=paths[way]) for way in WAYS}
        self._big = {"direct": "/app0/big", "connector": f"/app{half}/big"}
        self.per_cpu: dict[str, list[float]] = {way: [] for way in WAYS}
        self.per_second: dict[str, list[float]] = {way: [] for way in WAYS}
        self.p50: dict[str, list[float]] = {way: [] for way in WAYS}
        self.speed: dict[str, list[float]] = {way: [] for way in WAYS}
        self.speed_cpu: dict[str, list[float]] = {way: [] for way in WAYS}

    def warm_up(self, way: str) -> None:
        """Have every connection to the application made, which takes a connector a while."""
        self._loads[way].run(self._product.port, 8, 2)
        self._loads[way].run(self._product.port, 64, 2)

    def requests(self, way: str, seconds: int) -> None:
        """64 connections that ask as fast as they are answered."""
        workers = self._product.parts()["workers"]
        before = cpu_seconds(workers)
        seen = self._loads[way].run(self._product.port, 64, seconds)
        self.per_cpu[way].append(seen.requests / (cpu_seconds(workers) - before))
        self.per_second[way].append(seen.requests / seconds)

    def alone(self, way: str, seconds: int) -> None:
        """One connection."""
        self.p50[way].append(self._loads[way].run(self._product.port, 1, seconds).p50 / 1000)

    def download(self, way: str) -> None:
        """One large body."""
        workers = self._product.parts()["workers"]
        before, begin = cpu_seconds(workers), time.monotonic()
        address = f"https://{HOST}:{self._product.port}{self._big[way]}"
        subprocess.run(
            [*CURL, "-H", f"Cookie: __Host-ztproxy={COOKIE}", address],
            check=True,
            timeout=120,
            env={**os.environ, "OPENSSL_CONF": str(self._ground.root / "openssl.cnf")},
        )
        self.speed[way].append(SIZE / 1e6 / (time.monotonic() - begin))
        self.speed_cpu[way].append(SIZE / 1e6 / (cpu_seconds(workers) - before))

    def line(self) -> dict[str, float]:
        """Return the figures that count."""
        added = [one - other for one, other in zip(self.p50["connector"], self.p50["direct"], strict=True)]
        return {
            "ratio_direct": round(ratios(self.per_cpu["connector"], self.per_cpu["direct"]).median, 3),
            "added_p50_ms": round(median(added), 3),
            "ratio_mb": round(ratios(self.speed["connector"], self.speed["direct"]).median, 3),
        }

    def table(self) -> list[dict[str, object]]:
        """Return a row for each way."""
        return [
            {
                "way": way,
                "requests/s": round(median(self.per_second[way])),
                "requests per CPU s": round(median(self.per_cpu[way])),
                "p50 ms alone": round(median(self.p50[way]), 3),
                "MB/s": round(median(self.speed[way])),
                "MB per CPU s": round(median(self.speed_cpu[way])),
            }
            for way in WAYS
        ]


def main() -> None:
    """Measure, print a table, and the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=1, help="of one turn")
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
        contest = Contest(ground, product)
        for way in WAYS:  # warm up: connections to the application, caches, the connector's ready ones
            contest.warm_up(way)
        print(f"started and warm after {time.monotonic() - begin:.1f} s", flush=True)
        for number in range(options.rounds):
            started = time.monotonic()
            for way in turns(WAYS, number):
                contest.requests(way, options.seconds)
                contest.alone(way, options.seconds)
                contest.download(way)
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
