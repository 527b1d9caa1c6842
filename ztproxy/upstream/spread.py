"""Exchanges with a route that has several targets: which one serves, what to do when it does not, and what
that says about it.

Made by `upstream.upstreams`; `upstream.balance` chooses. A connection that can not be made leads to the next
target, whatever the method: no byte of the request has gone anywhere. After that only what may be sent twice
is sent again, and nothing once a byte of an answer has come.
"""

import logging
from typing import TYPE_CHECKING

from ztproxy.model.resource import Targets
from ztproxy.net.dial import Unreachable
from ztproxy.upstream.balance import Balancer
from ztproxy.upstream.exchange import Exchange
from ztproxy.upstream.receiver import Receiver
from ztproxy.upstream.request import Request
from ztproxy.wire.http1 import ResponseHead

if TYPE_CHECKING:
    from ztproxy.model.permit import Permit
    from ztproxy.upstream.connection import UpstreamConnection
    from ztproxy.upstream.upstreams import Upstreams

log = logging.getLogger("ztproxy.upstream")


class Group:
    """The targets of one route as this worker knows them."""

    __slots__ = ("balancer", "route", "targets", "upstreams")

    def __init__(self, route: str, targets: Targets) -> None:
        self.route = route
        self.targets = targets
        self.upstreams = tuple(target.upstream for target in targets.all)
        self.balancer = Balancer([target.weight for target in targets.all], targets.ejection)

    def answered(self, index: int, status: int, now: float) -> None:
        """A target answered a request, which may be its way to say that it can not."""
        if status in self.targets.ejection.statuses:
            self.failed(index, now)
        else:
            self.balancer.succeeded(index)

    def checked(self, index: int, *, healthy: bool, answer: str) -> None:
        """Active checks have come to another conclusion about a target; `answer` is what it said last."""
        self.balancer.checked(index, healthy=healthy)
        log.log(
            logging.INFO if healthy else logging.WARNING,
            "a target is healthy again" if healthy else "a target is unhealthy: it fails its checks",
            extra={"route": self.route, "target": self.upstreams[index].place, "answer": answer},
        )

    def failed(self, index: int, now: float) -> None:
        """A target did not answer a request as it should."""
        if self.balancer.failed(index, now):
            log.warning(
                "a target is left out for a while: it failed requests",
                extra={"route": self.route, "target": self.upstreams[index].place},
            )


class Spread(Exchange):
    """An exchange with one target of a group."""

    __slots__ = ("_fresh", "_group", "_index", "_inner", "_tried")

    def __init__(
        self,
        home: "Upstreams",
        permit: "Permit",
        request: Request,
        receiver: Receiver,
        group: Group,
        index: int,
    ) -> None:
        super().__init__(home, permit, request, _Unanswered(self, receiver))
        self._inner = receiver
        self._group = group
        self._index = index
        self._tried = {index}
        self._fresh = False  # the connection was made for this exchange

    @property
    def target(self) -> str:
        """The address of the target that serves this."""
        return self._group.upstreams[self._index].place

    @property
    def _unanswered(self) -> bool:
        return isinstance(self.receiver, _Unanswered)

    def abort(self, *, flush: bool = False) -> None:
        """End it, whatever state it is in."""
        if self._unanswered:
            self.receiver = self._inner
        super().abort(flush=flush)

    def late(self) -> None:
        """A target is slow, unless it waits for the rest of a request: that is the caller's doing."""
        if self._unanswered and (self.complete or self._dialling is not None):
            self._group.failed(self._index, self._home.now)

    def lost(self, code: str, flaw: str = "") -> None:
        """The connection died: try again, elsewhere unless it was only an idle one that had grown old."""
        if not self._unanswered:
            super().lost(code, flaw)
            return
        self._connection = None
        if not self._may_repeat():
            self.failed(code, flaw)
            return
        if self._fresh:
            self._group.failed(self._index, self._home.now)
            self._move()
        self._dial()

    # ------------------------------------------------------------------ what is told before the answer

    def responded(self, head: ResponseHead, body: bytes, ended: bool) -> None:
        """The target answers, perhaps with something interim first."""
        if head.status >= 200 or head.status == 101:
            self._group.answered(self._index, head.status, self._home.now)
            self.receiver = self._inner
        self._inner.responded(head, body, ended)

    def failed(self, code: str, flaw: str = "") -> None:
        """The target failed. That an idle connection had died says nothing about it."""
        if self._fresh or self.answered:
            self._group.failed(self._index, self._home.now)
        self._give_up(code, flaw)

    # ------------------------------------------------------------------ steps

    def _give_up(self, code: str, flaw: str = "") -> None:
        self.receiver = self._inner
        self._inner.failed(code, flaw)

    def _move(self) -> bool:
        """Turn to a target that was not tried; False when there is none."""
        index = self._group.balancer.another(self._tried, self._home.now)
        if index is None:
            return False
        self._index = index
        self._tried.add(index)
        return True

    async def _connect(self) -> None:
        while True:
            try:
                connection = await self._home.connect(self._permit, self._group.upstreams[self._index])
            except Unreachable as failed:
                self._group.failed(self._index, self._home.now)
                if not self._move():
                    self._dialling = None
                    self._give_up(failed.code, failed.detail)
                    return
            else:
                break
        self._begin(connection)

    def _begin(self, connection: "UpstreamConnection") -> None:
        self._fresh = True
        super()._begin(connection)


class _Unanswered(Receiver):
    """Stands before the receiver until the answer's head is there, so that later bytes cost nothing more."""

    __slots__ = ("_exchange", "_inner")

    def __init__(self, exchange: Spread, inner: Receiver) -> None:
        self._exchange = exchange
        self._inner = inner

    def responded(self, head: ResponseHead, body: bytes, ended: bool) -> None:
        """A head."""
        self._exchange.responded(head, body, ended)

    def received(self, body: bytes, ended: bool) -> None:
        """Content comes after a head."""
        raise AssertionError("content before a head")

    def failed(self, code: str, flaw: str = "") -> None:
        """No answer."""
        self._exchange.failed(code, flaw)

    def flow(self, full: bool) -> None:
        """The target takes no more bytes for now, or takes bytes again."""
        self._inner.flow(full)
