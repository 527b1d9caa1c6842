"""What is to be sent in this turn of the loop, held back until everything that had arrived is looked at.

One per worker, used by the connections of `gateway` and `upstream`, and one per connector; in both by what is
passed on unseen (`net.splice`), too. Where peers live on the same machine, a write to one that sleeps wakes
it, and that costs more than the write: an interrupt of the other processor, an eighth of a busy worker's
time. It has answered and sleeps again before the next write comes, some twenty microseconds later. Written
one right after the other, the first wakes it for all. Nothing waits longer for that than for the other bytes
that had arrived with its own.
"""

import asyncio
from typing import Final, final

#: Writes that wait at the most: enough to keep whoever is woken busy.
WRITES: Final = 16
#: Bytes of a write that is worth a waking by itself. So what waits is bounded by both.
LARGE: Final = 16 << 10


@final
class Outbox:
    """Writes in the order in which they were put, to all transports together."""

    __slots__ = ("_data", "_due", "_flushing", "_transports", "turn")

    def __init__(self) -> None:
        self._transports: list[asyncio.Transport] = []
        self._data: list[bytes] = []
        self._due = False  # the end of this turn is waited for
        self._flushing = False
        self.turn = 0  # what was put while it is the same has not been written

    def put(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write it before this turn of the loop is over. A transport that is closed by then takes nothing.

        Whoever closes one, or writes to it by another way, calls `flush` first.
        """
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._at_its_end)
        self._transports.append(transport)
        self._data.append(data)
        if len(self._data) >= WRITES or len(data) >= LARGE:
            self.flush()

    def _at_its_end(self) -> None:
        self._due = False
        self.flush()

    def flush(self) -> None:
        """Write what waits, now. What is put meanwhile, by a protocol that is told to pause, goes last."""
        if self._flushing or not self._data:
            return
        self._flushing = True
        done, transports, data = 0, self._transports, self._data
        while done < len(data):
            try:
                transports[done].write(data[done])
            except Exception as bug:  # noqa: BLE001  one that can not write must not keep the others from it
                _report(bug)
                transports[done].abort()
            done += 1
        self._transports, self._data = [], []
        self._flushing = False
        self.turn += 1


def _report(bug: Exception) -> None:
    context = {"message": "a write failed by an error of ours", "exception": bug}
    asyncio.get_running_loop().call_exception_handler(context)
