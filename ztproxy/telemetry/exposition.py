"""Snapshots as Prometheus text: a Collector over numbers that others counted.

Called by `telemetry.http` for every scrape, in a thread. Holds no state between scrapes.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from ztproxy import __version__
from ztproxy.telemetry import metrics
from ztproxy.telemetry.metrics import (
    BUCKETS,
    CONNECTOR_BORROWED,
    CONNECTOR_CARRYING,
    CONNECTOR_FAILURES,
    CONNECTOR_INSTANCES,
    CONNECTOR_LENT,
    CONNECTOR_READY,
    DURATION,
    HANDSHAKES,
    LIMITED,
    NUMBERS,
    RECHECKS,
    REFUSALS,
    RELOADS,
    REQUESTS,
    RETRIES,
    SIGNAL_HEARD,
    SIGNAL_STREAM_UP,
    SIGNALS,
    SOURCE_AGE,
    SOURCE_OK,
    TARGET_EJECTIONS,
    TARGET_UP,
)
from ztproxy.telemetry.snapshot import ConnectorState, Snapshot

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class SnapshotCollector(Collector):
    """What prometheus_client asks for families."""

    def __init__(self, snapshots: Iterable[Snapshot]) -> None:
        self._snapshots = tuple(snapshots)

    def collect(self) -> Iterator[Metric]:
        """Yield every family with the numbers of every process."""
        build = GaugeMetricFamily("ztproxy_build_info", "Version of the running program.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield self._requests()
        yield self._durations()
        yield self._labelled(REFUSALS, ((one.worker, one.refusals) for one in self._snapshots))
        yield self._labelled(LIMITED, ((one.worker, one.limited) for one in self._snapshots))
        yield self._labelled(HANDSHAKES, ((one.worker, one.handshakes) for one in self._snapshots))
        yield self._labelled(RETRIES, ((one.worker, one.retries) for one in self._snapshots))
        yield self._labelled(RECHECKS, ((one.worker, one.rechecks) for one in self._snapshots))
        yield self._labelled(RELOADS, ((one.worker, one.reloads) for one in self._snapshots))
        yield from self._configuration()
        yield from self._signals()
        yield from self._targets()
        yield from self._connectors()
        yield from self._sources()
        for name, metric in NUMBERS.items():
            yield self._number(name, metric)

    def _requests(self) -> Metric:
        family = CounterMetricFamily(REQUESTS.name, REQUESTS.help, labels=["worker", "route", "class"])
        for one in self._snapshots:
            for route, classes in one.requests.items():
                for name, count in classes.items():
                    family.add_metric([one.worker, route, name], count)
        return family

    def _durations(self) -> Metric:
        family = HistogramMetricFamily(DURATION.name, DURATION.help, labels=["worker", "route"])
        for one in self._snapshots:
            for route, durations in one.durations.items():
                family.add_metric([one.worker, route], _cumulated(durations.counts), durations.total)
        return family

    def _labelled(self, metric: metrics.Metric, rows: Iterable[tuple[str, dict[str, int]]]) -> Metric:
        family = CounterMetricFamily(metric.name, metric.help, labels=["worker", metric.label])
        for worker, counts in rows:
            for value, count in counts.items():
                family.add_metric([worker, value], count)
        return family

    def _configuration(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "ztproxy_config_info", "Digests of what is in force.", labels=["configuration", "policies"]
        )
        since = GaugeMetricFamily("ztproxy_config_since_seconds", "Unix time since which it is in force.")
        for one in self._snapshots:
            if one.configuration is not None:
                info.add_metric([one.configuration.digest, one.configuration.policies], 1)
                since.add_metric([], one.configuration.since)
        yield from (info, since)

    def _signals(self) -> Iterator[Metric]:
        counts = CounterMetricFamily(SIGNALS.name, SIGNALS.help, labels=["source", "event", "outcome"])
        up = GaugeMetricFamily(SIGNAL_STREAM_UP.name, SIGNAL_STREAM_UP.help, labels=["source"])
        heard = GaugeMetricFamily(SIGNAL_HEARD.name, SIGNAL_HEARD.help, labels=["source"])
        for one in self._snapshots:
            for words, count in one.signals.items():
                counts.add_metric(list(words), count)
            for source, (well, at) in one.sources.items():
                up.add_metric([source], well)
                heard.add_metric([source], at)
        yield from (counts, up, heard)

    def _targets(self) -> Iterator[Metric]:
        labels = ["worker", "route", "target"]
        up = GaugeMetricFamily(TARGET_UP.name, TARGET_UP.help, labels=labels)
        ejections = CounterMetricFamily(TARGET_EJECTIONS.name, TARGET_EJECTIONS.help, labels=labels)
        for one in self._snapshots:
            for state in one.targets:
                up.add_metric([one.worker, state.route, state.target], state.up)
                ejections.add_metric([one.worker, state.route, state.target], state.ejections)
        yield up
        yield ejections

    def _connectors(self) -> Iterator[Metric]:
        labels = ["worker", "connector"]
        instances = GaugeMetricFamily(CONNECTOR_INSTANCES.name, CONNECTOR_INSTANCES.help, labels=labels)
        ready = GaugeMetricFamily(CONNECTOR_READY.name, CONNECTOR_READY.help, labels=labels)
        carrying = GaugeMetricFamily(CONNECTOR_CARRYING.name, CONNECTOR_CARRYING.help, labels=labels)
        failures = CounterMetricFamily(
            CONNECTOR_FAILURES.name, CONNECTOR_FAILURES.help, labels=[*labels, "reason"]
        )
        for one in self._snapshots:
            for name, states in _by_name(one.connectors).items():
                instances.add_metric([one.worker, name], len(states))
                ready.add_metric([one.worker, name], sum(state.ready for state in states))
                carrying.add_metric([one.worker, name], sum(state.carrying for state in states))
            for (name, reason), count in one.uncarried.items():
                failures.add_metric([one.worker, name, reason], count)
        yield from (instances, ready, carrying, failures)
        yield from self._loans(labels)

    def _loans(self, labels: list[str]) -> Iterator[Metric]:
        borrowed = CounterMetricFamily(
            CONNECTOR_BORROWED.name, CONNECTOR_BORROWED.help, labels=[*labels, "whose"]
        )
        lent = CounterMetricFamily(CONNECTOR_LENT.name, CONNECTOR_LENT.help, labels=labels)
        for one in self._snapshots:
            for (name, whose), count in one.borrowed.items():
                borrowed.add_metric([one.worker, name, whose], count)
            for name, count in one.lent.items():
                lent.add_metric([one.worker, name], count)
        yield from (borrowed, lent)

    def _sources(self) -> Iterator[Metric]:
        age = GaugeMetricFamily(SOURCE_AGE.name, SOURCE_AGE.help, labels=["worker", "source"])
        well = GaugeMetricFamily(SOURCE_OK.name, SOURCE_OK.help, labels=["worker", "source"])
        for one in self._snapshots:
            for source in one.fresh:
                age.add_metric([one.worker, source.name], source.age)
                well.add_metric([one.worker, source.name], source.ok)
        yield age
        yield well

    def _number(self, name: str, metric: metrics.Metric) -> Metric:
        family: CounterMetricFamily | GaugeMetricFamily
        if metric.kind == "counter":
            family = CounterMetricFamily(metric.name, metric.help, labels=["worker"])
        else:
            family = GaugeMetricFamily(metric.name, metric.help, labels=["worker"])
        for one in self._snapshots:
            if name in one.numbers:
                family.add_metric([one.worker], one.numbers[name])
        return family


def _by_name(states: Iterable[ConnectorState]) -> dict[str, list[ConnectorState]]:
    """Put the instances of a name together: there may be too many for a label each."""
    found: dict[str, list[ConnectorState]] = {}
    for state in states:
        found.setdefault(state.name, []).append(state)
    return found


def _cumulated(counts: tuple[int, ...]) -> list[tuple[str, float]]:
    """Prometheus counts in each bucket everything below it, too."""
    bounds = [*(f"{bound:g}" for bound in BUCKETS), "+Inf"]
    total, rows = 0, []
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        rows.append((bound, float(total)))
    return rows


def exposition(snapshots: Iterable[Snapshot]) -> bytes:
    """Return the text that answers a scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SnapshotCollector(snapshots))
    return generate_latest(registry)
