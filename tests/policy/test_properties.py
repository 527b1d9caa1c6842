"""What holds for every policy set, tried on random ones in the product's own words.

Unknown facts only close doors; both engines agree on real facts; and no decision is an accident of the engine.
"""

# ruff: noqa: E501 - policies and tables are read by line

import random  # noqa: TID251 - seeded: tests have to be repeatable
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace as changed
from types import ModuleType

import pytest
from msgspec.structs import replace

from ztproxy.model.standing import Compliance, Risk, Said
from ztproxy.model.subject import ANONYMOUS, UNKNOWN, Check, Device, Facts, Principal, Session
from ztproxy.policy.engine import PolicySet
from ztproxy.policy.subject import Subject
from ztproxy.policy.values import Entity, Value

#: Conditions that any principal with a device can be asked.
OF_DEVICE = [
    "principal has device",
    'principal has device && principal.device.proof == "mtls"',
    'principal has device && principal.device.proof != "mtls"',
    'principal has device && ["agent", "mtls"].contains(principal.device.proof)',
    'principal has device && principal.device has proved_at && context.now.durationSince(principal.device.proved_at) <= duration("1h")',
    "principal has device.posture",
    "principal has device.posture && principal.device.posture.healthy",
    'principal has device.posture && context.now.durationSince(principal.device.posture.reported_at) > duration("15m")',
    'principal has device.posture.checks.edr && principal.device.posture.checks.edr.result == "pass"',
    'principal has device.posture.checks.edr && principal.device.posture.checks.edr.result != "fail"',
    'principal has device && principal.device.owner == "corp:carol"',
    'principal has device && principal.device.compliance != "not-compliant" && principal.device.risk != "high"',
    'principal has device.compliance_at && context.now.durationSince(principal.device.compliance_at) <= duration("1h")',
    'principal.risk != "high"',
]
OF_USER = [
    'principal.session.amr.contains("otp")',
    'context.now.durationSince(principal.session.auth_time) <= duration("1h")',
    "principal has email",
    'principal.session.risk == "" || principal.risk == "low"',
    'principal has risk_at && context.now.durationSince(principal.risk_at) <= duration("1h")',
    'principal in [Group::"contractors", Group::"administrators"]',
    'principal in Group::"administrators" || principal.name like "C*"',
]
OF_ALL = [
    'resource.labels.contains("internal")',
    'context.path like "/tickets/*"',
    'context.ip.isInRange(ip("203.0.113.0/24"))',
    "context.local.hour >= 8 && context.local.hour < 18",
    "context.feed_age + 9223372036854775800 > 0",
    "context.feed_age < 8",
    "context has feed_age && context.now > datetime(\"2026-03-04T12:00:00Z\")",
    'context.method == "GET" && !(context.host like "other*")',
    'context.protocol == "websocket"',
]  # fmt: skip


def policy(rng: random.Random, number: int) -> str:
    kind = rng.choice(["User", "User", "Workload", "any"])
    words = {"User": OF_DEVICE + OF_USER + OF_ALL, "Workload": OF_DEVICE + OF_ALL, "any": OF_ALL}[kind]
    scope = {
        "any": "principal",
        "User": rng.choice(["principal is User", 'principal is User in Group::"contractors"']),
    }
    resource = rng.choice(["resource", 'resource == Route::"support"', 'resource in App::"wiki"'])
    action = rng.choice(["action", 'action in Action::"read"', 'action == Action::"GET"'])
    clauses = [_clause(rng, words) for _ in range(rng.choice([0, 1, 1, 2]))]
    head = f"{rng.choice(['permit', 'permit', 'permit', 'forbid'])} ({scope.get(kind, 'principal is ' + kind)}, {action}, {resource})"
    return f'@id("p{number}") {head} {" ".join(clauses)};'


def _clause(rng: random.Random, words: list[str]) -> str:
    parts = [rng.choice(["", "!"]) + f"({rng.choice(words)})" for _ in range(rng.choice([1, 2, 3]))]
    return f"{rng.choice(['when', 'when', 'unless'])} {{ {rng.choice([' && ', ' || ']).join(parts)} }}"


def caller(rng: random.Random, the: ModuleType) -> Facts:
    """Somebody, in some state."""
    if rng.random() < 0.1:
        return Facts(ANONYMOUS, feed_age=rng.choice([0, 9]))
    full, at = the.facts(), the.NOW - rng.choice([0, 60_000, 1_800_000, 90_000_000])
    checks = {
        name: Check(rng.choice(["pass", "fail", "unknown"]), at)
        for name in rng.sample(["edr", "firewall", "odd"], 2)
    }
    posture = replace(full.posture, healthy=rng.random() < 0.5, reported_at=at, checks=checks)
    device = Device("dev_1", "d", "00", owner=rng.choice(["", "corp:carol"]))
    proof = rng.choice(["", "mtls", "agent"])
    ci = Principal("Workload", "spiffe://corp.example/ci", groups=("deployers",))
    principal = replace(
        the.CAROL,
        groups=tuple(rng.sample(["contractors", "administrators", "x"], 2)),
        email=rng.choice(["", "c@x"]),
    )
    session = Session("ses_1", principal, "corp", at, at, amr=tuple(rng.sample(["pwd", "otp"], 1)))
    is_user = rng.random() < 0.8
    has_device, has_posture = rng.random() < 0.8, rng.random() < 0.8
    return Facts(
        principal if is_user else ci,
        session if is_user else None,
        device if has_device else None,
        proof if has_device else "",  # type: ignore[arg-type]
        at if proof and has_device else 0,
        posture if has_device and has_posture else None,
        the.NOW + 1000,
        rng.choice([0, 5, 9]),
        said(rng, at),
    )


def said(rng: random.Random, at: int) -> Said:
    risks: tuple[Risk, ...] = ("", "low", "medium", "high")
    if rng.random() < 0.3:
        return Said()
    compliance: Compliance = rng.choice(["", "compliant", "not-compliant"])  # type: ignore[assignment]
    return Said(rng.choice(risks), at, rng.choice(risks), rng.choice(risks), compliance, at)


def sets(the: ModuleType, rng: random.Random, count: int, **options: object) -> Iterator[PolicySet]:
    for _ in range(count):
        text = "\n".join(policy(rng, number) for number in range(rng.randrange(1, 6)))
        yield the.policies(text, **options)


def unknown_somewhere(record: Value, path: str = "") -> Iterator[tuple[str, Value]]:
    """Yield copies of a record, each with one part of it unknown."""
    for name, value in record.items():
        yield f"{path}.{name}", {**record, name: UNKNOWN}
        if type(value) is dict:
            for where, inner in unknown_somewhere(value, f"{path}.{name}"):
                yield where, {**record, name: inner}


@pytest.mark.parametrize("seed", range(3))
def test_an_unknown_fact_never_turns_a_refusal_into_a_permit(the: ModuleType, seed: int) -> None:
    rng, seen = random.Random(seed), Counter[str]()
    for policies in sets(the, rng, 60):
        for _ in range(4):
            subject = policies.subject(caller(rng, the))
            name, method = rng.choice(["support", "wiki"]), rng.choice(["GET", "POST"])
            before = policies.decide(subject, the.to(name), method, the.context(), the.NOW)
            for where, attributes in unknown_somewhere(subject.entity.attributes):
                entity = Entity(subject.entity.uid, attributes, subject.entity.ancestors)
                blurred = changed(subject, entity=entity, uncertain=True)
                after = policies.decide(blurred, the.to(name), method, the.context(), the.NOW)
                assert before.allow or not after.allow, (where, [p.statement.text for p in policies.policies])
                assert after == before or after.kind == "error", "an unknown fact that matters is an error"
                seen[f"{before.allow} {after.allow}"] += 1
    assert seen["True False"] > 20 and seen["True True"] > 20 and seen["False False"] > 200, seen


@pytest.mark.parametrize("seed", range(3))
def test_an_unknown_device_never_turns_a_refusal_into_a_permit(the: ModuleType, seed: int) -> None:
    """Against every state the device could really be in."""
    rng = random.Random(100 + seed)
    for policies in sets(the, rng, 60, engine="verify"):
        known = caller(rng, the)
        for blurred in (replace(known, device=UNKNOWN, posture=UNKNOWN), replace(known, posture=UNKNOWN)):
            after = decide(policies, the, policies.subject(blurred))
            if after.allow:
                for _ in range(8):
                    other = caller(rng, the)
                    if blurred.device is UNKNOWN:
                        really = replace(known, device=other.device, device_proof=other.device_proof,
                                         device_proved_at=other.device_proved_at, posture=other.posture)  # fmt: skip
                    else:
                        really = replace(known, posture=other.posture)
                    assert decide(policies, the, policies.subject(really)).allow


#: Circumstances of requests, some of which Cedar can not hold.
AROUND: list[dict[str, str]] = [
    *({}, {"ip": "198.51.100.7"}, {"host": "other.example"}, {"path": "/"}, {"protocol": "websocket"}),
    *({"ip": "10.0.0.256"}, {"ip": ""}, {"ip": "fe80::1%eth0"}, {"path": "/" + "x" * 70_000}),
    *({"path": "/\udc80"}, {"host": "\ud800"}, {"path": "/\u00e4", "host": "\u00e4"}),
]


@pytest.mark.parametrize("seed", range(3))
def test_who_is_known_gets_the_same_answers(the: ModuleType, seed: int) -> None:
    """Of them only what requests can change is asked; of a newcomer everything is."""
    rng, seen, told = random.Random(400 + seed), Counter[str](), Counter[int]()
    for policies in sets(the, rng, 60):
        for _ in range(4):
            facts, name = caller(rng, the), rng.choice(["support", "wiki", "portal"])
            facts = replace(facts, feed_age=rng.choice([*[0, 5, 9] * 3, -1, 1 << 63]))
            known = policies.subject(facts)
            for _ in range(2):
                policies.decide(known, the.to(name), "GET", the.context(), the.NOW)
            told.update(len(left.policies) for left in known.left.values() if left is not None)
            for changes in AROUND:
                now = the.NOW + rng.choice([*[0, 3_600_000 * 10] * 4, -the.NOW - 1, 1 << 62])
                question = (the.to(name), "GET", the.context(**changes), now)
                warm = policies.decide(known, *question)
                assert warm == policies.decide(policies.subject(facts), *question)
                assert warm == next(policies.both(facts, *question))[1]
                seen[warm.errors[0].partition(":")[0] if warm.errors else warm.kind] += 1
    assert {"permit", "forbid", "default-deny", "context"} <= set(seen), seen
    assert len(told) > 2 and told[0], told


def decide(policies: PolicySet, the: ModuleType, subject: Subject):
    return policies.decide(subject, the.to("support"), "GET", the.context(), the.NOW)


@pytest.mark.parametrize("seed", range(3))
def test_the_engines_agree_on_facts(the: ModuleType, seed: int) -> None:
    rng, seen = random.Random(200 + seed), Counter[str]()
    for policies in sets(the, rng, 50, engine="verify"):
        for _ in range(8):
            subject = policies.subject(caller(rng, the))
            name, method = rng.choice(["support", "wiki", "portal"]), rng.choice(["GET", "POST", "HEAD"])
            decision = policies.decide(subject, the.to(name), method, the.context(), the.NOW)
            assert not any("disagree" in error for error in decision.errors), decision
            seen[decision.kind] += 1
            explained = policies.explain(subject, the.to(name), method, the.context(), the.NOW)
            assert decision.allow <= (not explained.near_misses)
    assert set(seen) == {"permit", "forbid", "default-deny", "error"}, seen


@pytest.mark.parametrize("seed", range(3))
def test_more_policies_on_one_route_change_no_other(the: ModuleType, seed: int) -> None:
    rng = random.Random(300 + seed)
    for _ in range(40):
        texts = [policy(rng, number) for number in range(3)]
        wiki = [policy(rng, 10 + number).replace(", resource)", ', resource == Route::"wiki")')
                .replace('== Route::"support"', '== Route::"wiki"') for number in range(3)]  # fmt: skip
        fewer, more = the.policies("\n".join(texts)), the.policies("\n".join([*wiki, *texts]))
        for _ in range(6):
            facts = caller(rng, the)
            for name in ("support", "status-api", "portal"):
                answers = [
                    p.decide(p.subject(facts), the.to(name), "GET", the.context(), the.NOW)
                    for p in (fewer, more)
                ]
                assert answers[0] == answers[1]
