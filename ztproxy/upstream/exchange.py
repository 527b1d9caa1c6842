"""One request to an upstream and its response. Made by `Upstreams.open`, which demands a permit."""

import asyncio
from typing import TYPE_CHECKING

from ztproxy.net.dial import Unreachable
from ztproxy.upstream.receiver import Receiver
from ztproxy.upstream.request import Request
from ztproxy.wire.body import Body

if TYPE_CHECKING:
    from ztproxy.model.permit import Permit
    from ztproxy.upstream.connection import UpstreamConnection
    from ztproxy.upstream.upstreams import Upstreams


class Exchange:
    """A running exchange. Its caller is told what happens through `receiver`."""

    __slots__ = (
        "_again",
        "_connection",
        "_dialling",
        "_home",
        "_paused",
        "_pending",
        "_permit",
        "answered",
        "body",
        "complete",
        "receiver",
        "request",
    )

    def __init__(self, home: "Upstreams", permit: "Permit", request: Request, receiver: Receiver) -> None:
        self.receiver = receiver
        self.request = request
        self.complete = request.complete  # all of it has been sent
        self.answered = False  # a byte of the response has come
        self.body: Body | None = None
        self._home = home
        self._permit = permit
        self._connection: UpstreamConnection | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._again = 0  # times the request was sent again
        self._paused = False
        self._pending = b""  # came while dialling; little, because the client is not read then

    @property
    def received(self) -> int:
        """Bytes of response content so far."""
        return self.body.received if self.body is not None else 0

    # ------------------------------------------------------------------ what callers do

    def send(self, data: bytes) -> None:
        """Send more of the request body, as framed as it has to be."""
        if self._connection is not None:
            self._connection.send(data)
        else:
            self._pending += data

    def finish(self) -> None:
        """All of the request has been sent."""
        self.complete = True

    def pause(self) -> None:
        """Deliver no more for now."""
        self._paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Deliver again."""
        self._paused = False
        if self._connection is not None:
            self._connection.resume()

    def abort(self, *, flush: bool = False) -> None:
        """End it, whatever state it is in, and close its connection; `flush` lets sent bytes out first."""
        if self._dialling is not None:
            self._dialling.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.leave(flush=flush)

    def late(self) -> None:
        """The caller has waited long enough for an answer, and will abort."""

    @property
    def target(self) -> str:
        """The address of the upstream that serves this."""
        return self._permit.route.upstream.place

    # ------------------------------------------------------------------ what the connection does

    def start(self, connection: "UpstreamConnection | None") -> None:
        """Go, over an idle connection or a new one."""
        self._connection = connection
        if connection is None:
            self._dial()
        else:
            connection.serve(self, self.request.data)

    def lost(self, code: str, flaw: str = "") -> None:
        """The connection died. What was not answered at all may be sent again, on a new one."""
        self._connection = None
        if self._may_repeat():
            self._dial()
        else:
            self.receiver.failed(code, flaw)

    @property
    def repeatable(self) -> bool:
        """Tell whether the request may be sent again (RFC 9110 section 9.2.2)."""
        return self.request.replayable and not self.answered and self._again < self._permit.route.retries

    def _may_repeat(self) -> bool:
        """Tell whether to send the request again, and count it."""
        if not self.repeatable:
            return False
        self._again += 1
        self._home.repeated(self._permit.route)
        return True

    def _dial(self) -> None:
        self.receiver.flow(full=True)
        self._dialling = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            connection = await self._home.connect(self._permit, self._permit.route.upstream)
        except Unreachable as failed:
            self._dialling = None
            self.receiver.failed(failed.code, failed.detail)
            return
        self._begin(connection)

    def _begin(self, connection: "UpstreamConnection") -> None:
        """Send the request over a new connection."""
        self._dialling = None
        if not connection.usable:
            self.receiver.failed("upstream-unreachable")
            return
        self._connection = connection
        connection.serve(self, self.request.data + self._pending)
        if self._paused:
            connection.pause()
        self.receiver.flow(full=False)
