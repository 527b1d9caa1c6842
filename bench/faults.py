"""Faults at random, for as long as wanted: python -m bench.faults MINUTES [--seed N]

Two nodes of two workers share one Redis. In each round some people and programs are served, on requests and
on WebSockets; then trust in each of them ends by a cause drawn at random while processes are stopped and
killed and networks parted at random. `bench.oracle` knows by when everything has to be over. After the round
all is well again: whoever is not concerned is served everywhere, and all workers and the store hold the same.

What is drawn follows from the seed; what happens when depends on the machine, too.
"""

import argparse
import asyncio
import http.client
import os
import random  # noqa: TID251 - seeded: a run that fails can be repeated
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from urllib.parse import quote

import aiohttp
import uvloop

from bench.callers import now
from bench.causes import CAUSES, Cause, NotDone, Stage, a_person, session_to
from bench.nodes import Estate, Node
from bench.oracle import BOUND, LIMIT, RECHECKED, UNUSED, Guest, Oracle
from bench.outside import Outside
from ztproxy.cli.admin import Refused
from ztproxy.net.clock import SystemClock
from ztproxy.service.state import StateDirectory
from ztproxy.service.storage import open_store

GUESTS = 6  # whose trust ends in each round
STAYING = 2  # who stay through all rounds
SPAN = 4.0  # seconds in which causes and faults begin
LONGEST = 6.0  # seconds of a fault
LIVES = 6_000  # ms of sessions that run out by themselves
IDLES = 3_000  # ms without a question after which a session is over
BACK = 90.0  # seconds in which all is well again, on a machine that is busy

FRESH = frozenset({"group removed", "grant withdrawn"})  # the provider is asked about them all the time
NOT_DONE = (NotDone, Refused, OSError, TimeoutError, aiohttp.ClientError, http.client.HTTPException)


class Broken(Exception):
    """Something is not as it has to be."""


# ------------------------------------------------------------------ faults


Fault = Callable[["Storm", float], Awaitable[None]]


def _to_all(pids: list[int], how: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, how)


async def _parts(node: Node, what: str) -> list[int]:
    with suppress(OSError, LookupError):
        return await asyncio.to_thread(node.parts, what)
    return []


async def _stopped(storm: "Storm", seconds: float, number: int, what: str) -> None:
    """Some process stands still."""
    pids = (await _parts(storm.estate.nodes[number], what))[:1]
    storm.oracle.resumed[number] = float("inf")
    _to_all(pids, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        _to_all(pids, signal.SIGCONT)
        storm.oracle.resumed[number] = now()


async def _killed(storm: "Storm", _: float, number: int, what: str) -> None:
    """Some process dies; the supervisor starts another."""
    _to_all((await _parts(storm.estate.nodes[number], what))[:1], signal.SIGKILL)


async def _node_dead(storm: "Storm", seconds: float, number: int) -> None:
    node = storm.estate.nodes[number]
    await asyncio.to_thread(node.end, signal.SIGKILL)
    try:
        await asyncio.sleep(seconds)
    finally:
        await asyncio.to_thread(node.start)


async def _wire(storm: "Storm", seconds: float, number: int, how: str) -> None:
    wire = storm.estate.wires[number]
    await asyncio.to_thread(getattr(wire, how))
    try:
        await asyncio.sleep(seconds)
    finally:
        await asyncio.to_thread(wire.heal)


async def _redis_stopped(storm: "Storm", seconds: float) -> None:
    assert storm.estate.redis is not None
    storm.estate.redis.pause()
    try:
        await asyncio.sleep(seconds)
    finally:
        storm.estate.redis.resume()


async def _redis_dead(storm: "Storm", seconds: float) -> None:
    assert storm.estate.redis is not None
    await asyncio.to_thread(storm.estate.redis.end, signal.SIGKILL)
    try:
        await asyncio.sleep(seconds)
    finally:
        await asyncio.to_thread(storm.estate.redis.start)


async def _provider_gone(storm: "Storm", seconds: float) -> None:
    await storm.stage.outside.stop()
    try:
        await asyncio.sleep(seconds)
    finally:
        await storm.stage.outside.start()


def _of_node(number: int) -> dict[str, Fault]:
    return {
        f"{what} {number} {word}": partial(fault, number=number, what=what)
        for what in ("control", "worker")
        for word, fault in (("stopped", _stopped), ("killed", _killed))
    } | {f"node {number} killed": partial(_node_dead, number=number)}


def _of_wire(number: int) -> dict[str, Fault]:
    return {f"wire {number} {how}": partial(_wire, number=number, how=how) for how in ("hold", "sever")}


#: What can fail, and how: of each only one thing at a time.
FAULTS: list[dict[str, Fault]] = [
    {"redis stopped": _redis_stopped, "redis killed": _redis_dead},
    _of_wire(0), _of_wire(1), _of_node(0), _of_node(1),
    {"provider gone": _provider_gone},
]  # fmt: skip


# ------------------------------------------------------------------ the storm


class Storm:
    """Rounds of faults and causes. What went wrong is in `oracle.broken`."""

    def __init__(self, estate: Estate, stage: Stage, seed: int) -> None:
        self.estate, self.stage = estate, stage
        self.oracle = Oracle(len(estate.nodes))
        self._chance = random.Random(seed)
        self._staying: list[Guest] = []
        self._cut: list[str] = []  # sessions whose end was acknowledged to an administrator
        self.rounds = self.faults = self.causes = 0

    async def run(self, until: float) -> None:
        """Go on until then, or until something is wrong. Raises Broken."""
        self._staying = [Guest("stays", await a_person(self.stage), stays=True) for _ in range(STAYING)]
        async with self.oracle.watching(self._staying):
            while now() < until:
                await self._round()
                if self.oracle.broken:
                    raise Broken("; ".join(self.oracle.broken[:5]))
            await self._recorded()

    async def _round(self) -> None:
        self.rounds += 1
        names, gusts = self._draw_faults()
        print(f"round {self.rounds}: {', '.join(names)}", flush=True)
        guests = [await self._guest(cause) for cause in self._draw_causes(names)]
        async with self.oracle.watching(guests):
            await self._until("everybody is served", partial(self._served, [*self._staying, *guests]))
            causes = [self._end(guest, self._chance.uniform(0, SPAN)) for guest in guests]
            await asyncio.gather(*gusts, *causes)
            healed = now()
            await self._until("nodes are ready", self._ready)
            await self._until("those who stay are served", partial(self._served, self._staying))
            for guest in guests:
                await self._settle(guest)
            await asyncio.sleep(max(0.0, max(guest.until for guest in guests) + 1.5 - now()))
            await self._until("streams are over", partial(self._over, guests))
            await self._until("all hold the same", self._alike)
        await self._restore(guests)
        done = ", ".join(f"{guest.name} {guest.how}" for guest in guests)
        print(f"  {done}; all well {now() - healed:.1f} s after the last fault", flush=True)

    def _draw_faults(self) -> tuple[list[str], list[Awaitable[None]]]:
        gusts, names = [], []
        for kinds in self._chance.sample(FAULTS, self._chance.randint(1, 3)):
            name = self._chance.choice(sorted(kinds))
            at, seconds = self._chance.uniform(0, SPAN / 2), self._chance.uniform(0.2, LONGEST)
            names.append(f"{name} ({at:.1f} s, for {seconds:.1f} s)")
            gusts.append(self._gust(kinds[name], at, seconds))
        self.faults += len(gusts)
        return names, gusts

    async def _gust(self, fault: Fault, at: float, seconds: float) -> None:
        await asyncio.sleep(at)
        await fault(self, seconds)

    # ------------------------------------------------------------------ guests

    def _draw_causes(self, faults: list[str]) -> list[Cause]:
        """No cause twice in a round: policies are edited for one guest at a time."""
        gone = any("provider" in name for name in faults)
        wanted = [cause for cause in CAUSES if not (gone and cause.name == "token-claims-change")]
        return self._chance.sample(wanted, GUESTS)

    async def _guest(self, cause: Cause) -> Guest:
        self.stage = replace(self.stage, turn=self.stage.turn + 1)
        if cause.name == "session expired":
            began = now()
            victim = await a_person(self.stage, lifetime=LIVES)
            return Guest(cause.name, victim, until=began + LIVES / 1000 + 0.5, how="by itself")
        if cause.name == "session idle":
            return Guest(cause.name, await a_person(self.stage, idle=IDLES), how="by itself")
        return Guest(cause.name, await cause.make(self.stage), cause=cause, stage=self.stage)

    async def _end(self, guest: Guest, at: float) -> None:
        """Bring the cause about, at one node, whatever is the matter with it."""
        await asyncio.sleep(at)
        if guest.cause is not None:
            await self._fire(guest, guest.cause)
        elif guest.name == "session idle":
            await self._leave_alone(guest)

    async def _leave_alone(self, guest: Guest) -> None:
        """Ask nothing any more. What was sent to a process that stands still is a use when it is read."""
        self.causes += 1
        guest.quiet = now()
        while guest.asking:
            await asyncio.sleep(0.01)
        guest.until = now() + IDLES / 1000 + UNUSED

    async def _fire(self, guest: Guest, cause: Cause) -> None:
        self.causes += 1
        guest.how = "in doubt"
        began = now()
        try:
            async with asyncio.timeout(20):
                await cause.fire(guest.stage, guest.victim)
        except NOT_DONE as error:
            guest.why = f"{type(error).__name__}: {error}"[:200]
            if cause.name not in FRESH:
                return
        guest.how = "acknowledged"
        if cause.name in FRESH:
            guest.until = began + RECHECKED
        else:  # a reload is reported when everything has been decided again
            guest.until = now() + (0.0 if cause.name == "policy reloaded" else BOUND)
        if cause.name == "session cut" and guest.victim.person is not None:
            self._cut.append(guest.victim.person.session)

    async def _settle(self, guest: Guest) -> None:
        """Of a cause that was not acknowledged nobody knows whether it holds; now it has to be possible."""
        if guest.how != "in doubt" or guest.cause is None:
            return
        await asyncio.sleep(LIMIT)
        if not any(
            [await self.oracle.asked(guest, number) == 200 for number in range(len(guest.victim.doors))]
        ):
            guest.how, guest.until = "done all the same", now()
            return
        deadline = now() + BACK
        while guest.how != "acknowledged":  # a provider that was gone is left alone for some seconds
            if now() > deadline:
                raise Broken(f"{guest.name} can not be brought about any more: {guest.why}")
            await self._fire(guest, guest.cause)
            await asyncio.sleep(1.0)
        guest.how = "acknowledged later"

    async def _restore(self, guests: list[Guest]) -> None:
        """Take all locks away, by either node, and undo edits, for those who come next."""
        for guest in guests:
            if guest.cause is not None and guest.cause.after is not None:
                await guest.cause.after(guest.stage, guest.victim)
        for lock in (await self.estate.nodes[0].ask("GET", "/v1/locks"))["locks"]:
            path = f"/v1/locks/{quote(lock['id'], safe='')}/remove"
            await self._chance.choice(self.estate.nodes).ask("POST", path)

    # ------------------------------------------------------------------ when all is well

    async def _until(self, what: str, fact: Callable[[], Awaitable[str]]) -> None:
        deadline = now() + BACK
        while why := await fact():
            if now() > deadline:
                raise Broken(f"not in {BACK:.0f} s: {what}: {why}")
            await asyncio.sleep(0.2)

    async def _served(self, guests: list[Guest]) -> str:
        for guest in guests:
            for number in range(len(self.estate.nodes)):
                if guest.until < now() + 1:
                    continue
                if (status := await self.oracle.asked(guest, number)) != 200:
                    return f"{guest.name} gets {status} from node {number}"
        return ""

    async def _ready(self) -> str:
        waiting = [node for node in self.estate.nodes if not await asyncio.to_thread(node.ready)]
        return f"{len(waiting)} are not" if waiting else ""

    async def _over(self, guests: list[Guest]) -> str:
        return ", ".join(guest.name for guest in guests if guest.streams)

    async def _alike(self) -> str:
        try:
            states = [await node.ask("GET", "/v1/node/state") for node in self.estate.nodes]
        except NOT_DONE as error:
            return str(error)
        held = [one for state in states for one in (state["store"], *state["workers"]) if one is not None]
        if len(held) == 3 * len(states) and len({one["digest"] for one in held}) == 1:
            return ""
        return str([(one["of"], one["version"], one["records"], one["digest"][:8]) for one in held])

    async def _recorded(self) -> None:
        """The log of every node holds together, and has each end that was acknowledged."""
        missing = set(self._cut)
        await asyncio.sleep(2)
        for node in self.estate.nodes:
            verified = await asyncio.to_thread(node.cli, "recordings", "verify")
            if verified.returncode:
                raise Broken(f"the log does not verify: {verified.stdout}{verified.stderr}")
            for file in (node.folder / "state/recordings").glob("log-*.jsonl"):
                lines = [line for line in file.read_text().splitlines() if '"event":"ended"' in line]
                missing = {one for one in missing if not any(one in line for line in lines)}
        if missing:
            raise Broken(f"ends that were acknowledged are not recorded: {missing}")


@asynccontextmanager
async def staged(estate: Estate) -> AsyncIterator[Stage]:
    """What causes are brought about with; the store is reached by no wire that fails."""
    settings = await asyncio.to_thread(estate.settings)
    records = await open_store(settings, StateDirectory(estate.nodes[0].folder / "state"), SystemClock())
    outside = Outside(estate.outside)
    await outside.start()
    try:
        async with session_to(estate) as http:
            yield Stage(estate, records, outside, http)
    finally:
        await outside.stop()
        await records.close()


async def weather(estate: Estate, seed: int, seconds: float) -> Storm:
    """Run rounds for so long. Raises Broken."""
    async with staged(estate) as stage:
        storm = Storm(estate, stage, seed)
        await storm.run(now() + seconds)
        return storm


def main() -> None:
    """Run, and say how to run it again where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # whatever was started ends with us
    with Estate(wired=True, feed_limit=f"{LIMIT:.0f}s") as estate:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                storm = runner.run(weather(estate, options.seed, options.minutes * 60))
        except Broken as broken:
            print(f"BROKEN (seed {options.seed}): {broken}", file=sys.stderr)
            print("\n".join(node.said() for node in estate.nodes), file=sys.stderr)
            sys.exit(1)
    print(f"{storm.rounds} rounds, {storm.faults} faults, {storm.causes} causes: {storm.oracle.summary()}")


if __name__ == "__main__":
    main()
