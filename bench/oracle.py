"""Who may still be served: watches guests on every node, by requests and WebSockets, notes what must not be.

Used by `bench.faults`. The bounds are those of docs/explanation/trust.md.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

from bench.callers import Caller, Door, NotOpened, Stream, now, open_caller, open_stream
from bench.causes import Cause, Stage, Victim

LIMIT = 2.0  # feed_limit
ROUND = 1.0  # in which all live connections are decided again
BOUND = LIMIT + 1.0 + 1.0  # a beat that was just missed, and a machine that is busy
RECHECKED = 0.5 + 2.0 + 1.5  # @recheck("500ms keep 2s"), and a machine that is busy
UNUSED = 0.5  # by which clocks of one machine and its being busy lengthen an idle limit
PATIENCE = 10.0  # seconds for an answer
PACE = 0.15  # seconds between questions of one guest to one node
QUESTIONS = 4  # on one connection, before another worker may get the next
FOREVER = float("inf")


@dataclass(eq=False)
class Guest:
    """Somebody, until when they may be served, and how trust in them ended."""

    name: str
    victim: Victim
    cause: Cause | None = None
    stage: Stage = None  # type: ignore[assignment]  # where there is a cause
    stays: bool = False
    until: float = FOREVER  # on the clock of `callers.now`
    how: str = ""
    why: str = ""
    quiet: float = FOREVER  # when they stop asking; what they said before is said on
    asking: int = 0  # requests and openings under way
    streams: set[Stream] = field(default_factory=set)  # that are open

    @property
    def silent(self) -> bool:
        """Whether nothing is to be asked now: they are idle, and not yet for long enough."""
        return self.quiet <= now() <= self.until


class Oracle:
    """Watches. `resumed` is when a process of a node last went on that had stood still."""

    def __init__(self, nodes: int) -> None:
        self.resumed = [0.0] * nodes
        self.broken: list[str] = []
        self.served = self.refused = self.unanswered = self.echoes = 0

    def summary(self) -> str:
        """Return in numbers what was seen."""
        return (
            f"{self.served} requests served, {self.refused} refused, {self.unanswered} without an answer,"
            f" {self.echoes} messages"
        )

    @asynccontextmanager
    async def watching(self, guests: Sequence[Guest]) -> AsyncIterator[None]:
        """Watch them all on every node while the block runs."""
        tasks = [
            asyncio.create_task(watch(guest, number))
            for guest in guests
            for number in range(len(guest.victim.doors))
            for watch in (self._ask, self._talk)
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if not isinstance(result, asyncio.CancelledError):
                    self.broken.append(f"who watches failed: {result!r}")

    async def asked(self, guest: Guest, number: int) -> int:
        """Return what one request on a new connection gets; 0 is no answer."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                caller = await open_caller(guest.victim.doors[number], guest.victim.prefix + "asked")
                try:
                    return await self._question(guest, number, caller)
                finally:
                    caller.leave()
        return 0

    # ------------------------------------------------------------------ requests

    async def _ask(self, guest: Guest, number: int) -> None:
        door, path = guest.victim.doors[number], guest.victim.prefix + "asked"
        while True:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    caller = await open_caller(door, path)
                    try:
                        for _ in range(QUESTIONS):
                            if guest.silent or not await self._question(guest, number, caller):
                                break
                            await asyncio.sleep(PACE)
                    finally:
                        caller.leave()
            await asyncio.sleep(PACE)

    async def _question(self, guest: Guest, number: int, caller: Caller) -> int:
        with _asks(guest):
            return self._judge(guest, number, now(), await caller.status())

    def _judge(self, guest: Guest, number: int, began: float, status: int) -> int:
        if status == 200:
            self.served += 1
            if began > guest.until:
                late = began - guest.until
                self.broken.append(
                    f"{guest.name} ({guest.how}) was served by node {number} {late:.2f} s late"
                )
        elif status == 0:
            self.unanswered += 1
        else:
            self.refused += 1
            if guest.stays and status in (401, 403):
                self.broken.append(f"somebody who stays got {status} from node {number}")
        return status

    # ------------------------------------------------------------------ WebSockets

    async def _talk(self, guest: Guest, number: int) -> None:
        door = guest.victim.doors[number]
        while True:
            with suppress(OSError, TimeoutError, NotOpened):
                if not guest.silent:
                    await self._follow(guest, number, await _opened(guest, door))
            await asyncio.sleep(PACE * 2)

    async def _follow(self, guest: Guest, number: int, stream: Stream) -> None:
        """Say something all the time, and note what still comes back."""
        sent: list[float] = []
        guest.streams.add(stream)
        try:
            while not stream.over_at:
                sent.append(now())
                stream.say()
                await asyncio.sleep(PACE)
                self._heard(guest, number, sent, stream.echoes)
            self._heard(guest, number, sent, stream.echoes)
        finally:
            self.echoes += stream.echoes
            guest.streams.discard(stream)
            stream.leave()

    def _heard(self, guest: Guest, number: int, sent: list[float], echoes: int) -> None:
        if not echoes:
            return
        said = sent[min(echoes, len(sent)) - 1]
        # What waited for a process that stood still is read by it before it looks at the time.
        until = max(guest.until, self.resumed[number]) + ROUND
        if said > until:
            late = said - until
            self.broken.append(f"{guest.name} ({guest.how}) was heard by node {number} {late:.2f} s late")


async def _opened(guest: Guest, door: Door) -> Stream:
    async with asyncio.timeout(PATIENCE):
        with _asks(guest):
            return await open_stream(door, "websocket", guest.victim.prefix + "echo")


@contextmanager
def _asks(guest: Guest) -> Iterator[None]:
    """Something of theirs is under way that counts as a use of their session, whenever it is read."""
    guest.asking += 1
    try:
        yield
    finally:
        guest.asking -= 1
