"""Sealing beside requests: it rests between batches, never when much waits, and loses nothing by it."""

from collections.abc import Callable
from functools import partial
from threading import Event, Timer
from time import monotonic

import pytest
from msgspec.structs import astuple
from recording_room import Room, outcome

from ztproxy.administrator.audit import Audit
from ztproxy.recording.log import LogUnavailable
from ztproxy.recording.sealer import EACH, RESTS, Sealer
from ztproxy.recording.verify import verify


class Rested:
    """Counts rests; `meanwhile` is what others do in each."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.sealed: list[int] = []  # how many records there were
        self.sealer: Sealer | None = None
        self._meanwhile = meanwhile

    def __call__(self) -> None:
        assert self.sealer is not None
        self.sealed.append(self.sealer.count)
        self._meanwhile()

    def of_step(self) -> int:
        """Make a step; return how many rests it had."""
        assert self.sealer is not None
        self.sealed.clear()
        self.sealer.step()
        return len(self.sealed)


def resting(room: Room, meanwhile: Callable[[], None] = lambda: None) -> Rested:
    rested = Rested(meanwhile)
    rested.sealer = room.sealer(rest=rested)
    return rested


def spacious(room: Room, name: str = "w0-1-1") -> Audit:
    return room.audit(name, segment_size=1 << 22)


def fill(audit: Audit, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        audit.outcome(*astuple(outcome(number)))


def test_others_have_the_core_between_batches(room: Room) -> None:
    fill(spacious(room), 3 * EACH + 10)
    rested = resting(room)
    assert rested.of_step() == 3
    assert rested.sealed == [EACH, 2 * EACH, 3 * EACH]
    assert room.ids() == [f"{number:032x}" for number in range(3 * EACH + 10)]


def test_few_records_need_no_rest(room: Room) -> None:
    fill(spacious(room), EACH - 1)
    assert resting(room).of_step() == 0


def test_small_journals_count_together(room: Room) -> None:
    for number in range(4):
        fill(spacious(room, f"w{number}-1-1"), EACH // 2)
    assert resting(room).of_step() == 2


def test_a_backlog_is_not_put_off(room: Room) -> None:
    audit = spacious(room)
    rested = resting(room)
    backlog = RESTS * EACH
    fill(audit, backlog)
    assert rested.of_step() == RESTS  # so long at most, and all of it is sealed
    assert rested.sealer is not None and rested.sealer.count == backlog
    fill(audit, backlog)
    assert rested.of_step() == 0
    fill(audit, 2 * EACH)
    assert rested.of_step() == 0  # still after a large step
    fill(audit, 2 * EACH)
    assert rested.of_step() == 2


def test_what_comes_during_rests_is_sealed_once_and_in_order(room: Room) -> None:
    audit = spacious(room)
    written = 2 * EACH

    def go_on() -> None:
        nonlocal written
        if written < 4 * EACH:
            fill(audit, EACH // 2, written)
            written += EACH // 2

    rested = resting(room, go_on)
    fill(audit, written)
    rested.of_step()
    rested.of_step()
    assert room.ids() == [f"{number:032x}" for number in range(written)]
    assert written > 2 * EACH
    assert verify(room.directory).ok


def test_a_stop_ends_rests(room: Room) -> None:
    leaving = Event()
    sealer = room.sealer(rest=partial(leaving.wait, 60))
    fill(spacious(room), 5 * EACH)
    stop = Timer(0.05, leaving.set)
    began = monotonic()
    stop.start()
    assert sealer.step() == 5 * EACH
    stop.join()
    assert monotonic() - began < 30


def test_a_rest_that_fails_loses_nothing(room: Room) -> None:
    failing = True

    def fail() -> None:
        if failing:
            raise OSError("no clock")

    sealer = room.sealer(rest=fail)
    fill(spacious(room), 2 * EACH)
    with pytest.raises(LogUnavailable):
        sealer.step()
    failing = False
    sealer.step()
    assert room.ids() == [f"{number:032x}" for number in range(2 * EACH)]
    assert verify(room.directory).ok
