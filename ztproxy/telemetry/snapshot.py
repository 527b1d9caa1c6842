"""The numbers of one process at one moment, as they travel to the control process."""

from msgspec import Struct


class Durations(Struct, frozen=True):
    """A histogram: counts of each bucket (the last is above all bounds) and the sum of seconds."""

    counts: tuple[int, ...]
    total: float


class TargetState(Struct, frozen=True):
    """How a worker sees one target of a route."""

    route: str
    target: str  # its address, as configured
    up: bool
    ejections: int = 0


class ConnectorState(Struct, frozen=True):
    """What a worker has of one running connector."""

    name: str
    instance: str
    version: str
    ready: int  # connections that wait to carry
    carrying: int  # connections that carry
    draining: bool = False  # it takes nothing new


class SourceState(Struct, frozen=True):
    """How fresh a source of facts is for a worker."""

    name: str
    age: float  # seconds
    ok: bool


class Configuration(Struct, frozen=True):
    """What is in force: digests in hex, and since when in seconds."""

    digest: str
    policies: str
    since: float


class Snapshot(Struct, frozen=True):
    """All numbers of one process at one moment."""

    worker: str
    requests: dict[str, dict[str, int]] = {}  # route -> "2xx" -> count
    durations: dict[str, Durations] = {}
    refusals: dict[str, int] = {}
    handshakes: dict[str, int] = {}
    limited: dict[str, int] = {}
    numbers: dict[str, float] = {}
    retries: dict[str, int] = {}
    targets: tuple[TargetState, ...] = ()
    connectors: tuple[ConnectorState, ...] = ()
    uncarried: dict[tuple[str, str], int] = {}  # (connector, reason) -> count
    borrowed: dict[tuple[str, str], int] = {}  # (connector, whose: worker or node) -> count
    lent: dict[str, int] = {}  # connector -> count
    rechecks: dict[str, int] = {}
    reloads: dict[str, int] = {}
    configuration: Configuration | None = None
    signals: dict[tuple[str, str, str], int] = {}  # (source, event, outcome) -> count
    sources: dict[str, tuple[bool, float]] = {}  # name -> (heard, Unix time it last was)
    fresh: tuple[SourceState, ...] = ()
