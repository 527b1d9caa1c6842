"""Buckets per source."""

from ztproxy.net.rate import Rate, source_of


def test_a_burst_then_a_trickle() -> None:
    rate = Rate(3, 1.0)
    assert [rate.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert rate.take("b", 0.0)
    assert not rate.take("a", 0.9)
    assert rate.take("a", 1.0)
    assert [rate.take("a", 1000.0) for _ in range(4)] == [True, True, True, False]


def test_sources_are_bounded() -> None:
    rate = Rate(1, 0.0, sources=2)
    for source in "abc":
        assert rate.take(source, 0.0)
    assert len(rate._buckets) == 2
    assert not rate.take("c", 0.0)


def test_what_counts_as_one_source() -> None:
    assert source_of("203.0.113.7") == "203.0.113.7"
    assert source_of("::ffff:203.0.113.7") == "203.0.113.7"
    assert source_of("2001:db8:1:2:3:4:5:6") == source_of("2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert source_of("junk") == ""
