"""Token buckets: one, and one for each of a bounded number of keys. What counts as one source.

Used by the listener and the gateway for every connection and request, and by endpoints that guess-work could
profit from. Runs on the monotonic clock, whose readings come in as arguments. Pure.
"""

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address, ip_network
from math import inf
from typing import Final

from ztproxy.model.quota import Rate

KEYS: Final = 10_000


class Bucket:
    """Tokens for one rate. Full at first, so a forgotten bucket that had time to fill was no loss."""

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, rate: Rate, now: float) -> None:
        self._burst = self._left = float(rate.burst)
        self._per_second = rate.per_second
        self._at = now

    def take(self, now: float) -> float:
        """Take a token and return 0.0, or return the seconds until there is one. `now`: monotonic seconds."""
        if now > self._at:
            self._fill(now)
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        return self._missing()

    def reserve(self, now: float, patience: float) -> float:
        """Take a token that may come later; return in how many seconds, more than `patience` for never."""
        wait = self.wait(now)
        if wait <= patience:
            self._left -= 1.0
        return wait

    def wait(self, now: float) -> float:
        """Return the seconds until there is a token, 0.0 when there is one."""
        if now > self._at:
            self._fill(now)
        return 0.0 if self._left >= 1.0 else self._missing()

    def _fill(self, now: float) -> None:
        left = self._left + (now - self._at) * self._per_second
        self._left = min(left, self._burst)
        self._at = now

    def _missing(self) -> float:
        return (1.0 - self._left) / self._per_second if self._per_second else inf


class Buckets:
    """A bucket for each key. Of more than `keys` the least recent is forgotten."""

    def __init__(self, rate: Rate, keys: int = KEYS) -> None:
        self._rate = rate
        self._keys = keys
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, key: str, now: float) -> bool:
        """Count one attempt; False when there were too many."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self._rate, now)
            if len(self._buckets) > self._keys:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return not bucket.take(now)


def source_of(address: str) -> str:
    """Return who counts as one source: an IPv4 address, or an IPv6 network of one subscriber (/64)."""
    try:
        ip = ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, IPv6Address):
        mapped = ip.ipv4_mapped
        return str(mapped) if mapped else str(ip_network((ip, 64), strict=False))
    return str(ip)
