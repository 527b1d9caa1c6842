"""The short way to say who may use a route: Cedar text that means what it says."""

from types import ModuleType

import pytest
from msgspec.structs import replace

from ztproxy.model.subject import ANONYMOUS, Facts, Principal
from ztproxy.policy.shorthand import render

DEPLOY = Principal("Workload", "spiffe://corp.example/ci/deploy", groups=("deployers",))


def allows(the: ModuleType, allow: dict, facts: Facts, method: str = "GET", name: str = "support") -> bool:
    policies = the.policies(render("support", allow), engine="verify")
    decision = policies.decide(policies.subject(facts), the.to(name), method, the.context(), the.NOW)
    assert not decision.errors
    return decision.allow


def test_who(the: ModuleType) -> None:
    carol, stranger = the.facts(), the.facts(principal=replace(the.CAROL, id="corp:eve", groups=()))
    deploy = Facts(DEPLOY, certificate_expires_at=the.NOW + 1000)
    for allow, people in [
        ({"groups": ["contractors"]}, (True, False, False)),
        ({"groups": ["x", "deployers"]}, (False, False, True)),
        ({"users": ["corp:eve"]}, (False, True, False)),
        ({"workloads": [DEPLOY.id]}, (False, False, True)),
        ({"users": [DEPLOY.id], "workloads": ["corp:carol"]}, (False, False, False)),
        ({"groups": ["contractors"], "users": ["corp:eve"], "workloads": [DEPLOY.id]}, (True, True, True)),
    ]:
        assert tuple(allows(the, allow, one) for one in (carol, stranger, deploy)) == people, allow
        assert not allows(the, allow, Facts(ANONYMOUS))
        assert not allows(the, allow, carol, name="wiki")


def test_methods(the: ModuleType) -> None:
    allow = {"groups": ["contractors"], "methods": ["GET", "POST"]}
    assert [allows(the, allow, the.facts(), method) for method in ("GET", "POST", "PUT", "HEAD")] == [
        True,
        True,
        False,
        False,
    ]
    assert allows(the, {"groups": ["contractors"]}, the.facts(), "DELETE")


def test_devices(the: ModuleType) -> None:
    posture = the.facts().posture
    none, unproved = the.facts(device=None, posture=None), the.facts(device_proof="", device_proved_at=0)
    old = the.facts(device_proved_at=the.NOW - 12 * 3_600_000 - 1)
    missing, failing = the.facts(posture=None), the.facts(posture=replace(posture, healthy=False))
    stale = the.facts(posture=replace(posture, reported_at=the.NOW - 900_001))
    everyone = (the.facts(), none, unproved, old, missing, failing, stale)
    for allow, expected in [
        ({}, (True,) * 7),
        ({"device": "any"}, (True,) * 7),
        ({"device": "known"}, (True, False, False, False, True, True, True)),
        ({"device": "healthy"}, (True, False, False, False, False, False, False)),
        ({"device": "known", "proof_max_age": "13h"}, (True, False, False, True, True, True, True)),
        (
            {"device": "healthy", "posture_max_age": 1_000_000},
            (True, False, False, False, False, False, True),
        ),
        ({"device": "healthy", "posture_max_age": "10s"}, (False,) * 7),
    ]:
        assert tuple(allows(the, {"groups": ["contractors"]} | allow, one) for one in everyone) == expected, (
            allow
        )


@pytest.mark.parametrize(
    ("ms", "text"),
    [(900_000, "15m"), (7_200_000, "2h"), (86_400_000, "1d"), (90_000, "90s"), (1500, "1500ms")],
)
def test_ages_are_written_for_people(ms: int, text: str) -> None:
    rendered = render("r", {"groups": ["g"], "device": "healthy", "posture_max_age": ms})
    assert f'reported_at) <= duration("{text}")' in rendered


@pytest.mark.parametrize(
    "name", ['a"b', 'x"); permit (principal, action, resource); //', "a\\", "a\nb", "é", "\u202e", "\0"]
)
def test_names_can_not_break_out(the: ModuleType, name: str) -> None:
    policies = the.policies(render("support", {"groups": [name], "users": [name], "workloads": [name]}))
    assert [policy.id for policy in policies.policies] == [
        "support-users",
        "support-workloads",
        "ztproxy-portal",
    ]
    member = the.facts(principal=replace(the.CAROL, groups=(name,)))
    for facts, allow in ((member, True), (the.facts(), False)):
        decision = policies.decide(policies.subject(facts), the.to("support"), "GET", the.context(), the.NOW)
        assert decision.allow == allow


@pytest.mark.parametrize(
    ("allow", "says"),
    [
        ({}, "nobody"),
        ({"groups": []}, "nobody"),
        ({"group": ["a"]}, "group"),
        ({"groups": "contractors"}, "groups"),
        ({"groups": [""]}, "groups"),
        ({"users": [5]}, "users"),
        ({"groups": ["a"], "methods": ["get"]}, "get"),
        ({"groups": ["a"], "device": "new"}, "new"),
        ({"groups": ["a"], "device": None}, "None"),
        ({"groups": ["a"], "device": "healthy", "posture_max_age": "soon"}, "soon"),
        ({"groups": ["a"], "device": "healthy", "posture_max_age": "-5m"}, "-5m"),
        ({"groups": ["a"], "device": "healthy", "posture_max_age": 0}, "0"),
        ({"groups": ["a"], "device": "healthy", "posture_max_age": True}, "True"),
        ({"groups": ["a"], "posture_max_age": "15m"}, "posture_max_age"),
        ({"groups": ["a"], "device": "known", "posture_max_age": "15m"}, "posture_max_age"),
    ],
)
def test_what_is_wrong_is_said(allow: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        render("support", allow)
