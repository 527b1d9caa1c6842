"""Every metric there is: its name, its unit, and the plain integers behind it.

Workers and the control process count in a `Counters` of their own (an increment costs a tenth of a
microsecond), hand over a `Snapshot` now and then, and `exposition` makes Prometheus text of the newest
snapshot of each. Labels take values from the configuration or from our own closed lists, never from the
wire: a caller can not make series.
"""

from typing import Final, Literal, NamedTuple

import msgspec

from ztproxy.model import ports
from ztproxy.telemetry.snapshot import (
    Configuration,
    ConnectorState,
    Durations,
    Snapshot,
    SourceState,
    TargetState,
)

#: Upper bounds of the buckets of request durations, in seconds. (Of a type that says how many they are,
#: mypyc would not have the value where this module needs it itself.)
BUCKETS: Final[tuple[float, ...]] = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)

#: Classes of responses by the first digit of the status; "none" is an exchange without a response.
CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


class Metric(NamedTuple):
    """One metric family. Counters get "_total" when they are exposed."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    label: str = ""  # besides `worker`


REQUESTS: Final = Metric("ztproxy_requests", "counter", "Permitted requests by response class.", "route")
DURATION: Final = Metric(
    "ztproxy_request_duration_seconds", "histogram", "Time from decision to end of the exchange.", "route"
)
REFUSALS: Final = Metric("ztproxy_refusals", "counter", "Refused requests by code.", "code")
LIMITED: Final = Metric("ztproxy_limited", "counter", "Requests above a rate or quota.", "limit")
HANDSHAKES: Final = Metric(
    "ztproxy_handshake_failures", "counter", "Connections that ended before a request.", "reason"
)

TARGET_UP: Final = Metric(
    "ztproxy_target_up",
    "gauge",
    "Whether a target of a route gets requests (1) or is left out (0).",
    "target",
)
TARGET_EJECTIONS: Final = Metric(
    "ztproxy_target_ejections", "counter", "Times a target was left out for failing requests.", "target"
)
SOURCE_AGE: Final = Metric(
    "ztproxy_source_age_seconds", "gauge", "Time since a source of facts was known to be well.", "source"
)
SOURCE_OK: Final = Metric("ztproxy_source_ok", "gauge", "Whether a source of facts is well.", "source")
CONNECTOR_READY: Final = Metric(
    "ztproxy_connector_ready", "gauge", "Connections of connectors that wait to carry.", "connector"
)
CONNECTOR_CARRYING: Final = Metric(
    "ztproxy_connector_carrying", "gauge", "Connections of connectors that carry.", "connector"
)
CONNECTOR_INSTANCES: Final = Metric(
    "ztproxy_connector_instances", "gauge", "Running connectors of one name.", "connector"
)
CONNECTOR_FAILURES: Final = Metric(
    "ztproxy_connector_failures", "counter", "Times a connector did not carry, by why.", "connector"
)
CONNECTOR_BORROWED: Final = Metric(
    "ztproxy_connector_borrowed", "counter", "Connections borrowed, by whose they were.", "connector"
)
CONNECTOR_LENT: Final = Metric(
    "ztproxy_connector_lent", "counter", "Connections lent to other workers and nodes.", "connector"
)
RETRIES: Final = Metric(
    "ztproxy_retries", "counter", "Requests that were sent to an upstream again.", "route"
)

RECHECKS: Final = Metric(
    "ztproxy_rechecks",
    "counter",
    "Times a provider was asked again about a session, by what came of it.",
    "result",
)
RELOADS: Final = Metric("ztproxy_config_reloads", "counter", "Reloads by what came of them.", "outcome")

SIGNALS: Final = Metric("ztproxy_signals", "counter", "Security events by source, event and what came of it.")
SIGNAL_STREAM_UP: Final = Metric(
    "ztproxy_signals_stream_up", "gauge", "Whether a source of signals is heard (1) or lost (0).", "source"
)
SIGNAL_HEARD: Final = Metric(
    "ztproxy_signals_heard_timestamp_seconds",
    "gauge",
    "Unix time a source of signals was last heard.",
    "source",
)

#: Metrics that are one number: attribute of `Counters` -> metric.
NUMBERS: Final[dict[str, Metric]] = {
    "opened": Metric("ztproxy_connections_opened", "counter", "Connections accepted."),
    "connections": Metric("ztproxy_connections", "gauge", "Connections that are open now."),
    "accept_pauses": Metric(
        "ztproxy_accept_pauses", "counter", "Times nobody was accepted because of all handshakes together."
    ),
    "counted_refusals": Metric(
        "ztproxy_counted_refusals", "counter", "Refusals of strangers without a record of their own."
    ),
    "pressed": Metric(
        "ztproxy_connections_taken_back", "counter", "Connections closed for want of places for others."
    ),
    "too_slow": Metric(
        "ztproxy_slow_clients", "counter", "Requests ended because their client sent or took too slowly."
    ),
    "paths": Metric("ztproxy_paths", "gauge", "Live paths: exchanges and streams under way."),
    "cuts": Metric("ztproxy_paths_cut", "counter", "Live paths that were cut."),
    "feed_age_seconds": Metric("ztproxy_feed_age_seconds", "gauge", "Time since facts were confirmed."),
    "feed_version": Metric("ztproxy_feed_version", "gauge", "Number of the last change of facts known here."),
    "kept_stale": Metric(
        "ztproxy_paths_kept_stale", "counter", "Times a live path went on by facts too old for a new request."
    ),
    "clock_jumps": Metric("ztproxy_clock_jumps", "counter", "Times the wall clock was set by seconds."),
    "sessions": Metric("ztproxy_sessions", "gauge", "Sessions this worker knows to be alive."),
    "devices": Metric("ztproxy_devices", "gauge", "Devices this worker knows."),
    "rates_apart": Metric(
        "ztproxy_rates_apart",
        "gauge",
        "Whether shared rates are out of reach (1): each worker keeps its share.",
    ),
    "passed_by_share": Metric(
        "ztproxy_passed_by_share",
        "counter",
        "Requests counted by a worker's own share before they were by all.",
    ),
    "preflights": Metric("ztproxy_preflights", "counter", "Preflights of cross-origin requests answered."),
    "sealed_records": Metric("ztproxy_sealed_records", "counter", "Records in the sealed log since start."),
}


class _Count:
    """One number: a slot is added to in fewer steps than an item of a list."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class _Row:
    """What is counted for one route."""

    __slots__ = ("classes", "counts", "total")

    def __init__(self) -> None:
        self.classes = [_Count() for _ in CLASSES]
        self.counts = [_Count() for _ in (*BUCKETS, None)]
        self.total = 0.0

    def by_class(self) -> dict[str, int]:
        return {name: one.number for name, one in zip(CLASSES, self.classes, strict=True) if one.number}

    def durations(self) -> Durations:
        return Durations(tuple([one.number for one in self.counts]), self.total)


class Counters(ports.Counters):
    """The numbers of one process. Attributes named in NUMBERS may be set and added to directly."""

    __slots__ = (
        *NUMBERS,
        "_configuration",
        "_handshakes",
        "_limited",
        "_refusals",
        "_rechecks",
        "_reloads",
        "_rows",
        "_signals",
        "borrowed",
        "connectors",
        "fresh",
        "lent",
        "retries",
        "sources",
        "targets",
        "uncarried",
        "worker",
    )

    connections: int
    opened: int
    accept_pauses: int
    counted_refusals: int
    pressed: int
    too_slow: int
    paths: int
    cuts: int
    feed_age_seconds: float
    feed_version: int
    kept_stale: int
    clock_jumps: int
    sessions: int
    devices: int
    rates_apart: int
    passed_by_share: int
    preflights: int
    sealed_records: int

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self._rows: dict[str, _Row] = {}
        self._refusals: dict[str, int] = {}
        self._handshakes: dict[str, int] = {}
        self.retries: dict[str, int] = {}  # by route; upstream.Upstreams counts
        self.targets: tuple[TargetState, ...] = ()
        self.connectors: tuple[ConnectorState, ...] = ()
        self.uncarried: dict[tuple[str, str], int] = {}  # (connector, reason); upstream.Carriers counts
        self.borrowed: dict[tuple[str, str], int] = {}  # (connector, whose); likewise
        self.lent: dict[str, int] = {}  # by connector; likewise
        self.fresh: tuple[SourceState, ...] = ()
        self._limited: dict[str, int] = {}
        self._signals: dict[tuple[str, str, str], int] = {}
        self.sources: dict[str, tuple[bool, float]] = {}  # name -> whether it is heard, and when it last was
        self._rechecks: dict[str, int] = {}
        self._reloads: dict[str, int] = {}
        self._configuration: Configuration | None = None
        for name in NUMBERS:
            setattr(self, name, 0)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a permitted exchange that is over."""
        row = self._rows.get(route)
        if row is None:
            row = self._rows[route] = _Row()
        row.classes[status // 100 if status < 600 else 0].number += 1
        row.counts[_bucket(seconds)].number += 1
        row.total += seconds

    def preflight(self) -> None:
        """Count a preflight that was answered."""
        self.preflights += 1

    def refused(self, code: str) -> None:
        """Count a refusal by its code (model.codes)."""
        self._refusals[code] = self._refusals.get(code, 0) + 1

    def limited(self, limit: str) -> None:
        """Count a request above a rate or quota; `limit` is one of a few words."""
        self._limited[limit] = self._limited.get(limit, 0) + 1

    def connections_opened(self) -> None:
        """Count an accepted connection."""
        self.opened += 1
        self.connections += 1

    def connections_closed(self) -> None:
        """Count an accepted connection that is gone."""
        self.connections -= 1

    def handshake_failed(self, reason: str) -> None:
        """Count a connection that ended before a request; `reason` is one of a few words."""
        self._handshakes[reason] = self._handshakes.get(reason, 0) + 1

    def accepting_paused(self) -> None:
        """Count a moment in which nobody is accepted."""
        self.accept_pauses += 1

    def reloaded(self, outcome: str) -> None:
        """Count a reload of the configuration; `outcome` is one of a few words."""
        self._reloads[outcome] = self._reloads.get(outcome, 0) + 1

    def signalled(self, source: str, event: str, outcome: str) -> None:
        """Count a security event; `outcome` is one of a few words."""
        key = (source, event, outcome)
        self._signals[key] = self._signals.get(key, 0) + 1

    def rechecked(self, result: str) -> None:
        """Count a question to a provider about a session; `result` is one of a few words."""
        self._rechecks[result] = self._rechecks.get(result, 0) + 1

    def in_force(self, configuration: Configuration) -> None:
        """Note what is in force."""
        self._configuration = configuration

    def snapshot(self) -> Snapshot:
        """Return all numbers as they are now."""
        return Snapshot(
            worker=self.worker,
            requests={route: row.by_class() for route, row in self._rows.items()},
            durations={route: row.durations() for route, row in self._rows.items()},
            refusals=dict(self._refusals),
            handshakes=dict(self._handshakes),
            limited=dict(self._limited),
            numbers={name: getattr(self, name) for name in NUMBERS},
            retries=dict(self.retries),
            targets=self.targets,
            connectors=self.connectors,
            uncarried=dict(self.uncarried),
            borrowed=dict(self.borrowed),
            lent=dict(self.lent),
            fresh=self.fresh,
            rechecks=dict(self._rechecks),
            reloads=dict(self._reloads),
            configuration=self._configuration,
            signals=dict(self._signals),
            sources=dict(self.sources),
        )


#: The bounds once more: a tuple of numbers is boxed anew at each use where this is compiled.
_BOUNDS: Final = list(BUCKETS)


def _bucket(seconds: float) -> int:
    """Return the first bucket whose bound is not below; nearly always one of the first few."""
    place = 0
    for bound in _BOUNDS:
        if seconds <= bound:
            break
        place += 1
    return place


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Snapshot).decode


def pack(snapshot: Snapshot) -> bytes:
    """Encode a snapshot for the way to the control process."""
    return _encode(snapshot)


def unpack(data: bytes | msgspec.Raw) -> Snapshot:
    """Decode what `pack` made. Raises msgspec.MsgspecError."""
    return _decode(data)
