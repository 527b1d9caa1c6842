"""Live paths: everything that was opened with a permit and is not over yet, and the one way to cut it.

Opened and closed by the gateway for every exchange, WebSocket and stream; told of changes by
`service.worker`. A change, expiry or simply time makes the door decide again; a no cuts the path at once.
"""

from collections.abc import Callable, Iterable
from typing import Final

from ztproxy.model.permit import Permit
from ztproxy.trust.memory import Concern

#: Most paths decided again in one tick, so that a tick never holds the loop for long.
PER_TICK: Final = 2_000


class Paths:
    """The live paths of one worker. `reconsider` returns "" or the code of the refusal."""

    def __init__(self, reconsider: Callable[[Permit], str], now: Callable[[], int]) -> None:
        self._reconsider = reconsider
        self._now = now
        self._live: dict[int, tuple[Permit, Callable[[str], None]]] = {}
        self._by: dict[Concern, set[int]] = {}
        self._last = 0
        self._indexed = 0  # the last number that is in `_by`
        self._due: list[int] = []
        self.cuts = 0

    def __len__(self) -> int:
        return len(self._live)

    def open(self, permit: Permit, cut: Callable[[str], None]) -> int:
        """Register a path; `cut(reason)` must end it at once and may be called at most once."""
        self._last = number = self._last + 1
        self._live[number] = (permit, cut)
        return number

    def close(self, number: int) -> None:
        """Forget a path that is over; a second call does nothing."""
        entry = self._live.pop(number, None)
        if entry is None or number > self._indexed:
            return
        for concern in _concerns(entry[0]):
            numbers = self._by.get(concern)
            if numbers is not None:
                numbers.discard(number)
                if not numbers:
                    del self._by[concern]

    def changed(self, concerns: Iterable[Concern]) -> int:
        """Decide the paths concerned again; return how many were cut."""
        self._index()
        numbers = set[int]().union(*(self._by.get(concern, ()) for concern in concerns))
        return self._again(numbers)

    def all_changed(self) -> int:
        """Decide every path again, as after a new snapshot or new policies."""
        return self._again(list(self._live))

    def live(self) -> list[int]:
        """Return the numbers of all paths, to be decided again a share at a time."""
        return list(self._live)

    def again(self, numbers: Iterable[int]) -> int:
        """Decide some paths again; return how many were cut."""
        return self._again(numbers)

    def tick(self) -> int:
        """Decide live paths again because time has passed; a bounded share of them at each call."""
        self._index()
        if not self._due:
            self._due = list(self._live)
        share, self._due = self._due[:PER_TICK], self._due[PER_TICK:]
        return self._again(share)

    def cut_all(self, reason: str) -> int:
        """Cut everything, as when the process ends."""
        return sum(self._cut(number, reason) for number in list(self._live))

    def _index(self) -> None:
        """Enter what was opened since the last time and is still live.

        Most exchanges are over before anybody asks; those never pay for it.
        """
        for number in reversed(self._live):
            if number <= self._indexed:
                break
            for concern in _concerns(self._live[number][0]):
                self._by.setdefault(concern, set()).add(number)
        self._indexed = self._last

    def _again(self, numbers: Iterable[int]) -> int:
        now = self._now()
        cut = 0
        for number in numbers:
            entry = self._live.get(number)
            if entry is None:
                continue
            permit = entry[0]
            reason = "expired" if now >= permit.expires_at else self._reconsider(permit)
            if reason:
                cut += self._cut(number, reason)
        return cut

    def _cut(self, number: int, reason: str) -> bool:
        entry = self._live.get(number)
        if entry is None:
            return False
        self.close(number)
        self.cuts += 1
        entry[1](reason)
        return True


def _concerns(permit: Permit) -> tuple[Concern, ...]:
    concerns: tuple[Concern, ...] = ()
    if permit.session_id:
        concerns = (("session", permit.session_id),)
    if permit.handle:
        concerns = (*concerns, ("handle", permit.handle))
    if permit.device_id:
        concerns = (*concerns, ("device", permit.device_id))
    return concerns
