"""The one way to an upstream: nothing is sent, and nothing dialled, without a Permit.

The gateway holds one per worker. Thin: `upstream.pool` plans, `net.dial` connects, `upstream.connection`
reads.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from ztproxy.model.permit import Permit
from ztproxy.model.resource import Targets, Upstream
from ztproxy.model.route import Route
from ztproxy.net.dial import Dialler, Unreachable
from ztproxy.net.outbox import Outbox
from ztproxy.net.wheel import Wheel
from ztproxy.telemetry.snapshot import TargetState
from ztproxy.upstream.connection import UpstreamConnection
from ztproxy.upstream.exchange import Exchange
from ztproxy.upstream.health import watch
from ztproxy.upstream.pool import Pool
from ztproxy.upstream.receiver import Receiver
from ztproxy.upstream.request import Request
from ztproxy.upstream.spread import Group, Spread

log = logging.getLogger("ztproxy.upstream")

#: Seconds in which it is said once why an upstream can not be reached, however many ask for it.
QUIET: Final = 60.0
#: Seconds an idle connection is kept.
IDLE: Final = 45.0
#: A request that must not be sent twice only takes a connection that was in use this recently (seconds):
#: an older one may just be closing. No request takes an older one that is borrowed: when the link of its
#: connector is cut, nobody here is told before the kernel of who lent it gives up, after ten seconds.
FRESH: Final = 1.0


class Upstreams:
    """Opens exchanges and keeps connections between them."""

    def __init__(
        self,
        dialler: Dialler,
        *,
        wheel: Wheel,
        outbox: Outbox,
        idle: float = IDLE,
        routes: Iterable[Route] = (),
        known: Mapping[str, Group] = MappingProxyType({}),
        retries: dict[str, int] | None = None,
    ) -> None:
        """`routes`: those whose targets are watched. `known`: what another one learned of them.
        `retries` counts by route."""
        self.dialler = dialler
        self.outbox = outbox
        self._wheel = wheel
        self._idle = idle
        self._pool: Pool[UpstreamConnection] = Pool()
        self.groups: dict[str, Group] = dict(known)  # by route; routes come from the configuration
        self.retries = {} if retries is None else retries
        groups = {route.name: group for route in routes if (group := self.group(route)) is not None}
        self.groups = groups
        self._checks: list[asyncio.Task[None]] = []
        self._said: dict[Upstream, float] = {}  # when it was said last why one can not be reached
        self._closed = False

    def __len__(self) -> int:
        return len(self._pool)

    def open(self, permit: Permit, request: Request, receiver: Receiver) -> Exchange:
        """Start an exchange with the permit's route. Raises TypeError for anything but a permit."""
        if not isinstance(permit, Permit):
            raise TypeError("a permit is needed")
        route = permit.route
        if route.targets is not None:
            return self._spread(permit, request, receiver, route.targets)
        exchange = Exchange(self, permit, request, receiver)
        exchange.start(self._take(permit, request, route.upstream))
        return exchange

    def start(self) -> None:
        """Begin to ask targets how they are, where their route says so."""
        create = asyncio.get_running_loop().create_task
        self._checks += [
            create(watch(self.dialler, group, index, check))
            for group in self.groups.values()
            if (check := group.targets.health) is not None
            for index in range(len(group.upstreams))
        ]

    def close(self) -> None:
        """Close all idle connections and those that become idle, and ask targets no more."""
        self._closed = True
        for check in self._checks:
            check.cancel()
        self._checks.clear()
        for connection in list(self._pool):
            connection.transport.close()

    def group(self, route: Route) -> Group | None:
        """Return what is known about the targets of a route, None when there is nothing to choose."""
        targets = route.targets
        if targets is None:
            return None
        group = self.groups.get(route.name)
        if group is None or (group.targets is not targets and group.targets != targets):
            group = self.groups[route.name] = Group(route.name, targets)
        return group

    def states(self) -> tuple[TargetState, ...]:
        """Return how the targets of all routes are seen."""
        for group in self.groups.values():
            group.balancer.look(self._wheel.now)
        return tuple(
            TargetState(
                group.route, upstream.place, group.balancer.usable(index), group.balancer.ejections(index)
            )
            for group in self.groups.values()
            for index, upstream in enumerate(group.upstreams)
        )

    def _spread(self, permit: Permit, request: Request, receiver: Receiver, targets: Targets) -> Exchange:
        """Start an exchange with one of several targets."""
        group = self.groups.get(permit.route.name)
        if group is None or group.targets is not targets:
            group = self.group(permit.route)
            assert group is not None
        index = group.balancer.pick(self._wheel.now)
        exchange = Spread(self, permit, request, receiver, group, index)
        exchange.start(self._take(permit, request, group.upstreams[index]))
        return exchange

    def _take(self, permit: Permit, request: Request, upstream: Upstream) -> UpstreamConnection | None:
        since = self._wheel.now - (self._idle if request.replayable else FRESH)
        while (connection := self._pool.take(upstream, since)) is not None:
            if connection.transport.is_closing():
                continue
            if connection.deadline < self._wheel.now:  # the wheel has not come by yet
                connection.transport.close()
                continue
            if connection.trusted is permit.route.portal:
                return connection
            connection.transport.close()  # only a route that is not ours leading to our own socket comes here
        return None

    # ------------------------------------------------------------------ what exchanges and connections call

    @property
    def now(self) -> float:
        """Seconds of the monotonic clock, good enough for deadlines."""
        return self._wheel.now

    async def connect(self, permit: Permit, upstream: Upstream) -> UpstreamConnection:
        """Return a new connection to one of the permit's upstreams. Raises net.dial.Unreachable."""
        route = permit.route
        try:
            return await self.dialler.dial(
                upstream,
                lambda: UpstreamConnection(self, upstream, trusted=route.portal),
                patience=route.connect_timeout,
            )
        except Unreachable as failed:
            self._say_why(route, upstream, failed)
            raise

    def _say_why(self, route: Route, upstream: Upstream, failed: Unreachable) -> None:
        """Tell the log, as neither the caller nor the record is told, now and then."""
        now = self._wheel.now
        if now - self._said.get(upstream, -QUIET) >= QUIET:
            self._said[upstream] = now
            log.warning(
                "an upstream can not be reached",
                extra={"route": route.name, "target": upstream.place, "reason": str(failed)},
            )

    def repeated(self, route: Route) -> None:
        """A request is sent once more."""
        self.retries[route.name] = self.retries.get(route.name, 0) + 1

    def made(self, connection: UpstreamConnection) -> None:
        """A connection is up."""
        self._wheel.add(connection)

    def idle(self, connection: UpstreamConnection) -> None:
        """A connection is clean and free."""
        now = self._wheel.now  # a little older than it is
        carriage = connection.carried
        connection.deadline = now + (self._idle if carriage is None or not carriage.lent else FRESH)
        if self._closed or not self._pool.give(connection.upstream, connection, now):
            connection.transport.close()

    def lost(self, connection: UpstreamConnection) -> None:
        """A connection is gone."""
        self._wheel.discard(connection)
        self._pool.remove(connection.upstream, connection)
