"""All client connections of a worker, looked over once a second: nobody holds more than their share for long.

Connections tell it when they come and go, when a body begins and ends, when their client falls behind, and
when they close. It ends bodies that trickle in, clients that take next to nothing of what waits for them, and
connections that are too old; when places or memory run short, it takes back what is used least. Costs a
request nothing.
"""

from collections.abc import Callable
from heapq import nsmallest
from typing import Final, Protocol

from ztproxy.gateway.limits import Limits
from ztproxy.net.sources import Source, Sources
from ztproxy.net.wheel import Wheel

LOOK: Final = 1.0  # seconds
FLUSH: Final = 10.0  # seconds for a closing connection, and again as long as its client takes what is left
PRESSURE: Final = 0.9  # share of the connections from which on places are taken back
PATIENCE: Final = 0.25  # share of its time that a head is given then


class Member(Protocol):
    """A connection, as the crowd sees it."""

    source: Source
    deadline: float

    @property
    def idle(self) -> bool:
        """It waits for the first byte of a request."""

    @property
    def beginning(self) -> bool:
        """It waits for the rest of a head."""

    @property
    def held_back(self) -> bool:
        """Nothing is read from it, for our own or the application's reasons."""

    @property
    def body_received(self) -> int:
        """Bytes of request content so far."""

    @property
    def waiting(self) -> int:
        """Bytes that wait to be taken by the client."""

    @property
    def taken(self) -> int:
        """A number that grows with the bytes the client takes."""

    def timed_out(self) -> None:
        """Give up waiting for a request."""

    def abort(self) -> None:
        """Close at once."""

    def retire(self) -> None:
        """Take no further request."""

    def late(self) -> None:
        """End the request: its body does not come."""

    def fall_behind(self) -> None:
        """End the exchange: its answer is not taken."""


class _Watch:
    """Connections that have to make progress: until when, and how far they were before."""

    def __init__(
        self, progress: Callable[[Member], int], fail: Callable[[Member], None], grace: float = 0.0
    ) -> None:
        self._progress = progress
        self._fail = fail
        self._grace = grace  # seconds over which that is looked at; 0: as the limits say
        self.watched: dict[Member, tuple[float, int]] = {}

    def begin(self, member: Member, now: float, limits: Limits) -> None:
        self.watched[member] = (now + (self._grace or limits.body_grace), self._progress(member))

    def end(self, member: Member) -> None:
        self.watched.pop(member, None)

    def look(self, now: float, limits: Limits) -> None:
        least = limits.body_min_rate * (self._grace or limits.body_grace)
        due = [(member, seen) for member, (until, seen) in self.watched.items() if until <= now]
        for member, seen in due:
            if member.held_back or self._progress(member) - seen >= least:
                self.begin(member, now, limits)
            else:
                self.end(member)
                self._fail(member)


class Crowd:
    """Everybody who is connected. On the wheel from the start."""

    def __init__(self, sources: Sources, wheel: Wheel, limits: Limits) -> None:
        self.limits = limits
        self.pressed = 0  # connections taken back for want of places
        self.slow = 0  # bodies and clients given up for their slowness
        self._sources = sources
        self._wheel = wheel
        self._young: dict[Member, float] = {}  # in the order they came
        self._all: set[Member] = set()
        self._leaving: set[Member] = set()  # told to go; a client can put that off for seconds
        self._bodies = _Watch(lambda member: member.body_received, self._late)
        self._takers = _Watch(lambda member: member.taken, self._behind)
        self._closing = _Watch(lambda member: member.taken, lambda member: member.abort(), FLUSH)
        self.deadline = wheel.now + LOOK
        wheel.add(self)

    def __len__(self) -> int:
        return len(self._all)

    # ------------------------------------------------------------------ what connections tell

    def add(self, member: Member) -> None:
        """One has come."""
        self._all.add(member)
        self._young[member] = self._wheel.now

    def discard(self, member: Member) -> None:
        """One is gone."""
        self._all.discard(member)
        self._leaving.discard(member)
        self._young.pop(member, None)
        self._bodies.end(member)
        self._takers.end(member)
        self._closing.end(member)

    def body_begins(self, member: Member) -> None:
        """A body is on its way, or is read again after it was held back."""
        self._bodies.begin(member, self._wheel.now, self.limits)

    def body_ends(self, member: Member) -> None:
        """All of it is here."""
        self._bodies.end(member)

    def falls_behind(self, member: Member) -> None:
        """Bytes wait for the client."""
        self._takers.begin(member, self._wheel.now, self.limits)

    def catches_up(self, member: Member) -> None:
        """It takes bytes again."""
        self._takers.end(member)

    def closes(self, member: Member) -> None:
        """It ends when its client has taken what was written."""
        if member in self._all:
            self._closing.begin(member, self._wheel.now, self.limits)

    # ------------------------------------------------------------------ once a second

    def timed_out(self) -> None:
        """Look around (net.wheel)."""
        now = self._wheel.now
        self.deadline = now + LOOK
        self._bodies.look(now, self.limits)
        self._takers.look(now, self.limits)
        self._closing.look(now, self.limits)
        self._retire(now - self.limits.connection_age)
        self._free_memory()
        excess = self._sources.connections - int(self._sources.bounds.connections * PRESSURE)
        if excess > 0:
            self._make_room(excess, now)

    def _retire(self, before: float) -> None:
        """Let go of connections that came before; a request under way is finished."""
        for member, came in list(self._young.items()):
            if came > before:
                return
            del self._young[member]
            member.retire()

    def _make_room(self, excess: int, now: float) -> None:
        """Take places back: from those who have most, and there from who was idle longest."""
        patience = self.limits.head_timeout * (1 - PATIENCE)
        beginners = [one for one in self._all if one.beginning and one.deadline - now < patience]
        for member in beginners:
            self._leaving.add(member)
            member.timed_out()
        idle = (one for one in self._all if one.idle)
        excess -= len(self._leaving)
        found = nsmallest(excess, idle, key=lambda one: (-one.source.connections, one.deadline))
        for member in found:
            self._leaving.add(member)
            member.abort()
        self.pressed += len(beginners) + len(found)

    def _free_memory(self) -> None:
        """When answers pile up, give up those of the clients that hold most."""
        holding = [(member.waiting, member) for member in self._takers.watched]
        excess = sum(size for size, _ in holding) - self.limits.buffers
        if excess <= 0:
            return
        for size, member in sorted(holding, key=lambda pair: -pair[0]):
            self._takers.end(member)
            self._behind(member)
            excess -= size
            if excess <= 0:
                return

    def _late(self, member: Member) -> None:
        self.slow += 1
        member.late()

    def _behind(self, member: Member) -> None:
        self.slow += 1
        member.fall_behind()
