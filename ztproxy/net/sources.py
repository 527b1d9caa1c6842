"""Who is connected, or was lately: the bounds that hold before TLS, per source and for all together.

Kept by `net.listener`, which asks for every connection it could accept. A source is an address or IPv6 /64.
A source that asks too much has to wait a little, then is turned away; when all sources together ask too much
nobody is, the kernel's backlog lets them wait. O(1) for each call; never more sources than connections and
`REMEMBERED`.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from ztproxy.model.quota import Rate
from ztproxy.net.rate import Bucket, source_of

REMEMBERED: Final = 10_000  # sources without a connection
PATIENCE: Final = 2.0  # seconds that a source may have to wait for a handshake
CROWDED: Final = 0.05  # seconds until somebody's handshake may be over


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Of one worker. None: no bound."""

    connections: int = 10_000
    connections_per_source: int = 512
    handshakes: Rate | None = None
    handshakes_per_source: Rate | None = None
    handshaking: int = 1000  # under way at once
    handshaking_per_source: int = 64
    requests_per_source: Rate | None = None


class Source:
    """One source, shared by its connections."""

    __slots__ = ("connections", "delay", "greetings", "handshaking", "name", "requests")

    greetings: Bucket | None  # tokens for its handshakes; None without a bound
    requests: Bucket | None  # and for its requests

    def __init__(self, name: str, bounds: Bounds, now: float) -> None:
        self.name = name
        self.connections = 0
        self.handshaking = 0
        self.delay = 0.0  # seconds that the connection admitted last has to wait for its handshake
        self.bind(bounds, now)

    def bind(self, bounds: Bounds, now: float) -> None:
        """Begin afresh with these rates."""
        self.greetings = _bucket(bounds.handshakes_per_source, now)
        self.requests = _bucket(bounds.requests_per_source, now)


class Sources:
    """All sources of one worker."""

    def __init__(self, bounds: Bounds, now: float, *, remembered: int = REMEMBERED) -> None:
        self.bounds = bounds
        self.connections = 0
        self.handshaking = 0
        self._greetings = _bucket(bounds.handshakes, now)
        self._remembered = remembered
        self._here: dict[str, Source] = {}
        self._lately: OrderedDict[str, Source] = OrderedDict()

    def bind(self, bounds: Bounds, now: float) -> None:
        """Let other bounds hold from now on; who is above one of them is not thrown out."""
        if bounds == self.bounds:
            return  # and what was used up stays so
        self.bounds = bounds
        self._greetings = _bucket(bounds.handshakes, now)
        self._lately.clear()
        for source in self._here.values():
            source.bind(bounds, now)

    def __len__(self) -> int:
        return len(self._here) + len(self._lately)

    def wait(self, now: float) -> float:
        """Return for how many seconds to accept nobody, because all together ask for too much."""
        if self.handshaking >= self.bounds.handshaking:
            return CROWDED
        return self._greetings.wait(now) if self._greetings is not None else 0.0

    def admit(self, ip: str, now: float) -> Source | str:
        """Count a connection in and return its source, or return why it has to go."""
        if self.connections >= self.bounds.connections:
            return "too-many"
        source = self._source(source_of(ip), now)
        if reason := self._excess(source, now):
            return reason
        if self._greetings is not None:
            self._greetings.take(now)
        self._lately.pop(source.name, None)
        self._here[source.name] = source
        source.delay = source.greetings.reserve(now, PATIENCE) if source.greetings is not None else 0.0
        source.connections += 1
        source.handshaking += 1
        self.connections += 1
        self.handshaking += 1
        return source

    def greeted(self, source: Source) -> None:
        """A connection's handshake is over, however it ended."""
        source.handshaking -= 1
        self.handshaking -= 1

    def gone(self, source: Source) -> None:
        """A connection is over."""
        source.connections -= 1
        self.connections -= 1
        if not source.connections:
            del self._here[source.name]
            self._remember(source)

    def _excess(self, source: Source, now: float) -> str:
        if source.connections >= self.bounds.connections_per_source:
            return "too-many-from-source"
        if source.handshaking >= self.bounds.handshaking_per_source:
            return "too-many-handshakes"
        if source.greetings is not None and source.greetings.wait(now) > PATIENCE:
            return "too-fast"
        return ""

    def _source(self, name: str, now: float) -> Source:
        source = self._here.get(name) or self._lately.get(name)
        if source is None:
            source = Source(name, self.bounds, now)
        if not source.connections:
            self._remember(source)
        return source

    def _remember(self, source: Source) -> None:
        """Keep what a source has used up: who is forgotten starts afresh."""
        self._lately[source.name] = source
        self._lately.move_to_end(source.name)
        if len(self._lately) > self._remembered:
            self._lately.popitem(last=False)


def _bucket(rate: Rate | None, now: float) -> Bucket | None:
    return Bucket(rate, now) if rate is not None else None
