"""A connection after its upgrade: bytes both ways until one side ends it, or the door does.

`gateway.relay` makes one when the upstream switches protocols. Nothing is looked into; of a WebSocket the
frame boundaries are followed, so that a cut ends with a close frame the browser understands.
"""

import asyncio
from typing import Final

from ztproxy.gateway.account import Account
from ztproxy.gateway.client import Client, Pipe
from ztproxy.upstream.exchange import Exchange
from ztproxy.upstream.receiver import Receiver
from ztproxy.wire import fields
from ztproxy.wire.http1 import RequestHead, ResponseHead
from ztproxy.wire.websocket import GOING_AWAY, POLICY_VIOLATION, FrameTracker, close_frame

#: Why paths are cut that nobody objects to: browsers may come again at once.
STOPPING: Final = "stopping"


class Tunnel(Receiver, Pipe):
    """A live WebSocket or other protocol."""

    __slots__ = ("_account", "_client", "_exchange", "_frames", "_from_client", "_idle", "_to_client")

    def __init__(self, client: Client, account: Account, exchange: Exchange, idle: float) -> None:
        self._client = client
        self._account = account
        self._exchange = exchange
        self._idle = idle
        self._frames: FrameTracker | None = None  # of the upstream's bytes
        self._from_client = 0
        self._to_client = 0
        account.live = self
        exchange.receiver = self

    def begin(self, request: RequestHead, head: ResponseHead, data: bytes) -> None:
        """Tell the client, pass on what came along, and take over both directions."""
        if request.upgrade == "websocket":
            self._frames = FrameTracker()
        self._client.switch(self, request.notes[fields.UPGRADE], head)
        if data:
            self.received(data, ended=False)
        self._client.wait_until(self._idle)

    # ------------------------------------------------------------------ from the client

    def from_client(self, data: bytes) -> None:
        """Bytes for the upstream."""
        self._from_client += len(data)
        self._exchange.send(data)
        self._client.wait_until(self._idle)

    def client_flow(self, full: bool) -> None:
        """The client takes no more bytes for now, or takes bytes again."""
        if full:  # not within a reading, as in gateway.relay
            asyncio.get_running_loop().call_soon(self._hold_back)
        else:
            self._exchange.resume()

    def client_gone(self) -> None:
        """The client's connection is lost."""
        self._exchange.abort(flush=True)
        self._settle("complete" if self._frames is not None and self._frames.closing else "client-gone")

    def timed_out(self) -> None:
        """Idle for too long, unless the client still takes what is there."""
        if self._client.full:
            self._client.wait_until(self._idle)
        else:
            self._finish("idle", GOING_AWAY, "idle")

    def cut(self, reason: str) -> None:
        """End now: the door has changed its mind."""
        code = GOING_AWAY if reason == STOPPING else POLICY_VIOLATION
        self._finish(f"cut: {reason}", code, reason)

    # ------------------------------------------------------------------ from the upstream

    def responded(self, head: ResponseHead, body: bytes, ended: bool) -> None:
        """There is no second response."""
        raise AssertionError("a response after an upgrade")

    def received(self, body: bytes, ended: bool) -> None:
        """Bytes for the client; with `ended`, the upstream has closed its connection.

        Of a WebSocket without a close frame the client sees just that, as it would without us: we put no word
        into an application's mouth.
        """
        self._to_client += len(body)
        if self._frames is not None:
            self._frames.feed(body)
        if body:
            self._client.write(body)
        if not ended:
            self._client.wait_until(self._idle)
        elif self._frames is None or self._frames.closing:
            self._end("complete")
        else:
            self._end("upstream-failed")

    def failed(self, code: str, flaw: str = "") -> None:
        """The upstream's connection is gone.

        A WebSocket that was closing has ended well all the same. Of another one the client still gets what
        came before: its frames say whether that is whole. Other protocols may not, so a reset is passed on.
        """
        if self._frames is None:
            self._settle("upstream-failed")
            self._client.abort()
        else:
            self._end("complete" if self._frames.closing else "upstream-failed")

    def flow(self, full: bool) -> None:
        """The upstream takes no more bytes for now, or takes bytes again."""
        self._client.upstream_flow(full)

    def _hold_back(self) -> None:
        if self._client.full:
            self._exchange.pause()

    # ------------------------------------------------------------------ ending

    def _end(self, end: str) -> None:
        """All is said."""
        if self._settle(end):
            self._client.close()
        else:
            self._client.abort()

    def _finish(self, end: str, code: int, reason: str) -> None:
        """End both sides now, with a close frame if one can be said and would arrive."""
        self._exchange.abort()
        noted = self._settle(end)
        if noted and self._frames is not None and self._frames.at_boundary and not self._client.full:
            self._client.write(close_frame(code, reason))
            self._client.close()
        else:
            self._client.abort()

    def _settle(self, end: str) -> bool:
        return self._account.settle(end, self._from_client, self._to_client)
