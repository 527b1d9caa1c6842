"""How much is allowed, as values. Built by `config`, kept by `net` and the gateway."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once, then `per_second` on average: at most burst + per_second * t in any t seconds."""

    per_second: float
    burst: int
