"""What Cedar's own engine is told: all its policies can read, and little else."""

# ruff: noqa: E501 - tables are read by line

import json
from types import ModuleType

import cedarpy
import pytest
from msgspec.structs import replace

from ztproxy.model.subject import UNKNOWN
from ztproxy.policy.engine import Engine, PolicySet
from ztproxy.policy.needs import narrowed, needs_of
from ztproxy.policy.schema import relaxed, schema_of
from ztproxy.policy.sources import parse
from ztproxy.policy.values import Datetime, Uid

EVERYTHING = {"principal": None, "resource": None, "context": None}


def needs(condition: str) -> dict:
    text = f"permit (principal, action, resource) when {{ {condition} }};"
    statements, problems = parse([("x", text)])
    assert not problems
    return needs_of(statements[0].tree.clauses)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("true", {}),
        ('principal == User::"a" || principal in Group::"b" || principal is User', {}),
        ('[principal, resource].contains(User::"a")', {}),
        ('principal.session.acr == "low"', {"principal": {"session": {"acr": None}}}),
        ('principal.a.b == 1 && principal.a.c == "x"', {"principal": {"a": {"b": None, "c": None}}}),
        ("principal.a.b == 1 && principal.a == resource.c", {"principal": {"a": None}, "resource": {"c": None}}),
        ("principal.a == resource.c && principal.a.b == 1", {"principal": {"a": None}, "resource": {"c": None}}),
        ("principal has a.b", {"principal": {"a": {"b": {}}}}),
        ("principal has a && principal.a.b == 1", {"principal": {"a": {"b": None}}}),
        ("principal has a.b && principal has a && principal.a == resource.c", {"principal": {"a": None}, "resource": {"c": None}}),
        ("context.local.hour > 8 && context has now", {"context": {"local": {"hour": None}, "now": {}}}),
        ("context == {}", {"context": None}),
        ("context.a == 1 && [context].contains({}) && context.b == 1", {"context": None}),
        ("{a: principal}.a.name == 1", EVERYTHING),
        ("(if context.x then principal else resource).name == 1", EVERYTHING),
        ("(if true then context else {}) has x", EVERYTHING),
        ('User::"a".name == context.host', EVERYTHING),
        ("principal.getTag(context.host) == resource.app", {"context": {"host": None}, "resource": {"app": None}}),
    ],
)  # fmt: skip
def test_what_conditions_read(condition: str, expected: dict) -> None:
    assert needs(condition) == expected


def test_a_record_is_told_as_far_as_it_is_needed() -> None:
    record = {
        "a": {"b": Uid("U", "x"), "c": 1, "d": UNKNOWN},
        "e": Datetime(0),
        "f": UNKNOWN,
        "g": 5,
        "h": {"i": 1},
    }
    said = {"__entity": {"type": "U", "id": "x"}}
    assert narrowed(record, {"a": {"b": None, "d": None}, "f": None, "g": {"deeper": None}, "h": {}, "not there": None}) == {
        "a": {"b": said},
        "g": 5,
        "h": {},
    }  # fmt: skip
    assert narrowed(record, None) == {
        "a": {"b": said, "c": 1},
        "e": {"__extn": {"fn": "datetime", "arg": "1970-01-01T00:00:00.000Z"}},
        "g": 5,
        "h": {"i": 1},
    }
    assert narrowed(record, {}) == {}


def test_the_relaxed_schema_still_knows_names_and_types() -> None:
    schema = cedarpy.Schema.from_str(relaxed(schema_of(["corp"])))

    def read(attributes: dict) -> cedarpy.Entities:
        one = {"uid": {"type": "User", "id": "a"}, "attrs": attributes, "parents": []}
        return cedarpy.Entities.from_json_str(json.dumps([one]), schema)

    read({})
    read({"session": {"acr": "x"}, "device": {"posture": {"checks": {"edr": {"result": "pass"}}}}})
    for wrong in ({"session": {"acr": 1}}, {"session": {"odd": "x"}}, {"odd": 1}, {"risk": True}):
        with pytest.raises(ValueError, match=r"error during entity|does not conform"):
            read(wrong)


def told(
    policies: PolicySet, the: ModuleType, monkeypatch: pytest.MonkeyPatch, **changes: object
) -> tuple[dict, list]:
    """Decide one request, and return what Cedar was told of it."""
    calls, ask = [], cedarpy.is_authorized

    def listening(request: dict, texts: object, entities: object, schema: object) -> object:
        calls.append((json.loads(request["context"]), json.loads(str(entities))))
        return ask(request, texts, entities, schema)

    with monkeypatch.context() as patched:
        patched.setattr("cedarpy.is_authorized", listening)
        subject = policies.subject(the.facts(**changes))
        decision = policies.decide(subject, the.to("support"), "GET", the.context(request_id="00"), the.NOW)
    assert decision.kind == "permit", decision
    assert len(calls) == 1
    return calls[0]


TEXT = """@id("x") permit (principal is User, action in Action::"http", resource)
when { principal has device.posture && principal.device.posture.healthy && context.local.hour == 10 && principal has email };"""


def test_cedar_hears_what_its_policies_read(the: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = the.policies(TEXT)
    context, entities = told(policies, the, monkeypatch)
    attributes = {one["uid"]["type"]: one["attrs"] for one in entities}
    assert len(context) == 9, "of the circumstances it hears all"
    assert attributes["User"] == {"device": {"posture": {"healthy": True}}, "email": "carol@example"}
    assert attributes["Route"] == {}
    (reference,) = policies._references.values()
    assert len(reference._read) == 1
    told(policies, the, monkeypatch, feed_age=4)
    assert len(reference._read) == 1, "what no policy asks for makes no other caller"
    told(policies, the, monkeypatch, principal=replace(the.CAROL, groups=("x",)))
    assert len(reference._read) == 2


@pytest.mark.parametrize("engine", ["verify", "reference"])
def test_who_asks_twice_about_everything_has_everything_looked_at(
    the: ModuleType, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = the.policies(TEXT, engine=engine)
    context, entities = told(policies, the, monkeypatch)
    assert "method" in context and len(context["local"]) > 1
    assert any(
        one["uid"]["type"] == "User" and "groups" not in one["attrs"] and "name" in one["attrs"]
        for one in entities
    )
    ask = cedarpy.is_authorized

    def lacking(request: dict, *others: object) -> cedarpy.AuthzResult:
        less = json.loads(request["context"])
        del less["method"]  # which no policy here reads
        return ask({**request, "context": json.dumps(less)}, *others)

    monkeypatch.setattr("cedarpy.is_authorized", lacking)
    subject = policies.subject(the.facts())
    decision = policies.decide(subject, the.to("support"), "GET", the.context(), the.NOW)
    assert (decision.allow, decision.kind) == (False, "error")


@pytest.mark.parametrize(
    "forgotten",
    [
        ("principal", {}),
        ("principal", {"device": {"posture": {}}}),
    ],
)
def test_what_is_forgotten_denies(the: ModuleType, forgotten: tuple[str, dict]) -> None:
    policies = the.policies(TEXT)

    def ask():
        subject = policies.subject(the.facts())
        return policies.decide(subject, the.to("support"), "GET", the.context(request_id="00"), the.NOW)

    assert ask().allow
    (reference,) = policies._references.values()
    reference._needs[forgotten[0]] = forgotten[1]
    decision = ask()
    assert (decision.allow, decision.kind) == (False, "error")
    assert "engines disagree" in decision.errors[0]
