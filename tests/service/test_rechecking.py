"""A worker asks about a session once at a time, none too soon, and forgets nobody who waits."""

import asyncio
from collections.abc import Callable

import pytest

from ztproxy.administrator.freshness import ASIDE, NEVER
from ztproxy.model.messages import Rechecked, RecheckWanted
from ztproxy.model.subject import Principal, Session
from ztproxy.net.clock import FixedClock
from ztproxy.service import rechecking
from ztproxy.service.rechecking import SILENT, LinkedRechecks

CAROL = Session("ses_1", Principal("User", "corp:carol"), "corp", 0, 0, checked_at=40)


class Control:
    """The other end: says what the test says, when the test lets it."""

    def __init__(self) -> None:
        self.clock = FixedClock()
        self.asked: list[RecheckWanted] = []
        self.done: list[str] = []
        self.says: Callable[[RecheckWanted], Rechecked | None] = lambda _: None
        self.open = asyncio.Event()
        self.open.set()
        self.rechecks = LinkedRechecks(self, self.clock.now)  # type: ignore[arg-type]

    async def recheck(self, wanted: RecheckWanted) -> Rechecked | None:
        self.asked.append(wanted)
        await self.open.wait()
        return self.says(wanted)

    async def sync(self) -> bool:
        await asyncio.sleep(0)
        self.done.append("synced")
        return True

    def answers(self, outcome: str, retry_at: int = 0) -> None:
        self.says = lambda wanted: Rechecked(wanted.ask, outcome, retry_at)  # type: ignore[arg-type]

    def state(self, session: Session = CAROL, after: int = 0) -> str:
        return self.rechecks.state(session, after, self.clock.now())


@pytest.fixture
async def control() -> Control:
    return Control()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_many_requests_are_one_question_and_all_of_them_get_the_answer(control: Control) -> None:
    control.open.clear()
    control.answers("impossible")
    for _ in range(3):
        control.rechecks.begin(CAROL, 0)
    waiting = [asyncio.create_task(control.rechecks.ask(CAROL, 0)) for _ in range(5)]
    await settle()
    assert control.asked == [RecheckWanted(ask=0, session="ses_1", seen=40, after=0)]
    assert control.state() == "" and not any(task.done() for task in waiting)
    control.open.set()
    await asyncio.gather(*waiting)
    assert control.state() == "impossible" and len(control.asked) == 1


async def test_somebody_who_leaves_takes_the_answer_from_nobody(control: Control) -> None:
    control.open.clear()
    control.answers("impossible")
    leaving, staying = (asyncio.create_task(control.rechecks.ask(CAROL, 0)) for _ in range(2))
    await settle()
    leaving.cancel()
    await settle()
    control.open.set()
    await staying
    assert leaving.cancelled() and control.state() == "impossible" and len(control.asked) == 1


async def test_a_later_word_of_a_signal_is_a_question_of_its_own(control: Control) -> None:
    control.answers("impossible")
    await control.rechecks.ask(CAROL, 0)
    assert control.state(after=50) == ""
    await control.rechecks.ask(CAROL, 50)
    assert [one.after for one in control.asked] == [0, 50]


@pytest.mark.parametrize("outcome", ["confirmed", "ended"])
async def test_whoever_waited_goes_on_when_memory_has_it(control: Control, outcome: str) -> None:
    """And if it had not: the same question is not asked again in the same moment, nor forgotten for long."""
    control.answers(outcome)
    await control.rechecks.ask(CAROL, 0)
    assert control.done == ["synced"]
    assert control.state() == "kept"
    control.clock.advance(SILENT / 1000)
    assert control.state() == ""


async def test_a_silent_control_process_is_asked_again_soon(control: Control) -> None:
    await control.rechecks.ask(CAROL, 0)
    assert (control.state(), control.done) == ("kept", [])
    control.clock.advance(SILENT / 1000)
    assert control.state() == ""


async def test_a_provider_that_is_away_is_left_alone_until_it_is_time(control: Control) -> None:
    control.answers("kept", control.clock.now() + 60_000)
    await control.rechecks.ask(CAROL, 0)
    control.clock.advance(59.999)
    assert control.state() == "kept"
    control.clock.advance(0.001)
    assert control.state() == ""
    control.answers("kept", control.clock.now() - 5)  # by a clock that is behind
    await control.rechecks.ask(CAROL, 0)
    assert control.state() == "kept", "or every request would ask"


async def test_what_only_the_browser_can_bring_is_asked_again_when_it_did(control: Control) -> None:
    control.answers("impossible")
    await control.rechecks.ask(CAROL, 0)
    control.clock.advance(ASIDE / 1000 - 0.001)
    assert control.state() == "impossible"
    confirmed = Session("ses_1", CAROL.principal, "corp", 0, 0, checked_at=41)
    assert control.state(confirmed) == ""
    control.clock.advance(0.001)
    assert control.state() == ""


async def test_a_further_signal_brings_no_further_grace(control: Control) -> None:
    """A provider that is away, and a source that has more and more to say."""
    control.answers("kept", 1 << 60)
    assert control.rechecks.since(CAROL) == NEVER
    await control.rechecks.ask(CAROL, 0)
    assert control.rechecks.since(CAROL) == NEVER, "it was only old"
    for after in (50, 60, 70):
        await control.rechecks.ask(CAROL, after)
        assert control.rechecks.since(CAROL) == 50
    confirmed = Session("ses_1", CAROL.principal, "corp", 0, 0, checked_at=65)
    assert control.rechecks.since(confirmed) == NEVER
    await control.rechecks.ask(confirmed, 70)
    assert control.rechecks.since(confirmed) == 70


async def test_answers_are_bounded_and_a_full_memory_asks_again(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rechecking, "KEPT", 10)
    control.answers("impossible")
    for number in range(11):
        session = Session(f"ses_{number}", CAROL.principal, "corp", 0, 0, checked_at=40)
        await control.rechecks.ask(session, 0)
    assert len(control.rechecks._answers) == 1
    assert control.state(session) == "impossible"
