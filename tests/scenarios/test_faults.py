"""Kill -9 any one process of the proxy under load: it comes back, nobody is signed out, no record is lost."""

import asyncio
import itertools
import json
import os
import signal
import ssl
import time
from dataclasses import dataclass, field

import aiohttp
import pytest

from ztproxy.net.names import Resolver

CLIENTS = 6


@dataclass
class Load:
    """Several clients that ask all the time; remembers what was answered in full."""

    url: str
    ca: str
    cookie: str
    finished: set[str] = field(default_factory=set)
    refused: list[tuple[str, int]] = field(default_factory=list)
    broken: int = 0
    _number = itertools.count()

    async def run(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._client(stop))

    async def _client(self, stop: asyncio.Event) -> None:
        tls = ssl.create_default_context(cafile=self.ca)
        connector = aiohttp.TCPConnector(ssl=tls, resolver=Resolver(), limit=1)
        headers = {"Cookie": self.cookie, "Accept": "application/json"}
        timeout = aiohttp.ClientTimeout(total=15)
        async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
            while not stop.is_set():
                await self._ask(session, f"/{next(self._number)}-{os.getpid()}")

    async def _ask(self, session: aiohttp.ClientSession, path: str) -> None:
        try:
            async with session.get(self.url.rstrip("/") + path) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            self.broken += 1
            await asyncio.sleep(0.05)
            return
        if answer.status == 404:  # the desk has no such page: it was asked, and its answer arrived
            self.finished.add(path)
        else:
            self.refused.append((path, answer.status))
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("victim", ["control", "worker"])
async def test_killed_under_load(demo, sign_in, processes, victim):
    async with sign_in("carol") as carol:
        await carol.visit("support")
        cookie = await carol.cookie("support")
        load = Load(demo.url("support", ""), demo.facts["ca"], cookie)
        stop = asyncio.Event()
        running = asyncio.create_task(load.run(stop))
        await _progress(load, 50)
        pid = processes()[victim][0]
        os.kill(pid, signal.SIGKILL)
        await _until(lambda: len(processes()[victim]) == (2 if victim == "worker" else 1), "not restarted")
        assert pid not in processes()[victim]
        await _progress(load, 200)  # it serves again, and the session is still one
        stop.set()
        await running
        answer = await asyncio.to_thread(demo.curl, "--header", f"Cookie: {cookie}", demo.url("support"))
        assert answer.status == 200
        assert load.broken <= 4 * CLIENTS
        assert {status for _, status in load.refused} <= {502, 503}, load.refused[:5]
        await _until(
            lambda: not load.finished - recorded(demo), "records of finished requests are missing", 20
        )
    await asyncio.to_thread(demo.cli, "recordings", "verify", "--config", demo.facts["config"])


async def test_a_supervisor_that_is_killed_takes_its_children_along(demo, sign_in, processes):
    """The demo plays init here: it starts the supervisor anew, and the session is still there."""
    async with sign_in("carol") as carol:
        await carol.visit("support")
        cookie = await carol.cookie("support")
        before = processes()
        os.kill(before["supervisor"][0], signal.SIGKILL)
        old = {pid for pids in before.values() for pid in pids}
        await _until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in old), "children live on", 20)

        def served() -> bool:
            return demo.curl("--header", f"Cookie: {cookie}", demo.url("support")).status == 200

        await _until(served, "not served again", 30)


async def _progress(load: Load, more: int) -> None:
    target = len(load.finished) + more
    await _until(lambda: len(load.finished) >= target, f"no progress: {load.broken}, {load.refused[-3:]}", 30)


async def _until(fact, problem: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(fact):
        assert time.monotonic() < deadline, problem
        await asyncio.sleep(0.1)


def recorded(demo) -> set[str]:
    """Paths of the requests whose decision and outcome are both in the sealed log."""
    decided, over = {}, set()
    for file in sorted((demo.root / "state" / "recordings").glob("*.jsonl")):
        whole, _, _ = file.read_bytes().rpartition(b"\n")  # behind it a line may be half written
        for line in whole.splitlines():
            record = json.loads(line).get("record", {})
            if record.get("kind") == "decision":
                decided[record["id"]] = record.get("path", "")
            elif record.get("kind") == "outcome":
                over.add(record["id"])
    return {decided[one] for one in over if one in decided}
