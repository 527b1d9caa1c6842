"""Explanations: near misses with the conditions that failed and their values, remedies, and bounds."""

# ruff: noqa: E501 - policies and tables are read by line

from types import ModuleType

import pytest
from msgspec.structs import replace

from ztproxy.model.decision import Explanation
from ztproxy.model.subject import ANONYMOUS, UNKNOWN, Facts
from ztproxy.policy.explain import MAX_CONDITION, MAX_FAILED, MAX_MISSES, MAX_WORDS

SUPPORT = """
@id("support") @reason("Needs a healthy device.")
permit (principal is User in Group::"contractors", action in Action::"http", resource == Route::"support")
when { principal has device && principal.device has proved_at && principal.device has posture
    && principal.device.posture.healthy
    && context.now.durationSince(principal.device.posture.reported_at) <= duration("15m") }
unless { context.local.weekday > 5 || context.local.hour < 8 };
"""


def explain(the: ModuleType, facts: Facts, *texts: str, name: str = "support", now: int = 0) -> Explanation:
    policies = the.policies(*texts)
    subject = policies.subject(facts)
    return policies.explain(subject, the.to(name), "GET", the.context(), now or the.NOW)


@pytest.mark.parametrize(
    ("changes", "condition", "remedy"),
    [
        ({"device": None}, "principal has device (principal.device = absent)", "enrol-device"),
        (
            {"device_proof": "", "device_proved_at": 0},
            "principal.device has proved_at (principal.device.proved_at = absent)",
            "recheck-device",
        ),
        (
            {"posture": None},
            "principal.device has posture (principal.device.posture = absent)",
            "recheck-device",
        ),
        (
            {"healthy": False},
            "principal.device.posture.healthy (principal.device.posture.healthy = false)",
            "fix-device",
        ),
        (
            {"reported_at": 1_772_618_400_000 - 3_600_000},
            'context.now.durationSince(principal.device.posture.reported_at) <= duration("15m") '
            "(context.now = 2026-03-04T10:00:00.000Z, "
            "principal.device.posture.reported_at = 2026-03-04T09:00:00.000Z)",
            "recheck-device",
        ),
    ],
)
def test_a_near_miss_says_what_failed(the: ModuleType, changes: dict, condition: str, remedy: str) -> None:
    of_posture = {name: changes.pop(name) for name in ("healthy", "reported_at") if name in changes}
    facts = the.facts(**changes)
    if of_posture:
        facts = the.facts(posture=replace(facts.posture, **of_posture))
    told = explain(the, facts, SUPPORT)
    assert [miss.failed for miss in told.near_misses] == [(condition,)]
    assert (told.remedies, told.reasons) == ((remedy,), ("Needs a healthy device.",))


def test_exceptions_that_apply_are_named(the: ModuleType) -> None:
    saturday = the.NOW + 3 * 86_400_000
    posture = replace(the.facts().posture, reported_at=saturday)
    told = explain(the, the.facts(posture=posture), SUPPORT, now=saturday)
    assert told.near_misses[0].failed == ("unless context.local.weekday > 5 (context.local.weekday = 6)",)
    assert told.remedies == ("wait-for-window",)


def test_the_policys_own_remedies_come_first(the: ModuleType) -> None:
    text = SUPPORT.replace("@reason", '@remedy("step-up-mfa, request-jit") @reason')
    assert explain(the, the.facts(device=None), text).remedies == ("step-up-mfa", "request-jit")


def test_nothing_is_promised_to_people_a_permit_is_not_for(the: ModuleType) -> None:
    stranger = the.facts(principal=replace(the.CAROL, groups=()), device=None)
    told = explain(the, stranger, SUPPORT)
    assert (told.reasons, told.remedies) == ((), ())
    assert told.near_misses[0].failed[0] == 'principal in Group::"contractors"'
    assert told.near_misses[0].remedy == ()
    forbid = '@id("no") @reason("closed") @remedy("fix-device") forbid (principal, action, resource);'
    assert explain(the, stranger, SUPPORT, forbid).remedies == ()
    assert explain(the, the.facts(), SUPPORT, forbid).remedies == ("fix-device",)


def test_forbids_name_themselves(the: ModuleType) -> None:
    forbid = '@id("no") @reason("The office is closed.") @remedy("wait-for-window") forbid (principal, action, resource);'
    told = explain(the, the.facts(), SUPPORT, forbid)
    assert told == Explanation(("The office is closed.",), ("wait-for-window",))


def test_nobody_is_asked_to_sign_in_where_that_would_help(the: ModuleType) -> None:
    assert explain(the, Facts(ANONYMOUS), SUPPORT).remedies == ("sign-in",)
    assert explain(the, Facts(ANONYMOUS), SUPPORT, name="wiki").remedies == ()
    assert explain(the, Facts(ANONYMOUS), SUPPORT, name="nowhere") == Explanation((), ())


def test_errors_can_only_be_tried_again(the: ModuleType) -> None:
    assert explain(the, the.facts(device=UNKNOWN), SUPPORT) == Explanation((), ("retry-later",))
    assert explain(the, the.facts(), SUPPORT, now=-5) == Explanation((), ("retry-later",))


def test_a_permit_needs_no_explanation(the: ModuleType) -> None:
    assert explain(the, the.facts(), SUPPORT) == Explanation((), ())


def test_the_nearest_come_first_and_output_is_bounded(the: ModuleType) -> None:
    many = [
        f'@id("p{n}") @reason("r{n}") @remedy("ask-{n}") permit (principal is User, action, resource) when {{ '
        + " && ".join([f'context.path == "/{m}{"x" * 500}"' for m in range(1 + n % 9)])
        + " };"
        for n in range(40)
    ]
    told = explain(the, the.facts(), "\n".join(many))
    assert len(told.near_misses) == MAX_MISSES
    assert [len(miss.failed) for miss in told.near_misses] == [1] * MAX_MISSES
    assert len(told.reasons) == len(told.remedies) == MAX_WORDS
    worst = explain(the, the.facts(), many[8])
    assert len(worst.near_misses[0].failed) == MAX_FAILED
    assert all(len(text) <= MAX_CONDITION for text in worst.near_misses[0].failed)
    assert len(str(told)) < 40_000
