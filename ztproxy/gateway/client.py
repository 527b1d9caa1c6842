"""What `gateway.http`, a relay or a tunnel needs of its client, whatever protocol the client speaks.

`gateway.connection` is one for HTTP/1.1, where it is a whole connection; a protocol with streams makes one
per stream. Bodies are framed as their head says: a client whose request is chunked hands over chunks.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from ztproxy.model.decision import Refusal
from ztproxy.model.native import trait
from ztproxy.model.ports import Answer
from ztproxy.model.request import Peer
from ztproxy.net.sources import Source
from ztproxy.wire.http1 import RequestHead, ResponseHead

if TYPE_CHECKING:
    from ztproxy.gateway.world import World


@trait
class Running:
    """What runs for a client, as the client sees it: a relay or a tunnel."""

    __slots__ = ()

    @abstractmethod
    def client_flow(self, full: bool) -> None:
        """The client takes no more bytes for now, or takes bytes again."""

    @abstractmethod
    def client_gone(self) -> None:
        """The client is lost."""

    @abstractmethod
    def timed_out(self) -> None:
        """Nothing happened until the time that was set by `wait_until`."""

    @abstractmethod
    def cut(self, reason: str) -> None:
        """End now."""


@trait
class Runnable(Running):
    """What can be let to run: a relay, or a connection that is to carry."""

    __slots__ = ()

    @abstractmethod
    def start(self) -> None:
        """Begin."""


@trait
class Pipe(Running):
    """What takes the client's bytes as they are: a tunnel."""

    __slots__ = ()

    @abstractmethod
    def from_client(self, data: bytes) -> None:
        """Bytes from the client."""


@trait
class Sender:
    """Where a request's body comes from."""

    __slots__ = ()

    @property
    @abstractmethod
    def body_received(self) -> int:
        """Bytes of content so far."""

    @property
    @abstractmethod
    def held_back(self) -> bool:
        """Tell whether nothing is read from it."""

    @abstractmethod
    def drop_trailers(self) -> None:
        """Let no fields after the body pass; before `take_body`."""

    @abstractmethod
    def take_body(self) -> tuple[bytes, bool]:
        """Return the body bytes that are there, and whether they are all; later ones go to the relay."""

    @abstractmethod
    def upstream_flow(self, full: bool) -> None:
        """The upstream takes no more bytes for now, or takes bytes again."""


@trait
class Taker:
    """Where a response goes."""

    __slots__ = ()

    full: bool  # takes no more bytes for now
    chunks: bool  # takes content of unknown length as chunks, else bare

    @abstractmethod
    def interim(self, head: ResponseHead | None) -> None:
        """Pass an interim response on, if the client can take one; None stands for 100 (Continue)."""

    @abstractmethod
    def respond(self, head: ResponseHead, body: bytes, *, last: bool) -> None:
        """Begin the response; `last`: no other request may follow on the same connection."""

    @abstractmethod
    def write(self, body: bytes) -> None:
        """More content."""

    @abstractmethod
    def finished(self) -> None:
        """The response is complete."""


@trait
class Client(Sender, Taker):
    """One client with one request."""

    __slots__ = ()

    world: "World"
    peer: Peer
    source: Source  # who counts as one when things are bounded per address
    peer_lines: bytes  # header lines for upstreams that are the same for all requests of a connection

    @abstractmethod
    def run(self, runnable: Runnable) -> None:
        """Let a relay, or what carries, have the request."""

    @abstractmethod
    def wait_for(self, head: RequestHead, answer: Awaitable[Answer]) -> None:
        """Wait for a cold decision, then act on it."""

    @abstractmethod
    def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal, as nothing else has been answered."""

    @abstractmethod
    def switch(self, pipe: Pipe, protocol: bytes, head: ResponseHead) -> None:
        """Say 101 to the client, and let a tunnel have its bytes from the next one on."""

    @abstractmethod
    def hand_over(self, protocol: asyncio.Protocol, name: bytes) -> tuple[asyncio.Transport, bytes]:
        """Say 101 and let another protocol have the connection itself; from now on nobody here knows it.

        Returns its transport and the bytes that came too early.
        """

    @abstractmethod
    def wait_until(self, seconds: float) -> None:
        """Have `timed_out` called unless something happens within so many seconds."""

    @abstractmethod
    def close(self) -> None:
        """Close once everything written has been sent, or has had its time."""

    @abstractmethod
    def abort(self) -> None:
        """Close at once; what was written may not arrive."""
