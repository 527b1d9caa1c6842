"""1 GiB down and up through one connection: how fast, for how much CPU, and what it keeps in memory."""

import os
import subprocess
import time
from statistics import median

from bench import upstream
from bench.ground import COOKIE, HOST, Ground
from bench.machine import cpu_seconds, forget_peak, memory_kib
from bench.pairs import ratios, turns
from bench.products import Running, caddy, nginx
from bench.products.ztproxy import Variant, Ztproxy
from bench.websockets import Standing

SIZE = 1 << 30
CURL = ["curl", "--silent", "--show-error", "--insecure", "--http1.1", "--output", "/dev/null"]


def measure(ground: Ground, *, rounds: int, seconds: int) -> dict[str, object]:
    """Return a table for each direction."""
    with (ground.root / "big").open("wb") as file:
        file.truncate(SIZE)
    (ground.root / "big").chmod(0o644)
    sink = upstream.start(ground)
    apart = Standing(ground, sink)
    result: dict[str, object] = {}
    for direction, place in (("down", ground), ("up", apart)):
        runners = [Ztproxy(place, Variant("ztproxy")).running(), nginx.plain(place), caddy.plain(place)]
        result[direction] = _table(ground, direction, runners, rounds)
    result["notes"] = [
        f"{SIZE >> 20} MiB by curl; RSS growth: from before the first stream to the peak of all."
    ]
    return result


def _table(ground: Ground, direction: str, runners: list[Running], rounds: int) -> list[dict[str, object]]:
    seen: dict[str, list[tuple[float, float, float]]] = {runner.name: [] for runner in runners}
    cold = {runner.name: memory_kib(_pids(runner)) for runner in runners}
    peaks = {runner.name: _stream(ground, direction, runner)[2] for runner in runners}  # warms up, too
    for number in range(rounds):
        for runner in turns(runners, number):
            seen[runner.name].append(_stream(ground, direction, runner))
    rows: list[dict[str, object]] = []
    ours = [speed for speed, _, _ in seen["ztproxy"]]
    for name, done in seen.items():
        speeds = [speed for speed, _, _ in done]
        row: dict[str, object] = {
            "proxy": name,
            "MB/s": round(median(speeds)),
            "range": [round(min(speeds)), round(max(speeds))],
            "CPU s": round(median(cpu for _, cpu, _ in done), 2),
            "RSS growth MiB": round(
                (max(peaks[name], *(peak for _, _, peak in done)) - cold[name]) / 1024, 1
            ),
        }
        if name != "ztproxy":
            against = ratios(ours, speeds).rounded(2)
            row["ratio"], row["ratio range"] = against.median, [against.low, against.high]
        rows.append(row)
    return rows


def _stream(ground: Ground, direction: str, runner: Running) -> tuple[float, float, float]:
    """Return MB/s, CPU seconds and the peak of resident memory in KiB."""
    pids = _pids(runner)
    forget_peak(pids)
    cpu, begin = cpu_seconds(pids), time.monotonic()
    path = "/big" if direction == "down" else "/sink"
    more = [] if direction == "down" else ["--upload-file", ground.root / "big", "-H", "Expect:"]
    address = f"https://{HOST}:{runner.port}/app0{path}"
    subprocess.run(
        [*CURL, "--fail", "-H", f"Cookie: __Host-ztproxy={COOKIE}", *more, address],
        check=True,
        env={**os.environ, "OPENSSL_CONF": str(ground.root / "openssl.cnf")},
        timeout=300,
    )
    took = time.monotonic() - begin
    peak, used = memory_kib(pids, "VmHWM"), cpu_seconds(pids) - cpu
    runner.settle()
    return SIZE / 1e6 / took, used, peak


def _pids(runner: Running) -> list[int]:
    return [pid for found in runner.pids().values() for pid in found]
