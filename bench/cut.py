"""How long until something that is over is over everywhere: python -m bench.cut [--quick]

Nodes of two workers each share one Redis; WebSockets stand and requests come all the time. For each trial
somebody signs in, opens streams and asks again and again on every node; then one node is told of something
that ends this. A trial is over with the last cut stream and the last first refusal on all connections. Times
in ms, from when the cause was sent, or happened by itself, and beside it from its acknowledgement. Of a
reload that is the moment before the policy files are written.

The last line is one JSON object.
"""

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import uvloop

from bench import machine, report
from bench.callers import Caller, Door, Stream, now, open_caller, open_stream
from bench.causes import CAUSES, QUICK, Cause, Stage, Victim, doors, session_to
from bench.nodes import Estate
from bench.outside import Outside
from bench.people import sign_in_many
from ztproxy.net.clock import SystemClock
from ztproxy.service.state import StateDirectory
from ztproxy.service.storage import open_store

BYSTANDERS = 100  # people; the standing WebSockets and the steady requests are theirs
CONNECTIONS = 40  # for steady requests
PROBES = 3  # connections of a victim to each node, besides its streams
PACE = 0.004  # seconds between two questions on one of them
PATIENCE = 60.0  # seconds for a cause to be acknowledged
LONGEST = 5.0  # seconds for a cause to hold; then the trial has failed
GRACE = 0.3  # seconds after which a session that was idle is asked whether it is over
HOLDS = 0.05  # seconds after it for which nothing may be served any more


@dataclass(frozen=True)
class Trial:
    """Times in ms."""

    cause: str
    refused: float  # from the sending to the last connection's first refusal
    cut: float  # … to the last stream's end
    acknowledged: float
    ends: tuple[str, ...]  # how the streams ended
    answered: float = 0.0  # from when whoever brings it about asks for it until they have the answer

    @property
    def over(self) -> float:
        """Return when all was over, from the sending."""
        return max(self.refused, self.cut, 0.0)

    @property
    def after(self) -> float:
        """Return when all was over, from the acknowledgement; 0 when it was before."""
        return max(0.0, self.over - self.acknowledged)


@dataclass
class Crowd:
    """Those who are not concerned: they must not notice anything."""

    streams: list[Stream] = field(default_factory=list)
    answered: Counter[int] = field(default_factory=Counter)

    def cut(self) -> list[str]:
        """Return how streams ended that should not have."""
        return [stream.how for stream in self.streams if stream.over_at]


async def stand(crowd: Crowd, places: Sequence[Door], count: int) -> None:
    """Open WebSockets, a few at a time on each node."""
    numbers = itertools.count()

    async def some() -> None:
        while (number := next(numbers)) < count:
            crowd.streams.append(await open_stream(places[number % len(places)], "websocket", "/echo"))

    await asyncio.gather(*(some() for _ in range(16)))


async def ask_steadily(crowd: Crowd, places: Sequence[Door], rate: float) -> None:
    """Ask `rate` times a second over some connections, and send a message on some WebSocket as often."""
    callers = [await open_caller(places[number % len(places)], "/steady") for number in range(CONNECTIONS)]

    async def keep(caller: Caller, delay: float) -> None:
        await asyncio.sleep(delay)
        due = now()
        while True:
            crowd.answered[await caller.status()] += 1
            due += CONNECTIONS / rate
            await asyncio.sleep(max(0.0, due - now()))

    async def talk() -> None:
        while True:
            for stream in list(crowd.streams):
                stream.say()
                await asyncio.sleep(1 / rate)
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        group.create_task(talk())
        for number, caller in enumerate(callers):
            group.create_task(keep(caller, number / rate))


class Failed(Exception):
    """A trial that did not end as it has to."""


async def trial(stage: Stage, cause: Cause) -> Trial:
    """Run one. Raises Failed."""
    victim = await cause.make(stage)
    streams, probes = await _enter(victim)
    for probe in probes:
        if (status := await probe.status()) != 200:
            raise Failed(f"{cause.name}: refused with {status} before anything happened")
    if victim.idle:
        victim = replace(victim, due=now() + victim.idle)
    over: list[float] = []
    asking = [asyncio.create_task(_first_refusal(probe, victim)) for probe in probes]
    sent = now()
    try:
        async with asyncio.timeout(PATIENCE + max(0.0, victim.due - sent)):
            await cause.fire(stage, victim)
        acknowledged = now()
        async with asyncio.timeout(LONGEST):
            over = await asyncio.gather(*asking)
            await asyncio.gather(*(stream.over for stream in streams))
    except TimeoutError:
        left = sum(not stream.over_at for stream in streams), sum(not task.done() for task in asking)
        raise Failed(f"{cause.name}: {left[0]} streams and {left[1]} callers go on") from None
    finally:
        for task in asking:
            task.cancel()
        for one in (*streams, *probes):
            one.leave()
    try:
        await _demand_refusal(cause, victim)
    finally:
        if cause.after is not None:
            await cause.after(stage, victim)
    answered = (acknowledged - sent) * 1000
    if victim.due:
        sent, answered = victim.due, 0.0
        acknowledged = sent
    return Trial(
        cause.name,
        refused=(max(over) - sent) * 1000,
        cut=(max(stream.over_at for stream in streams) - sent) * 1000,
        acknowledged=(acknowledged - sent) * 1000,
        ends=tuple(stream.how for stream in streams),
        answered=answered,
    )


async def _enter(victim: Victim) -> tuple[list[Stream], list[Caller]]:
    """Open two WebSockets and an event stream on every node, and connections to ask on."""
    opening = [
        open_stream(door, kind, victim.prefix + path)
        for door in victim.doors
        for kind, path in (("websocket", "echo"), ("websocket", "echo"), ("events", "events"))
    ]
    asking = [open_caller(door, victim.prefix + "asked") for door in victim.doors for _ in range(PROBES)]
    return list(await asyncio.gather(*opening)), list(await asyncio.gather(*asking))


async def _first_refusal(probe: Caller, victim: Victim) -> float:
    """Return when it was. Who has to be idle is asked once, after a time in which that counts."""
    if victim.idle:
        await asyncio.sleep(victim.due + GRACE - now())
        return victim.due + (LONGEST if await probe.status() == 200 else 0.0)
    while await probe.status() == 200:
        await asyncio.sleep(PACE)
    return now()


async def _demand_refusal(cause: Cause, victim: Victim) -> None:
    """Whoever comes anew, to any worker, is refused as well, and stays so."""
    end = now() + HOLDS
    while now() < end:
        for door in victim.doors:
            try:
                caller = await open_caller(door, victim.prefix + "anew")
            except OSError:
                continue
            status = await caller.status()
            caller.leave()
            if status == 200:
                raise Failed(f"{cause.name}: served again afterwards")
        await asyncio.sleep(PACE)


# ------------------------------------------------------------------ the run


@dataclass(frozen=True)
class Plan:
    """What is run."""

    causes: Sequence[Cause]
    trials: int  # of each cause
    websockets: int
    rate: float
    seconds: float  # after which no further round is begun


@dataclass
class Seen:
    """What came of it."""

    trials: list[Trial] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    crowd: Crowd = field(default_factory=Crowd)
    disturbed: list[str] = field(default_factory=list)  # how streams ended of those not concerned


async def run(estate: Estate, plan: Plan, begin: float) -> Seen:
    """Let the crowd in, then run trials, a round of all causes after the other."""
    seen = Seen()
    node = estate.nodes[0]
    records = await open_store(estate.settings(), StateDirectory(node.folder / "state"), SystemClock())
    outside = Outside(estate.outside)
    await outside.start()
    people = await sign_in_many(records, BYSTANDERS)
    places = [door for person in people for door in doors(estate, person.cookie)]
    async with session_to(estate) as http, asyncio.TaskGroup() as group:
        await stand(seen.crowd, places, plan.websockets)
        steady = group.create_task(ask_steadily(seen.crowd, places, plan.rate))
        await asyncio.sleep(1.0)
        print(f"{plan.websockets} WebSockets stand after {time.monotonic() - begin:.1f} s", flush=True)
        stage = Stage(estate, records, outside, http)
        for number in range(plan.trials):
            if time.monotonic() - begin > plan.seconds:
                break
            for cause in plan.causes:
                stage = replace(stage, turn=stage.turn + 1)
                await _one(seen, stage, cause)
            print(f"round {number + 1} after {time.monotonic() - begin:.1f} s", flush=True)
        seen.disturbed = seen.crowd.cut()
        steady.cancel()
    for stream in seen.crowd.streams:
        stream.leave()
    await outside.stop()
    await records.close()
    return seen


async def _one(seen: Seen, stage: Stage, cause: Cause) -> None:
    try:
        seen.trials.append(await trial(stage, cause))
    except Exception as error:  # noqa: BLE001 - the other trials are run all the same
        seen.failed.append(f"{cause.name}: {type(error).__name__}: {error}"[:500])
        print(seen.failed[-1], file=sys.stderr, flush=True)


# ------------------------------------------------------------------ what is said


def at(times: Sequence[float], share: float) -> float:
    """Return the value below which that share of them is."""
    ordered = sorted(times)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1)


def table(trials: Sequence[Trial]) -> list[dict[str, object]]:
    """Return a line for each cause, and one for all."""
    named: dict[str, list[Trial]] = {}
    for one in trials:
        named.setdefault(one.cause, []).append(one)
    return [_line(name, group) for name, group in [*named.items(), ("all", list(trials))]]


def _line(name: str, trials: Sequence[Trial]) -> dict[str, object]:
    over, after = [one.over for one in trials], [one.after for one in trials]
    return {
        "cause": name,
        "trials": len(trials),
        "p50": at(over, 0.5),
        "p99": at(over, 0.99),
        "max": at(over, 1),
        "refused p50": at([one.refused for one in trials], 0.5),
        "cut p50": at([one.cut for one in trials], 0.5),
        "ack p50": at([one.answered for one in trials], 0.5),
        "ack max": at([one.answered for one in trials], 1),
        "after ack p50": at(after, 0.5),
        "after ack max": at(after, 1),
    }


def summary(trials: Sequence[Trial]) -> dict[str, object]:
    """Return what the last line says."""
    over = [one.over for one in trials]
    lines = table(trials)[:-1]
    return {
        "p50_ms": at(over, 0.5),
        "p99_ms": at(over, 0.99),
        "trials": len(trials),
        "by_cause": {
            str(line["cause"]): {"p50_ms": line["p50"], "p99_ms": line["p99"], "trials": line["trials"]}
            for line in lines
        },
    }


def main() -> None:
    """Measure, print the table, and the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer WebSockets and causes, under 50 s in all")
    parser.add_argument("--only", default="", help="names of causes, separated by commas")
    parser.add_argument("--trials", type=int, default=0, help="of each cause")
    parser.add_argument("--websockets", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("bench/cut.json"))
    options = parser.parse_args()
    begin = time.monotonic()
    wanted = options.only.split(",") if options.only else QUICK if options.quick else None
    plan = Plan(
        causes=[cause for cause in CAUSES if wanted is None or cause.name in wanted],
        trials=options.trials or (4 if options.quick else 8),
        websockets=options.websockets or (1000 if options.quick else 2000),
        rate=200.0,
        seconds=30.0 if options.quick else 1800.0,
    )
    with Estate(nodes=options.nodes, compiled=not options.quick) as estate:
        print(f"{options.nodes} nodes are up after {time.monotonic() - begin:.1f} s", flush=True)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            seen = runner.run(run(estate, plan, begin))
    _tell(seen, plan, options.out, begin)


def _tell(seen: Seen, plan: Plan, out: Path, begin: float) -> None:
    crowd = seen.crowd
    disturbed = seen.disturbed
    ends = Counter(end for one in seen.trials for end in one.ends)
    part = {
        "causes": table(seen.trials) if seen.trials else [],
        "notes": [
            f"{plan.websockets} WebSockets stood and {plan.rate:.0f} requests/s came meanwhile.",
            f"Of those not concerned {len(disturbed)} were cut and "
            f"{sum(count for status, count in crowd.answered.items() if status != 200)} of "
            f"{sum(crowd.answered.values())} requests were not answered with 200.",
            f"Streams ended: {', '.join(f'{how} ({count})' for how, count in ends.most_common(8))}.",
            *(f"FAILED {one}" for one in seen.failed),
        ],
    }
    print(report.render("cut", part))
    result = {"machine": machine.describe(), "parts": {"cut": part}, "line": {}}
    if seen.trials:
        result["line"] = summary(seen.trials)
    out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    out.with_suffix(".md").write_text(f"{result['machine']}\n\n{report.render('cut', part)}")
    print(f"{time.monotonic() - begin:.1f} s in all")
    if seen.failed or disturbed or not seen.trials:
        print(f"failed: {seen.failed[:5]} {disturbed[:5]}", file=sys.stderr)
    sys.stdout.flush()
    print(json.dumps(result["line"]))
    if seen.failed or disturbed or not seen.trials:
        sys.exit(1)


if __name__ == "__main__":
    main()
