"""One coarse timer for every connection of a process, instead of a timer for every request.

Items keep their own `deadline`; arming one is a plain assignment. The wheel looks at one spoke of them per
tick and at every item once per turn, so a deadline is noticed at most one turn late. Connections, hellos and
idle upstream connections put themselves on it.
"""

import asyncio
from collections.abc import Iterator
from itertools import cycle
from typing import Final, Protocol

from ztproxy.net.clock import Clock

SPOKES: Final = 8
TURN: Final = 1.0  # seconds

NEVER: Final = float("inf")


class Timed(Protocol):
    """Something with a deadline."""

    deadline: float  # seconds of the monotonic clock; NEVER while nothing is due

    def timed_out(self) -> None:
        """The deadline has passed. Must move the deadline or take the item off the wheel."""


class Wheel:
    """A set of timed items that is looked through once per turn."""

    def __init__(self, clock: Clock, *, turn: float = TURN) -> None:
        #: Seconds of the monotonic clock at the last tick: good enough for deadlines, and free to read.
        self.now = clock.monotonic()
        self._clock = clock
        self._tick = turn / SPOKES
        self._spokes: tuple[set[Timed], ...] = tuple(set() for _ in range(SPOKES))
        self._next = cycle(self._spokes)
        self._timer: asyncio.TimerHandle | None = None

    def __iter__(self) -> Iterator[Timed]:
        """Yield what is watched, as it is now."""
        return iter([item for spoke in self._spokes for item in spoke])

    def __len__(self) -> int:
        return sum(map(len, self._spokes))

    def add(self, item: Timed) -> None:
        """Watch an item."""
        self._spokes[_spoke(item)].add(item)

    def discard(self, item: Timed) -> None:
        """Stop watching an item, whether or not it is watched."""
        self._spokes[_spoke(item)].discard(item)

    def start(self) -> None:
        """Begin to turn, on the running loop."""
        self._timer = asyncio.get_running_loop().call_later(self._tick, self._turn)

    def stop(self) -> None:
        """Turn no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Look at the next spoke now."""
        now = self.now = self._clock.monotonic()
        spoke = next(self._next)
        for item in [item for item in spoke if item.deadline <= now]:
            if item.deadline <= now and item in spoke:  # one before it may have seen to that
                item.timed_out()

    def _turn(self) -> None:
        self.start()  # first, so that an item that raises does not stop the wheel
        self.look()


def _spoke(item: Timed) -> int:
    return (id(item) >> 6) % SPOKES
