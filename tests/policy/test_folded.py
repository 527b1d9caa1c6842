"""What is left to ask of a caller: the same answers, whatever was asked before. See also differential.py."""

from types import ModuleType

import pytest

from ztproxy.model.subject import UNKNOWN
from ztproxy.policy.engine import SLICES

RULES = """
@id("fixed") permit (principal is User in Group::"contractors", action, resource == Route::"support")
when { principal has device.posture && principal.device.posture.healthy };
@id("address") permit (principal is User, action, resource == Route::"support")
when { principal.session.acr == "none" && context.ip.isInRange(ip("10.0.0.0/8")) };
@id("hours") forbid (principal is User, action, resource == Route::"support")
when { principal has device } unless { context.path like "/tickets/*" };
"""


def ask(the: ModuleType, policies: object, subject: object, **changes: object) -> tuple[str, tuple[str, ...]]:
    decision = policies.decide(subject, the.to("support"), "GET", the.context(**changes), the.NOW)
    return decision.kind, decision.policies


def test_circumstances_are_asked_for_each_time(the: ModuleType) -> None:
    policies = the.policies(RULES)
    subject = policies.subject(the.facts())
    for _ in range(4):
        assert ask(the, policies, subject) == ("permit", ("fixed",))
        assert ask(the, policies, subject, path="/admin") == ("forbid", ("hours",))
    (remainder,) = subject.left.values()
    assert [policy.id for policy in remainder.policies] == ["hours", "fixed"], "one can never hold any more"
    assert [len(tests) for tests in remainder.tests] == [1, 0]


def test_routes_of_which_the_same_is_left_to_ask_share_it(the: ModuleType) -> None:
    policies = the.policies(RULES, RULES.replace('"support"', '"wiki"').replace('@id("', '@id("wiki-'))
    subject = policies.subject(the.facts())
    for _ in range(3):
        for name in ("support", "wiki"):
            policies.decide(subject, the.to(name), "GET", the.context(), the.NOW)
    support, wiki = subject.left.values()
    assert support.tests is wiki.tests and len(support.tests) == 2
    assert [one.id for one in wiki.policies] == ["wiki-hours", "wiki-fixed"]


def test_callers_of_whom_the_same_is_left_share_it(the: ModuleType) -> None:
    policies = the.policies(RULES)
    subjects = [policies.subject(the.facts()) for _ in range(3)]
    for subject in subjects:
        for _ in range(3):
            ask(the, policies, subject)
    assert len({id(one) for subject in subjects for one in subject.left.values()}) == 1
    bare = policies.subject(the.facts(device=None, posture=None))
    for _ in range(3):
        assert ask(the, policies, bare) == ("default-deny", ())


def test_what_is_an_error_stays_one(the: ModuleType) -> None:
    policies = the.policies(RULES)
    unsure = policies.subject(the.facts(posture=UNKNOWN))
    for _ in range(4):
        assert ask(the, policies, unsure) == ("error", ())
        assert ask(the, policies, unsure, path="/admin") == ("error", ("hours",))


@pytest.mark.parametrize("engine", ["compiled", "verify", "reference"])
def test_a_caller_holds_a_bounded_number(the: ModuleType, engine: str) -> None:
    policies = the.policies(RULES, engine=engine)
    subject = policies.subject(the.facts())
    subject.left.update(dict.fromkeys(range(SLICES)))
    for _ in range(3):
        assert ask(the, policies, subject) == ("permit", ("fixed",))
    assert len(subject.left) <= SLICES
