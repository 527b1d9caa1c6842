"""What many sessions cost a node: python -m bench.feed [--sessions 100000]

A node of two workers with nobody signed in, then with so many sessions, on SQLite and on Redis: memory of a
worker, time until a killed worker or control process is back, time from a change to a cut stream. Writes
`bench/feed.json` and `bench/feed.md`.
"""

import argparse
import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from bench import machine, report
from bench.causes import CAUSES, Stage, session_to
from bench.cut import at, trial
from bench.nodes import APP, Estate, eventually
from bench.outside import Outside
from bench.products.ztproxy import cookies, people, put_all
from ztproxy.net.clock import SystemClock, entropy
from ztproxy.service.state import StateDirectory
from ztproxy.service.storage import open_store, redis_options
from ztproxy.store.redis import PUT, RedisStore

AT_ONCE = 500  # records in one go
TRIALS = 20


def measure(sessions: int, *, redis: bool, devices: bool) -> dict[str, object]:
    """Return a line of the table."""
    before = _filling(sessions, redis=redis, devices=devices) if sessions else lambda _: None
    with Estate(nodes=1, redis=redis, before=before, compiled=True) as estate:
        node = estate.nodes[0]
        eventually(lambda: node.numbers("ztproxy_sessions") == [sessions] * 2, 60)
        time.sleep(3.0)
        workers = node.parts("worker")
        line: dict[str, object] = {
            "store": "Redis" if redis else "SQLite",
            "sessions": sessions,
            "with devices": "yes" if devices else "no",
            "worker MiB": round(machine.memory_kib(workers) / len(workers) / 1024, 1),
            "control MiB": round(machine.memory_kib(node.parts("control")) / 1024, 1),
            "worker back s": _back(estate, "worker"),
            "control back s": _back(estate, "control"),
        }
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            times = runner.run(_cuts(estate))
    return line | {"cut p50 ms": at(times, 0.5), "cut max ms": at(times, 1)}


def _back(estate: Estate, part: str) -> float:
    """Return seconds from a kill until all workers are fed again; the middle of three."""
    node, times = estate.nodes[0], []
    for _ in range(3):
        victim = node.parts(part)[0]
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: not node.ready(), 10, 0.005)  # noticed
        eventually(node.ready, 120, 0.01)
        times.append(time.monotonic() - began)
        time.sleep(2.5)
    return round(sorted(times)[1], 2)


async def _cuts(estate: Estate) -> list[float]:
    """Return ms from the sending of a cut to the last cut stream and first refusals."""
    outside = Outside(estate.outside)
    state = StateDirectory(estate.nodes[0].folder / "state")
    records = await open_store(estate.settings(), state, SystemClock())
    times = []
    async with session_to(estate) as http:
        stage = Stage(estate, records, outside, http)
        await trial(stage, CAUSES[0])  # warm
        times = [(await trial(stage, CAUSES[0])).over for _ in range(TRIALS)]
    await records.close()
    return times


def _filling(sessions: int, *, redis: bool, devices: bool) -> Callable[[Estate], None]:
    def fill(estate: Estate) -> None:
        rows = people(cookies(sessions), APP, devices=devices)
        if redis:
            asyncio.run(_to_redis(estate, rows))
        else:
            put_all(estate.nodes[0].folder / "state/ztproxy.db", rows)

    return fill


async def _to_redis(estate: Estate, rows: list[tuple[str, str, bytes]]) -> None:
    """Write them as the store does, many in one go: one by one they would wait for the disk each."""
    settings = estate.settings()
    assert settings.store.redis is not None
    store = await RedisStore.open(redis_options(settings, settings.store.redis), SystemClock().now)
    write = store._scripts[PUT]
    for first in range(0, len(rows), AT_ONCE):
        pipe = store._client.pipeline(transaction=False)
        for kind, key, value in rows[first : first + AT_ONCE]:
            stamp = int.from_bytes(entropy(7), "big")
            arguments = [f"{kind}\0{key}".encode(), value, "", 0, SystemClock().now(), store._keep, stamp]
            await write(keys=store._keys, args=arguments, client=pipe)
        await pipe.execute()
    await store.close()


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("bench/feed.json"))
    options = parser.parse_args()
    lines: list[dict[str, object]] = []
    empty: dict[str, object] = {}
    many = options.sessions
    for count, redis, devices in (
        (0, False, False),
        (many, False, False),
        (many, False, True),
        (many, True, False),
    ):
        line = measure(count, redis=redis, devices=devices)
        empty = empty or line
        if count:
            grown = float(str(line["worker MiB"])) - float(str(empty["worker MiB"]))
            line["bytes a session"] = round(grown * 1024 * 1024 / count)
        lines.append(line)
        print(line, flush=True)
    part: dict[str, object] = {
        "sessions": lines,
        "notes": [
            "`back`: from kill -9 until both workers are fed again, the start of Python included.",
            f"`cut`: from the sending of a cut of one session to the last stream's end, {TRIALS} trials.",
        ],
    }
    text = report.render("feed", part)
    print(text)
    result = {"machine": machine.describe(), "parts": {"feed": part}}
    options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    options.out.with_suffix(".md").write_text(f"{result['machine']}\n\n{text}")


if __name__ == "__main__":
    main()
