"""Which idle connection an exchange may use: a pure planner, without sockets or clock.

`upstream.upstreams` executes what it plans. Connections are keyed by the whole Upstream value, so address
*and* TLS identity agree; a connection is here or in use, never both.
"""

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from ztproxy.model.resource import Upstream

C = TypeVar("C")


#: Idle connections kept to one upstream, and to all. So many were in use at once a moment ago: with fewer, a
#: crowd at one application would have most of its requests dial anew, at more than a request's own cost.
PER_UPSTREAM: Final = 1024
TOTAL: Final = 4096


class Pool(Generic[C]):
    """Idle connections, newest first out."""

    def __init__(self, *, per_upstream: int = PER_UPSTREAM, total: int = TOTAL) -> None:
        self._per_upstream = per_upstream
        self._total = total
        self._idle: dict[Upstream, dict[C, float]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[C]:
        return (connection for idle in self._idle.values() for connection in idle)

    def take(self, upstream: Upstream, since: float) -> C | None:
        """Take out the connection that became idle last, unless that was before `since` (seconds)."""
        idle = self._idle.get(upstream)
        if not idle:
            return None
        connection, at = idle.popitem()
        if at < since:
            idle[connection] = at
            return None
        self._count -= 1
        return connection

    def give(self, upstream: Upstream, connection: C, at: float) -> bool:
        """Put in a connection that became idle at `at`; False when there is no room for it."""
        idle = self._idle.get(upstream)
        if idle is None:
            idle = self._idle[upstream] = {}
        if len(idle) >= self._per_upstream or self._count >= self._total:
            return False
        idle[connection] = at
        self._count += 1
        return True

    def remove(self, upstream: Upstream, connection: C) -> None:
        """Forget a connection that is no longer good; nothing happens when it is not here."""
        idle = self._idle.get(upstream)
        if idle is None or idle.pop(connection, None) is None:
            return
        self._count -= 1
        if not idle:
            del self._idle[upstream]
