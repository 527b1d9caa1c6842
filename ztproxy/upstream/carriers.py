"""Connectors as one worker knows them: who is ready to carry, and which connection is asked next.

`gateway.carrier` brings ready connections and says what becomes of them; `net.dial` comes here instead of
dialling. Thin: it chooses, waits and counts. It never learns a connector's name from what that says itself.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from typing import Final, Protocol, TypeVar

from ztproxy.model.resource import Upstream
from ztproxy.net.dial import Context, Dialled, Unreachable
from ztproxy.telemetry.snapshot import ConnectorState

_P = TypeVar("_P", bound=Dialled)

#: Ready connections that a worker wants of an instance: at least, and when they are used up fast.
LEAST: Final = 1
MOST: Final = 32
#: Ready connections of an instance, and of all, above which no more are taken.
PER_INSTANCE: Final = 64
TOTAL: Final = 8192
#: Dials that wait for a ready connection of one name.
WAITING: Final = 1024
#: Connections that one dial asks; none of them gets a byte of a request before it carries.
TRIES: Final = 6
#: Seconds since a connector was here during which it is worth waiting for it, if no other node has one.
RECENT: Final = 30.0
#: Seconds in which a node that has one should have another one ready, when all that were are in use.
ANOTHER: Final = 3.0
#: Seconds until neighbours are asked again after none of them had a connection to lend.
AGAIN: Final = 0.25
#: Connections that are lent at once.
LENT: Final = 4096


class NotCarried(Exception):
    """A connector does not carry. `reason` is one of wire.carrying, or `silent`, `lost`, `tls`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Carrier(Protocol):
    """A connection that is ready or carries (gateway.carrier)."""

    instance: "Instance"

    async def carry(
        self,
        upstream: Upstream,
        factory: Callable[[], _P],
        context: Context | None,
        *,
        until: float,
    ) -> _P:
        """Carry to an upstream from now on; `until` is a time of the loop. Raises NotCarried."""

    def want(self) -> None:
        """Tell the connector how many ready connections are wanted."""

    def retire(self) -> None:
        """End once nothing is under way."""

    def close(self) -> None:
        """End now."""


class Neighbours(Protocol):
    """Who may have a ready connection when we have none (gateway.borrowing)."""

    async def ask_workers(self, name: str) -> Carrier | None:
        """Return one that another worker of this node lends, None when none does."""

    async def ask_nodes(self, name: str) -> Carrier | None:
        """Return one that another node lends, None when none does."""

    def known(self, name: str) -> bool:
        """Tell whether another node is known to have one, ready or not."""


class Instance:
    """One running connector."""

    __slots__ = ("carrying", "doubted", "draining", "instance", "name", "ready", "version", "wanted")

    def __init__(self, name: str, instance: str) -> None:
        self.name = name
        self.instance = instance
        self.ready: dict[Carrier, None] = {}  # in the order they came
        self.carrying: set[Carrier] = set()
        self.wanted = LEAST
        self.doubted = False  # it did not answer lately
        self.draining = False
        self.version = ""

    @property
    def gone(self) -> bool:
        """Tell whether nothing is left of it."""
        return not (self.ready or self.carrying)


class Carriers:
    """All connectors of one worker. `refused` counts by name and reason."""

    def __init__(self, *, node: str = "node", worker: int = 0, workers: int = 1) -> None:
        self.node = node
        self.worker = worker
        self.workers = workers
        self.refused: dict[tuple[str, str], int] = {}
        self.borrowed: dict[tuple[str, str], int] = {}  # (name, "worker" or "node") -> how many
        self.lent: dict[str, int] = {}  # name -> how many
        self.neighbours: Neighbours | None = None
        self.changed: Callable[[tuple[str, ...]], None] = lambda _: None  # told the names that are here
        self.leaving = False  # this worker takes no connections any more
        self.lending = 0  # connections that are lent now
        self._alone: dict[str, float] = {}  # until when neighbours have nothing to lend
        self._names: dict[str, dict[str, Instance]] = {}
        self._seen: dict[str, float] = {}  # when a name was last here, by the loop's clock
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._began: float | None = None
        self._ready = 0

    def __iter__(self) -> Iterator[Instance]:
        return (one for instances in self._names.values() for one in instances.values())

    def __len__(self) -> int:
        return self._ready

    def states(self) -> tuple[ConnectorState, ...]:
        """Return what is here of each connector."""
        return tuple(
            ConnectorState(
                one.name, one.instance, one.version, len(one.ready), len(one.carrying), one.draining
            )
            for one in self
        )

    # ------------------------------------------------------------------ what carriers tell

    def find(self, name: str, instance: str) -> Instance:
        """Return an instance, which may be new here."""
        instances = self._names.setdefault(name, {})
        found = instances.get(instance)
        if found is None:
            found = instances[instance] = Instance(name, instance)
            if len(instances) == 1:
                self._tell()
        return found

    def arrived(self, carrier: Carrier) -> bool:
        """A connection is ready, for the first time or again; False when there are too many."""
        one = carrier.instance = self.find(carrier.instance.name, carrier.instance.instance)
        if len(one.ready) >= PER_INSTANCE or self._ready >= TOTAL:
            return False
        one.carrying.discard(carrier)
        one.ready[carrier] = None
        self._ready += 1
        self._wake(one.name)
        return True

    def heard(self, one: Instance, version: str, *, draining: bool) -> None:
        """An instance says how it is."""
        one.doubted = False
        one.version = version
        before, one.draining = one.draining, draining
        if draining and not before:
            for carrier in list(one.carrying):
                carrier.retire()

    def beat(self, carrier: Carrier) -> None:
        """A ready connection was not needed for a while: fewer will do."""
        one = carrier.instance
        if one.wanted > LEAST and len(one.ready) >= one.wanted:
            one.wanted -= 1
            carrier.want()

    def silent(self, one: Instance) -> None:
        """An instance did not answer: what is idle on it may not answer either."""
        if not one.doubted:
            one.doubted = True
            for carrier in list(one.carrying):
                carrier.retire()

    def left(self, carrier: Carrier) -> None:
        """A connection is over."""
        one = carrier.instance
        if carrier in one.ready:
            del one.ready[carrier]
            self._ready -= 1
        one.carrying.discard(carrier)
        if one.gone:
            self._seen[one.name] = _now()
            instances = self._names.get(one.name, {})
            if instances.get(one.instance) is one:
                del instances[one.instance]
            if not instances and self._names.pop(one.name, None) is not None:
                self._tell()

    def _tell(self) -> None:
        self.changed(tuple(sorted(self._names)))

    # ------------------------------------------------------------------ lending

    def lend(self, name: str) -> Carrier | None:
        """Return a ready connection for somebody else, who has it from now on; None when there is none."""
        instances = self._names.get(name, {}).values()
        ready = [one for one in instances if one.ready and not (one.draining or one.doubted)]
        if not ready or self.leaving or self.lending >= LENT:
            return None
        return self._take(min(ready, key=_load))

    def given(self, name: str) -> None:
        """A connection is lent."""
        self.lending += 1
        self.lent[name] = self.lent.get(name, 0) + 1

    def returned(self) -> None:
        """A connection that was lent is over."""
        self.lending -= 1

    async def _borrow(self, name: str, until: float, *, nodes: bool) -> Carrier | None:
        """Return a connection that somebody lends: a worker of this node, else another node, if need be."""
        neighbours, carrier, whose = self.neighbours, None, "worker"
        if neighbours is None or _now() < self._alone.get(name, 0.0):
            return None
        with suppress(TimeoutError):  # nobody waits longer for them than for upstreams
            async with asyncio.timeout_at(until):
                carrier = await neighbours.ask_workers(name)
                if carrier is None and nodes:
                    whose = "node"
                    carrier = await neighbours.ask_nodes(name)
        if carrier is None:
            self._alone[name] = _now() + AGAIN
        else:
            self.borrowed[name, whose] = self.borrowed.get((name, whose), 0) + 1
        return carrier

    # ------------------------------------------------------------------ the end of the worker

    def leave(self) -> None:
        """Have connectors dial others, and carry on meanwhile."""
        self.leaving = True
        for one in self:
            for carrier in list(one.ready):
                carrier.want()

    def close(self) -> None:
        """End everything."""
        for one in list(self):
            for carrier in (*one.ready, *one.carrying):
                carrier.close()

    # ------------------------------------------------------------------ net.dial.Connectors

    async def connect(
        self,
        upstream: Upstream,
        factory: Callable[[], _P],
        context: Context | None,
        *,
        patience: float,
    ) -> _P:
        """Return the protocol of a new connection through a connector of that name. Raises Unreachable."""
        name, until = upstream.connector, _now() + patience
        refused: dict[Instance, str] = {}
        for _ in range(TRIES):
            carrier = await self._next(name, refused, until)
            if carrier is None:
                break
            try:
                return await carrier.carry(upstream, factory, context, until=until)
            except NotCarried as why:
                self.refused[name, why.reason] = self.refused.get((name, why.reason), 0) + 1
                if why.reason not in ("silent", "lost"):  # another connection may be better, of anybody
                    refused[carrier.instance] = why.reason
        raise _unreachable(upstream, list(refused.values()))

    async def _next(self, name: str, refused: Container[Instance], until: float) -> Carrier | None:
        """Return a ready connection, waiting for one if that makes sense; None when all have refused."""
        began = _now()
        while True:
            instances = self._names.get(name, {})
            left = [one for one in instances.values() if one not in refused]
            if instances and not left:
                self._wake(name)  # whoever waits may have been refused by nobody
                return None
            sure = [one for one in left if one.ready and not (one.draining or one.doubted)]
            if sure:
                return self._take(min(sure, key=_load))
            borrowed = await self._borrow(name, until, nodes=all(one.doubted for one in left))
            if borrowed is not None:
                return borrowed
            ready = [one for one in left if one.ready and not one.draining]
            if ready:
                return self._take(min(ready, key=_load))
            if not left and not self._expected(name, began):
                raise Unreachable(f"no connector {name} is here", "connector-unavailable")
            await self._wait(name, until)

    def _take(self, one: Instance) -> Carrier:
        """Take the newest: it was heard last. Of those with the same load the others are next."""
        carrier, _ = one.ready.popitem()
        self._ready -= 1
        one.carrying.add(carrier)  # counts from now on
        if not one.ready and one.wanted < MOST and not self.leaving:
            one.wanted = min(one.wanted * 2, MOST)
        instances = self._names[one.name]
        instances[one.instance] = instances.pop(one.instance)
        return carrier

    async def _wait(self, name: str, until: float) -> None:
        waiting = self._waiting.setdefault(name, deque())
        if len(waiting) >= WAITING:
            raise Unreachable(f"too many wait for a connector {name}", "connector-unavailable", "queue")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(waiter)
        woken = False
        try:
            async with asyncio.timeout_at(until if self.neighbours is None else min(until, _now() + AGAIN)):
                await waiter
            woken = True
        except TimeoutError:
            if _now() >= until:
                raise Unreachable(f"no connector {name} is ready", "connector-unavailable") from None
        finally:
            if waiter in waiting:
                waiting.remove(waiter)
            if not waiting:
                self._waiting.pop(name, None)
            elif not woken and waiter.done() and not waiter.cancelled():
                self._wake(name)  # it was our turn, and we are gone

    def _wake(self, name: str) -> None:
        waiting = self._waiting.get(name)
        while waiting:
            waiter = waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _expected(self, name: str, waiting: float) -> bool:
        """Tell whether there may soon be a ready one, for who waits since then: here again, or at a node."""
        now = _now()
        if self._began is None:
            self._began = now
        if now - self._seen.get(name, self._began) <= RECENT:
            return True
        neighbours = self.neighbours
        return neighbours is not None and now - waiting <= ANOTHER and neighbours.known(name)


def _load(one: Instance) -> tuple[bool, int]:
    """Whoever answers comes first, then whoever carries least."""
    return one.doubted, len(one.carrying)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _unreachable(upstream: Upstream, reasons: list[str]) -> Unreachable:
    """Say whose fault it is: the list of a connector, what is behind it, or that none was of use."""
    where = f"{upstream.place}: {', '.join(reasons) or 'no connector answers'}"
    if "unreachable" in reasons:
        return Unreachable(where, "upstream-unreachable", "behind-connector")
    if "tls" in reasons:
        return Unreachable(where, "upstream-unreachable", "tls")
    if "not-allowed" in reasons:
        return Unreachable(where, "connector-refused", "not-allowed")
    return Unreachable(where, "connector-unavailable", reasons[0] if reasons else "silent")
