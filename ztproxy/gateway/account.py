"""The bookkeeping of one live path: registered, timed, and written down exactly once when it ends.

`gateway.relay` opens one per permit and `gateway.upgrade` takes it over. Evidence comes first: whoever knows
that a response is about to end settles before handing the last byte to the client.
"""

from ztproxy.gateway.client import Running
from ztproxy.gateway.quotas import Claim, Excess
from ztproxy.gateway.world import World
from ztproxy.model.permit import Permit
from ztproxy.model.ports import Live
from ztproxy.upstream.exchange import Exchange


class Account(Live):
    """One path from permit to outcome."""

    __slots__ = (
        "_began",
        "_claim",
        "_number",
        "_world",
        "exchange",
        "first_byte",
        "live",
        "status",
    )

    def __init__(self, world: World, permit: Permit, live: Running) -> None:
        super().__init__(permit)
        self.live: Running | None = live  # whom a cut ends; None when it is over
        self.status = 0  # sent to the client
        self.first_byte = -1  # ms until the upstream answered
        self.exchange: Exchange | None = None  # whom to ask for the target, where a route has several
        self._claim: Claim | None = None
        self._world = world
        self._began = world.clock.monotonic()
        self._number: int | None = world.paths.open(self)

    @property
    def settled(self) -> bool:
        """Tell whether the end has been written down."""
        return self._number is None

    def claim(self, source: str) -> Excess | None:
        """Count the path in the quotas of its route until it ends, or return which of them is used up."""
        world = self._world
        claim = world.quotas.claim(self.permit, source, world.wheel.now)
        if isinstance(claim, Excess):
            world.counters.limited(claim.limit)
            return claim
        self._claim = claim
        return None

    def answered(self, status: int) -> None:
        """The upstream's response head is here."""
        self.status = status
        self.first_byte = int((self._world.clock.monotonic() - self._began) * 1000)

    def settle(self, end: str, received: int, sent: int, detail: str = "") -> bool:
        """Write down how it ended, once; False when that is impossible: then nothing may seem complete."""
        number, self._number = self._number, None
        if number is None:
            return True
        exchange, self.exchange = self.exchange, None
        self.live = None  # leaves no cycle: a request is freed when it ends, not by the collector
        if self._claim is not None:
            self._claim.release()
        world = self._world
        world.paths.close(number)
        seconds = world.clock.monotonic() - self._began
        world.counters.request(self.permit.route.name, self.status, seconds)
        try:
            world.ledger.outcome(  # by position, as in administrator.evidence
                self.permit.decision_id,
                world.clock.now(),
                self.permit.session_id,
                self.status,
                received,
                sent,
                int(seconds * 1000),
                self.first_byte,
                end,
                detail,
                exchange.target if exchange is not None else "",
            )
        except Exception:  # noqa: BLE001  whatever went wrong, there is no evidence
            return False
        return True

    def cut(self, reason: str) -> None:
        """The door has changed its mind."""
        if self.live is not None:
            self.live.cut(reason)
