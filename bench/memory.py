"""Memory of an idle connection: TLS, one request answered, kept alive. Resident memory before and after."""

import json
import time
from statistics import median

from bench.ground import HOST, Ground
from bench.handshakes import client
from bench.machine import memory_kib
from bench.pairs import turns
from bench.products import Running, caddy, nginx
from bench.products.ztproxy import Variant, Ztproxy

CONNECTIONS = 2000
WARM = 200


def measure(ground: Ground, *, rounds: int, seconds: int) -> dict[str, object]:
    """Return one table."""
    product = Ztproxy(ground, Variant("ztproxy"))
    runners = [
        Running("ztproxy", product.port, {"workers": lambda: product.parts()["workers"]}),
        nginx.plain(ground),
        caddy.plain(ground),
    ]
    seen: dict[str, list[float]] = {runner.name: [] for runner in runners}
    for runner in runners:
        _hold(ground, runner, WARM)
    for number in range(rounds):
        for runner in turns(runners, number):
            seen[runner.name].append(_hold(ground, runner, CONNECTIONS))
    rows = [
        {"proxy": name, "KiB each": round(grown[0], 1), "again": [round(one, 1) for one in grown[1:]]}
        for name, grown in seen.items()
    ]
    note = f"{CONNECTIONS} connections; the first time, and what is added when as many come again later."
    return {"idle": rows, "KiB ztproxy": round(median(seen["ztproxy"][:1]), 1), "notes": [note]}


def _hold(ground: Ground, runner: Running, count: int) -> float:
    """Return KiB of growth per connection."""
    pids = [pid for found in runner.pids().values() for pid in found]
    before = memory_kib(pids)
    holding = client(ground, "idle", "full", HOST, runner.port, count, 0)
    assert holding.stdout is not None and holding.stdin is not None
    line = holding.stdout.readline()
    try:
        if json.loads(line or "{}").get("requests") != count:
            raise RuntimeError(f"{runner.name}: {line}{holding.stdout.read()}")
        time.sleep(1.5)
        return (memory_kib(pids) - before) / count
    finally:
        holding.stdin.close()
        holding.wait(30)
        time.sleep(0.5)
