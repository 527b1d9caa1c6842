"""How much is allowed, as values. Built by `config`, kept by `net.sources` and `gateway.quotas`."""

from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

#: Whose requests are counted together.
Per = Literal["principal", "session", "source", "route"]


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once, then `per_second` on average: at most burst + per_second * t in any t seconds."""

    per_second: float
    burst: int


class Spent(Struct, frozen=True, array_like=True):
    """What one worker let pass of a rate that all keep together, and what it believes is left."""

    key: str  # of the caller and the quota; names neither
    rate: Rate
    tokens: int
    left: float
    shared: bool  # by all nodes; else each node counts for itself


class Quota(Struct, frozen=True):
    """A bound on what is permitted. Routes that carry the same quota count together."""

    per: Per
    rate: Rate | None = None
    concurrent: int = 0  # exchanges and streams under way at once; 0: as many as there are
    scope: str = ""  # the one route it holds for; "": all that carry it
    strangers: bool = False  # holds for callers that nobody knows, and for nobody else
