"""Live paths: found by what a change concerns, decided again, cut once, never left over."""

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ztproxy.administrator.paths import PER_TICK, Paths


def permit(session: str = "", handle: str = "", device: str = "", expires_at: int = 1 << 60) -> Any:
    return SimpleNamespace(session_id=session, handle=handle, device_id=device, expires_at=expires_at)


class Door:
    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.asked: list[str] = []

    def reconsider(self, permit: Any) -> str:
        self.asked.append(permit.session_id)
        return "session-ended" if permit.session_id in self.refused else ""


def test_a_change_cuts_only_what_is_refused_now() -> None:
    door, cuts = Door(), list[tuple[str, str]]()
    paths = Paths(door.reconsider, lambda: 0)
    for name in ("a", "a", "b"):
        paths.open(permit(session=name, device="d"), lambda reason, name=name: cuts.append((name, reason)))
    door.refused = {"a"}
    assert paths.changed([("device", "d")]) == 2
    assert cuts == [("a", "session-ended")] * 2
    assert len(paths) == 1
    door.asked.clear()
    assert paths.changed([("session", "nobody")]) == 0
    assert door.asked == [], "a change that concerns nobody must not ask about anybody"


def test_an_expired_path_is_cut_without_asking() -> None:
    door, cuts = Door(), list[str]()
    now = [0]
    paths = Paths(door.reconsider, lambda: now[0])
    paths.open(permit(session="a", expires_at=1000), cuts.append)
    assert paths.tick() == 0
    now[0] = 1000
    assert paths.tick() == 1
    assert cuts == ["expired"]


def test_a_tick_is_bounded_and_reaches_everybody_in_turn() -> None:
    door = Door()
    paths = Paths(door.reconsider, lambda: 0)
    for number in range(PER_TICK + 10):
        paths.open(permit(session=str(number)), lambda reason: None)
    paths.tick()
    assert len(door.asked) == PER_TICK
    paths.tick()
    assert len(set(door.asked)) == PER_TICK + 10


def test_a_path_that_closes_itself_while_being_cut_is_cut_once() -> None:
    cuts = list[str]()
    paths = Paths(lambda _: "access-denied", lambda: 0)
    number = 0

    def cut(reason: str) -> None:
        cuts.append(reason)
        paths.close(number)

    number = paths.open(permit(session="a"), cut)
    assert paths.changed([("session", "a")]) == 1
    assert paths.cut_all("stopping") == 0
    assert cuts == ["access-denied"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.booleans()), max_size=40))
def test_nothing_is_left_over(opened: list[tuple[str, str, bool]]) -> None:
    paths = Paths(lambda _: "", lambda: 0)
    numbers = [
        (paths.open(permit(session=session, device=device, handle=device), lambda reason: None), close)
        for session, device, close in opened
    ]
    for number, close in numbers:
        if close:
            paths.close(number)
            paths.close(number)
    assert len(paths) == sum(not close for _, close in numbers)
    assert paths.cut_all("stopping") == len([1 for _, close in numbers if not close])
    assert len(paths) == 0
    assert paths._by == {}
