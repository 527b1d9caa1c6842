"""What the hot path is exercised with while the compiler watches: python -m bench.training FOLDER

Run by `hatch_build.py` between two compilations. In FOLDER lies the product with counters in its compiled
part; as it ends it writes down what was taken how often, and the second compilation lays the code out
accordingly. So this measures nothing. It does what people and machines do all day: requests of people with
devices and of workloads by the thousand, some uploads and refusals, WebSockets with messages, event streams.
"""

import asyncio
import itertools
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from bench.callers import Caller, Door, Stream, open_stream, tls_to
from bench.causes import doors
from bench.nodes import CELLS, MACHINES, Estate
from bench.people import Person, sign_in, sign_in_many
from ztproxy.net.clock import SystemClock
from ztproxy.service.state import StateDirectory
from ztproxy.service.storage import open_store

PEOPLE = 8
ROUNDS = 250  # requests on each connection; there are about 70
UPLOADS = 5  # of them on a connection that sends bodies
MESSAGES = 100  # on each WebSocket
BODY = b"x" * (256 << 10)


class NotTrained(Exception):
    """Something was not answered as it should have been."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What one connection asks for, how often, and what it is told."""

    door: Door
    ask: bytes
    rounds: int = ROUNDS
    told: int = 200


def main() -> None:
    """Start the product, use it, end it."""
    estate = Estate(nodes=1, workers=1, redis=False)
    estate.nodes[0].path = sys.argv[1]
    with estate:
        asyncio.run(_use(estate))


async def _use(estate: Estate) -> None:
    async with _people(estate) as (people, stranger):
        sockets = [await _stream(estate, person, "websocket") for person in people]
        events = [await _stream(estate, person, "events") for person in people]
        answered: Counter[tuple[int, int]] = Counter()
        asking = [*_requests(estate, people), *_uploads(estate, people), *_refused(estate, stranger)]
        await asyncio.gather(*(_ask(one, answered) for one in asking), *map(_talk, sockets))
        ended = [stream.how for stream in (*sockets, *events) if stream.how]
        for stream in (*sockets, *events):
            stream.leave()
    if ended or any(wanted != told for wanted, told in answered):
        raise NotTrained(f"streams that ended: {ended}; answers, wanted and had: {dict(answered)}")


@asynccontextmanager
async def _people(estate: Estate) -> AsyncIterator[tuple[list[Person], Person]]:
    """Sign people in, and one whom no policy permits anything."""
    state = StateDirectory(estate.nodes[0].folder / "state")
    records = await open_store(estate.settings(), state, SystemClock())
    try:
        yield await sign_in_many(records, PEOPLE), await sign_in(records, groups=("guests",))
    finally:
        await records.close()


def _requests(estate: Estate, people: Iterable[Person]) -> Iterator[Asking]:
    cells = itertools.cycle(range(CELLS))
    for person in people:
        (door,) = doors(estate, person.cookie)
        for _ in range(5):
            yield Asking(door, door.ask(f"/cell{next(cells)}/tickets/{person.subject}?view=all"))
        yield Asking(door, door.ask("/device/report"))
    certified = tls_to(estate.root / "ca.pem", *estate.identity("/ci/deploy")[:2])
    machine = Door(estate.nodes[0].port, MACHINES, certified)
    for number in range(8):
        yield Asking(machine, machine.ask(f"/jobs/{number}"))


def _uploads(estate: Estate, people: Iterable[Person]) -> Iterator[Asking]:
    for person in people:
        (door,) = doors(estate, person.cookie)
        head = door.ask("/cell0/uploads", f"Content-Length: {len(BODY)}").replace(b"GET", b"POST", 1)
        yield Asking(door, head + BODY, UPLOADS)


def _refused(estate: Estate, stranger: Person) -> Iterator[Asking]:
    for cookie, told in ((stranger.cookie, 403), ("", 401)):
        (door,) = doors(estate, cookie)
        yield Asking(door, door.ask("/cell1/tickets"), ROUNDS // 5, told)


async def _ask(asking: Asking, answered: Counter[tuple[int, int]]) -> None:
    caller = Caller(asking.ask)
    await asking.door.connect(lambda: caller)
    for _ in range(asking.rounds):
        answered[asking.told, await caller.status()] += 1
    caller.leave()


async def _stream(estate: Estate, person: Person, kind: Literal["websocket", "events"]) -> Stream:
    (door,) = doors(estate, person.cookie)
    return await open_stream(door, kind, "/echo" if kind == "websocket" else "/events")


async def _talk(stream: Stream) -> None:
    for _ in range(MESSAGES):
        stream.say()
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    main()
