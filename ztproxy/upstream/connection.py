"""One connection to an upstream: reads responses strictly and serves one exchange at a time.

Made by `upstream.upstreams` only. After an exchange it is either clean, every byte of request and response
accounted for, and goes back to the pool, or it is closed: bytes of one caller never meet another.
"""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from ztproxy.model.resource import Upstream
from ztproxy.net.alive import unheard
from ztproxy.net.dial import Carriage, Dialled
from ztproxy.net.wheel import NEVER
from ztproxy.wire import fields
from ztproxy.wire.body import BadBody, Body, ChunkedBody, LengthBody, OpenBody
from ztproxy.wire.http1 import CHUNKED, UNTIL_CLOSE, BadHead, ResponseHead, ResponseReader

if TYPE_CHECKING:
    from ztproxy.upstream.exchange import Exchange
    from ztproxy.upstream.request import Request
    from ztproxy.upstream.upstreams import Upstreams

HEAD_LIMIT: Final = 65536  # bytes of a response head
INTERIM_LIMIT: Final = 16  # interim responses of one exchange

#: What is noted when a carried connection is lost without its end being said: the connector may have died,
#: its link, or the application's own connection.
CONNECTOR_LOST: Final = "connector-lost"

#: Seconds in which a request reaches a connector, on any link worth the name; looked at up to a second later,
#: and again as long as it is on its way: the clock may be behind, and what came last from there just before.
ARRIVES: Final = 1.0
_UNHEARD: Final = 900  # ms of them

_INCOMPLETE: Final = ("upstream-invalid", "incomplete-head")
_UNREACHABLE: Final = ("upstream-unreachable", "")


class UpstreamConnection(Dialled):
    """The protocol of a connection to one upstream."""

    __slots__ = (
        "_body",
        "_ended",
        "_exchange",
        "_head",
        "_home",
        "_interim",
        "_outbox",
        "_paused",
        "_reader",
        "_retiring",
        "_sent_in",
        "_tunnel",
        "carried",
        "deadline",
        "transport",
        "trusted",
        "upstream",
    )

    def __init__(self, home: "Upstreams", upstream: Upstream, *, trusted: bool) -> None:
        self.carried: Carriage | None = None
        self.upstream = upstream
        self.deadline = NEVER  # while idle, and until what was sent to a connector has arrived
        self.trusted = trusted  # our own portal
        self._home = home
        self._outbox = home.outbox
        self._sent_in = -1  # the turn of the outbox in which the last bytes were put there
        self._exchange: Exchange | None = None
        self._reader = ResponseReader(HEAD_LIMIT, trusted=trusted)
        self._head: ResponseHead | None = None
        self._body: Body | None = None
        self._tunnel = False
        self._interim = 0
        self._paused = False
        self._ended = False  # by the upstream, in good order
        self._retiring = False

    # ------------------------------------------------------------------ what exchanges call

    def serve(self, exchange: "Exchange", request: bytes) -> None:
        """Begin an exchange with these bytes."""
        self.deadline = NEVER if self.carried is None else self._home.now + ARRIVES
        self._exchange = exchange
        self._head = None
        self._body = None
        self._interim = 0
        self.send(request)

    def send(self, data: bytes) -> None:
        """Send bytes of the request, behind those before."""
        outbox = self._outbox
        self._sent_in = outbox.turn
        outbox.put(self.transport, data)

    def leave(self, *, flush: bool = False) -> None:
        """The exchange is given up: so is the connection."""
        self._exchange = None
        if flush:
            self._outbox.flush()
            self.transport.close()
        else:
            self.transport.abort()

    def pause(self) -> None:
        """Read no more for now."""
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    def retire(self) -> None:
        """Serve no further exchange."""
        self._retiring = True
        if self._exchange is None:
            self.transport.close()

    @property
    def usable(self) -> bool:
        """Tell whether an exchange could begin."""
        return not self.transport.is_closing()

    # ------------------------------------------------------------------ asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self._home.made(self)

    def data_received(self, data: bytes) -> None:
        """Read a response; bytes on an idle connection end it."""
        exchange = self._exchange
        if exchange is None:
            self.transport.abort()
            return
        exchange.answered = True
        try:
            if self._tunnel:
                exchange.receiver.received(data, ended=False)
            elif self._head is None:
                self._read_head(exchange, data)
            else:
                self._read_body(exchange, data)
        except (BadHead, BadBody) as bad:
            self._broken(exchange, bad.flaw)

    def eof_received(self) -> bool:
        """Close; what lasts until then is complete.

        TLS says so only after a close_notify: somebody on the way can end TCP, but not that (RFC 9112
        section 9.8).
        """
        self._ended = True
        exchange, body = self._exchange, self._body
        if exchange is None:
            return False
        if self._tunnel:
            self._exchange = None
            exchange.receiver.received(b"", ended=True)
        elif isinstance(body, OpenBody) and not body.done:
            self._end(exchange, body.close(), b"")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Report to the exchange that was being served, if any."""
        self._home.lost(self)
        if self.carried is not None:
            self.carried.lost()
        exchange = self._exchange
        if exchange is None:
            return
        self._exchange = None
        code, flaw = _INCOMPLETE if self._reader.started else _UNREACHABLE
        exchange.lost(code, flaw if self.carried is None or self._ended else CONNECTOR_LOST)

    def pause_writing(self) -> None:
        """Tell the exchange that the upstream is slow."""
        if self._exchange is not None:
            self._exchange.receiver.flow(full=True)

    def resume_writing(self) -> None:
        """Tell the exchange that the upstream takes bytes again."""
        if self._exchange is not None:
            self._exchange.receiver.flow(full=False)

    def timed_out(self) -> None:
        """Idle for long enough; or a request went to a connector a while ago."""
        exchange, carriage = self._exchange, self.carried
        if exchange is None:
            self.transport.close()
            return
        self.deadline = NEVER
        if carriage is None or exchange.answered or (silence := unheard(self.transport)) == 0:
            return
        if silence < _UNHEARD:
            self.deadline = self._home.now + ARRIVES
            return
        carriage.unheard()
        if exchange.repeatable:  # others wait: the link may come back, and what was sent with it
            self.transport.abort()

    # ------------------------------------------------------------------ reading

    def _read_head(self, exchange: "Exchange", data: bytes) -> None:
        while True:
            found = self._reader.feed(data)
            if found is None:
                return
            head, data = found
            if head.status >= 200 or head.status == 101:
                break
            self._note_interim(exchange, head)
            if not data:
                return
        if head.status == 101:
            self._switch(exchange, head, data)
            return
        self._head = head
        body = self._body = body_of(head, exchange.request)
        exchange.body = body
        out, rest = body.feed(data) if body is not None and data else (b"", data)
        if body is None or body.done:
            self._release(exchange, rest)
            exchange.receiver.responded(head, out, True)
        else:
            exchange.receiver.responded(head, out, False)

    def _read_body(self, exchange: "Exchange", data: bytes) -> None:
        body = self._body
        assert body is not None
        out, rest = body.feed(data)
        if body.done:
            self._end(exchange, out, rest)
        elif out:
            exchange.receiver.received(out, ended=False)

    def _note_interim(self, exchange: "Exchange", head: ResponseHead) -> None:
        self._interim += 1
        if self._interim > INTERIM_LIMIT:
            raise BadHead("interim-flood")
        if head.status != 100:  # that one answers an Expect we answered ourselves
            exchange.receiver.responded(head, b"", ended=False)

    def _switch(self, exchange: "Exchange", head: ResponseHead, data: bytes) -> None:
        if not exchange.request.upgrade:
            raise BadHead("unasked-upgrade")
        self._head = head
        self._tunnel = True
        exchange.receiver.responded(head, data, ended=False)

    # ------------------------------------------------------------------ ending

    def _end(self, exchange: "Exchange", out: bytes, rest: bytes) -> None:
        self._release(exchange, rest)
        exchange.receiver.received(out, ended=True)

    def _release(self, exchange: "Exchange", rest: bytes) -> None:
        """Go back to the pool, if nothing of either message is left anywhere. Whoever takes it there sees
        whether it is closing."""
        self._exchange = None
        if self._paused:
            self.resume()
        if rest or not self._is_clean(exchange):
            self.transport.abort()
        else:
            self._home.idle(self)

    def _is_clean(self, exchange: "Exchange") -> bool:
        head = self._head
        return (
            head is not None
            and head.keep_alive
            and exchange.complete
            and not exchange.request.bound
            and not self._retiring
            and not head.bound
            and not isinstance(self._body, OpenBody)
            and self._sent_in != self._outbox.turn  # who answers before it was asked is not to be trusted
            and not self.transport.get_write_buffer_size()
        )

    def _broken(self, exchange: "Exchange", flaw: str) -> None:
        self._exchange = None
        self.transport.abort()
        exchange.receiver.failed("upstream-invalid", flaw)


def body_of(head: ResponseHead, request: "Request") -> Body | None:
    """Return the reader of a response's body, None when it has none (RFC 9112 section 6.3)."""
    if request.head_only or head.status in (204, 304) or head.body == 0:
        return None
    if head.body == CHUNKED:
        return _chunked(head, request)
    if head.body == UNTIL_CLOSE:
        return OpenBody(framed=request.framed)
    return LengthBody(head.body)


def _chunked(head: ResponseHead, request: "Request") -> ChunkedBody:
    trails = partial(fields.may_trail, fields.of_response, head.options) if request.trailers else None
    return ChunkedBody(framed=request.framed, trails=trails)
