"""What `gateway.http`, a relay or a tunnel needs of its client, whatever protocol the client speaks.

`gateway.connection` is one for HTTP/1.1, where it is a whole connection; a protocol with streams makes one
per stream. Bodies are framed as their head says: a client whose request is chunked hands over chunks.
"""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from ztproxy.gateway.ports import Answer
from ztproxy.model.decision import Refusal
from ztproxy.model.request import Peer
from ztproxy.net.sources import Source
from ztproxy.wire.http1 import RequestHead, ResponseHead

if TYPE_CHECKING:
    from ztproxy.gateway.relay import Relay
    from ztproxy.gateway.world import World


class Running(Protocol):
    """What runs for a client, as the client sees it: a relay or a tunnel."""

    def client_flow(self, full: bool) -> None:
        """The client takes no more bytes for now, or takes bytes again."""

    def client_gone(self) -> None:
        """The client is lost."""

    def timed_out(self) -> None:
        """Nothing happened until the time that was set by `wait_until`."""

    def cut(self, reason: str) -> None:
        """End now."""


class Pipe(Running, Protocol):
    """What takes the client's bytes as they are: a tunnel."""

    def from_client(self, data: bytes) -> None:
        """Bytes from the client."""


class Sender(Protocol):
    """Where a request's body comes from."""

    @property
    def body_received(self) -> int:
        """Bytes of content so far."""

    def drop_trailers(self) -> None:
        """Let no fields after the body pass; before `take_body`."""

    def take_body(self) -> tuple[bytes, bool]:
        """Return the body bytes that are there, and whether they are all; later ones go to the relay."""

    def upstream_flow(self, full: bool) -> None:
        """The upstream takes no more bytes for now, or takes bytes again."""


class Taker(Protocol):
    """Where a response goes."""

    full: bool  # takes no more bytes for now
    chunks: bool  # takes content of unknown length as chunks, else bare

    def interim(self, head: ResponseHead | None) -> None:
        """Pass an interim response on, if the client can take one; None stands for 100 (Continue)."""

    def respond(self, head: ResponseHead, body: bytes, *, last: bool) -> None:
        """Begin the response; `last`: no other request may follow on the same connection."""

    def write(self, body: bytes) -> None:
        """More content."""

    def finished(self) -> None:
        """The response is complete."""


class Client(Sender, Taker, Protocol):
    """One client with one request."""

    world: "World"
    peer: Peer
    source: Source  # who counts as one when things are bounded per address
    peer_lines: bytes  # header lines for upstreams that are the same for all requests of a connection

    def run(self, relay: "Relay") -> None:
        """Let a relay have the request."""

    def wait_for(self, head: RequestHead, answer: Awaitable[Answer]) -> None:
        """Wait for a cold decision, then act on it."""

    def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal, as nothing else has been answered."""

    def switch(self, pipe: Pipe, protocol: bytes, head: ResponseHead) -> None:
        """Say 101 to the client, and let a tunnel have its bytes from the next one on."""

    def wait_until(self, seconds: float) -> None:
        """Have `timed_out` called unless something happens within so many seconds."""

    def close(self) -> None:
        """Close once everything written has been sent, or has had its time."""

    def abort(self) -> None:
        """Close at once; what was written may not arrive."""
