"""A connection that a connector dialled to us, from its permit to its end: ready, asked, carrying.

`gateway.http` makes one for a permit of the route that carries; `upstream.carriers` takes it when the gateway
needs a connection to what the connector reaches. The connection is a live path all the time, so whatever
ends a path ends it: revocation, a lock, the end of its certificate, another configuration. Who a connector is
says its certificate alone. Once it carries, not a byte passes through here: the protocol that the bytes are
for has the transport itself.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from ztproxy.gateway.account import Account
from ztproxy.gateway.client import Client, Runnable
from ztproxy.gateway.refuse import refusal_of
from ztproxy.gateway.upgrade import STOPPING
from ztproxy.model.connector import BUNDLE, connector_of
from ztproxy.model.endpoints import CARRY
from ztproxy.model.permit import Permit
from ztproxy.model.quota import Rate
from ztproxy.model.resource import Upstream
from ztproxy.net.alive import keep_alive
from ztproxy.net.dial import Context, Dialled, shake_hands
from ztproxy.net.rate import Bucket
from ztproxy.net.splice import Half
from ztproxy.net.wheel import NEVER
from ztproxy.upstream.carriers import Instance, NotCarried
from ztproxy.wire.carrying import (
    OF_CONNECTOR,
    PROTOCOL,
    BadFrame,
    Frame,
    FrameReader,
    Lent,
    Open,
    Opened,
    Refused,
    Status,
    Wanted,
    written,
)
from ztproxy.wire.http1 import RequestHead

log = logging.getLogger("ztproxy.connectors")

_P = TypeVar("_P", bound=Dialled)

#: Seconds for the first word of a connector, and without a word of one that is ready; it beats every ten.
GREETING: Final = 10.0
SILENCE: Final = 30.0
#: Seconds for a sign of life after it was asked to carry; then it has as long as the route waits for
#: upstreams.
ANSWER: Final = 1.0
#: Seconds that we are late ourselves, above which nobody else's silence is judged.
HELD_UP: Final = 0.1
#: How often a connector may say how it is: a beat, and signs of life while it is at work. Answers are as many
#: as questions.
WORDS: Final = Rate(1.0, 20)


class Carrier(asyncio.Protocol, Runnable):
    """One connection of a connector. Implements `upstream.carriers.Carrier`."""

    __slots__ = (
        "_account",
        "_answer",
        "_asks",
        "_carried",
        "_client",
        "_over",
        "_patience",
        "_permit",
        "_reader",
        "_ready",
        "_rest",
        "_transport",
        "_until",
        "_words",
        "_world",
        "deadline",
        "instance",
    )

    def __init__(self, client: Client, head: RequestHead, permit: Permit) -> None:
        self._client: Client | None = client  # until it is handed over
        self._asks = _asks(head, permit)
        self._permit = permit
        self._world = client.world
        self._account = Account(client.world, permit, self)
        self._reader = FrameReader(OF_CONNECTOR)
        self._words = Bucket(WORDS, client.world.wheel.now)
        self._ready = False  # it has said how it is
        self._answer: asyncio.Future[None] | None = None  # to what it was asked
        self._patience: asyncio.TimerHandle | None = None  # with whoever was asked
        self._carried: Dialled | Half | None = None
        self._until = 0.0  # when whoever asked waits no longer
        self._rest = b""  # came behind the answer
        self._over = False
        self.deadline = NEVER

    def start(self) -> None:
        """Take the connection over, if this is a connector that asks for that."""
        client, world = self._client, self._world
        assert client is not None
        who = _who(client)
        if who is None or not self._asks:
            refusal = refusal_of("upgrade-not-allowed", self._permit.decision_id, close=True)
            self._account.status = refusal.status
            if self._settle(refusal.code):
                client.refuse(refusal)
            else:
                client.abort()
            return
        self._client = None
        self.instance: Instance = world.carriers.find(*who)
        self._account.answered(101)
        self._transport, early = client.hand_over(self, PROTOCOL.encode("ascii"))
        keep_alive(self._transport)
        self.deadline = world.clock.monotonic() + GREETING
        world.wheel.add(self)
        self.want()
        if early:
            self.data_received(early)

    # ------------------------------------------------------------------ before it is taken over

    def client_flow(self, full: bool) -> None:
        """Nothing flows yet."""

    def client_gone(self) -> None:
        """The connection is lost."""
        self._settle("client-gone")

    def timed_out(self) -> None:
        """No word of it for too long (net.wheel)."""
        if self._ready:
            self._world.carriers.silent(self.instance)
        self._end("connector-silent")

    def cut(self, reason: str) -> None:
        """End now: the door has changed its mind. When the process stops, what is carried ends by itself."""
        if reason == STOPPING and self._carried is not None:
            self._settle(f"cut: {reason}")
        else:
            self._end(f"cut: {reason}")

    # ------------------------------------------------------------------ asyncio, until it carries

    def data_received(self, data: bytes) -> None:
        """Frames."""
        try:
            while data and not self._over and (found := self._reader.feed(data)) is not None:
                frame, data = found
                self._take(frame, data)
                if isinstance(frame, Opened):
                    return
        except BadFrame as bad:
            self._broke(str(bad))

    def eof_received(self) -> bool:
        """It leaves."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone, with the question if there was one."""
        self._finish("complete" if self._ready else "client-gone")

    # ------------------------------------------------------------------ upstream.carriers.Carrier

    def want(self) -> None:
        """Tell the connector how many ready connections are wanted: none when this worker ends."""
        carriers = self._world.carriers
        wanted = 0 if carriers.leaving else self.instance.wanted
        self._transport.write(written(Wanted(carriers.node, carriers.worker, carriers.workers, wanted)))

    def retire(self) -> None:
        """Let what is carried end with what is under way."""
        if self._carried is not None:
            self._carried.retire()

    def close(self) -> None:
        """End now."""
        self._end("closed")

    async def carry(
        self, upstream: Upstream, factory: Callable[[], _P], context: Context | None, *, until: float
    ) -> _P:
        """Carry to an upstream from now on. Raises NotCarried; then it is ready again, or over."""
        try:
            await self._ask(upstream, until)
            return await self._begin(upstream, factory, context, until)
        except NotCarried as why:
            if why.reason in ("not-allowed", "unreachable", "busy") and not self._over:
                self._keep()
            else:
                self._end("complete", why.reason)
            raise
        except OSError as failed:  # of TLS, or too late
            self._end("complete", "tls")
            raise NotCarried("tls") from failed
        except BaseException:
            self._end("complete", "given-up")
            raise

    def lend(self, transport: asyncio.Transport, early: bytes, gone: Callable[[Half], None]) -> None:
        """Let whoever is at the other end of `transport` speak with the connector, who can not tell.

        `early` came from there already; `gone` is called when that end is lost.
        """
        self._world.wheel.discard(self)
        theirs = Half(gone, self._world.outbox)
        theirs.connection_made(transport)
        ours = self._carried = Half(self._returned, self._world.outbox)
        self._world.carriers.given(self.instance.name)
        ours.join(self._transport, theirs)
        transport.set_protocol(theirs)
        self._transport.set_protocol(ours)
        transport.write(written(Lent(self.instance.instance)) + self._reader.left)
        if early:
            self._transport.write(early)

    # ------------------------------------------------------------------ net.dial.Carriage

    @property
    def lent(self) -> bool:
        """The connector dialled us."""
        return False

    def lost(self) -> None:
        """What was carried is gone."""
        self._finish("complete", "carried")

    def unheard(self) -> None:
        """What was sent does not arrive: nor will it on idle connections of the same connector."""
        self._world.carriers.silent(self.instance)

    # ------------------------------------------------------------------ steps

    async def _ask(self, upstream: Upstream, until: float) -> None:
        loop = asyncio.get_running_loop()
        if self._over:
            raise NotCarried("lost")
        self._answer = loop.create_future()
        self._until = until
        self.deadline = NEVER
        self._transport.write(written(Open(upstream.scheme, upstream.host, upstream.port)))
        self._wait(min(loop.time() + ANSWER, until))
        try:
            await self._answer
        except TimeoutError:
            self._world.carriers.silent(self.instance)
            raise NotCarried("silent") from None
        finally:
            self._wait_no_more()
            self._answer = None

    def _wait(self, until: float) -> None:
        """Wait for an answer until then, by the time of the loop."""
        self._wait_no_more()
        self._patience = asyncio.get_running_loop().call_at(until, self._waited, until)

    def _wait_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _waited(self, until: float) -> None:
        """Nothing is heard. If this comes late, we were held up, and what was said may not have been read."""
        if self._answer is None or self._answer.done():
            return
        now = asyncio.get_running_loop().time()
        if now - until > HELD_UP and now < self._until:
            self._wait(min(now + ANSWER, self._until))
        else:
            self._answer.set_exception(TimeoutError())

    async def _begin(
        self, upstream: Upstream, factory: Callable[[], _P], context: Context | None, until: float
    ) -> _P:
        """Let the protocol that the bytes are for have the transport."""
        if self._over:
            raise NotCarried("lost")
        protocol = factory()
        protocol.carried = self
        transport = self._transport
        if context is None:
            transport.set_protocol(protocol)
        elif self._rest:
            raise NotCarried("tls")  # somebody on the way speaks for an upstream that has not been asked
        else:
            async with asyncio.timeout_at(until):
                name = upstream.server_name or upstream.host
                transport = await shake_hands(transport, protocol, context, name)
        self._world.wheel.discard(self)
        self._carried = protocol
        protocol.connection_made(transport)
        if self._rest:
            protocol.data_received(self._rest)
            self._rest = b""
        transport.resume_reading()
        return protocol

    def _take(self, frame: Frame, rest: bytes) -> None:
        """Take a frame; `rest` is what came behind it."""
        if isinstance(frame, Status):
            if self._words.take(self._world.wheel.now):
                raise BadFrame("too many frames")
            self._heard(frame)
        elif self._answer is None or self._answer.done():
            raise BadFrame("an answer to no question")
        elif isinstance(frame, Refused):
            self.instance.doubted = False
            self._answer.set_exception(NotCarried(frame.reason))
        else:
            self.instance.doubted = False
            self._transport.pause_reading()
            self._rest = rest
            self._answer.set_result(None)

    def _heard(self, frame: Status) -> None:
        carriers = self._world.carriers
        carriers.heard(self.instance, frame.version, draining=frame.draining)
        if self._answer is not None:
            self._wait(self._until)  # it is at work
        elif not self._ready:
            self._ready = True
            self._keep()
        elif frame.draining:
            self._end("complete", "draining")
        else:
            self.deadline = self._world.clock.monotonic() + SILENCE
            carriers.beat(self)

    def _keep(self) -> None:
        """Wait for work."""
        self.deadline = self._world.clock.monotonic() + SILENCE
        if self.instance.draining:
            self._end("complete", "draining")
        elif not self._world.carriers.arrived(self):
            self._end("too-many")
        elif self._world.carriers.leaving:  # since it was told what is wanted
            self.want()

    def _broke(self, why: str) -> None:
        name = f"{self.instance.name}/{self.instance.instance}"
        log.warning("a connector does not keep to the protocol", extra={"connector": name, "why": why})
        self._end("protocol")

    def _returned(self, _: Half) -> None:
        """What was lent is over."""
        self._world.carriers.returned()
        self.lost()

    def _end(self, end: str, detail: str = "") -> None:
        if self._client is not None:
            self._client.abort()
        else:
            self._transport.abort()
        self._finish(end, detail)

    def _finish(self, end: str, detail: str = "") -> None:
        """It is over, in whatever state it was."""
        if self._over:
            return
        self._over = True
        self._world.wheel.discard(self)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(NotCarried("lost"))
        if self._client is None:
            self._world.carriers.left(self)
        self._settle(end, detail)

    def _settle(self, end: str, detail: str = "") -> bool:
        return self._account.settle(end, 0, 0, detail)


def _asks(head: RequestHead, permit: Permit) -> bool:
    """Tell whether a request is exactly what a connector asks."""
    carries = permit.request.context.protocol == PROTOCOL
    return carries and (head.method, head.path, head.body) == ("GET", CARRY, 0)


def _who(client: Client) -> tuple[str, str] | None:
    """Return name and instance of the connector at the other end, None when there is none."""
    certificate = client.peer.tls.certificate
    if certificate is None or certificate.bundle != BUNDLE:
        return None
    return connector_of(certificate.subject)
