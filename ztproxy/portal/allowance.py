"""How often something may be done by one source in a while. Bounded memory, one process."""

from ztproxy.net.clock import Clock


class Allowance:
    """At most `most` per key in each window of `seconds`, for at most `keys` keys; more are refused."""

    def __init__(self, clock: Clock, *, most: int, seconds: float, keys: int = 20_000) -> None:
        self._clock = clock
        self._most = most
        self._seconds = seconds
        self._keys = keys
        self._since = clock.monotonic()
        self._taken: dict[str, int] = {}

    def take(self, key: str) -> bool:
        """Count one use; False when the allowance is used up."""
        now = self._clock.monotonic()
        if now - self._since >= self._seconds:
            self._taken.clear()
            self._since = now
        taken = self._taken.get(key, 0)
        if taken >= self._most or (not taken and len(self._taken) >= self._keys):
            return False
        self._taken[key] = taken + 1
        return True
