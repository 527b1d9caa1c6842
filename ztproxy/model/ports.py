"""What rooms need of each other, and nothing more: who implements a port inherits from it.

The gateway asks the door, the paths, the ledger, the router and the counters; administrator, policy and
telemetry are these; the ledger's journal is recording's. Classes to inherit from instead of `Protocol`s, so
that compiled code calls them directly (`model.native`).
"""

from abc import abstractmethod
from collections.abc import Awaitable
from typing import Final

from ztproxy.model.decision import Refusal
from ztproxy.model.native import mypyc_attr
from ztproxy.model.passage import Passage
from ztproxy.model.permit import Permit
from ztproxy.model.record import DecisionRecord
from ztproxy.model.request import AccessRequest, Peer, Resource

Answer = Permit | Refusal


@mypyc_attr(allow_interpreted_subclasses=True)
class Door:
    """Says yes or no (administrator.access)."""

    __slots__ = ()

    @abstractmethod
    def authorize(self, request: AccessRequest) -> Answer | Awaitable[Answer]:
        """Answer one request; an awaitable only when a fact is cold."""

    @abstractmethod
    def refuse(self, request: AccessRequest | None, peer: Peer, refusal: Refusal) -> None:
        """Record a refusal made before policy was asked. May raise when it can not be recorded."""

    @abstractmethod
    def preflight(self, request: AccessRequest, peer: Peer) -> None:
        """Record that a preflight is answered. May raise when it can not be recorded."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Live:
    """What was opened with a permit and can be cut (gateway.account)."""

    __slots__ = ("permit",)

    def __init__(self, permit: Permit) -> None:
        self.permit: Final = permit

    @abstractmethod
    def cut(self, reason: str) -> None:
        """End at once. Called once at the most."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Paths:
    """Knows every live path (administrator.paths)."""

    __slots__ = ()

    @abstractmethod
    def open(self, live: Live) -> int:
        """Register a live path, to be cut when the door changes its mind; return its number."""

    @abstractmethod
    def close(self, number: int) -> None:
        """Forget a path that is over."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Ledger:
    """Writes down what was decided and how exchanges ended (administrator.audit).

    Each raises when it can not: then nobody is let in, and an exchange is aborted.
    """

    __slots__ = ()

    @abstractmethod
    def decision(self, record: DecisionRecord) -> None:
        """Write a decision down."""

    @abstractmethod
    def permit(self, beginning: bytes, caller: Passage, decision: Passage) -> None:
        """Write a permit down, in three parts: a record that is open at its end, and what it goes on with."""

    @abstractmethod
    def outcome(
        self,
        decision_id: str,
        at: int,
        session: str,
        status: int,
        received: int,
        sent: int,
        duration: int,
        first_byte: int,
        end: str,
        detail: str,
        target: str,
    ) -> None:
        """Write down how an exchange ended: the fields of `model.record.OutcomeRecord`."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Journal:
    """Where records are kept until they are sealed (recording.journal)."""

    __slots__ = ()

    @abstractmethod
    def append(self, payload: bytes) -> None:
        """Keep one record. Raises JournalFull (recording.journal), OSError, ValueError."""

    @abstractmethod
    def join(self, beginning: bytes, caller: Passage, decision: Passage) -> None:
        """Keep the record that these are with commas between them and a brace at the end. Raises the same."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Router:
    """Finds what a request is for (policy.routes)."""

    __slots__ = ()

    @abstractmethod
    def match(self, host: str, path: str) -> Resource:
        """Return the resource, NOWHERE when there is none."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Counters:
    """Counts what becomes of requests (telemetry.metrics)."""

    __slots__ = ()

    @abstractmethod
    def request(self, route: str, status: int, seconds: float) -> None:
        """A permitted exchange is over."""

    @abstractmethod
    def preflight(self) -> None:
        """A preflight was answered."""

    @abstractmethod
    def refused(self, code: str) -> None:
        """A refusal was sent."""

    @abstractmethod
    def limited(self, limit: str) -> None:
        """A rate or quota was used up; `limit` is one of a few words."""
