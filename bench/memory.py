"""Memory of an idle connection: TLS, one request answered, kept alive. Resident memory before and after."""

import json
import time

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
    before = {}
    for runner in runners:
        _hold(ground, runner, WARM)
        before[runner.name] = memory_kib(_pids(runner))
    for number in range(rounds):
        for runner in turns(runners, number):
            held = _hold(ground, runner, WARM + CONNECTIONS) - before[runner.name]
            seen[runner.name].append(round(held / CONNECTIONS, 1))
    rows = [{"proxy": name, "KiB each": held[0], "again": held[1:]} for name, held in seen.items()]
    note = f"{CONNECTIONS} connections more than {WARM}, which are no part of the figure; then as many anew."
    return {"idle": rows, "notes": [note]}


def _hold(ground: Ground, runner: Running, count: int) -> int:
    """Return KiB resident while so many connections are open."""
    holding = client(ground, "idle", "full", HOST, runner.port, count, 0)
    assert holding.stdout is not None and holding.stdin is not None
    line = holding.stdout.readline()
    try:
        if json.loads(line or "{}").get("requests") != count:
            raise RuntimeError(f"{runner.name}: {line}{holding.stdout.read()}")
        time.sleep(1.5)
        return memory_kib(_pids(runner))
    finally:
        holding.stdin.close()
        holding.wait(30)
        time.sleep(0.5)


def _pids(runner: Running) -> list[int]:
    return [pid for found in runner.pids().values() for pid in found]
