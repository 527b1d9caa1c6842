"""Numbers are counted, travel, add up, and come out as Prometheus wants them."""

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ztproxy.telemetry.exposition import exposition
from ztproxy.telemetry.metrics import BUCKETS, NUMBERS, Counters, pack, unpack
from ztproxy.telemetry.snapshot import Snapshot, TargetState


def busy(worker: str = "0") -> Counters:
    counters = Counters(worker)
    counters.request("support", 200, 0.003)
    counters.request("support", 204, 0.25)
    counters.request("support", 502, 99.0)
    counters.request("wiki", 0, 0.0)
    counters.refused("access-denied")
    counters.refused("access-denied")
    counters.connections_opened()
    counters.connections_opened()
    counters.connections_closed()
    counters.handshake_failed("timeout")
    counters.paths, counters.cuts, counters.sealed_records = 1, 1, 100
    counters.feed_age_seconds = 1.5
    counters.retries["support"] = 2
    counters.targets = (
        TargetState("support", "http://10.0.0.1:80", True),
        TargetState("support", "http://10.0.0.2:80", False, 3),
    )
    return counters


def samples(*snapshots: Snapshot) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = exposition(snapshots).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    return found[name, frozenset((key.rstrip("_"), text) for key, text in labels.items())]


def test_what_is_counted_is_exposed() -> None:
    found = samples(busy().snapshot())
    assert value(found, "ztproxy_requests_total", worker="0", route="support", class_="2xx") == 2
    assert value(found, "ztproxy_requests_total", worker="0", route="support", class_="5xx") == 1
    assert value(found, "ztproxy_requests_total", worker="0", route="wiki", class_="none") == 1
    assert value(found, "ztproxy_refusals_total", worker="0", code="access-denied") == 2
    assert value(found, "ztproxy_handshake_failures_total", worker="0", reason="timeout") == 1
    assert value(found, "ztproxy_connections_opened_total", worker="0") == 2
    assert value(found, "ztproxy_connections", worker="0") == 1
    assert value(found, "ztproxy_paths", worker="0") == 1
    assert value(found, "ztproxy_paths_cut_total", worker="0") == 1
    assert value(found, "ztproxy_sealed_records_total", worker="0") == 100
    assert value(found, "ztproxy_feed_age_seconds", worker="0") == 1.5
    assert value(found, "ztproxy_retries_total", worker="0", route="support") == 2
    one, other = ({"worker": "0", "route": "support", "target": f"http://10.0.0.{n}:80"} for n in (1, 2))
    assert value(found, "ztproxy_target_up", **one) == 1
    assert value(found, "ztproxy_target_up", **other) == 0
    assert value(found, "ztproxy_target_ejections_total", **other) == 3


def test_durations_are_a_cumulative_histogram() -> None:
    found = samples(busy().snapshot())
    name, labels = "ztproxy_request_duration_seconds", {"worker": "0", "route": "support"}
    assert value(found, f"{name}_bucket", **labels, le="0.0025") == 0
    assert value(found, f"{name}_bucket", **labels, le="0.005") == 1
    assert value(found, f"{name}_bucket", **labels, le="0.25") == 2  # a bound counts what equals it
    assert value(found, f"{name}_bucket", **labels, le="30") == 2
    assert value(found, f"{name}_bucket", **labels, le="+Inf") == 3
    assert value(found, f"{name}_count", **labels) == 3
    assert value(found, f"{name}_sum", **labels) == pytest.approx(99.253)


def test_workers_are_told_apart_and_snapshots_survive_the_way() -> None:
    one, two = busy("0").snapshot(), unpack(pack(busy("1").snapshot()))
    assert two == busy("1").snapshot()
    found = samples(one, two)
    assert value(found, "ztproxy_refusals_total", worker="1", code="access-denied") == 2
    assert value(found, "ztproxy_refusals_total", worker="0", code="access-denied") == 2


def test_a_snapshot_does_not_change_when_counting_goes_on() -> None:
    counters = busy()
    before = counters.snapshot()
    again = counters.snapshot()
    counters.request("support", 200, 0.1)
    counters.refused("access-denied")
    assert before == again != counters.snapshot()


def test_a_strange_status_makes_no_series_of_its_own() -> None:
    counters = Counters("0")
    for status in (600, 999, -1 + 1):
        counters.request("support", status, 1.0)
    assert counters.snapshot().requests == {"support": {"none": 3}}


def test_buckets_rise() -> None:
    assert list(BUCKETS) == sorted(set(BUCKETS))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (package prometheus)")
def test_promtool_has_nothing_to_say() -> None:
    text = exposition([busy("0").snapshot(), busy("1").snapshot()])
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_names_follow_the_conventions() -> None:
    for metric in NUMBERS.values():
        assert metric.name.startswith("ztproxy_") and metric.help.endswith(".")
        assert not metric.name.endswith("_total"), "the exposition adds it"
