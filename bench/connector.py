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
from bench.ground import COOKIE, HOST, PATH, Ground, python
from bench.load import Load, app_paths
from bench.machine import LOAD_CORE, cpu_seconds
from bench.pairs import ratios, turns
from bench.products.ztproxy import Variant, Ztproxy

CONNECT = "connect.localhost"
ROUTES = 50  # the second half of them behind the connector
SIZE = 512 << 20
BUDGET = 49  # seconds in all
WAYS = ("direct", "connector")
CURL = ["curl", "--silent", "--show-error", "--fail", "--insecure", "--http1.1", "--output", "/dev/null"]


class Connected(Ztproxy):
    """A product with a connector."""

    def _configure(self) -> None:
        super()._configure()
        file = self.folder / "ztproxy.yaml"
        routes = re.split(r"(?=\n- name: )", file.read_text())
        for index, text in enumerate(routes):
            found = re.match(r"\n- name: app(\d+)\n", text)
            if found and int(found[1]) >= ROUTES // 2:
                routes[index] = f"{text.rstrip()}\n  connector: bench\n"
        section = f'\nconnectors:\n  host: {CONNECT}\n  proxies: ["127.0.0.1:{self.port}"]\n'
        file.write_text("".join(routes) + section)

    def connect(self, name: str = "bench") -> int:
        """Enrol a connector and start it; return its pid once it is ready."""
        folder = self.ground.folder(f"connector-{name}")
        config = folder / "connector.yaml"
        config.write_text(
            f"state: {folder / 'state'}\nlog: {{level: warning}}\n"
            f'allow: ["http://127.0.0.1:{self.ground.app}"]\n'
        )
        code = self._ztproxy("connectors", "add", name, "--config", str(self.folder / "ztproxy.yaml")).strip()
        portal = f"https://portal.localhost:{self.port}"
        self._ztproxy(
            *("connector", "enrol", "--portal", portal, "--ca", str(self.ground.cert)),
            *("--config", str(config)),
            ZTPROXY_ENROLMENT_CODE=code,
        )
        command = [python(), "-m", "ztproxy", "connector", "run", "--config", config]
        pid = self.ground.spawn(f"connector-{name}", command, core=LOAD_CORE)
        self.ready(1)
        return pid

    def ready(self, count: int) -> None:
        """Wait until so many connections of connectors are ready."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self.number("ztproxy_connector_ready") >= count:
                return
            time.sleep(0.1)
        raise TimeoutError(f"connectors do not get ready: {self.ground.said('connector-bench')}")

    def number(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        lines = [line for line in self.numbers().splitlines() if line.startswith(f"{name}{{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def _ztproxy(self, *words: str, **env: str) -> str:
        done = subprocess.run(
            [python(), "-m", "ztproxy", *words],
            capture_output=True,
            text=True,
            cwd=self.ground.root,
            env={**os.environ, "PYTHONPATH": PATH, **env},
            timeout=60,
        )
        if done.returncode:
            raise RuntimeError(f"ztproxy {words[0]} {words[1]}: {done.stderr[-1000:]}")
        return done.stdout


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
        return {
            "ratio_direct": round(ratios(self.per_cpu["connector"], self.per_cpu["direct"]).median, 3),
            "added_p50_ms": round(median(self.p50["connector"]) - median(self.p50["direct"]), 3),
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
    begin = time.monotonic()
    with Ground() as ground:
        with (ground.root / "big").open("wb") as file:
            file.truncate(SIZE)
        (ground.root / "big").chmod(0o644)
        product = Connected(ground, Variant(routes=ROUTES, control_apart=True))
        product.connect()
        contest = Contest(ground, product)
        for way in WAYS:  # warm up: connections to the application, caches, the connector's ready ones
            contest._loads[way].run(product.port, 64, 1)
        print(f"started and warm after {time.monotonic() - begin:.1f} s", flush=True)
        for number in range(options.rounds):
            started = time.monotonic()
            for way in turns(WAYS, number):
                contest.requests(way, options.seconds)
                contest.alone(way, options.seconds)
                contest.download(way)
            another = time.monotonic() - started + 2
            if number and time.monotonic() - begin + another > BUDGET:
                break  # a slow machine has fewer rounds, not a longer run
        print(report.render("connector", {"64 connections, one, and a download": contest.table()}))
    print(f"{time.monotonic() - begin:.1f} s in all")
    sys.stdout.flush()
    print(json.dumps(contest.line()))


def _moved(path: str, by: int) -> str:
    return re.sub(r"^/app(\d+)", lambda found: f"/app{int(found[1]) + by}", path)


if __name__ == "__main__":
    main()
