"""One client's connection: reads requests one after the other and keeps the bytes in order.

`net.listener` makes one per accepted connection, through a factory of `service`. Plain callbacks: no task or
future per request. It knows bytes, body framing, back-pressure and time; what a request may do is
`gateway.http`'s business, and no identity is remembered here besides the TLS facts in `peer`.
"""

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Final, cast

from ztproxy.gateway import cors, dates, forward, http
from ztproxy.gateway.client import Client, Pipe, Runnable, Running
from ztproxy.gateway.refuse import refusal_of, refused_bytes
from ztproxy.gateway.relay import Relay
from ztproxy.gateway.world import InForce
from ztproxy.model.decision import Refusal
from ztproxy.model.ports import Answer
from ztproxy.model.request import Peer
from ztproxy.net.listener import Arrival, PeerUnusable
from ztproxy.net.taken import taken
from ztproxy.net.wheel import NEVER
from ztproxy.wire import fields
from ztproxy.wire.body import BadBody, ChunkedBody, LengthBody
from ztproxy.wire.http1 import CHUNKED, BadHead, RequestHead, RequestReader, ResponseHead

#: What is left of a refused request's body is read and thrown away up to this to keep the connection, ...
DRAIN_BYTES: Final = 64 << 10
#: ... and up to this before it is closed: closing on a client that still sends would destroy the answer.
LINGER_BYTES: Final = 16 << 20
DRAIN_SECONDS: Final = 2.0
#: How long an idle connection that is to be closed is open for a request that is on its way.
RETIRE_SECONDS: Final = 1.0
#: How long the door may think about cold facts.
DECIDE_SECONDS: Final = 15.0

# Where the next bytes go. (A method kept instead would be made anew, and called the long way, each time.)
_HEAD: Final = 0  # to the reader of heads
_BODY: Final = 1  # to the relay
_EARLY: Final = 2  # nowhere yet
_PIPE: Final = 3  # to a tunnel
_REST: Final = 4  # away, until a refused request is over
_NOWHERE: Final = 5  # away: nobody listens any more

# Reasons for not reading, as bits.
_HELD: Final = 1  # bytes of the next request are waiting
_FULL: Final = 2  # the upstream takes no more


class Connection(asyncio.Protocol, Client):
    """The protocol of one client. `in_force` says which world each request is served in."""

    __slots__ = (
        "_arrival", "_began", "_body", "_deciding", "_goes_to", "_head", "_in_force", "_keep", "_keep_after",
        "_not_reading", "_outbox", "_reader", "_rest", "_retiring", "_running", "_spare", "_wheel", "chunks",
        "deadline", "full", "peer", "peer_lines", "source", "transport", "world",
    )  # fmt: skip

    def __init__(self, in_force: InForce, arrival: Arrival) -> None:
        self.world = in_force.world
        self.full = False  # the client takes no more bytes for now
        self.source = arrival.source
        self.chunks = True  # it speaks HTTP/1.1 and not 1.0
        self._in_force = in_force
        self._arrival = arrival
        self._wheel = self.world.wheel
        self._outbox = self.world.outbox
        self._reader = RequestReader(self.world.limits.head)
        self._began = False  # some bytes of a head are here
        self._goes_to = _HEAD
        self._head: RequestHead | None = None
        self._body: LengthBody | ChunkedBody | None = None
        self._rest = b""  # read, and not yet taken by anybody
        self._running: Running | None = None
        self._deciding: asyncio.Task[None] | None = None
        self._not_reading = 0
        self._retiring = False
        self._spare = 0
        self._keep = False  # another request may follow the running one
        self._keep_after = False
        self.deadline = 0.0

    # ------------------------------------------------------------------ asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done: see who is there, and wait for a request."""
        self.transport = cast("asyncio.Transport", transport)
        try:
            self.peer: Peer = self._arrival.peer(transport.get_extra_info("ssl_object"))
        except PeerUnusable:
            self._goes_to = _NOWHERE
            self.transport.abort()
            return
        self.peer_lines = forward.peer_lines(self.peer)
        self.wait_until(self.world.limits.head_timeout)
        self._wheel.add(self)
        self.world.crowd.add(self)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        try:
            if self._goes_to == _HEAD:
                self._read_head(data)
            else:
                self._read_on(data)
        except Exception as bug:  # noqa: BLE001  the edge: one connection's bug ends that connection
            self._broken(bug)

    def eof_received(self) -> bool:
        """The client is done; TLS has no half-closed connections."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: so is everything that was running for it."""
        self._leave()
        if self._deciding is not None:
            self._deciding.cancel()
        running, self._running = self._running, None
        if running is not None:
            running.client_gone()

    def pause_writing(self) -> None:
        """The client reads slower than the upstream writes."""
        self.full = True
        self.world.crowd.falls_behind(self)
        if self._running is not None:
            self._running.client_flow(full=True)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.full = False
        self.world.crowd.catches_up(self)
        if self._running is not None:
            self._running.client_flow(full=False)
        elif self._deciding is None:
            self._replay()

    def timed_out(self) -> None:
        """The deadline has passed (net.wheel)."""
        if self._running is not None:
            self._running.timed_out()
        elif self._deciding is not None:
            self._deciding.cancel()
            self._undecided("facts-unavailable")
        elif self.beginning:
            http.reject(self, BadHead("incomplete-head"))
        else:
            self.close()

    def retire(self) -> None:
        """Take one more request at the most; close an idle connection not before that had time to arrive."""
        self._retiring = True
        if self.idle:
            self.wait_until(RETIRE_SECONDS)

    def cut(self, reason: str) -> None:
        """End now, whatever is running."""
        if self._running is not None:
            self._running.cut(reason)
        else:
            self.abort()

    # ------------------------------------------------------------------ gateway.crowd.Member

    @property
    def idle(self) -> bool:
        """It waits for the first byte of a request."""
        return self._goes_to == _HEAD and not self._began

    @property
    def beginning(self) -> bool:
        """It waits for the rest of a head."""
        return self._goes_to == _HEAD and self._began

    @property
    def held_back(self) -> bool:
        """Nothing is read from the client."""
        return self._not_reading != 0

    @property
    def waiting(self) -> int:
        """Bytes that wait to be taken by the client."""
        return self.transport.get_write_buffer_size()

    @property
    def taken(self) -> int:
        """A number that grows with the bytes the client takes."""
        return taken(self.transport)

    def late(self) -> None:
        """The body does not come."""
        if isinstance(self._running, Relay):
            self._running.client_broke("slow-body")

    def fall_behind(self) -> None:
        """The answer is not taken."""
        self.cut("client-too-slow")

    # ------------------------------------------------------------------ reading, one method per state

    def _read_on(self, data: bytes) -> None:
        """Bytes that are no head, or not now."""
        to = self._goes_to
        if to == _BODY:
            self._read_body(data)
        elif to == _EARLY:
            self._hold(data)
        elif to == _PIPE:
            assert isinstance(self._running, Pipe)
            self._running.from_client(data)
        elif to == _REST:
            self._discard(data)

    def _read_head(self, data: bytes) -> None:
        try:
            found = self._reader.feed(data)
        except BadHead as bad:
            http.reject(self, bad)
            return
        if found is None:
            if not self._began:  # more bytes of the same head buy no more time
                self._began = True
                self.wait_until(self.world.limits.head_timeout)
            return
        self._began = False
        self.world = self._in_force.world
        head, self._rest = found
        self._head = head
        self._goes_to = _EARLY
        self.chunks = not head.http10
        if head.body:
            self._body = _chunked(head) if head.body == CHUNKED else LengthBody(head.body)
        http.serve(self, head)

    def _read_body(self, data: bytes) -> None:
        running, body = self._running, self._body
        if not isinstance(running, Relay) or body is None:
            self._hold(data)
            return
        try:
            out, rest = body.feed(data)
        except BadBody as bad:
            running.client_broke(bad.flaw)
            return
        if body.done:
            self.world.crowd.body_ends(self)
            self._goes_to = _EARLY
            if rest:
                self._hold(rest)
        running.send(out, body.done)

    def _hold(self, data: bytes) -> None:
        """Bytes before their time: the next request, pipelined, or a body nobody has asked for yet."""
        self._rest += data
        self._stop_reading(_HELD)

    def _discard(self, data: bytes) -> None:
        """The rest of a refused request."""
        self._spare -= len(data)
        body, rest = self._body, b""
        try:
            if body is not None:
                rest = body.feed(data)[1]
        except BadBody:  # its end is unknown; the client still gets its time to read the answer
            self._keep_after = False
        if body is not None and body.done and self._keep_after:
            self._rest = rest
            self._next()
        elif self._spare < 0 or (body is not None and body.done):
            self.close()

    # ------------------------------------------------------------------ gateway.client.Client

    @property
    def body_received(self) -> int:
        """Bytes of request content so far."""
        return self._body.received if self._body is not None else 0

    def run(self, runnable: Runnable) -> None:
        """Let a relay, or what carries, have the connection."""
        if self.transport.is_closing():
            runnable.client_gone()
            return
        self._running = runnable
        runnable.start()

    def drop_trailers(self) -> None:
        """Let no fields after the body pass."""
        if isinstance(self._body, ChunkedBody):
            self._body.drop_trailers()

    def take_body(self) -> tuple[bytes, bool]:
        """Return the body bytes that are there, and whether they are all; later ones go to the relay."""
        body = self._body
        if body is None:
            return b"", True
        out = b""
        if self._rest:
            out, self._rest = body.feed(self._rest)
        if not body.done:
            self._goes_to = _BODY
            self.world.crowd.body_begins(self)
        return out, body.done

    def interim(self, head: ResponseHead | None) -> None:
        """Pass an interim response on; HTTP/1.0 knows none."""
        if self.chunks:
            self._send(forward.CONTINUE if head is None else forward.interim_bytes(head))

    def respond(self, head: ResponseHead, body: bytes, *, last: bool) -> None:
        """Begin the response."""
        request = self._head
        assert request is not None
        # A client that still sends could not be told later that nobody listens any more.
        whole = self._body is None or self._body.done
        self._keep = keep = whole and request.keep_alive and not (last or self._retiring)
        framing = forward.framing_of(head, request)
        if fields.DATE not in head.notes:
            framing += dates.line(self.world.clock.now())
        self._send(forward.response_bytes(head, framing, body, close=not keep))

    def write(self, body: bytes) -> None:
        """More content."""
        self._send(body)

    def switch(self, pipe: Pipe, protocol: bytes, head: ResponseHead) -> None:
        """Let a tunnel have the connection, from the next byte on."""
        self._send(forward.switching_bytes(head, protocol))
        self._running = pipe
        self._goes_to = _PIPE
        rest, self._rest = self._rest, b""
        if rest:
            pipe.from_client(rest)
        self._go_on_reading(_HELD)

    def hand_over(self, protocol: asyncio.Protocol, name: bytes) -> tuple[asyncio.Transport, bytes]:
        """Say 101 and let another protocol have the connection itself, its place among callers given back."""
        self._send(forward.handing_over_bytes(name))
        self._outbox.flush()  # others write from now on
        self._running = None
        self._leave()
        self.transport.set_protocol(protocol)
        self._go_on_reading(_HELD | _FULL)
        return self.transport, self._rest

    def wait_for(self, head: RequestHead, answer: Awaitable[Answer]) -> None:
        """Wait for a cold decision, reading nothing meanwhile."""
        self._stop_reading(_HELD)
        self.wait_until(DECIDE_SECONDS)
        self._deciding = asyncio.get_running_loop().create_task(self._decided(head, answer))

    def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal; go on with the next request if the bytes allow it."""
        head = self._head
        self._keep = keep = (
            head is not None
            and head.keep_alive
            and not (refusal.close or self._retiring)
            and not head.upgrade  # behind it may come bytes of that protocol
            and self._can_skip_body(head)
        )
        self.world.counters.refused(refusal.code)
        date = dates.date(self.world.clock.now())
        self._send(refused_bytes(refusal, head, keep, date, cors.refusal_lines(head, self.world.routes)))
        if refusal.code == "head-too-large":
            self._drain(keep=False)
        else:
            self.finished()

    def finished(self) -> None:
        """The answer has been written: on to the next request, or close."""
        self._running = None
        if self._body is not None and not self._body.done:
            self._drain(self._keep)
        elif self._keep:
            self._next()
        else:
            self.close()

    def close(self) -> None:
        """Close once everything written has been taken, or nobody takes it any more."""
        self._running = None
        self._goes_to = _NOWHERE
        self._go_on_reading(_HELD | _FULL)
        self.deadline = NEVER
        self.world.crowd.closes(self)
        self._outbox.flush()
        self.transport.close()

    def abort(self) -> None:
        """Close at once; what was written may not arrive."""
        self._running = None
        self._goes_to = _NOWHERE
        self.transport.abort()

    def upstream_flow(self, full: bool) -> None:
        """The upstream takes no more bytes for now, or takes bytes again."""
        if full:
            self._stop_reading(_FULL)
        else:
            self._go_on_reading(_FULL)
            if self._goes_to == _BODY:
                self.world.crowd.body_begins(self)

    def wait_until(self, seconds: float) -> None:
        """Have `timed_out` called unless something happens within so many seconds."""
        self.deadline = self._wheel.now + seconds

    # ------------------------------------------------------------------ steps

    def _send(self, data: bytes) -> None:
        self._outbox.put(self.transport, data)

    def _leave(self) -> None:
        self._wheel.discard(self)
        self.world.crowd.discard(self)
        self._arrival.gone()
        self._goes_to = _NOWHERE

    async def _decided(self, head: RequestHead, waiting: Awaitable[Answer]) -> None:
        try:
            answer = await waiting
            self._deciding = None
            self._go_on_reading(_HELD)
            self.world = self._in_force.world  # the door has answered for the configuration in force now
            http.act(self, head, answer)
        except Exception as bug:  # noqa: BLE001  the edge, like data_received
            self._deciding = None
            self._broken(bug)

    def _undecided(self, code: str) -> None:
        """The door did not answer."""
        self._deciding = None
        self._go_on_reading(_HELD)
        refusal = refusal_of(code, self.world.ids.new())
        self.refuse(http.recorded(self, None, refusal))

    def _next(self) -> None:
        """Wait for the next request, or take it from what has been read already."""
        self._head = self._body = None
        self.wait_until(RETIRE_SECONDS if self._retiring else self.world.limits.keepalive_timeout)
        self._goes_to = _EARLY if self.full or self._rest else _HEAD
        if self.full:  # answers pile up unread: no further request until they are taken
            self._stop_reading(_HELD)
        elif self._rest:
            asyncio.get_running_loop().call_soon(self._replay)
        elif self._not_reading:
            self._go_on_reading(_HELD | _FULL)

    def _replay(self) -> None:
        if self._goes_to != _EARLY or self._running is not None or self.full:
            return  # closed meanwhile, or not yet
        rest, self._rest = self._rest, b""
        self._goes_to = _HEAD
        self._go_on_reading(_HELD | _FULL)
        if rest:
            self.data_received(rest)

    def _can_skip_body(self, head: RequestHead) -> bool:
        body = self._body
        if body is None or body.done:
            return True
        return 0 < head.body <= DRAIN_BYTES and not head.expects_continue

    def _drain(self, keep: bool) -> None:
        self._keep_after = keep
        self._spare = DRAIN_BYTES if keep else LINGER_BYTES
        self._goes_to = _REST
        self.wait_until(DRAIN_SECONDS)
        self._go_on_reading(_HELD | _FULL)
        rest, self._rest = self._rest, b""
        if rest:
            self._discard(rest)

    def _broken(self, bug: Exception) -> None:
        """Report a bug and end this connection."""
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a connection ended by an error of ours", "exception": bug}
        )
        running, self._running = self._running, None
        if running is not None:
            running.cut("internal-error")
        self.abort()

    def _stop_reading(self, why: int) -> None:
        if not self._not_reading:
            self.transport.pause_reading()
        self._not_reading |= why

    def _go_on_reading(self, why: int) -> None:
        if self._not_reading:
            self._not_reading &= ~why
            if not self._not_reading and not self.transport.is_closing():
                self.transport.resume_reading()


def _chunked(head: RequestHead) -> ChunkedBody:
    return ChunkedBody(trails=partial(fields.may_trail, fields.of_request, head.options))
