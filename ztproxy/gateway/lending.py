"""Lending ready connections of connectors to neighbours: to other workers of this node, and to other nodes.

A worker asks at a socket in the private state directory (`service.worker` listens there). A node comes in as
everybody does: over the public listener, with a certificate that says it is one, past the one door, with a
record of its own and as a live path, so whatever ends a path ends what was lent. A node also gets what
another worker of ours lends; a worker gets only what is ours. So no question goes round in a circle.
"""

import asyncio
from typing import Final, cast

from ztproxy.gateway.account import Account
from ztproxy.gateway.carrier import Carrier
from ztproxy.gateway.client import Client, Runnable
from ztproxy.gateway.refuse import refusal_of
from ztproxy.model.connector import NAME
from ztproxy.model.endpoints import CARRY
from ztproxy.model.node import BUNDLE, node_of
from ztproxy.model.permit import Permit
from ztproxy.net.alive import keep_alive
from ztproxy.net.splice import Half
from ztproxy.upstream.carriers import Carriers
from ztproxy.wire.carrying import OF_BORROWER, PROTOCOL, BadFrame, Borrow, FrameReader
from ztproxy.wire.http1 import RequestHead

#: Seconds in which a node is answered.
PATIENCE: Final = 2.0


class Worker(asyncio.Protocol):
    """The protocol of another worker of this node that asks. Who has none to lend closes without a word."""

    def __init__(self, carriers: Carriers) -> None:
        self._carriers = carriers
        self._frames = FrameReader(OF_BORROWER)
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """A question."""
        try:
            found = self._frames.feed(data)
        except BadFrame:
            self._transport.abort()
            return
        if found is None:
            return
        frame, rest = found
        assert isinstance(frame, Borrow)
        carrier = self._carriers.lend(frame.name)
        if carrier is None:
            self._transport.close()
        else:
            cast("Carrier", carrier).lend(self._transport, rest, _forget)


class Loan(Runnable):
    """The connection of a node that borrows, from permit to end."""

    __slots__ = ("_account", "_asking", "_client", "_head", "_permit", "_transport")

    def __init__(self, client: Client, head: RequestHead, permit: Permit) -> None:
        self._client = client
        self._head = head
        self._permit = permit
        self._account = Account(client.world, permit, self)
        self._asking: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None  # once it is lent

    def start(self) -> None:
        """Lend at once what is ready here, else what another worker lends us."""
        name = self._wanted()
        if not name:
            self._refuse("upgrade-not-allowed")
            return
        carrier = self._client.world.carriers.lend(name)
        if carrier is not None:
            self._lend(cast("Carrier", carrier))
        else:
            self._client.wait_until(PATIENCE)
            self._asking = asyncio.get_running_loop().create_task(self._ask(name))

    def _wanted(self) -> str:
        """Return which connector this is about, "" when it is no question of a node."""
        head, context = self._head, self._permit.request.context
        name = head.path.removeprefix(f"{CARRY}/")
        asked = context.protocol == PROTOCOL and head.method == "GET" and not head.body
        return name if asked and NAME.fullmatch(name) else ""

    async def _ask(self, name: str) -> None:
        neighbours = self._client.world.carriers.neighbours
        carrier = await neighbours.ask_workers(name) if neighbours is not None else None
        if self._account.settled:
            if carrier is not None:
                carrier.close()
        elif carrier is None:
            self._refuse("connector-unavailable")
        else:
            self._lend(cast("Carrier", carrier))

    def _lend(self, carrier: Carrier) -> None:
        self._account.answered(101)
        half = Half(self._gone, self._client.world.outbox)
        transport, early = self._client.hand_over(half, PROTOCOL.encode("ascii"))
        self._transport = transport
        keep_alive(transport)
        carrier.lend(transport, early, self._gone)

    def _refuse(self, code: str) -> None:
        refusal = refusal_of(code, self._permit.decision_id, close=True)
        self._account.status = refusal.status
        if self._account.settle(refusal.code, 0, 0):
            self._client.refuse(refusal)
        else:
            self._client.abort()

    def _gone(self, _: Half) -> None:
        self._account.settle("complete", 0, 0, "lent")

    # ------------------------------------------------------------------ gateway.client.Running

    def client_flow(self, full: bool) -> None:
        """Nothing flows yet."""

    def client_gone(self) -> None:
        """The connection is lost before anything was lent."""
        if self._asking is not None:
            self._asking.cancel()
        self._account.settle("client-gone", 0, 0)

    def timed_out(self) -> None:
        """No worker answers."""
        if self._asking is not None:
            self._asking.cancel()
        self._refuse("connector-unavailable")

    def cut(self, reason: str) -> None:
        """End now: the door has changed its mind."""
        if self._asking is not None:
            self._asking.cancel()
        self._account.settle(f"cut: {reason}", 0, 0)
        if self._transport is not None:
            self._transport.abort()
        else:
            self._client.abort()


def is_node(client: Client) -> bool:
    """Tell whether a node is at the other end."""
    certificate = client.peer.tls.certificate
    return (
        certificate is not None and certificate.bundle == BUNDLE and node_of(certificate.subject) is not None
    )


def _forget(_: Half) -> None:
    """A worker's end needs no record: what it does with the connection has its own."""
