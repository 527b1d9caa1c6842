"""Rates that several workers and nodes keep together: each leases a slice of the tokens for a moment.

Made by whoever gives `gateway.quotas` a pot to share; no configuration does yet. A request is answered from
memory, as with a local bucket; what was used and will be needed is settled with the pot a few times a second.
Until the pot has answered a worker gives a little on credit and pays it back: all together never allow
more than burst + rate * t and their credits. When the pot is gone each keeps a local share of the rate, and
says so in `down`. Never makes a request wait.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from ztproxy.gateway.quotas import Tokens
from ztproxy.model.quota import Grant, Quota, Rate, Wish
from ztproxy.net.rate import Bucket

SETTLE: Final = 0.1  # seconds between two looks at the pot
LEASE: Final = 1.0  # seconds a leased token is good for
AHEAD: Final = 0.5  # seconds' worth of tokens to lease at once
MOST: Final = 1000  # wishes in one message


class Pot(Protocol):
    """Where the tokens of all are (store.redis_pot)."""

    async def draw(self, wishes: Sequence[Wish]) -> Sequence[Grant] | None:
        """Take tokens out; a grant for each wish, in order. None when it can not be reached."""


class Leases:
    """What one worker has leased. `share`: how many workers a rate is divided by while the pot is gone."""

    def __init__(self, pot: Pot, *, share: int, now: Callable[[], float]) -> None:
        self.down = False
        self.failures = 0
        self._pot = pot
        self._share = max(1, share)
        self._now = now
        self._wanting: dict[Leased, None] = {}

    def mint(self, quota: Quota, rate: Rate, key: str, now: float) -> Tokens:
        """Return the tokens of one caller (`gateway.quotas.Mint`)."""
        name = "\0".join((quota.scope, quota.per, repr(rate), str(quota.strangers), key))
        return Leased(
            name, rate, Rate(rate.per_second / self._share, max(1, rate.burst // self._share)), self
        )

    def want(self, leased: "Leased") -> None:
        """Have a caller's tokens settled at the next look."""
        self._wanting[leased] = None

    async def run(self) -> None:
        """Settle until cancelled."""
        while True:
            await asyncio.sleep(SETTLE)
            await self.settle()

    async def settle(self) -> None:
        """Pay what was given on credit, and lease what will be needed."""
        wanting = list(self._wanting)[:MOST]
        if not wanting:
            return
        for leased in wanting:
            del self._wanting[leased]
        grants = await self._pot.draw([leased.wish() for leased in wanting])
        self.down = grants is None
        if grants is None:
            self.failures += 1
            self._wanting.update(dict.fromkeys(wanting))
            return
        now = self._now()
        for leased, grant in zip(wanting, grants, strict=True):
            leased.granted(grant, now)


class Leased:
    """Leased tokens of one caller. Implements `gateway.quotas.Tokens`."""

    __slots__ = (
        "_ahead",
        "_credit",
        "_debt",
        "_leases",
        "_left",
        "_local",
        "_name",
        "_rate",
        "_told",
        "_until",
    )

    def __init__(self, name: str, rate: Rate, share: Rate, leases: Leases) -> None:
        self._name = name
        self._rate = rate
        self._leases = leases
        self._local = Bucket(share, 0.0)
        self._ahead = min(int(rate.per_second * AHEAD), rate.burst)
        self._credit = share.burst
        self._left = 0
        self._debt = 0
        self._until = 0.0
        self._told = 0.0  # when the pot will have a token again

    def take(self, now: float) -> float:
        """Take a token and return 0.0, or return the seconds until there may be one."""
        if self._leases.down:
            self._leases.want(self)  # the next look finds out whether the pot is back
            return self._local.take(now)
        wait = self.wait(now)
        if not wait:
            if self._left:
                self._left -= 1
            else:
                self._debt += 1
        if self._left <= self._ahead // 2:
            self._leases.want(self)
        return wait

    def wait(self, now: float) -> float:
        """Return the seconds until there may be a token, 0.0 when there is one."""
        if self._leases.down:
            return self._local.wait(now)
        if now >= self._until:
            self._left = 0
        if self._left or (self._debt < self._credit and now >= self._told):
            return 0.0
        self._leases.want(self)
        return max(self._told - now, SETTLE)

    def wish(self) -> Wish:
        """Return what to ask the pot for."""
        return Wish(self._name, self._rate, self._debt + self._ahead)

    def granted(self, grant: Grant, now: float) -> None:
        """Take what the pot gives: debts first."""
        paid = min(self._debt, grant.tokens)
        self._debt -= paid
        self._left += grant.tokens - paid
        self._until = now + LEASE
        self._told = now + grant.wait if not self._left else 0.0
