"""What the gateway needs of others, and nothing more. Implemented by administrator, policy and telemetry."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from ztproxy.model.decision import Refusal
from ztproxy.model.permit import Permit
from ztproxy.model.record import OutcomeRecord
from ztproxy.model.request import AccessRequest, Peer, Resource

Answer = Permit | Refusal


class Door(Protocol):
    """Says yes or no (administrator.access)."""

    def authorize(self, request: AccessRequest) -> Answer | Awaitable[Answer]:
        """Answer one request; an awaitable only when a fact is cold."""

    def refuse(self, request: AccessRequest | None, peer: Peer, refusal: Refusal) -> None:
        """Record a refusal made before policy was asked. May raise when it can not be recorded."""

    def preflight(self, request: AccessRequest, peer: Peer) -> None:
        """Record that a preflight is answered. May raise when it can not be recorded."""


class Paths(Protocol):
    """Knows every live path (administrator.paths)."""

    def open(self, permit: Permit, cut: Callable[[str], None]) -> int:
        """Register a live path; `cut(reason)` ends it within the same turn of the loop."""

    def close(self, number: int) -> None:
        """Forget a path that is over."""


class Ledger(Protocol):
    """Writes down how exchanges ended (administrator.audit)."""

    def outcome(self, record: OutcomeRecord) -> None:
        """Write it down, or raise: then the exchange is aborted."""


class Router(Protocol):
    """Finds what a request is for (policy.routes)."""

    def match(self, host: str, path: str) -> Resource:
        """Return the resource, NOWHERE when there is none."""


class Counters(Protocol):
    """Counts (telemetry.metrics)."""

    preflights: int  # answered

    def request(self, route: str, status: int, seconds: float) -> None:
        """A permitted exchange is over."""

    def refused(self, code: str) -> None:
        """A refusal was sent."""

    def limited(self, limit: str) -> None:
        """A rate or quota was used up; `limit` is one of a few words."""
