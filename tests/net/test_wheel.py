"""The wheel: deadlines are noticed within a turn, and arming costs nothing but an assignment."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.net.clock import FixedClock, SystemClock
from ztproxy.net.wheel import NEVER, SPOKES, Wheel


class Item:
    def __init__(self, deadline: float, wheel: Wheel) -> None:
        self.deadline = deadline
        self.wheel = wheel
        self.fired = 0

    def timed_out(self) -> None:
        self.fired += 1
        self.wheel.discard(self)


def turn(wheel: Wheel) -> None:
    for _ in range(SPOKES):
        wheel.look()


@given(
    st.lists(st.sampled_from([0.5, 1.0, 5.0, 30.0, NEVER]), max_size=40), st.sampled_from([0.7, 3.0, 100.0])
)
def test_what_is_due_fires_once_and_nothing_else(delays: list[float], passed: float) -> None:
    clock = FixedClock()
    wheel = Wheel(clock)
    items = [Item(clock.monotonic() + delay, wheel) for delay in delays]
    for item in items:
        wheel.add(item)
    assert len(wheel) == len(items)
    clock.advance(passed)
    turn(wheel)
    turn(wheel)
    assert [item.fired for item in items] == [int(delay <= passed) for delay in delays]
    assert len(wheel) == sum(delay > passed for delay in delays)


def test_a_deadline_may_move_both_ways() -> None:
    clock = FixedClock()
    wheel = Wheel(clock)
    item = Item(clock.monotonic() + 1, wheel)
    wheel.add(item)
    item.deadline += 10
    clock.advance(5)
    turn(wheel)
    assert not item.fired
    item.deadline = clock.monotonic()
    turn(wheel)
    assert item.fired


@pytest.mark.parametrize("taken_off", [False, True])
def test_what_one_item_did_to_another_counts_within_the_same_look(taken_off: bool) -> None:
    clock = FixedClock()
    wheel = Wheel(clock)

    class Twin(Item):
        other: "Twin"

        def timed_out(self) -> None:
            super().timed_out()
            if taken_off:
                wheel.discard(self.other)
            else:
                self.other.deadline = NEVER

    items = [Twin(clock.monotonic() + 1, wheel) for _ in range(10 * SPOKES)]
    for item in items:
        wheel.add(item)
    by_spoke: dict[int, Twin] = {}
    for item in items:  # two of the same spoke
        item.other = by_spoke.setdefault(id(item) >> 6 & SPOKES - 1, item)
    one = next(item for item in items if item.other is not item)
    one.other.other = one
    for item in items:
        if item not in (one, one.other):
            wheel.discard(item)
    clock.advance(2)
    turn(wheel)
    assert one.fired + one.other.fired == 1


def test_discarding_twice_does_nothing() -> None:
    wheel = Wheel(FixedClock())
    item = Item(NEVER, wheel)
    wheel.discard(item)
    wheel.add(item)
    wheel.discard(item)
    wheel.discard(item)
    assert len(wheel) == 0


async def test_it_turns_by_itself_and_survives_a_bug() -> None:
    wheel = Wheel(SystemClock(), turn=0.05)
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))

    class Broken(Item):
        def timed_out(self) -> None:
            super().timed_out()
            raise ValueError

    broken = Broken(0.0, wheel)
    wheel.add(broken)
    wheel.start()
    await asyncio.sleep(0.1)
    item = Item(0.0, wheel)
    wheel.add(item)
    await asyncio.sleep(0.15)
    wheel.stop()
    assert (broken.fired, item.fired, len(reported)) == (1, 1, 1)
    wheel.add(item)
    await asyncio.sleep(0.1)
    assert item.fired == 1
