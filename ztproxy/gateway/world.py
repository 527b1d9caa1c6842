"""Everything one request is served with, as one frozen value.

Made by `service.assemble`; connections read the reference in `InForce` anew for each request.
"""

from dataclasses import dataclass

from ztproxy.crypto.ids import RequestIds
from ztproxy.gateway.crowd import Crowd
from ztproxy.gateway.limits import Limits
from ztproxy.gateway.quotas import Quotas
from ztproxy.model.ports import Counters, Door, Ledger, Paths, Router
from ztproxy.net.clock import Clock
from ztproxy.net.outbox import Outbox
from ztproxy.net.wheel import Wheel
from ztproxy.upstream.carriers import Carriers
from ztproxy.upstream.upstreams import Upstreams


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What `gateway.connection` and everything below it may reach."""

    door: Door
    paths: Paths
    ledger: Ledger
    routes: Router
    quotas: Quotas
    upstreams: Upstreams
    counters: Counters
    clock: Clock
    wheel: Wheel
    crowd: Crowd
    carriers: Carriers
    limits: Limits
    outbox: Outbox
    ids: RequestIds


class InForce:
    """Which world requests are served in now. Who reloads puts another one here; nobody else does."""

    __slots__ = ("world",)

    def __init__(self, world: World) -> None:
        self.world = world
