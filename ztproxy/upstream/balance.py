"""Which of a route's targets the next request goes to: a pure planner, without sockets or clock.

`upstream.spread` asks it and reports how it went. Targets get requests in proportion to their weights, in an
even and repeatable order; those that failed too often are left out for a while. Time comes in as seconds of
the monotonic clock.
"""

from collections.abc import Container, Sequence
from heapq import heapify, heapreplace
from math import lcm
from typing import Final

from ztproxy.model.resource import Ejection

NEVER: Final = float("inf")


class _State:
    """What is known about one target."""

    __slots__ = ("ejected_until", "ejections", "failures", "healthy", "returned", "stride", "times")

    def __init__(self, stride: int) -> None:
        self.stride = stride  # the smaller, the more often it is its turn
        self.healthy = True  # as far as active checks know
        self.failures = 0  # in a row
        self.ejected_until = 0.0  # 0 = it is not left out
        self.returned = 0.0  # when it came back last
        self.times = 0  # ejections that make the next one longer
        self.ejections = 0  # ever

    @property
    def usable(self) -> bool:
        return self.healthy and not self.ejected_until


class Balancer:
    """Chooses among targets 0 … n-1.

    The choice is earliest deadline first: a target's next turn comes one stride after its last, the first
    after half a stride, and strides are inverse to weights. In any full round each target is chosen exactly
    as often as its weight says.
    When no target is usable all are: what is known may be wrong, and a refusal would certainly not help.
    """

    __slots__ = ("_back", "_ejection", "_heap", "_last", "_states", "ejected")

    def __init__(self, weights: Sequence[int], ejection: Ejection) -> None:
        round_ = lcm(*weights)
        self._ejection = ejection
        self._states = [_State(2 * round_ // weight) for weight in weights]
        self._heap = [(state.stride // 2, index) for index, state in enumerate(self._states)]
        heapify(self._heap)
        self._last = 0  # deadline of the newest turn
        self._back = NEVER  # when the next ejected target comes back
        self.ejected = 0

    def __len__(self) -> int:
        return len(self._states)

    def pick(self, now: float) -> int:
        """Return the target of the next request."""
        if now >= self._back:
            self._let_back(now)
        due, index = self._heap[0]
        self._last = due
        heapreplace(self._heap, (due + self._states[index].stride, index))
        return index

    def another(self, tried: Container[int], now: float) -> int | None:
        """Return the target whose turn is next among those not tried, None when all usable ones were."""
        self.look(now)
        for due, index in sorted(self._heap):
            if index not in tried:
                self._heap.remove((due, index))
                self._heap.append((due + self._states[index].stride, index))
                heapify(self._heap)
                return index
        return None

    def look(self, now: float) -> None:
        """Let back whose time is over, also when there are no requests."""
        if now >= self._back:
            self._let_back(now)

    # ------------------------------------------------------------------ what is learned

    def succeeded(self, index: int) -> None:
        """A target answered."""
        self._states[index].failures = 0

    def failed(self, index: int, now: float) -> bool:
        """A target failed a request; True when it is left out from now on."""
        state, rule = self._states[index], self._ejection
        state.failures += 1
        if state.failures < rule.failures or state.ejected_until or not self._may_eject():
            return False
        if now - state.returned > rule.longest:
            state.times = 0  # it has been fine for long enough not to be held to its past
        state.failures = 0
        state.times += 1
        state.ejections += 1
        seconds = min(rule.least * 2 ** min(state.times - 1, 32), rule.longest)
        state.ejected_until = now + seconds
        self._back = min(self._back, state.ejected_until)
        self.ejected += 1
        self._rebuild()
        return True

    def checked(self, index: int, *, healthy: bool) -> None:
        """An active check has come to another conclusion. A healthy target begins anew."""
        state = self._states[index]
        if state.healthy is healthy:
            return
        state.healthy = healthy
        if healthy:
            state.failures = state.times = 0
        self._rebuild()

    def usable(self, index: int) -> bool:
        """Tell whether a target is neither unhealthy nor left out."""
        return self._states[index].usable

    def healthy(self, index: int) -> bool:
        """Tell what active checks said of a target; at first it is believed well."""
        return self._states[index].healthy

    def ejections(self, index: int) -> int:
        """Return how often a target was left out."""
        return self._states[index].ejections

    # ------------------------------------------------------------------ steps

    def _may_eject(self) -> bool:
        """One may always be left out, but never the last, and never more than the share allows."""
        count = len(self._states)
        out = sum(not state.usable for state in self._states)
        return out < min(max(1, count * self._ejection.share // 100), count - 1)

    def _let_back(self, now: float) -> None:
        self._back = NEVER
        for state in self._states:
            if state.ejected_until and state.ejected_until <= now:
                state.returned, state.ejected_until = state.ejected_until, 0.0
                self.ejected -= 1
            elif state.ejected_until:
                self._back = min(self._back, state.ejected_until)
        self._rebuild()

    def _rebuild(self) -> None:
        """Choose among the usable ones, or all. Whoever comes back has no arrears."""
        usable = [index for index, state in enumerate(self._states) if state.usable]
        kept = {index: due for due, index in self._heap}
        now = self._last
        self._heap = [
            (kept.get(index, now + self._states[index].stride), index)
            for index in usable or range(len(self._states))
        ]
        heapify(self._heap)
