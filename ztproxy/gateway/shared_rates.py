"""Rates that all workers keep together: answered from memory at once, charged to the pot of all soon after.

Made by `service.worker`; `gateway.quotas` gets its buckets here. What a worker lets pass it charges to a pot
(`store.interface.Pot`, in the control process) and learns what is left for all. Until it has heard, it lets a
caller have no more than a credit, then its own share of the rate, which is also all there is while control or
Redis is away. Whatever passed is charged in the end, so a pot can owe, and nobody gets more on average than
the rate. Never makes a request wait.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import islice
from typing import Final

from ztproxy.model.messages import Charged
from ztproxy.model.quota import Quota, Rate, Spent
from ztproxy.net.rate import Bucket
from ztproxy.net.wheel import SPOKES, TURN

PACE: Final = 0.1  # seconds between two charges, unless a credit is half used
RETRY: Final = 0.25  # seconds after one that was not answered
MOST: Final = 1000  # callers in one message
KEYS: Final = 10_000  # callers with something to charge; of more the oldest are let off
GRAIN: Final = TURN / SPOKES  # seconds by which the time of requests moves on
PARALLEL: Final = 8  # requests at once, as browsers send them, that a credit should bear

Charge = Callable[[tuple[Spent, ...]], Awaitable[Charged | None]]


class SharedRates:
    """What one worker has yet to charge."""

    def __init__(self, charge: Charge, now: Callable[[], float]) -> None:
        self.workers = 1  # of this node
        self.apart = False  # the last charge was not answered, or not in full
        self.by_share = 0  # requests that passed by this worker's own share
        self._nodes = 1  # that were heard of last
        self._charge = charge
        self._now = now
        self._noted: dict[SharedBucket, None] = {}
        self._some = asyncio.Event()
        self._urgent = asyncio.Event()

    @property
    def share(self) -> int:
        """Return by how many workers a rate is divided while there is no answer."""
        return self._nodes * self.workers

    def bucket(self, quota: Quota, rate: Rate, key: str, now: float) -> Bucket:
        """Return the bucket of one caller (`gateway.quotas.Mint`).

        A source is counted by each node: who has many addresses must not fill what nodes share.
        """
        return SharedBucket(self, _name(quota, rate, key), rate, now, not key.startswith("@"))

    def note(self, bucket: "SharedBucket") -> None:
        """Have a caller charged with the next message."""
        if len(self._noted) >= KEYS:
            oldest = next(iter(self._noted))
            del self._noted[oldest]
            oldest.let_off()
        self._noted[bucket] = None
        self._some.set()

    def hurry(self) -> None:
        """Have the next message sent as soon as the one before is answered."""
        self._urgent.set()

    async def run(self) -> None:
        """Charge until cancelled."""
        while True:
            await self._some.wait()
            await self.settle()
            if self.apart:
                await asyncio.sleep(RETRY)
                continue
            if len(self._noted) >= MOST:
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(PACE):
                    await self._urgent.wait()

    async def settle(self) -> None:
        """Charge what was noted, and learn what is left."""
        self._urgent.clear()
        batch = list(islice(self._noted, MOST))
        for bucket in batch:
            del self._noted[bucket]
        if not self._noted:
            self._some.clear()
        now = self._now()
        charged = await self._charge(tuple([bucket.spent(now) for bucket in batch]))
        if charged is None or len(charged.left) != len(batch):
            charged = Charged(0, (None,) * len(batch), self._nodes)
        self._nodes = charged.nodes
        self.apart = None in charged.left
        now = self._now()
        for bucket, left in zip(batch, charged.left, strict=True):
            if left is None:
                bucket.unanswered()
                self.note(bucket)
            else:
                bucket.charged(left, now)


class SharedBucket(Bucket):
    """One worker's view of one caller's bucket."""

    __slots__ = (
        "_credit",
        "_mark",
        "_name",
        "_next",
        "_noted",
        "_rate",
        "_rates",
        "_sent",
        "_shared",
        "_uncharged",
    )

    def __init__(self, rates: SharedRates, name: str, rate: Rate, now: float, shared: bool) -> None:
        super().__init__(rate, now)
        self._rates = rates
        self._name = name
        self._rate = rate
        self._shared = shared
        self._credit = _credit(rate.burst, rates.share)
        self._uncharged = 0  # requests the pot has not answered for
        self._sent = 0  # of these, in a message that is under way
        self._noted = False
        self._mark = 1  # the number of uncharged requests at which there is something to do
        self._next = 0.0  # when our own share has another token

    def wait(self, now: float) -> float:
        """Return the seconds until there may be a token, 0.0 when there is one."""
        if now > self._at:
            self._fill(now)
        if self._left < 1.0:
            return self._missing()
        if self._uncharged >= self._credit and self._next > now + GRAIN:
            return self._next - now - GRAIN
        return 0.0

    def take(self, now: float) -> float:
        """Take a token and return 0.0, or return the seconds until there may be one."""
        wait = self.wait(now)
        if wait:
            return wait
        self._left -= 1.0
        self._uncharged += 1
        if self._uncharged >= self._mark:
            self._marked(now)
        return 0.0

    def _marked(self, now: float) -> None:
        if not self._noted:
            self._noted = True
            self._rates.note(self)
        if 2 * (self._uncharged - self._sent) >= self._credit:
            self._rates.hurry()
        if self._uncharged >= self._credit:
            self._next = max(self._next, now) + self._rates.share / self._rate.per_second
            self._rates.by_share += self._uncharged > self._credit
        self._aim()

    def _aim(self) -> None:
        """Set the next mark: to be charged, to be charged soon, or beyond the credit."""
        if not self._noted:
            self._mark = self._uncharged + 1
        elif 2 * (self._uncharged - self._sent) < self._credit:
            self._mark = min(self._sent + (self._credit + 1) // 2, self._credit)
        else:
            self._mark = max(self._uncharged + 1, self._credit)

    # ------------------------------------------------------------------ what the pot is told, and tells

    def spent(self, now: float) -> Spent:
        """Return what to charge. What is believed to be left helps a pot that has forgotten."""
        if now > self._at:
            self._fill(now)
        self._sent, self._noted = self._uncharged, False
        self._aim()
        return Spent(self._name, self._rate, self._sent, self._left, self._shared)

    def charged(self, left: float, now: float) -> None:
        """Believe the pot."""
        self._uncharged -= self._sent
        self._sent = 0
        self._left = min(left, self._burst) - self._uncharged
        self._at = now
        self._aim()

    def let_off(self) -> None:
        """It will not be charged: too many others have to be."""
        self._uncharged, self._noted = self._sent, False
        self._aim()

    def unanswered(self) -> None:
        """Nobody knows whether it was charged: it is once more, to be safe."""
        self._sent, self._noted = 0, True
        self._aim()


def _credit(burst: int, workers: int) -> int:
    """Return what a worker may let pass unheard: half a burst for all, or some more where it is small."""
    return max(1, min(burst // 4, max(PARALLEL, burst // (2 * workers))))


def _name(quota: Quota, rate: Rate, key: str) -> str:
    """Name a caller of a quota to the pot, which need not know who asks."""
    words = (quota.scope, quota.per, repr(rate), str(quota.concurrent), str(quota.strangers), key)
    return hashlib.blake2b("\0".join(words).encode(), digest_size=16).hexdigest()
