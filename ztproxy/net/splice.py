"""Two connections made one: what comes from either goes to the other, no faster than that takes it.

Made by `connector.link` once a proxy's question has been allowed and the application answers, and by
`gateway.carrier` for who borrows a connection. It never looks into what passes. An end that was said in good
order is passed on after the last byte; one that was not said is passed on at once, so that what is cut off
looks cut off on the other side, too. What comes in one turn of the loop is passed on at its end, together
with what came by other connections (`net.outbox`).
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from ztproxy.net.outbox import Outbox

#: Seconds for the last bytes to be taken, once one side is gone.
LINGER: Final = 600.0


class Half(asyncio.Protocol):
    """One of the two: takes bytes from its own connection and gives them to the other."""

    __slots__ = ("_ended", "_full", "_gone", "_outbox", "_sink", "_timer", "other", "transport")

    def __init__(self, gone: Callable[["Half"], None], outbox: Outbox) -> None:
        self._gone = gone
        self._outbox = outbox
        self._ended = False
        self._full = False  # our side takes no more for now
        self._timer: asyncio.TimerHandle | None = None
        self._sink: asyncio.Transport  # the other's
        self.transport: asyncio.Transport
        self.other: Half | None = None

    def join(self, transport: asyncio.Transport, other: "Half") -> None:
        """Have `transport`, and give what comes there to `other`."""
        self.transport = transport
        self.other = other
        other.other = self
        other._sink = transport
        self._sink = other.transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        self._outbox.put(self._sink, data)

    def pause_writing(self) -> None:
        """Our side takes no more: the other is not read, from the next turn on.

        Within a reading TLS would forget an end that came with what is read then.
        """
        self._full = True
        asyncio.get_running_loop().call_soon(self._hold_back)

    def resume_writing(self) -> None:
        """Our side takes bytes again."""
        self._full = False
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def _hold_back(self) -> None:
        if self._full and self.other is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def eof_received(self) -> bool:
        """Our side has ended in good order: so does the other, when it has everything."""
        self._ended = True
        self._outbox.flush()  # what came before, either way: we are closed, too
        if self.other is not None:
            self.other.finish()
        return False

    def finish(self) -> None:
        """Close after the last byte, which has its time."""
        if not self.transport.is_closing():
            self.transport.resume_reading()  # nobody takes what comes, but its end has to be seen
            self.transport.close()
            self._timer = asyncio.get_running_loop().call_later(LINGER, self.transport.abort)

    def retire(self) -> None:
        """It ends with what is under way all the same: whoever borrowed it gives it up when it is idle."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Our side is gone. Unless it said so, or we closed it, the other must not look complete."""
        if self._timer is not None:
            self._timer.cancel()
        elif not self._ended and self.other is not None:
            self._outbox.flush()  # what came before is passed on all the same
            self.other.transport.abort()
        self._gone(self)
