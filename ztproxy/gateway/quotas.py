"""Quotas: how many permitted requests a caller, a source or a route may have, per second and at once.

Asked by `gateway.account` after policy has said yes and before anything is opened, so that a quota tells
nothing to those who may not come in. O(1), from memory, on the wheel's clock; of each quota a bounded number
of callers is remembered. Rates are those of all workers where `shared_rates` makes the buckets; what is under
way each worker counts for itself.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from math import ceil
from typing import Final, NamedTuple

from ztproxy.model.permit import Permit
from ztproxy.model.quota import Quota, Rate
from ztproxy.model.route import Route
from ztproxy.model.subject import ANONYMOUS
from ztproxy.net.rate import Bucket

KEYS: Final = 10_000  # callers of one quota
LONGEST: Final = 3600  # seconds to ask anybody to wait
_TRIES: Final = 8  # callers with something under way to pass over when one has to be forgotten


class Excess(NamedTuple):
    """A quota is used up."""

    code: str  # model.codes
    limit: str  # which: the quota's `per`, or "sign-in"
    retry_after: int  # seconds


#: Makes the bucket of a caller: of a quota with a rate, a key and the time.
Mint = Callable[[Quota, Rate, str, float], Bucket]


def local(quota: Quota, rate: Rate, key: str, now: float) -> Bucket:
    """Keep a caller's tokens in this worker alone."""
    return Bucket(rate, now)


class Meter:
    """What one caller has used of one quota."""

    __slots__ = ("bucket", "running")

    def __init__(self, bucket: Bucket | None) -> None:
        self.bucket = bucket
        self.running = 0


class Table:
    """All meters of one quota."""

    __slots__ = ("_keys", "_meters", "_mint", "quota")

    def __init__(self, quota: Quota, mint: Mint = local, *, keys: int = KEYS) -> None:
        self.quota = quota
        self._mint = mint
        self._keys = keys
        self._meters: OrderedDict[str, Meter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._meters)

    def meter(self, key: str, now: float) -> Meter:
        """Return a caller's meter."""
        meter = self._meters.get(key)
        if meter is not None:
            self._meters.move_to_end(key)
            return meter
        if len(self._meters) >= self._keys:
            self._forget()
        rate = self.quota.rate
        meter = self._meters[key] = Meter(
            self._mint(self.quota, rate, key, now) if rate is not None else None
        )
        return meter

    def _forget(self) -> None:
        """Drop who came least recently and has nothing under way: those are as bounded as connections."""
        for _ in range(_TRIES):
            key, meter = self._meters.popitem(last=False)
            if not meter.running:
                return
            self._meters[key] = meter


class Claim:
    """What one request holds of its quotas until it is over."""

    __slots__ = ("_meters",)

    def __init__(self, meters: list[Meter]) -> None:
        self._meters = meters

    def release(self) -> None:
        """Give back. To be called once."""
        for meter in self._meters:
            meter.running -= 1


class Quotas:
    """The quotas of all routes. A quota that was `known` before goes on counting."""

    __slots__ = ("_plans", "tables")

    def __init__(self, routes: Iterable[Route], known: Mapping[Quota, Table], mint: Mint = local) -> None:
        self.tables: dict[Quota, Table] = {}
        self._plans: dict[str, tuple[Table, ...]] = {}
        for route in routes:
            for quota in route.quotas:
                if quota not in self.tables:
                    before = known.get(quota)
                    self.tables[quota] = before if before is not None else Table(quota, mint)
            if route.quotas:
                self._plans[route.name] = tuple([self.tables[quota] for quota in route.quotas])

    def claim(self, permit: Permit, source: str, now: float) -> Claim | Excess:
        """Count a permitted request in, or say what it has to wait for; then nothing was counted."""
        meters = []
        for table in self._plans.get(permit.route.name, ()):
            quota = table.quota
            if quota.strangers and permit.principal_id != ANONYMOUS.id:
                continue
            meter = table.meter(_key(quota, permit, source), now)
            if quota.concurrent and meter.running >= quota.concurrent:
                return _excess(quota, 1.0)
            if meter.bucket is not None and (wait := meter.bucket.wait(now)):
                return _excess(quota, wait)
            meters.append(meter)
        for meter in meters:
            meter.running += 1
            if meter.bucket is not None:
                meter.bucket.take(now)
        return Claim(meters)


def _key(quota: Quota, permit: Permit, source: str) -> str:
    """Return who counts as one. Strangers are many: what one source uses up is not missing to others."""
    if quota.per == "route":
        return ""
    if quota.per == "session" and permit.session_id:
        return permit.session_id
    if quota.per == "source" or permit.principal_id == ANONYMOUS.id:
        return "@" + source
    return permit.principal_id


def _excess(quota: Quota, wait: float) -> Excess:
    """A caller's own excess is told apart from that of everybody together (RFC 6585 section 4)."""
    code = "overloaded" if quota.per == "route" else "too-many-requests"
    return Excess(code, "sign-in" if quota.strangers else quota.per, seconds(wait))


def seconds(wait: float) -> int:
    """Return how long to wait in whole seconds, as Retry-After says it (RFC 9110 section 10.2.3)."""
    return ceil(min(max(wait, 1.0), LONGEST))
