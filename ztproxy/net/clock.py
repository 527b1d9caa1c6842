"""Time and entropy, passed down as values so that nothing above reads them behind its caller's back."""

import os
import time
from abc import abstractmethod
from typing import Final

from ztproxy.model.native import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class Clock:
    """Two clocks: validity runs on the wall, durations on the monotonic one."""

    __slots__ = ()

    @abstractmethod
    def now(self) -> int:
        """Return the wall clock in ms since the epoch."""

    @abstractmethod
    def monotonic(self) -> float:
        """Return seconds of a clock that never jumps."""


class SystemClock(Clock):
    """The machine's clocks."""

    __slots__ = ()

    def now(self) -> int:
        """Return the wall clock in ms since the epoch."""
        return int(_wall() * 1000)

    def monotonic(self) -> float:
        """Return seconds of CLOCK_MONOTONIC."""
        return _seconds()


def elapsed() -> float:
    """Return seconds of a clock that never jumps and goes on while the machine sleeps: what lives as long as
    that should not live longer for it."""
    return time.clock_gettime(_NEVER_STOPS)


#: The functions themselves: looking them up in their module costs more than calling them.
_wall: Final = time.time
_seconds: Final = time.monotonic
_NEVER_STOPS: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class FixedClock(Clock):
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


class JumpWatch:
    """Tells when the wall clock was set: validity follows it, so somebody should know."""

    __slots__ = ("_clock", "_offset")

    TOLERANCE: Final = 2.0  # seconds; slewing stays below it

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = self._now()

    def look(self) -> float:
        """Return by how many seconds the wall clock has jumped since the last look, 0.0 for not at all."""
        offset = self._now()
        jump, self._offset = offset - self._offset, offset
        return jump if abs(jump) > self.TOLERANCE else 0.0

    def _now(self) -> float:
        return self._clock.now() / 1000 - self._clock.monotonic()


def entropy(size: int) -> bytes:
    """Return `size` bytes of the operating system's randomness."""
    return os.urandom(size)
