"""Second opinions: on what is new, on all there is room for, and never on more, whatever the clock does."""

import random  # noqa: TID251 - seeded: tests have to be repeatable
from collections.abc import Iterator
from types import ModuleType

import cedarpy
import pytest

from ztproxy.model.subject import UNKNOWN
from ztproxy.policy.engine import FIRST, FURTHER, PolicySet
from ztproxy.policy.opinions import Allowance
from ztproxy.policy.program import Rule, Slice
from ztproxy.policy.schema import ACTIONS
from ztproxy.policy.shapes import Closure
from ztproxy.policy.subject import Subject

DAY = 86_400_000
RULES = """
@id("healthy") permit (principal is User in Group::"contractors", action, resource)
when { principal has device.posture && principal.device.posture.healthy && context.path like "/tickets/*" };
"""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What Cedar was asked about, by resource."""
    found: list[str] = []
    ask = cedarpy.is_authorized

    def listening(request: dict, *others: object) -> cedarpy.AuthzResult:
        found.append(request["resource"]["id"])
        return ask(request, *others)

    monkeypatch.setattr("cedarpy.is_authorized", listening)
    yield found


def decide(the: ModuleType, policies: PolicySet, subject: Subject, name: str = "support", after: int = 0):
    return policies.decide(subject, the.to(name), "GET", the.context(), the.NOW + after)


# ------------------------------------------------------------------ what is new


def test_slices_and_what_is_left_of_them_are_confirmed_when_they_are_new(
    the: ModuleType, asked: list[str]
) -> None:
    policies = the.policies(RULES)
    policies._further = Allowance(0, 1)
    carol, same, bare = (policies.subject(the.facts(**more)) for more in ({}, {}, {"posture": None}))
    counts = []
    for subject in (carol, same, bare):
        for _ in range(5):
            decide(the, policies, subject)
            counts.append(len(asked))
    assert counts[:5] == [1, 1, 2, 2, 2], "the slice, and what is left of it to ask from the third request on"
    assert counts[5:10] == [2] * 5, "somebody of whom the same is left brings nothing new"
    assert counts[10:] == [2, 2, 3, 3, 3], "of somebody else something else is left"


def test_many_that_are_new_wait_for_their_turn(the: ModuleType, asked: list[str]) -> None:
    names = [f"app{n}" for n in range(60)]
    policies = the.policies(RULES, routes=[the.route(name) for name in names])
    policies._further = Allowance(0, 1)
    subject = policies.subject(the.facts())
    for name in names:
        decide(the, policies, subject, name)
    assert asked == names[: FIRST[0]]
    for turn in range(1, 400):
        for name in names:
            decide(the, policies, subject, name, turn * FIRST[1])
        assert len(asked) <= FIRST[0] + turn
    assert set(asked) == set(names)
    assert all(left is not None and left.confirmed for left in subject.left.values())


def broken(the: ModuleType, policies: PolicySet) -> Slice:
    """Have the permits of Carol's GET on support hold, whatever they say."""
    decide(the, policies, policies.subject(the.facts()))
    slices = policies._slices["User"]["GET"]
    part = slices["support"]
    permits = tuple(Rule(None, None, Closure(lambda e: True), rule.policy) for rule in part.permits)
    slices["support"] = broken = Slice(ACTIONS[part.action], part.resource, part.forbids, permits)
    return broken


def test_what_was_never_confirmed_stays_new(the: ModuleType, asked: list[str]) -> None:
    policies = the.policies(RULES)
    part = broken(the, policies)
    policies._first, policies._further = Allowance(5, 50), Allowance(0, 1)
    bare = policies.subject(the.facts(posture=None))
    decisions = [decide(the, policies, bare) for _ in range(8)]
    assert [one.allow for one in decisions] == [False] * 5 + [True] * 3
    assert all("engines disagree" in one.errors[0] for one in decisions[:5])
    assert not decide(the, policies, bare, after=50).allow
    assert not part.confirmed
    assert decide(the, policies, policies.subject(the.facts()), after=100).allow
    assert part.confirmed, "as far as is known it decides rightly"


def test_what_nobody_could_confirm_takes_nothing(the: ModuleType, asked: list[str]) -> None:
    policies = the.policies(RULES)
    policies._first = Allowance(1, 1000)
    unsure = policies.subject(the.facts(posture=UNKNOWN))
    for _ in range(5):
        assert decide(the, policies, unsure).kind == "error"
    assert not asked
    assert decide(the, policies, policies.subject(the.facts())).allow
    assert len(asked) == 1


# ------------------------------------------------------------------ all others


def opinions(the: ModuleType, asked: list[str], every: int, seconds: int) -> tuple[int, int]:
    """Decide every so many ms for so long. Returns how many decisions there were, and how many opinions."""
    policies = the.policies(RULES)
    subject = policies.subject(the.facts())
    for _ in range(3):
        decide(the, policies, subject)
    asked.clear()
    times = range(0, seconds * 1000, every)
    for after in times:
        assert decide(the, policies, subject, after=after).allow
    return len(times), len(asked)


def test_few_decisions_are_all_confirmed(the: ModuleType, asked: list[str]) -> None:
    decisions, confirmed = opinions(the, asked, 250, 60)
    assert decisions == confirmed == 240


def test_many_decisions_are_confirmed_at_a_pace(the: ModuleType, asked: list[str]) -> None:
    decisions, confirmed = opinions(the, asked, 1, 10)
    assert decisions == 10_000
    assert 10_000 / FURTHER[1] <= confirmed <= 10_000 / FURTHER[1] + FURTHER[0]


def test_a_further_opinion_that_differs_denies(the: ModuleType) -> None:
    policies = the.policies(RULES)
    part = broken(the, policies)
    part.confirmed, policies._first = True, Allowance(0, 1)
    bare = policies.subject(the.facts(posture=None))
    assert not decide(the, policies, bare).allow
    assert not part.confirmed


# ------------------------------------------------------------------ clocks


def test_an_allowance() -> None:
    allowance = Allowance(3, 100)
    assert [allowance.grant(5000) for _ in range(4)] == [True, True, True, False]
    assert [allowance.grant(at) for at in (5099, 5100, 5199, 5200)] == [False, True, False, True]
    assert [allowance.grant(9000) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_is_set_back_neither_stops_nor_opens_it() -> None:
    allowance, now = Allowance(3, 100), 10 * DAY
    while allowance.grant(now):
        pass
    now -= DAY
    assert not allowance.grant(now)
    assert sum(allowance.grant(now + ms) for ms in range(1, 1001)) == 10
    assert not any(allowance.grant(now - 1000 * n) for n in range(1, 1000)), "back again and again"


def test_a_clock_that_is_set_ahead_gives_what_there_can_be() -> None:
    allowance = Allowance(3, 100)
    assert sum(allowance.grant(DAY) for _ in range(10)) == 3
    assert sum(allowance.grant(9 * DAY) for _ in range(10)) == 3
    assert sum(allowance.grant(2 * DAY + ms) for ms in range(1000)) in (9, 10)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_clock_does_there_are_no_more_than_time_that_passed_on_it(seed: int) -> None:
    rng, now, ahead, granted = random.Random(seed), 0, 0, 0
    allowance = Allowance(5, 40)
    for _ in range(3000):
        step = rng.choice([0, 0, 1, 1, 3, 50, -1, -20, -DAY])
        now, ahead = now + step, ahead + max(step, 0)
        granted += allowance.grant(now)
        assert granted <= 5 + ahead / 40
    assert granted > ahead / 40 / 3, "and not much fewer"
