"""How often something may be done by one source in a while. Bounded memory, one process."""

from ztproxy.net.clock import Clock


class Allowance:
    """At most `most` per key and `all_keys` together in each window of `seconds`; more is refused."""

    def __init__(self, clock: Clock, *, most: int, all_keys: int, seconds: float) -> None:
        self._clock = clock
        self._most = most
        self._all = all_keys
        self._seconds = seconds
        self._since = clock.monotonic()
        self._taken: dict[str, int] = {}
        self._sum = 0

    def take(self, key: str) -> bool:
        """Count one use; False when the allowance is used up."""
        now = self._clock.monotonic()
        if now - self._since >= self._seconds:
            self._taken.clear()
            self._sum = 0
            self._since = now
        taken = self._taken.get(key, 0)
        if taken >= self._most or self._sum >= self._all:
            return False
        self._taken[key] = taken + 1
        self._sum += 1
        return True
