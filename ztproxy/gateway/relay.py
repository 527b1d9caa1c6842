"""One permitted exchange: the client's request to the upstream, the response back, both with back-pressure.

Made by `gateway.http` from a Permit; is told of the client by `gateway.connection` and of the upstream by
`upstream.exchange`. It ends in exactly one way and never decides who may do what.
"""

import asyncio
from typing import Final

from msgspec.structs import replace

from ztproxy.gateway import forward, rewriting
from ztproxy.gateway.account import Account
from ztproxy.gateway.client import Client, Runnable
from ztproxy.gateway.refuse import refusal_of
from ztproxy.gateway.upgrade import Tunnel
from ztproxy.model.permit import Permit
from ztproxy.upstream.exchange import Exchange
from ztproxy.upstream.receiver import Receiver
from ztproxy.upstream.request import Request
from ztproxy.wire import fields, websocket
from ztproxy.wire.body import BadBody
from ztproxy.wire.http1 import RequestHead, ResponseHead

#: Methods that may be sent again when an idle connection turns out to be dead (RFC 9110 section 9.2.2).
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})

#: Methods with which content means nothing (RFC 9110 section 9.3.1). An application that leaves it unread
#: takes it for the next request: the answer to that must not meet another caller.
_BODY_UNEXPECTED: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


class Relay(Receiver, Runnable):
    """A running exchange between one client and one upstream."""

    __slots__ = ("_account", "_client", "_exchange", "_head", "_permit", "_started", "_upgrading")

    def __init__(self, client: Client, head: RequestHead, permit: Permit) -> None:
        self._client = client
        self._head = head
        self._permit = permit
        self._upgrading = permit.request.context.protocol != "http"  # what was permitted, not what was asked
        self._exchange: Exchange | None = None
        self._started = False  # a response head went to the client
        self._account = Account(client.world, permit, self)

    def start(self) -> None:
        """Send the request, with what is there of its body."""
        head, client = self._head, self._client
        if self._permit.route.quotas and (excess := self._account.claim(client.source.name)):
            self._refuse(excess.code, excess.limit, excess.retry_after)
            return
        if head.body > self._permit.route.max_body:
            self._refuse("body-too-large")
            return
        changes = self._permit.route.changes
        if changes is not None and changes.request is not None:
            client.drop_trailers()
        try:
            body, complete = client.take_body()
        except BadBody as bad:
            self._refuse(bad.flaw)
            return
        if head.body and self._is_too_large():
            self._refuse("body-too-large")
            return
        if head.expects_continue and not (complete or body or head.http10):
            client.interim(None)
        self._open(body, complete)

    def _open(self, body: bytes, complete: bool) -> None:
        head, client = self._head, self._client
        changes = self._permit.route.changes
        if changes is not None:
            head = rewriting.request(changes, head)
        upgrade = head.notes[fields.UPGRADE] if self._upgrading else b""
        data = forward.request_bytes(head, self._permit, client.peer, client.peer_lines, upgrade)
        request = Request(
            data + body if body else data,
            complete,
            complete and head.body == 0 and head.method in _IDEMPOTENT,
            head.method == "HEAD",
            client.chunks,
            self._upgrading,
            head.trailers,
            head.bound or (head.body != 0 and head.method in _BODY_UNEXPECTED),
        )
        client.wait_until(self._permit.route.response_timeout)
        self._exchange = client.world.upstreams.open(self._permit, request, self)
        if self._permit.route.targets is not None:
            self._account.exchange = self._exchange
        if client.full:
            self._exchange.pause()

    # ------------------------------------------------------------------ from the client

    def send(self, body: bytes, complete: bool) -> None:
        """More of the request body."""
        if self._is_too_large():
            self._refuse("body-too-large")
            return
        if self._exchange is None:
            return
        if complete:
            self._exchange.finish()
        if body:
            self._exchange.send(body)
        self._touch()

    def client_broke(self, flaw: str) -> None:
        """The request body's framing is broken: the upstream must not take it for complete."""
        self._refuse(flaw)

    def client_flow(self, full: bool) -> None:
        """The client takes no more bytes for now, or takes bytes again."""
        if full:  # not within a reading: TLS forgets an end that came with what is read then
            asyncio.get_running_loop().call_soon(self._hold_back)
        elif self._exchange is not None:
            self._exchange.resume()

    def client_gone(self) -> None:
        """The client's connection is lost."""
        self._drop()
        self._settle("client-gone")

    def timed_out(self) -> None:
        """No byte for too long; but for how long a client may be slow is not the upstream's doing."""
        if self._waits_for_the_client():
            self._touch()
        elif self._started:
            self._abort("upstream-timeout")
        else:
            if self._exchange is not None:
                self._exchange.late()
            self._refuse("upstream-timeout")

    def cut(self, reason: str) -> None:
        """End now: the door has changed its mind."""
        self._abort(f"cut: {reason}")

    # ------------------------------------------------------------------ from the upstream

    def responded(self, head: ResponseHead, body: bytes, ended: bool) -> None:
        """A response head; interim ones pass."""
        changes = self._permit.route.changes
        if changes is not None:
            head = rewriting.response(changes, head, self._head)
        if head.status == 101:
            self._upgrade(head, body)
            return
        if head.status < 200:
            self._client.interim(head)
            return
        self._started = True
        self._account.answered(head.status)
        if not ended:
            self._client.respond(head, body, last=self._upgrading)
            self._touch()
        elif self._ended():
            self._client.respond(head, body, last=self._upgrading)
            self._client.finished()

    def received(self, body: bytes, ended: bool) -> None:
        """More of the response body."""
        if not ended:
            self._client.write(body)
            self._touch()
        elif self._ended():
            self._client.write(body)
            self._client.finished()

    def failed(self, code: str, flaw: str = "") -> None:
        """The upstream failed. A truncated response must look truncated."""
        if self._started:
            self._abort("upstream-failed", flaw)
        else:
            self._refuse(code, flaw)

    def flow(self, full: bool) -> None:
        """The upstream takes no more bytes for now, or takes bytes again."""
        self._client.upstream_flow(full)

    # ------------------------------------------------------------------ steps

    def _ended(self) -> bool:
        """Write the end down, before the last bytes go out; nothing may seem complete when that fails."""
        settled = self._settle("complete")
        self._exchange = None  # it refers to us
        if not settled:
            self._client.abort()
        return settled

    def _upgrade(self, head: ResponseHead, data: bytes) -> None:
        exchange, request = self._exchange, self._head
        if exchange is None or not exchange.complete or not _agreed(request, head):
            self._refuse("upgrade-mismatch")
            return
        self._account.answered(101)
        tunnel = Tunnel(self._client, self._account, exchange, self._permit.route.idle_timeout)
        tunnel.begin(request, head, data)

    def _touch(self) -> None:
        route = self._permit.route
        self._client.wait_until(route.idle_timeout if self._started else route.response_timeout)

    def _hold_back(self) -> None:
        if self._exchange is not None and self._client.full:
            self._exchange.pause()

    def _waits_for_the_client(self) -> bool:
        """Tell whether the client has to take what is there or send the rest: `gateway.crowd` sees to it."""
        if self._started:
            return self._client.full
        return self._exchange is not None and not (self._exchange.complete or self._client.held_back)

    def _is_too_large(self) -> bool:
        return self._client.body_received > self._permit.route.max_body

    def _refuse(self, wrong: str, detail: str = "", retry_after: int = 0) -> None:
        """Answer with a refusal for a code or flaw, if nothing else has been said yet."""
        refusal = refusal_of(wrong, self._permit.decision_id)
        detail = detail or refusal.detail
        if self._started:
            self._abort(refusal.code, detail)
            return
        if refusal.code in ("bad-request", "request-timeout") or retry_after:
            refusal = replace(refusal, close=not retry_after, retry_after=retry_after)
        self._account.status = refusal.status
        self._drop()
        if self._settle(refusal.code, detail):
            self._client.refuse(refusal)
        else:
            self._client.abort()

    def _abort(self, end: str, detail: str = "") -> None:
        """Leave both sides with a broken connection."""
        self._drop()
        self._settle(end, detail)
        self._client.abort()

    def _drop(self) -> None:
        if self._exchange is not None:
            self._exchange.abort()

    def _settle(self, end: str, detail: str = "") -> bool:
        sent = self._exchange.received if self._exchange is not None else 0
        return self._account.settle(end, self._client.body_received, sent, detail)


def _agreed(request: RequestHead, head: ResponseHead) -> bool:
    """Tell whether a 101 response is to the protocol that was asked for."""
    if head.upgrade != request.upgrade:
        return False
    key = request.notes.get(fields.WEBSOCKET_KEY, b"")
    return request.upgrade != "websocket" or websocket.accepts(key, head.notes)
