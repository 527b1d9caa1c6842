"""The one way to an upstream: nothing is sent, and nothing dialled, without a Permit.

The gateway holds one per worker. Thin: `upstream.pool` plans, `net.dial` connects, `upstream.connection`
reads.
"""

from typing import Final

from ztproxy.model.permit import Permit
from ztproxy.net.clock import Clock
from ztproxy.net.dial import Dialler
from ztproxy.net.wheel import Wheel
from ztproxy.upstream.connection import UpstreamConnection
from ztproxy.upstream.exchange import Exchange, Request
from ztproxy.upstream.pool import Pool
from ztproxy.upstream.receiver import Receiver

#: Seconds an idle connection is kept.
IDLE: Final = 45.0
#: A request that must not be sent twice only takes a connection that was in use this recently (seconds):
#: an older one may just be closing.
FRESH: Final = 1.0


class Upstreams:
    """Opens exchanges and keeps connections between them."""

    def __init__(self, dialler: Dialler, *, wheel: Wheel, clock: Clock, idle: float = IDLE) -> None:
        self.dialler = dialler
        self._wheel = wheel
        self._clock = clock
        self._idle = idle
        self._pool: Pool[UpstreamConnection] = Pool()

    def __len__(self) -> int:
        return len(self._pool)

    def open(self, permit: Permit, request: Request, receiver: Receiver) -> Exchange:
        """Start an exchange with the permit's route. Raises TypeError for anything but a permit."""
        if not isinstance(permit, Permit):
            raise TypeError("a permit is needed")
        exchange = Exchange(self, permit, request, receiver)
        exchange.start(self._take(permit, request))
        return exchange

    def close(self) -> None:
        """Close all idle connections."""
        for connection in list(self._pool):
            connection.transport.close()

    def _take(self, permit: Permit, request: Request) -> UpstreamConnection | None:
        route = permit.route
        since = self._wheel.now - (self._idle if request.replayable else FRESH)
        while (connection := self._pool.take(route.upstream, since)) is not None:
            if connection.transport.is_closing():
                continue
            if connection.trusted is route.portal:
                return connection
            connection.transport.close()  # only a route that is not ours leading to our own socket comes here
        return None

    # ------------------------------------------------------------------ what exchanges and connections call

    async def connect(self, permit: Permit) -> UpstreamConnection:
        """Return a new connection for an exchange. Raises net.dial.Unreachable."""
        route = permit.route
        return await self.dialler.dial(
            route.upstream, lambda: UpstreamConnection(self, route.upstream, trusted=route.portal)
        )

    def made(self, connection: UpstreamConnection) -> None:
        """A connection is up."""
        self._wheel.add(connection)

    def idle(self, connection: UpstreamConnection) -> None:
        """A connection is clean and free."""
        now = self._clock.monotonic()
        connection.deadline = now + self._idle
        if not self._pool.give(connection.upstream, connection, now):
            connection.transport.close()

    def lost(self, connection: UpstreamConnection) -> None:
        """A connection is gone."""
        self._wheel.discard(connection)
        self._pool.remove(connection.upstream, connection)
