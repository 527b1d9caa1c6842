"""How often one source may try something: a bucket per source, and a bounded number of buckets.

Called by endpoints that guess-work could profit from. Runs on the monotonic clock.
"""

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

_SOURCES: Final = 10_000


class Rate:
    """`burst` attempts at once, refilled at `per_second`. The least recent source is forgotten first."""

    def __init__(self, burst: int, per_second: float, sources: int = _SOURCES) -> None:
        self._burst = burst
        self._per_second = per_second
        self._sources = sources
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, source: str, now: float) -> bool:
        """Count one attempt; False when there were too many. `now` in seconds, monotonic."""
        left, at = self._buckets.pop(source, (float(self._burst), now))
        left = min(float(self._burst), left + (now - at) * self._per_second)
        allowed = left >= 1
        self._buckets[source] = (left - 1 if allowed else left, now)
        if len(self._buckets) > self._sources:
            self._buckets.popitem(last=False)
        return allowed


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
