"""The pots of a node: where what its workers let pass of shared rates is charged.

Made by `service.tenure`, asked by `service.hub`. What a store shares, the nodes share; sources are counted by
each node for itself, in a pot of their own: a flood of addresses fills nothing that others need. When the
shared pot can not be reached, that is told to workers, who then keep their shares.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from ztproxy.config.settings import Settings
from ztproxy.model.messages import Charge, Charged
from ztproxy.model.quota import Spent
from ztproxy.net.clock import entropy
from ztproxy.service.storage import redis_options
from ztproxy.store.interface import Pot, StoreUnavailable
from ztproxy.store.local_pot import LocalPot
from ztproxy.store.redis_pot import RedisPot

log = logging.getLogger("ztproxy.control")

BEAT: Final = 2.0  # seconds between two words to the other nodes


class Rates:
    """Charges tokens. `shared` holds what all nodes share."""

    def __init__(self, own: Pot, shared: Pot) -> None:
        self._own = own
        self._shared = shared
        self._nodes = 1
        self._apart = False

    async def charge(self, charge: Charge) -> Charged:
        """Charge what a worker let pass."""
        spent = charge.spent
        own = await self._own.charge([one for one in spent if not one.shared])
        shared = await self._from_all([one for one in spent if one.shared])
        of_own, of_all = iter(own.left), iter(shared)
        left = tuple([next(of_all if one.shared else of_own) for one in spent])
        return Charged(charge.ask, left, self._nodes)

    async def beat(self) -> None:
        """Let other nodes know that there is one more to share with."""
        await self._from_all(())

    async def _from_all(self, spent: Sequence[Spent]) -> Sequence[float | None]:
        try:
            balance = await self._shared.charge(spent)
        except StoreUnavailable as away:
            if not self._apart:
                log.warning("rates are not shared: each worker keeps its share", extra={"reason": str(away)})
            self._apart = True
            return [None] * len(spent)
        if self._apart:
            log.info("rates are shared again")
        self._apart, self._nodes = False, balance.nodes
        return balance.left

    async def close(self) -> None:
        """Let go of connections."""
        await self._shared.close()


def open_rates(settings: Settings, now: Callable[[], float]) -> Rates:
    """Open what the configuration chose; connects later. Raises StoreUnavailable, OSError."""
    redis = settings.store.redis
    if redis is None:
        return Rates(LocalPot(now), LocalPot(now))
    options = redis_options(settings, redis)
    return Rates(LocalPot(now), RedisPot.open(options, node=entropy(8).hex(), name=redis.name))
