"""The arithmetic: medians, ratios of neighbours, their spread. Pure.

Requests a second swing with the machine; what two proxies did within the same few seconds does not swing
against each other as much. So ratios are taken within a round, and their median is what counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """The median of some values, the smallest and the largest."""

    median: float
    low: float
    high: float

    def rounded(self, digits: int) -> "Spread":
        """Return it with fewer digits."""
        return Spread(round(self.median, digits), round(self.low, digits), round(self.high, digits))


def spread(values: Sequence[float]) -> Spread:
    """Return median and range. Raises ValueError when there is nothing."""
    if not values:
        raise ValueError("no values")
    return Spread(median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return the ratio of each round's pair. Raises ValueError when the rounds do not match."""
    return spread([one / other for one, other in zip(ours, theirs, strict=True)])


def turns(things: Sequence[T], number: int) -> list[T]:
    """Return the order of a round: forwards, then backwards, so that neither gains by coming second."""
    return list(things) if number % 2 == 0 else list(reversed(things))
