"""Sources: who may connect, what is remembered of whom, and that a flood of sources fills nothing."""

from hypothesis import given
from hypothesis import strategies as st

from ztproxy.model.quota import Rate
from ztproxy.net.sources import Bounds, Source, Sources

ONE = "203.0.113.7"
OTHER = "198.51.100.1"


def come(sources: Sources, ip: str, now: float = 0.0) -> Source:
    source = sources.admit(ip, now)
    assert isinstance(source, Source)
    return source


def visit(sources: Sources, ip: str, now: float = 0.0) -> None:
    source = come(sources, ip, now)
    sources.greeted(source)
    sources.gone(source)


def test_a_source_that_leaves_and_returns_gets_no_new_tokens() -> None:
    sources = Sources(Bounds(handshakes_per_source=Rate(0.25, 2)), 0.0)
    visit(sources, ONE)
    visit(sources, ONE)
    assert sources.admit(ONE, 1.0) == "too-fast"
    visit(sources, OTHER, 1.0)
    source = come(sources, ONE, 2.5)
    assert source.delay == 1.5
    assert sources.admit(ONE, 2.5) == "too-fast"


def test_addresses_of_one_network_are_one_source() -> None:
    sources = Sources(Bounds(handshakes_per_source=Rate(0.001, 2)), 0.0)
    for tail in range(2):
        visit(sources, f"2001:db8:1:2::{tail}")
    assert sources.admit("2001:db8:1:2:ffff::9", 0.0) == "too-fast"
    visit(sources, "2001:db8:1:3::1")
    assert len(sources) == 2


def test_a_flood_of_sources_pushes_out_nobody_who_is_connected() -> None:
    sources = Sources(Bounds(connections_per_source=2), 0.0, remembered=10)
    here = come(sources, ONE)
    for number in range(1000):
        visit(sources, f"2001:db8:{number:x}::1")
    assert len(sources) == 11
    assert come(sources, ONE) is here
    assert sources.admit(ONE, 0.0) == "too-many-from-source"


def test_what_is_refused_counts_for_nobody_else() -> None:
    sources = Sources(Bounds(handshakes=Rate(0.001, 5), handshakes_per_source=Rate(0.001, 1)), 0.0)
    visit(sources, ONE)
    for _ in range(100):
        assert sources.admit(ONE, 0.0) == "too-fast"
    assert sources.wait(0.0) == 0.0
    for last in range(4):
        visit(sources, f"198.51.100.{last}")
    assert sources.wait(0.0) > 0


def test_all_together_wait_for_handshakes_under_way() -> None:
    sources = Sources(Bounds(handshaking=2), 0.0)
    first = come(sources, ONE)
    come(sources, OTHER)
    assert sources.wait(0.0) > 0
    sources.greeted(first)
    assert sources.wait(0.0) == 0.0
    assert sources.connections == 2


def test_other_bounds_hold_for_those_who_are_here() -> None:
    sources = Sources(Bounds(), 0.0)
    source = come(sources, ONE)
    assert source.requests is None
    sources.bind(Bounds(requests_per_source=Rate(1.0, 1), connections_per_source=1), 0.0)
    assert source.requests is not None
    assert sources.admit(ONE, 0.0) == "too-many-from-source"


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["come", "greet", "go"])), max_size=100))
def test_counts_agree_with_what_happened(story: list[tuple[int, str]]) -> None:
    sources = Sources(Bounds(connections=4, connections_per_source=2), 0.0, remembered=2)
    open_: list[list[object]] = []  # [source, greeted]
    for number, what in story:
        if what == "come":
            source = sources.admit(f"198.51.100.{number}", 0.0)
            if isinstance(source, Source):
                open_.append([source, False])
        elif open_:
            entry = open_[number % len(open_)]
            if not entry[1]:
                sources.greeted(entry[0])  # type: ignore[arg-type]
                entry[1] = True
            elif what == "go":
                sources.gone(entry[0])  # type: ignore[arg-type]
                open_.remove(entry)
        assert sources.connections == len(open_) <= 4
        assert sources.handshaking == sum(not entry[1] for entry in open_)
        assert len(sources) <= len(open_) + 2
