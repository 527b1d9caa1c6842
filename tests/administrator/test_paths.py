"""Live paths: found by what a change concerns, decided again in small steps, cut once, never left over."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from door_fakes import Opened
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.administrator.paths import LOOK, PER_SECOND, STEP, Paths, Shut
from ztproxy.model._seal import SEAL
from ztproxy.model.permit import Permit
from ztproxy.model.request import AccessRequest, Context, Evidence, Resource
from ztproxy.model.resource import Upstream
from ztproxy.model.route import Route
from ztproxy.trust.memory import Concern

NOW = 1_800_000_000_000
FOREVER = 1 << 60


def permit(
    session: str = "",
    handle: str = "",
    device: str = "",
    ends: int = FOREVER,
    *,
    principal: str = "p",
    issuer: str = "i",
    route: str = "r",
    certificate: Any = None,
) -> Any:
    where = Route(route, route, "h", "/", Upstream("http", "127.0.0.1", 1))
    asked = AccessRequest(
        Evidence(handle or None, certificate),
        Resource("Route", route, where),
        "GET",
        Context("", "", "h", "/"),
    )
    return Permit(session, asked, where, principal, issuer, session, device, handle, ends, b"", (), SEAL)


class Stage:
    """Live paths, a door, two clocks; a decision takes `cost` seconds."""

    def __init__(self, cost: float = 0.0) -> None:
        self.refused: set[str] = set()
        self.asked: list[str] = []
        self.cuts: list[tuple[str, str]] = []
        self.limits: dict[str, int] = {}
        self.more: tuple[Concern, ...] = ()
        self.cost, self.woken = cost, 0
        self.wall, self.seconds = NOW, 5.0
        self.paths = Paths(self, lambda: self.wall, lambda: self.seconds, self.wake)

    def wake(self) -> None:
        self.woken += 1

    def reconsider(self, permit: Any, at: int) -> str:
        self.seconds += self.cost
        self.asked.append(permit.session_id)
        if permit.session_id == "broken":
            raise RuntimeError("a bug of ours")
        over = at >= self.limits.get(permit.session_id, FOREVER)
        return "session-ended" if over or permit.session_id in self.refused else ""

    def ends(self, permit: Any) -> int:
        return min(permit.expires_at, self.limits.get(permit.session_id, FOREVER))

    def hangs_on(self, permit: Any) -> tuple[Concern, ...]:
        return self.more

    def open(self, *arguments: Any, **named: Any) -> int:
        made = permit(*arguments, **named)
        return self.paths.open(Opened(made, lambda reason: self.cuts.append((made.session_id, reason))))

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.seconds += 0.05
            self.wall += 50
            self.paths.pulse()
            while self.paths.step():
                pass

    def settle(self) -> int:
        steps = 1
        while self.paths.step():
            steps += 1
        return steps


CERTIFICATE = SimpleNamespace(
    kind="device", bundle="devices", subject="spiffe://t/device/dev_2", fingerprint="f"
)


@pytest.mark.parametrize(
    "concern",
    [
        ("session", "s"),
        ("handle", "h"),
        ("device", "d"),
        ("device", "dev_2"),
        ("principal", "p"),
        ("route", "r"),
        ("issuer", "i"),
        ("issuer", "devices"),
        ("credential", "f"),
    ],
)
def test_a_path_is_found_by_all_it_hangs_on(concern: Concern) -> None:
    stage = Stage()
    stage.open("s", "h", "d", certificate=CERTIFICATE)
    stage.open("other", "o", "o", principal="o", issuer="o", route="o")
    stage.refused = {"s", "other"}
    assert stage.paths.changed([concern]) == 1
    stage.settle()
    assert stage.cuts == [("s", "session-ended")]
    assert stage.asked == ["s"], "a change must not ask about others"
    assert stage.paths.changed([concern]) == 0


def test_a_path_is_found_by_what_it_came_to_hang_on() -> None:
    stage = Stage()
    number = stage.open("s")
    stage.more = (("device", "bound"),)
    stage.paths.changed([("session", "s")])
    stage.settle()
    assert stage.paths.changed([("device", "bound")]) == 1
    stage.more = (("route", "renamed"),)
    stage.settle()
    assert stage.paths.changed([("device", "bound")]) == 0
    assert stage.paths.changed([("route", "renamed")]) == 1
    stage.paths.close(number)
    assert len(stage.paths._concerned) == 0


class Looked:
    """A client's certificate that counts how often its path's concerns are looked up, and whose it is."""

    kind, bundle, subject = "workload", "i", "spiffe://corp/w"

    def __init__(self, whose: str, times: Counter[str]) -> None:
        self._whose, self._times = whose, times

    @property
    def fingerprint(self) -> str:
        self._times[self._whose] += 1
        return self._whose


def test_cutting_a_hundred_of_a_hundred_thousand_does_not_look_at_the_others() -> None:
    stage = Stage()
    looked: Counter[str] = Counter()
    for number in range(100_000):
        name = "them" if number % 1000 == 0 else str(number)
        route, certificate = str(number % 50), Looked(name, looked)
        stage.open(name, handle=name, device=name, principal=name, route=route, certificate=certificate)
    stage.paths.pulse()
    assert looked.total() == 100_000, "entered, each once"
    looked.clear()
    stage.refused = {"them"}
    assert stage.paths.changed([("session", "them")]) == 100
    stage.settle()
    assert looked == {"them": 100}
    assert len(stage.asked) == len(stage.cuts) == 100
    assert len(stage.paths) == 99_900


def test_a_storm_is_spread_and_the_loop_is_never_held_for_long() -> None:
    stage = Stage(cost=0.0002)
    for number in range(2_000):
        stage.open("storm", handle=str(number))
    stage.refused = {"storm"}
    stage.paths.changed([("session", "storm")])
    assert stage.asked == [], "whoever tells of a change is not held up"
    assert stage.woken == 1
    held = []
    while True:
        began = stage.seconds
        more = stage.paths.step()
        held.append(stage.seconds - began)
        if not more:
            break
    assert max(held) <= STEP + LOOK * 0.0002
    assert sum(held) < 1.0
    assert len(stage.cuts) == 2_000


def test_whom_a_change_concerns_goes_before_all_others() -> None:
    stage = Stage()
    for number in range(1000):
        stage.open(str(number))
    stage.paths.all_changed()
    stage.paths.changed([("session", "999")])
    stage.settle()
    assert stage.asked[0] == "999"
    assert set(stage.asked) == {str(number) for number in range(1000)}
    assert stage.woken == 1


def test_who_waits_is_not_overtaken_for_ever() -> None:
    stage = Stage(cost=STEP)
    for number in range(100):
        stage.open(str(number))
    for _ in range(-(-100 // LOOK)):
        stage.paths.all_changed()
        stage.paths.step()
    assert len(set(stage.asked)) == 100
    assert stage.paths.waiting <= 100


def test_whoever_opens_and_closes_quickly_is_entered_nowhere() -> None:
    stage = Stage()
    for number in range(100):
        stage.paths.close(stage.open(str(number)))
    stage.paths.pulse()
    assert (len(stage.paths._concerned), len(stage.paths._deadlines), stage.asked) == (0, 0, [])


def test_a_path_is_closed_once_whether_it_was_entered_or_not() -> None:
    stage = Stage()
    early, late = [stage.open(f"e{number}") for number in range(3)], []
    stage.paths.pulse()
    late = [stage.open(f"l{number}") for number in range(3)]
    assert len(stage.paths) == 6
    for number in (early[1], late[1]):
        for _ in range(2):
            stage.paths.close(number)
    assert len(stage.paths) == 4
    stage.paths.all_changed()
    while stage.paths.step():
        pass
    assert sorted(stage.asked) == ["e0", "e2", "l0", "l2"]
    for number in (early[0], early[1], late[0], late[1], late[1]):
        stage.paths.close(number)
    assert len(stage.paths) == 2
    stage.open("m")
    while stage.paths.cut_some("over"):
        pass
    assert sorted(stage.cuts) == [("e2", "over"), ("l2", "over"), ("m", "over")]
    assert (len(stage.paths), len(stage.paths._concerned), len(stage.paths._deadlines)) == (0, 0, 0)


# ---------------------------------------------------------------------- time


@pytest.mark.parametrize("after", [0.01, 0.5, 3.0, 3600.0])
def test_an_expired_path_is_cut_in_time_without_asking(after: float) -> None:
    stage = Stage()
    stage.open("s", ends=NOW + int(after * 1000))
    stage.paths.pulse()
    if after > 10:
        stage.pass_time(1.0)
        stage.seconds += after - 1.1
        stage.wall += int((after - 1.1) * 1000)
        stage.pass_time(0.05)
        assert not stage.cuts
        stage.pass_time(0.2)
    else:
        stage.pass_time(after - 0.06)
        assert not stage.cuts
        stage.pass_time(0.2)
    assert stage.cuts == [("s", "expired")]


def test_a_session_that_nobody_uses_ends_its_paths_in_time() -> None:
    """Among so many that a round takes a minute: not by its turn but by its time."""
    stage = Stage()
    stage.limits["idle"] = NOW + 2000
    for number in range(120_000):
        stage.paths._live[-number - 1] = (permit(), lambda reason: None)
    stage.open("idle")
    stage.paths.pulse()
    stage.pass_time(1.9)
    assert not stage.cuts
    stage.limits["idle"] = NOW + 4000  # it is used
    stage.pass_time(1.9)
    assert not stage.cuts
    stage.pass_time(0.25)
    assert stage.cuts == [("idle", "session-ended")]


def test_a_clock_that_is_set_neither_extends_nor_ends_what_is_live() -> None:
    for jump in (-7_200_000, 7_200_000):
        stage = Stage()
        stage.limits["s"] = NOW + 60_000
        stage.open("s", ends=NOW + 60_000)
        stage.paths.pulse()
        stage.wall += jump
        stage.pass_time(59.8)
        assert not stage.cuts
        assert len(stage.asked) > 50, "its turn comes all the while"
        stage.pass_time(0.4)
        assert stage.cuts == [("s", "expired")]


def test_everybodys_turn_comes_once_per_round_and_never_all_at_once() -> None:
    stage = Stage()
    for number in range(4 * PER_SECOND):
        stage.open(str(number))
    stage.paths.pulse()
    stage.pass_time(1.0)
    assert len(stage.asked) == 0, "a round of so many takes four seconds, and the first half of it nobody's"
    most = 0
    for _ in range(80):
        before = len(stage.asked)
        stage.pass_time(0.05)
        most = max(most, len(stage.asked) - before)
    assert len(set(stage.asked)) == 4 * PER_SECOND
    assert most < PER_SECOND / 2


# ---------------------------------------------------------------------- ends


def test_a_path_that_closes_itself_while_being_cut_is_cut_once() -> None:
    stage, cuts = Stage(), list[str]()
    number = 0

    def cut(reason: str) -> None:
        cuts.append(reason)
        stage.paths.close(number)

    number = stage.paths.open(Opened(permit("a"), cut))
    stage.refused = {"a"}
    stage.paths.changed([("session", "a")])
    stage.paths.all_changed()
    stage.settle()
    assert stage.paths.cut_some("stopping") == 0
    assert cuts == ["session-ended"]


def test_a_fault_of_one_path_saves_nobody() -> None:
    """What can not be decided is cut, and one that does not end cleanly is no reason to spare the next."""
    stage = Stage()
    stage.open("broken")

    def fails(reason: str) -> None:
        raise RuntimeError(reason)

    stage.paths.open(Opened(permit("a"), fails))
    stage.open("b")
    stage.refused = {"a", "b"}
    stage.paths.all_changed()
    stage.settle()
    assert stage.cuts == [("broken", "internal-error"), ("b", "session-ended")]
    assert len(stage.paths) == 0


def test_before_there_is_a_door_nothing_goes_on() -> None:
    stage = Stage()
    stage.paths.door = Shut()
    stage.open("a")
    stage.pass_time(1.1)
    assert stage.cuts == [("a", "facts-unavailable")]


def test_a_process_that_ends_cuts_everybody_in_small_steps() -> None:
    stage = Stage()
    for number in range(100):
        made = permit(str(number))

        def cut(reason: str) -> None:
            stage.seconds += STEP / 3.5
            stage.cuts.append(("", reason))

        stage.paths.open(Opened(made, cut))
    steps = 0
    while stage.paths.cut_some("stopping"):
        steps += 1
    assert len(stage.cuts) == 100
    assert steps == 25


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.booleans()), max_size=40))
def test_nothing_is_left_over(opened: list[tuple[str, str, bool]]) -> None:
    stage = Stage()
    numbers = []
    for session, device, close in opened:
        numbers.append((stage.open(session, device=device, handle=device), close))
        stage.pass_time(0.05)
    for number, close in numbers:
        if close:
            stage.paths.close(number)
            stage.paths.close(number)
    assert len(stage.paths) == sum(not close for _, close in numbers)
    while stage.paths.cut_some("stopping"):
        pass
    assert len(stage.cuts) == len([1 for _, close in numbers if not close])
    left = (stage.paths, stage.paths._concerned, stage.paths._deadlines, stage.paths._course)
    assert [len(one) for one in left] == [0, 0, 0, 0]
