"""The wall clock being set is noticed, the passing of time is not."""

import pytest

from ztproxy.net.clock import FixedClock, JumpWatch


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 2.5])
def test_a_jump_is_told_once(seconds: float) -> None:
    clock = FixedClock()
    watch = JumpWatch(clock)
    clock.advance(1)
    assert watch.look() == 0.0
    clock.ms += int(seconds * 1000)
    clock.advance(1)
    assert watch.look() == pytest.approx(seconds)
    clock.advance(1)
    assert watch.look() == 0.0


def test_slewing_is_no_jump() -> None:
    clock = FixedClock()
    watch = JumpWatch(clock)
    for _ in range(100):
        clock.advance(1)
        clock.ms += 5
        assert watch.look() == 0.0
