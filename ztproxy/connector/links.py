"""Keeping a connector connected: enough ready connections at every worker of every proxy, and not more.

`connector.program` makes one, runs it, and tells it when its file has changed. Which worker a connection
comes to is the kernel's choice at the proxy, so a keeper dials until each worker has what it wants, at a
bounded rate, and longer and longer apart when that leads nowhere. A connection that carries is used up; it is
replaced at once.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import aiofastnet
from msgspec import Struct

from ztproxy.connector.allowed import Allowed
from ztproxy.connector.link import Link
from ztproxy.model.quota import Rate
from ztproxy.net.clock import entropy
from ztproxy.net.outbox import Outbox
from ztproxy.net.rate import Bucket
from ztproxy.net.splice import LINGER, Half
from ztproxy.wire.carrying import Open, Wanted

log = logging.getLogger("ztproxy.connector")

#: Seconds between beats of a connection that is ready.
BEAT: Final = 10.0
#: Dials of one keeper: under way at once, and how often.
AT_ONCE: Final = 16
PACE: Final = Rate(40.0, 40)
#: Seconds until it dials again after a failure: the first time, and at most.
FIRST: Final = 0.25
LONGEST: Final = 15.0
#: Ready connections of a worker above what it wants that are kept all the same: it may want more soon.
SPARE: Final = 1
#: Ready connections, and nodes behind one name, of which no proxy can make us keep more.
MOST: Final = 2048
NODES: Final = 64
#: How often it is told in the log that a proxy asks for what is not on the list.
TOLD: Final = Rate(0.2, 10)
#: The answer of a proxy that does not let us in, for now or for good.
FORBIDDEN: Final = 403
#: Seconds until connections with an old certificate are closed, whether or not they have been replaced.
OLD: Final = 60.0


class Proxy(NamedTuple):
    """Where a proxy is dialled, and its name there: in the handshake, in its certificate and as Host."""

    host: str
    port: int
    name: str

    @property
    def authority(self) -> str:
        """The name as a Host field has it."""
        return self.name if self.port == 443 else f"{self.name}:{self.port}"


class Limits(Struct, frozen=True):
    """What bounds a connector."""

    carrying: int = 4096  # connections to applications
    dial: float = 5.0  # seconds for one of them to stand
    handshake: float = 10.0  # seconds for a connection to a proxy to stand


class Links:
    """All connections of a connector. `context` gives the TLS context that holds now, `refused` hears when a
    proxy does not let us in."""

    def __init__(
        self,
        proxies: Sequence[Proxy],
        context: Callable[[], ssl.SSLContext],
        allowed: Allowed,
        limits: Limits | None = None,
        *,
        version: str,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self.context = context
        self.allowed = allowed
        self.limits = limits or Limits()
        self.version = version
        self.refused = refused
        self.draining = False
        self.outbox = Outbox()  # of all that is carried
        self.carrying: dict[Half, Carried] = {}  # the proxies' halves
        self._drained = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None  # while it runs
        self._keepers = {proxy: Keeper(self, proxy) for proxy in proxies}
        self._leaving: set[Keeper] = set()  # of proxies that are not dialled any more

    @property
    def ready(self) -> int:
        """How many connections wait to be asked."""
        return sum(keeper.ready for keeper in self._all())

    async def run(self) -> None:
        """Keep connected until cancelled, or until `drain` has ended."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            beating = group.create_task(self._beat())
            for keeper in self._all():
                keeper.start(group)
            try:
                await self._drained.wait()
            finally:
                self._group = None
                beating.cancel()
                self._close()

    def refresh(self) -> None:
        """There is another certificate: connections that are ready by the old one are replaced."""
        for keeper in self._all():
            keeper.refresh()

    def allow(self, allowed: Allowed) -> None:
        """This is the list from now on: what it does not have is not carried to any more, at once."""
        self.allowed = allowed
        for half, one in list(self.carrying.items()):
            if not one.permitted(allowed):
                half.transport.abort()

    def dial(self, proxies: Sequence[Proxy], drain: float) -> None:
        """These are dialled from now on. Others ask for nothing new, and have so many seconds to finish."""
        for proxy in [one for one in self._keepers if one not in proxies]:
            leaving = self._keepers.pop(proxy)
            if self._group is not None:
                self._leaving.add(leaving)
                self._group.create_task(self._leave(leaving, drain))
        for proxy in [one for one in proxies if one not in self._keepers]:
            keeper = self._keepers[proxy] = Keeper(self, proxy)
            if self._group is not None:
                keeper.start(self._group)

    async def drain(self, seconds: float) -> None:
        """Take nothing new, let what is carried end within so many seconds, then end `run`."""
        self.draining = True
        for keeper in self._all():
            keeper.say_status()
        await self._until(lambda: not self.carrying, seconds)
        self._drained.set()

    def over(self, half: Half) -> None:
        """One half of what was carried is gone."""
        self.carrying.pop(half, None)

    async def _leave(self, keeper: "Keeper", seconds: float) -> None:
        keeper.leave()
        await self._until(lambda: not keeper.dialling and not self._carried_for(keeper), seconds)
        self._end(keeper)
        self._leaving.discard(keeper)

    async def _until(self, over: Callable[[], bool], seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        while not over() and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def _all(self) -> list["Keeper"]:
        return [*self._keepers.values(), *self._leaving]

    def _carried_for(self, keeper: "Keeper") -> list[Half]:
        return [half for half, one in self.carrying.items() if one.keeper is keeper]

    def _close(self) -> None:
        for keeper in self._all():
            self._end(keeper)

    def _end(self, keeper: "Keeper") -> None:
        keeper.close()
        for half in self._carried_for(keeper):
            half.transport.abort()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT * (0.8 + 0.2 * _fraction()))
            for keeper in self._all():
                keeper.say_status()


class Carried(NamedTuple):
    """For whom something is carried, and where to."""

    keeper: "Keeper"
    asked: Open

    def permitted(self, allowed: Allowed) -> bool:
        """Tell whether it is on that list."""
        return allowed.permits(self.asked.scheme, self.asked.host, self.asked.port)


class Place:
    """One worker of a proxy: what it wants, and what it has."""

    __slots__ = ("ready", "wanted")

    def __init__(self) -> None:
        self.wanted = 1
        self.ready: set[Link] = set()

    @property
    def missing(self) -> int:
        """How many are to be dialled for it. Old ones count as long as they have no successor."""
        return max(0, self.wanted - sum(not link.old for link in self.ready))


class Keeper:
    """The connections to one proxy."""

    def __init__(self, home: Links, proxy: Proxy) -> None:
        self.home = home
        self.proxy = proxy
        self.version = home.version
        self._task: asyncio.Task[None] | None = None
        self._leaving = False
        self._ended = False
        self._places: dict[tuple[str, int], Place] = {}
        self._links: set[Link] = set()  # all that do not carry
        self._coming: set[object] = (
            set()
        )  # dials under way, and connections that have not said what is wanted
        self._work = asyncio.Event()
        self._work.set()
        self._failures = 0  # dials in a row that were of no use
        self._turn = 0  # which address of the name is next
        self._told = Bucket(TOLD, asyncio.get_running_loop().time())

    @property
    def ready(self) -> int:
        """How many connections wait to be asked."""
        return sum(len(place.ready) for place in self._places.values())

    @property
    def draining(self) -> bool:
        """Whether nothing new is carried for this proxy."""
        return self._leaving or self.home.draining

    @property
    def dialling(self) -> bool:
        """Whether a dial is under way, or a connection has not said yet what is wanted."""
        return bool(self._coming)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Keep connected from now on, until `close`."""
        self._task = group.create_task(self._run())

    async def _run(self) -> None:
        """Dial whenever something is missing."""
        loop = asyncio.get_running_loop()
        bucket = Bucket(PACE, loop.time())
        async with asyncio.TaskGroup() as group:
            while True:
                await self._work.wait()
                if self._failures:
                    await asyncio.sleep(self._pause())
                await asyncio.sleep(bucket.reserve(loop.time(), LONGEST))
                if self._missing() > 0 and len(self._coming) < AT_ONCE and not self.draining:
                    mark = object()
                    self._coming.add(mark)
                    group.create_task(self._dial(mark))
                self._look()

    def say_status(self) -> None:
        """Have every ready connection beat."""
        for place in self._places.values():
            for link in list(place.ready):
                link.say_status()

    def refresh(self) -> None:
        """Replace what is ready."""
        old = [link for place in self._places.values() for link in place.ready]
        for link in old:
            link.old = True
            asyncio.get_running_loop().call_later(OLD * _fraction(), self._close_old, link)
        self._look()

    def leave(self) -> None:
        """Dial no more, and say that nothing new is carried."""
        self._leaving = True
        self.say_status()

    def close(self) -> None:
        """End for good what does not carry."""
        self._ended = True
        if self._task is not None:
            self._task.cancel()
        for link in list(self._links):
            link.close()

    # ------------------------------------------------------------------ what links tell

    def made(self, link: Link) -> None:
        """A connection stands."""
        self._links.add(link)

    def wants(self, link: Link, wanted: Wanted) -> None:
        """A worker says what it wants: a connection is ready, if it was not."""
        self._coming.discard(link)
        if self._ended:
            link.close()
            return
        if not self._has_room_for(wanted.node):
            self._failed("one name for too many nodes")
            link.close()
            return
        for at in [one for one in self._places if one[0] == wanted.node and one[1] >= wanted.workers]:
            self._forget(at)
        place = self._places.setdefault((wanted.node, wanted.worker), Place())
        for index in range(wanted.workers):
            self._places.setdefault((wanted.node, index), Place())
        place.wanted = wanted.ready
        if wanted.ready == 0:  # this worker leaves; another one will serve in its place
            place.ready.discard(link)
            place.wanted = 1
        elif link not in place.ready:
            self._arrived(link, place)
        self._look()

    def again(self, link: Link) -> None:
        """A connection that was asked and could not carry is ready again."""
        if link.wanted is not None and link.wanted.ready:
            self.wants(link, link.wanted)

    def taken(self, link: Link) -> None:
        """A connection was asked, and probably carries soon."""
        self._remove(link)
        self._look()

    def carries(self, link: Link, half: Half, asked: Open) -> None:
        """A connection carries."""
        self._links.discard(link)
        self._remove(link)
        self.home.carrying[half] = Carried(self, asked)

    def lost(self, link: Link) -> None:
        """A connection is gone before it carried."""
        self._links.discard(link)
        if link in self._coming:
            self._coming.discard(link)
            self._useless(link)
        self._remove(link)
        self._look()

    def forbade(self, asked: Open) -> None:
        """The proxy asked for what is not on the list."""
        if not self._told.take(asyncio.get_running_loop().time()):
            log.warning(
                "a proxy asks for what is not on the list",
                extra={"proxy": self.proxy.authority, "asked": [asked.host, asked.port, asked.scheme]},
            )

    # ------------------------------------------------------------------ steps

    def _has_room_for(self, node: str) -> bool:
        """Tell whether a node can be kept in mind, beside all that have something ready."""
        nodes = {name for name, _ in self._places}
        if node in nodes or len(nodes) < NODES:
            return True
        alive = {at[0] for at, place in self._places.items() if place.ready}
        for at in [one for one in self._places if one[0] not in alive]:
            del self._places[at]
        return len(alive) < NODES

    def _useless(self, link: Link) -> None:
        """A connection ended before it was ready."""
        self._failed(f"answered {link.status}" if link.status else "closed")
        if link.status == FORBIDDEN:
            self.home.refused()

    def _arrived(self, link: Link, place: Place) -> None:
        useful = place.missing > 0
        old = next((one for one in place.ready if one.old), None)
        if useful or len(place.ready) < place.wanted + SPARE:
            place.ready.add(link)
            if old is not None:
                old.close()
        else:
            link.close()
        self._failures = 0 if useful else self._failures + 1

    def _missing(self) -> int:
        """How many connections are missing that are not on their way."""
        if not any(place.ready for place in self._places.values()):
            self._places.clear()  # nobody is left who could tell what is wanted
        missing = sum(place.missing for place in self._places.values()) or not self._places
        return min(missing, MOST - self.ready) - len(self._coming)

    def _look(self) -> None:
        if self._missing() > 0 and len(self._coming) < AT_ONCE and not self.draining:
            self._work.set()
        else:
            self._work.clear()

    def _remove(self, link: Link) -> None:
        for place in self._places.values():
            place.ready.discard(link)

    def _forget(self, at: tuple[str, int]) -> None:
        for link in list(self._places.pop(at).ready):
            link.close()

    def _close_old(self, link: Link) -> None:
        if link.old and link.ready:
            link.close()

    def _pause(self) -> float:
        """Return the seconds until the next dial, after failures: longer and longer, and at random."""
        longest = min(FIRST * float(1 << min(self._failures - 1, 16)), LONGEST)
        return longest * (0.5 + 0.5 * _fraction())

    def _failed(self, why: str) -> None:
        self._failures += 1
        level = logging.WARNING if self._failures in (1, 10, 100) else logging.DEBUG
        log.log(level, "a proxy is not reached", extra={"proxy": self.proxy.authority, "why": why})

    async def _dial(self, mark: object) -> None:
        try:
            link = await self._connect()
        except (OSError, EOFError, ValueError) as failed:  # of TLS and time, too
            self._coming.discard(mark)
            self._failed(f"{type(failed).__name__}: {failed}")
        else:
            self._coming.discard(mark)
            if link.ended:
                self._useless(link)
            elif link.wanted is None:
                self._coming.add(link)
                asyncio.get_running_loop().call_later(self.home.limits.handshake, self._greeted, link)
        finally:
            self._coming.discard(mark)
            self._look()

    async def _connect(self) -> Link:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self.home.limits.handshake):
            found = await loop.getaddrinfo(self.proxy.host, self.proxy.port, type=socket.SOCK_STREAM)
            self._turn += 1
            address = found[self._turn % len(found)][4][0]
            _, link = await aiofastnet.create_connection(
                loop,
                lambda: Link(self),
                str(address),
                self.proxy.port,
                ssl=self.home.context(),
                server_hostname=self.proxy.name,
                ssl_shutdown_timeout=LINGER,
            )
        return link

    def _greeted(self, link: Link) -> None:
        if link in self._coming:
            link.close()


def _fraction() -> float:
    return int.from_bytes(entropy(2)) / 65536
