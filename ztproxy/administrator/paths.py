"""Live paths: everything that was opened with a permit and is not over yet, and the one way to cut it.

Opened and closed by the gateway for every exchange, WebSocket and stream; told of changes by
`service.worker` and driven by `service.pacing`. A change, expiry or simply time makes the door decide again;
a no cuts the path. Never decides many at once: what waits is decided a few milliseconds at a time.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from ztproxy.administrator.concerned import Concerned
from ztproxy.model import ports
from ztproxy.model.permit import Permit
from ztproxy.net.deadlines import Deadlines
from ztproxy.trust.memory import Concern

log = logging.getLogger("ztproxy.paths")

#: Live paths decided again each second because time passes; a round takes a second at least.
PER_SECOND: Final = 2_000
#: How long one step may hold the loop (s), and how many decisions are made between looks at the clock.
STEP: Final = 0.005
LOOK: Final = 8


class Door(Protocol):
    """Who decides (administrator.access)."""

    def reconsider(self, permit: Permit, at: int) -> str:
        """Return "" while a path may go on, else the code of the refusal; `at` (ms) is its own time."""

    def ends(self, permit: Permit) -> int:
        """Return when time alone may end it (ms): its session's limits, as they are known now."""

    def hangs_on(self, permit: Permit) -> tuple[Concern, ...]:
        """Return what it has come to hang on that the permit does not say."""


class Shut:
    """The door before there is one."""

    def reconsider(self, permit: Permit, at: int) -> str:
        """Nobody goes on."""
        return "facts-unavailable"

    def ends(self, permit: Permit) -> int:
        """Time has ended everything."""
        return 0

    def hangs_on(self, permit: Permit) -> tuple[Concern, ...]:
        """Nothing is known."""
        return ()


class Paths(ports.Paths):
    """The live paths of one worker.

    `now` is the wall clock (ms), `elapsed` a clock that never jumps (s). `wake` is called when `step` has to
    be; it is called no more until a step found nothing left.
    """

    def __init__(
        self, door: Door, now: Callable[[], int], elapsed: Callable[[], float], wake: Callable[[], None]
    ) -> None:
        self.door = door  # the one in force
        self._now = now
        self._elapsed = elapsed
        self._wake = wake
        self._awake = False
        self._fresh: list[ports.Live | None] = []  # opened since the last pulse, None when it is over
        self._ended = 0  # how many of these are
        self._last = 0
        self._entered = 0  # the last number that is in those below, if it is live
        self._live: dict[int, ports.Live] = {}
        self._concerned = Concerned()
        self._course: dict[int, float] = {}  # ms by which a path's own time is ahead of `elapsed`
        self._deadlines = Deadlines(elapsed())
        self._first = _Queue()  # whom a change concerns, and whose time is over
        self._then = _Queue()
        self.cuts = 0

    def __len__(self) -> int:
        return len(self._live) + len(self._fresh) - self._ended

    @property
    def waiting(self) -> int:
        """Paths that are still to be decided again."""
        return len(self._first) + len(self._then)

    def open(self, live: ports.Live) -> int:
        """Register a path; return its number."""
        self._last = number = self._last + 1
        self._fresh.append(live)
        return number

    def close(self, number: int) -> None:
        """Forget a path that is over; a second call does nothing."""
        if number > self._entered:
            place = number - self._entered - 1
            if self._fresh[place] is not None:
                self._fresh[place] = None
                self._ended += 1
            return
        live = self._live.pop(number, None)
        if live is not None:
            self._concerned.leave(number, live.permit)
            self._deadlines.drop(number)
            del self._course[number]

    # ------------------------------------------------------------------ what makes the door decide again

    def changed(self, concerns: Iterable[Concern]) -> int:
        """Have the paths concerned decided again, before all others; return how many these are."""
        self._enter()
        found = self._concerned.of(concerns)
        self._first.add(found)
        self._call()
        return len(found)

    def all_changed(self) -> None:
        """Have every path decided again, as after a snapshot or by other policies.

        Whoever waited already goes first: however often this is said, everybody's turn comes.
        """
        self._enter()
        self._then.add(self._live)
        self._call()

    def pulse(self) -> None:
        """Time has passed: have those decided again whose turn or end has come."""
        self._enter()
        now = self._elapsed()
        for number in self._deadlines.due(now):
            permit = self._live[number].permit
            if self._time_of(number, now) >= self.door.ends(permit):
                self._first.add((number,))
            else:
                self._then.add((number,))
            self._arm(number, permit, now)
        self._call()

    def step(self) -> bool:
        """Decide some of those who wait, for a few milliseconds; return whether others are left."""
        until = self._elapsed() + STEP
        while True:
            for _ in range(LOOK):
                number = self._first.take() or self._then.take()
                if not number:
                    self._awake = False
                    return False
                self._decide(number)
            if self._elapsed() >= until:
                return True

    def cut_some(self, reason: str) -> int:
        """Cut paths for a few milliseconds, as when the process ends; return how many, 0 when none is."""
        self._enter()
        until, cut = self._elapsed() + STEP, 0
        for number in list(self._live):
            if number in self._live:  # one that ends may end others
                self._cut(number, reason)
                cut += 1
            if self._elapsed() >= until:
                break
        return cut

    # ------------------------------------------------------------------ steps

    def _enter(self) -> None:
        """Enter what was opened since the last time and is still live.

        Most exchanges are over before anybody asks; those never pay for it.
        """
        if self._entered == self._last:
            return
        now, wall = self._elapsed(), self._now()
        first = self._entered + 1
        live = {number: one for number, one in enumerate(self._fresh, first) if one is not None}
        self._entered, self._fresh, self._ended = self._last, [], 0
        self._live.update(live)  # all of them, before one is armed: by how many there are
        for number, one in live.items():
            self._concerned.enter(number, one.permit)
            self._course[number] = wall - now * 1000
            self._arm(number, one.permit, now)

    def _arm(self, number: int, permit: Permit, now: float) -> None:
        """Have a path looked at when its time may be over, and in any case once per round.

        Those that began together do not come again together.
        """
        look = max(1.0, len(self._live) / PER_SECOND) * (1 - (number & 63) / 128)
        left = (self.door.ends(permit) - self._time_of(number, now)) / 1000
        self._deadlines.set(number, now + (left if 0 < left < look else look))

    def _time_of(self, number: int, now: float) -> int:
        """Return a path's own time (ms): the wall clock as it was, and what has passed since."""
        return int(self._course[number] + now * 1000)

    def _call(self) -> None:
        if not self._awake and self.waiting:
            self._awake = True
            self._wake()

    def _decide(self, number: int) -> None:
        live = self._live.get(number)
        if live is None:
            return
        permit, own = live.permit, self._time_of(number, self._elapsed())
        if own >= permit.expires_at:
            self._cut(number, "expired")
            return
        # A wall clock that was set ahead ends nothing, one that was set back extends nothing.
        at = min(self._now(), own)
        try:
            code = self.door.reconsider(permit, at)
            if not code:
                self._concerned.hangs_on(number, self.door.hangs_on(permit))
        except Exception:
            log.exception("a live path can not be decided again: it is cut", extra={"id": permit.decision_id})
            code = "internal-error"
        if code:
            self._cut(number, code)

    def _cut(self, number: int, reason: str) -> None:
        live = self._live[number]
        self.close(number)
        self.cuts += 1
        try:
            live.cut(reason)
        except Exception:
            log.exception("a live path did not end cleanly", extra={"id": live.permit.decision_id})


class _Queue:
    """Numbers that wait, each once, in the order they came."""

    __slots__ = ("_in", "_order")

    def __init__(self) -> None:
        self._in: set[int] = set()
        self._order: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def add(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number not in self._in:
                self._in.add(number)
                self._order.append(number)

    def take(self) -> int:
        """Return the next number, 0 when there is none."""
        if not self._order:
            return 0
        number = self._order.popleft()
        self._in.discard(number)
        return number
