"""The pot of rates that the workers of one node keep together, in the memory of the control process.

Made by `service.rates`. Of more than `keys` callers the least recent is forgotten; a worker that remembers
what was left of it says so.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from ztproxy.model.quota import Spent
from ztproxy.store.interface import Balance

KEYS: Final = 50_000  # some 15 MiB


class LocalPot:
    """Implements `store.interface.Pot`."""

    __slots__ = ("_kept", "_keys", "_now")

    def __init__(self, now: Callable[[], float], keys: int = KEYS) -> None:
        self._now = now
        self._keys = keys
        self._kept: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens left, and when

    def __len__(self) -> int:
        return len(self._kept)

    async def charge(self, spent: Sequence[Spent]) -> Balance:
        """Take what was spent, and return what is left."""
        now = self._now()
        return Balance(tuple([self._charge(one, now) for one in spent]), 1)

    def _charge(self, one: Spent, now: float) -> float:
        known = self._kept.pop(one.key, None)
        if known is None:
            left = min(one.left, one.rate.burst)
        else:
            left = min(known[0] + (now - known[1]) * one.rate.per_second, one.rate.burst) - one.tokens
        self._kept[one.key] = left, now
        if len(self._kept) > self._keys:
            self._kept.popitem(last=False)
        return left

    async def close(self) -> None:
        """Nothing is held."""
