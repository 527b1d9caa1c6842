"""Buckets: never more than burst + rate * t in any window, whatever the clock and the callers do."""

from hypothesis import given
from hypothesis import strategies as st

from ztproxy.model.quota import Rate
from ztproxy.net.rate import Bucket, Buckets, source_of

RATES = st.builds(Rate, st.floats(0.01, 1000), st.integers(1, 50))
STEPS = st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.125, 1.0, 60.0]) | st.floats(0, 5), max_size=200)


def test_a_burst_then_a_trickle() -> None:
    bucket = Bucket(Rate(1.0, 3), 0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]
    assert bucket.take(0.75) == 0.25
    assert bucket.take(1.0) == 0.0
    assert [bucket.take(1000.0) for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]


@given(RATES, STEPS)
def test_no_window_has_more_than_burst_and_rate(rate: Rate, steps: list[float]) -> None:
    bucket, now, taken = Bucket(rate, 0.0), 0.0, []
    for step in steps:
        now += step
        if not bucket.take(now):
            taken.append(now)
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            most = rate.burst + rate.per_second * (taken[last] - start)
            assert last - first + 1 <= most + 1e-6


@given(RATES, STEPS)
def test_who_waits_as_long_as_told_is_served(rate: Rate, steps: list[float]) -> None:
    bucket, now = Bucket(rate, 0.0), 0.0
    for step in steps:
        now += step
        told = bucket.wait(now)
        assert bucket.take(now) == told
        if told:
            now += told + 1e-9 + told * 1e-9
            assert not bucket.take(now)


@given(RATES, STEPS)
def test_reserved_tokens_come_no_faster_than_the_rate(rate: Rate, steps: list[float]) -> None:
    bucket, now, due = Bucket(rate, 0.0), 0.0, []
    for step in steps:
        now += step
        wait = bucket.reserve(now, 2.0)
        if wait <= 2.0:
            due.append(now + wait)
    assert due == sorted(due)
    for first, start in enumerate(due):
        for last in range(first, len(due)):
            assert last - first + 1 <= rate.burst + rate.per_second * (due[last] - start) + 1e-6


@given(RATES)
def test_a_clock_that_goes_back_gives_nothing(rate: Rate) -> None:
    bucket = Bucket(rate, 1000.0)
    for _ in range(rate.burst):
        assert not bucket.take(1000.0)
    for now in (999.0, 0.0, -5.0, 1000.0):
        assert bucket.take(now)


def test_a_key_has_a_bucket_of_its_own_and_keys_are_bounded() -> None:
    buckets = Buckets(Rate(0.0, 1), keys=2)
    for key in "abc":
        assert buckets.take(key, 0.0)
    assert len(buckets._buckets) == 2
    assert not buckets.take("c", 0.0)
    assert not buckets.take("b", 0.0)  # touched last
    assert buckets.take("d", 0.0)
    assert not buckets.take("b", 0.0)
    assert buckets.take("c", 0.0)  # forgotten


def test_what_counts_as_one_source() -> None:
    assert source_of("203.0.113.7") == "203.0.113.7"
    assert source_of("::ffff:203.0.113.7") == "203.0.113.7"
    assert source_of("2001:db8:1:2:3:4:5:6") == source_of("2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert source_of("junk") == ""
