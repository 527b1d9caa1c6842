"""Time and entropy, passed down as values so that nothing above reads them behind its caller's back."""

import os
import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: validity runs on the wall, durations on the monotonic one."""

    def now(self) -> int:
        """Return the wall clock in ms since the epoch."""

    def monotonic(self) -> float:
        """Return seconds of a clock that never jumps."""


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def now(self) -> int:
        """Return the wall clock in ms since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return seconds of CLOCK_MONOTONIC."""
        return time.monotonic()


class FixedClock:
    """A clock that tests set by hand."""

    __slots__ = ("ms", "seconds")

    def __init__(self, ms: int = 1_800_000_000_000, seconds: float = 1000.0) -> None:
        self.ms = ms
        self.seconds = seconds

    def now(self) -> int:
        """Return the set wall clock."""
        return self.ms

    def monotonic(self) -> float:
        """Return the set monotonic clock."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self.ms += int(seconds * 1000)
        self.seconds += seconds


def entropy(size: int) -> bytes:
    """Return `size` bytes of the operating system's randomness."""
    return os.urandom(size)
