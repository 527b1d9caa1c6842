"""Deadlines: told once, never early, hardly late, and not when they were dropped or set anew."""

from hypothesis import given
from hypothesis import strategies as st

from ztproxy.net.deadlines import SPAN, Deadlines


@given(
    st.lists(st.tuples(st.integers(1, 5), st.floats(0, 3, allow_nan=False)), max_size=30),
    st.lists(st.sampled_from([0.01, 0.05, 0.3, 30.0]), min_size=1, max_size=60),
)
def test_every_deadline_is_told_once_and_in_time(
    settings: list[tuple[int, float]], steps: list[float]
) -> None:
    now = 100.0
    deadlines, wanted = Deadlines(now), dict[int, float]()
    for number, after in settings:
        deadlines.set(number, now + after)
        wanted[number] = now + after
    for step in [*steps, 10.0]:
        now += step
        told = deadlines.due(now)
        assert len(told) == len(set(told))
        for number in told:
            assert wanted.pop(number) <= now
        assert all(when > now - SPAN - 1e-6 for when in wanted.values())
        assert len(deadlines) == len(wanted)
    assert not wanted


def test_what_is_dropped_is_never_told_and_its_entry_goes_with_its_span() -> None:
    deadlines = Deadlines(0.0)
    for number in range(1000):
        deadlines.set(number, 1.0)
        deadlines.drop(number)
    deadlines.set(1, 0.2)
    deadlines.set(1, 2.0)
    assert deadlines.due(1.5) == []
    assert deadlines.due(2.1) == [1]
    assert deadlines._spans == {}


def test_a_deadline_that_is_over_already_is_told_at_the_next_span() -> None:
    deadlines = Deadlines(10.0)
    deadlines.set(1, 3.0)
    assert deadlines.due(10.0 + SPAN) == [1]
