"""Gives memory back to the machine when many connections have gone.

The worker asks once a second. glibc keeps what connections leave behind and hands it out again page by
page, so that later connections touch buffers that fresh ones would not: a crowd that came once would be
paid for ever after. Giving back stops the process (25 ms after 10,000 connections), so it is done seldom.
It is about memory alone and must never fail.
"""

import ctypes
from collections.abc import Callable
from typing import Final

#: What fewer connections leave behind is not worth a pause.
LEAST: Final = 256
#: Seconds between two times.
PAUSE: Final = 60.0


def give_back() -> None:
    """Return free pages to the machine; nothing where the C library has no such call (it is glibc's)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Ebb:
    """Watches how many connections there are."""

    def __init__(self, give_back: Callable[[], None] = give_back) -> None:
        self._give_back = give_back
        self._peak = 0  # since the last time
        self._not_before = float("-inf")

    def look(self, connections: int, now: float) -> None:
        """Give memory back when more than half of the most connections are gone. `now`: monotonic seconds."""
        self._peak = max(self._peak, connections)
        gone = self._peak - connections
        if gone < LEAST or gone * 2 <= self._peak or now < self._not_before:
            return
        self._peak, self._not_before = connections, now + PAUSE
        self._give_back()
