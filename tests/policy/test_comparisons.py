"""Comparisons with a constant and ages: the answers of Cedar, on all kinds of values and at the edges."""

import itertools
import json

import cedarpy
import pytest

from ztproxy.model.subject import UNKNOWN
from ztproxy.policy.literals import from_json
from ztproxy.policy.program import Program, environment, evaluate
from ztproxy.policy.sources import parse
from ztproxy.policy.values import Datetime, Entity, Uid, Value

LONG_MIN, LONG_MAX = -(1 << 63), (1 << 63) - 1
PRINCIPAL, ACTION, RESOURCE = Uid("U", "a"), Uid("Action", "x"), Uid("R", "r")
NUMBERS = [LONG_MIN, LONG_MIN + 1, -1, 0, 1, 17, 18, 19, (1 << 62) - 1, 1 << 62, LONG_MAX - 1, LONG_MAX]
OTHERS = [True, False, "18", [18], {"b": 18}, {"__extn": {"fn": "duration", "arg": "18ms"}}]
INSTANTS = [
    {"__extn": {"fn": "datetime", "arg": at}}
    for at in ("1970-01-01", "2026-03-04T10:00:00.000Z", "2026-03-04T10:15:00.000Z",
               "2026-03-04T10:15:00.001Z", "0000-01-01", "9999-12-31T23:59:59.999Z")
]  # fmt: skip


def ours(condition: str, context: Value, attributes: Value) -> str:
    statements, problems = parse([("x", f"permit(principal, action, resource) when {{ {condition} }};")])
    assert not problems
    part = Program(statements).slice("U", Entity(ACTION, {}), Entity(RESOURCE, {}))
    store = {PRINCIPAL: Entity(PRINCIPAL, attributes)}
    decision = evaluate(part, environment(PRINCIPAL, ACTION, RESOURCE, context, store))
    return "error" if decision.errors else "allow" if decision.allow else "deny"


def cedars(condition: str, context: dict, attributes: dict) -> str:
    names = {"principal": PRINCIPAL, "action": ACTION, "resource": RESOURCE}
    request = {name: uid._asdict() for name, uid in names.items()} | {"context": context}
    entities = json.dumps([{"uid": PRINCIPAL._asdict(), "attrs": attributes, "parents": []}])
    text = f"permit(principal, action, resource) when {{ {condition} }};"
    answer = cedarpy.is_authorized(request, text, entities)
    return "error" if answer.diagnostics.errors else "allow" if answer.allowed else "deny"


@pytest.mark.parametrize("op", ["<", "<=", ">", ">="])
def test_numbers_within_the_context(op: str) -> None:
    contexts = [{"a": {"b": value}} for value in NUMBERS + OTHERS] + [{}, {"a": 18}, {"a": {}}, {"a": "x"}]
    seen = set()
    for bound, context in itertools.product(NUMBERS[1:], contexts):
        number = bound if bound >= 0 else f"(0 - {-bound})"
        for k in (bound, number):  # a constant is compared in a closure of its own, an expression is not
            condition = f"context.a.b {op} {k}"
            expected = cedars(condition, context, {})
            assert ours(condition, from_json(context), {}) == expected, (condition, context)
            seen.add(expected)
    assert seen == {"allow", "deny", "error"}


@pytest.mark.parametrize("limit", ["0ms", "15m", "-1ms", "9223372036854775807ms"])
def test_ages_of_what_the_principal_has(limit: str) -> None:
    condition = f'context.now.durationSince(principal.a.b) <= duration("{limit}")'
    values = [{"x": value} for value in INSTANTS + OTHERS[:3] + [5]] + [{}]
    seen = set()
    for now, then in itertools.product(values, values):
        context = {"now": now["x"]} if now else {}
        attributes = {"a": {"b": then["x"]} if then else {}}
        expected = cedars(condition, context, attributes)
        assert ours(condition, from_json(context), from_json(attributes)) == expected, (context, attributes)
        seen.add(expected)
    assert seen >= {"allow", "error"}


@pytest.mark.parametrize("context", [{"a": {"b": UNKNOWN}}, {"a": UNKNOWN}])
def test_unknown_numbers_are_errors(context: Value) -> None:
    for op in ("<", "<=", ">", ">="):
        assert ours(f"context.a.b {op} 5", context, {}) == "error"


def test_unknown_instants_are_errors() -> None:
    condition = 'context.now.durationSince(principal.a.b) <= duration("15m")'
    at = from_json(INSTANTS[1])
    assert ours(condition, {"now": at}, {"a": {"b": at}}) == "allow"
    for context, attributes in (({"now": UNKNOWN}, {"a": {"b": at}}), ({"now": at}, {"a": {"b": UNKNOWN}}),
                                ({"now": at}, {"a": UNKNOWN})):  # fmt: skip
        assert ours(condition, context, attributes) == "error"


def test_an_age_that_does_not_fit_is_an_error() -> None:
    condition = 'context.now.durationSince(principal.a.b) <= duration("15m")'
    for now, then, expected in (
        (LONG_MAX, -1, "error"),
        (LONG_MIN, 1, "error"),
        (LONG_MIN, 0, "allow"),
        (LONG_MAX, 0, "deny"),
        (LONG_MAX, LONG_MAX - 5, "allow"),
    ):
        assert ours(condition, {"now": Datetime(now)}, {"a": {"b": Datetime(then)}}) == expected


def test_conditions_alike_are_compiled_once_and_others_apart() -> None:
    conditions = [
        "context.a == 1",
        "context.a == true",
        'context.a == "1"',
        "context.b == 1",
        "!(context.a == 1)",
    ]
    texts = [f"permit(principal, action, resource) when {{ {one} }};" for one in [*conditions, *conditions]]
    statements, problems = parse([("x", "\n".join(texts))])
    assert not problems
    tests = [policy.parts[0][0] for policy in Program(statements).policies if policy.parts]
    assert tests[: len(conditions)] == tests[len(conditions) :]
    assert len(set(tests)) == len(conditions)
