"""The policy set in force: what it permits, what it denies, and that whatever goes wrong denies."""

# ruff: noqa: E501 - policies and tables are read by line

from ipaddress import IPv4Address
from itertools import pairwise
from types import ModuleType
from zoneinfo import ZoneInfo

import pytest
from cedarpy import pst
from msgspec.structs import replace

from ztproxy.model.decision import Decision
from ztproxy.model.request import NOWHERE, Resource
from ztproxy.model.subject import ANONYMOUS, UNKNOWN, Check, Facts, Principal
from ztproxy.policy.around import NUMBERS
from ztproxy.policy.circumstances import KEPT, Circumstances
from ztproxy.policy.compile import compiled
from ztproxy.policy.engine import WHOLE, PolicySet
from ztproxy.policy.operations import Env
from ztproxy.policy.program import Rule, Slice
from ztproxy.policy.reference import disagreement
from ztproxy.policy.schema import ACTIONS, METHODS
from ztproxy.policy.shapes import Closure
from ztproxy.policy.values import Entity, EvalError, Ip, Uid

PERMIT = '@id("all") permit (principal, action, resource);'
SUPPORT = """
@id("support") @reason("needs a device")
permit (principal is User in Group::"contractors", action in Action::"http", resource == Route::"support")
when { principal has device.posture && principal.device.posture.healthy };
"""
#: Evaluates to true at feed_age 0 and overflows, which is an error, at any other.
FRAGILE = (
    '@id("fragile") forbid (principal, action, resource) when { context.feed_age + 9223372036854775807 < 0 };'
)


def decide(the: ModuleType, policies: PolicySet, facts: Facts, name: str = "support", **more: object):
    method = more.pop("method", "GET")
    if "feed_age" in more:
        facts = replace(facts, feed_age=more.pop("feed_age"))
    return policies.decide(policies.subject(facts), the.to(name), method, the.context(**more), the.NOW)


# ------------------------------------------------------------------ the rules


def test_without_policies_everything_but_the_portal_is_denied(the: ModuleType) -> None:
    policies = the.policies()
    for facts in (the.facts(), Facts(ANONYMOUS), Facts(Principal("Workload", "spiffe://corp.example/x"))):
        for method in METHODS:
            assert decide(the, policies, facts, method=method).kind == "default-deny"
            assert decide(the, policies, facts, "portal", method=method).policies == ("ztproxy-portal",)


def test_permits_and_default_denials(the: ModuleType) -> None:
    policies = the.policies(SUPPORT)
    decision = decide(the, policies, the.facts())
    assert (decision.allow, decision.kind, decision.policies) == (True, "permit", ("support",))
    assert decide(the, policies, the.facts(), "wiki").kind == "default-deny"
    assert decide(the, policies, the.facts(principal=replace(the.CAROL, groups=()))).kind == "default-deny"
    assert decide(the, policies, Facts(ANONYMOUS)).kind == "default-deny"


def test_forbid_overrides_permit(the: ModuleType) -> None:
    forbid = '@id("no") forbid (principal is User, action == Action::"POST", resource);'
    policies = the.policies(PERMIT, forbid)
    assert decide(the, policies, the.facts()).allow
    decision = decide(the, policies, the.facts(), method="POST")
    assert (decision.allow, decision.kind, decision.policies) == (False, "forbid", ("no",))


def test_an_error_in_any_policy_of_the_slice_denies_and_is_named(the: ModuleType) -> None:
    policies = the.policies(PERMIT, FRAGILE)
    assert decide(the, policies, the.facts(), feed_age=0).allow
    decision = decide(the, policies, the.facts(), feed_age=1)
    assert (decision.allow, decision.kind) == (False, "error")
    assert decision.errors == ("fragile: overflow",)


def test_names_from_the_wire_make_no_slices(the: ModuleType) -> None:
    policies = the.policies(PERMIT)
    subject = policies.subject(the.facts())
    for n in range(50):
        for resource in (NOWHERE, Resource("Route", f"r{n}"), Resource("Cluster", "support")):
            assert not policies.decide(subject, resource, "GET", the.context(), the.NOW).allow
        assert (
            policies.decide(subject, the.to("support"), f"M{n}", the.context(), the.NOW).kind
            == "default-deny"
        )
    assert sum(len(parts) for kinds in policies._slices.values() for parts in kinds.values()) <= 1
    assert set(policies._slices) <= {"User"} and set(policies._slices.get("User", {})) <= {"GET"}


def test_missing_stale_unknown_and_failing_are_different(the: ModuleType) -> None:
    fresh = SUPPORT.replace(
        "healthy };",
        'healthy && context.now.durationSince(principal.device.posture.reported_at) <= duration("15m") };',
    )
    policies = the.policies(fresh)
    posture = the.facts().posture
    seen = {}
    for name, facts in {
        "no device": the.facts(device=None, posture=None),
        "missing": the.facts(posture=None),
        "failing": the.facts(posture=replace(posture, healthy=False)),
        "stale": the.facts(posture=replace(posture, reported_at=the.NOW - 900_001)),
        "unknown": the.facts(posture=UNKNOWN),
        "unknown device": the.facts(device=UNKNOWN),
    }.items():
        decision = decide(the, policies, facts)
        assert not decision.allow
        explained = policies.explain(
            policies.subject(facts), the.to("support"), "GET", the.context(), the.NOW
        )
        seen[name] = (decision.kind, decision.errors, tuple(miss.failed for miss in explained.near_misses))
    assert len(set(seen.values())) == 6
    assert seen["unknown"][1] == ("support: unknown fact posture",)
    assert decide(the, policies, the.facts(posture=replace(posture, reported_at=the.NOW - 900_000))).allow


def test_checks_are_facts_of_their_own(the: ModuleType) -> None:
    text = SUPPORT.replace(
        "principal.device.posture.healthy",
        'principal.device.posture.checks has edr && principal.device.posture.checks.edr.result == "pass"',
    )
    policies, posture = the.policies(text, engine="verify"), the.facts().posture
    for result, allow in (("pass", True), ("fail", False), ("unknown", False), (None, False)):
        checks = {"edr": Check(result, the.NOW)} if result else {}
        decision = decide(the, policies, the.facts(posture=replace(posture, checks=checks)))
        assert (decision.allow, decision.errors) == (allow, ())


# ------------------------------------------------------------------ the portal


def test_nobody_is_locked_out_of_the_portal(the: ModuleType) -> None:
    everything = '@id("closed") forbid (principal, action, resource);'
    for engine in ("compiled", "reference", "verify"):
        policies = the.policies(everything, SUPPORT, engine=engine)
        assert decide(the, policies, the.facts(device=UNKNOWN), "portal").allow
        assert decide(the, policies, the.facts()).kind == "forbid"


@pytest.mark.parametrize("scope", ['resource == Route::"portal"', 'resource in App::"portal"'])
def test_policies_that_name_the_portal_concern_it(the: ModuleType, scope: str) -> None:
    forbid = (
        f'@id("lan") forbid (principal, action, {scope}) unless {{ context.ip.isInRange(ip("10.0.0.0/8")) }};'
    )
    policies = the.policies(forbid, engine="verify")
    assert decide(the, policies, the.facts(), "portal").policies == ("lan",)
    assert decide(the, policies, the.facts(), "portal", ip="10.1.2.3").allow


# ------------------------------------------------------------------ engines


def broken(policies: PolicySet, the: ModuleType) -> PolicySet:
    """Break the compiled engine: whatever the permits of Carol's GET on support say, they hold."""
    policies.decide(policies.subject(the.facts()), the.to("support"), "GET", the.context(), the.NOW)
    slices = policies._slices["User"]["GET"]
    part = slices["support"]
    permits = tuple(Rule(None, None, Closure(lambda e: True), rule.policy) for rule in part.permits)
    slices["support"] = Slice(ACTIONS[part.action], part.resource, part.forbids, permits)
    return policies


def test_verify_denies_when_the_engines_disagree(the: ModuleType) -> None:
    policies = broken(the.policies(SUPPORT, engine="verify"), the)
    assert decide(the, policies, the.facts()).allow
    decision = decide(the, policies, the.facts(posture=None))
    assert (decision.allow, decision.kind) == (False, "error")
    assert decision.errors[0].startswith("engines disagree")


@pytest.mark.parametrize(
    ("theirs", "differs"),
    [
        (Decision(True, "permit", ("a", "b")), False),
        (Decision(True, "permit", ("b", "a")), False),
        (Decision(True, "permit", ("a",)), True),
        (Decision(False, "forbid", ("a", "b")), True),
        (Decision(False, "default-deny"), True),
        (Decision(False, "error", ("a", "b"), ("a: overflow",)), True),
    ],
)
def test_engines_have_to_agree_on_policies_too(theirs: Decision, differs: bool) -> None:
    ours = Decision(True, "permit", ("a", "b"))
    assert bool(disagreement(ours, theirs)) == bool(disagreement(theirs, ours)) == differs


def test_engines_have_to_agree_on_what_failed() -> None:
    ours = Decision(False, "error", (), ("a: overflow", "b: type error"))
    assert not disagreement(ours, Decision(False, "error", (), ("b: other words", "a: integer overflow")))
    assert disagreement(ours, Decision(False, "error", (), ("a: integer overflow",)))
    assert disagreement(Decision(False, "forbid", ("a",)), Decision(False, "forbid", ("b",)))
    assert disagreement(Decision(False, "default-deny"), Decision(False, "forbid"))


def test_a_permit_that_did_not_need_unknown_facts_is_confirmed(the: ModuleType) -> None:
    policies = the.policies(PERMIT, engine="verify")
    assert decide(the, policies, the.facts(device=UNKNOWN)).allow
    assert not decide(
        the, broken(the.policies(SUPPORT, engine="verify"), the), the.facts(device=UNKNOWN)
    ).allow


@pytest.mark.parametrize("engine", ["compiled", "reference", "verify"])
def test_unknown_facts_deny_in_every_engine(the: ModuleType, engine: str) -> None:
    absent = '@id("bring-none") permit (principal is User, action, resource) unless { principal has device };'
    policies = the.policies(absent, engine=engine)
    assert decide(the, policies, the.facts(device=None)).allow
    assert decide(the, policies, the.facts(device=UNKNOWN)).kind == "error"


def test_the_reference_engine_decides_alone(the: ModuleType) -> None:
    policies = broken(the.policies(SUPPORT, FRAGILE, engine="reference"), the)
    assert not decide(the, policies, the.facts(posture=None)).allow
    assert decide(the, policies, the.facts()).policies == ("support",)
    failed = decide(the, policies, the.facts(), feed_age=1)
    assert failed.kind == "error"
    assert failed.errors[0].startswith("fragile: ")


def test_large_sets_are_verified_slice_by_slice(the: ModuleType) -> None:
    names = [f"app{n}" for n in range(WHOLE + 1)]
    texts = [
        f'@id("{name}") permit (principal is User, action, resource == Route::"{name}");' for name in names
    ]
    policies = the.policies("\n".join(texts), routes=[the.route(name) for name in names], engine="verify")
    for name in names[:3]:
        assert decide(the, policies, the.facts(), name).policies == (name,)
        assert decide(the, policies, Facts(ANONYMOUS), name).kind == "default-deny"
    assert len(policies._references) == 6


@pytest.mark.parametrize(
    "principal",
    [
        {"name": "\ud800"},
        {"email": "x" * 70_000},
        {"groups": ("\udcff",)},
        {"id": "a\udc80"},
        {"name": 5},
    ],
)
def test_facts_cedar_can_not_hold_deny(the: ModuleType, principal: dict) -> None:
    policies = the.policies(PERMIT)
    decision = decide(the, policies, the.facts(principal=replace(the.CAROL, **principal)))
    assert (decision.allow, decision.kind) == (False, "error")


@pytest.mark.parametrize("at", [-1, 1 << 63, 253_402_300_800_000, 1.5, None, True])
def test_times_out_of_range_deny(the: ModuleType, at: object) -> None:
    policies = the.policies(PERMIT)
    assert not decide(the, policies, the.facts(device_proved_at=at)).allow


@pytest.mark.parametrize(
    "changes",
    [
        {"ip": "10.0.0.256"},
        {"ip": ""},
        {"ip": "fe80::1%eth0"},
        {"path": "/" + "x" * 70_000},
        {"path": "/\udc80"},
    ],
)
def test_circumstances_cedar_can_not_hold_deny(the: ModuleType, changes: dict) -> None:
    policies = the.policies(PERMIT)
    decision = decide(the, policies, the.facts(), **changes)
    assert (decision.allow, decision.kind) == (False, "error")
    assert decision.errors[0].startswith("context: ")


@pytest.mark.parametrize("now", [-1, -59_000, 1 << 62])
def test_a_clock_out_of_range_denies(the: ModuleType, now: int) -> None:
    policies = the.policies(PERMIT)
    decision = policies.decide(policies.subject(the.facts()), the.to("support"), "GET", the.context(), now)
    assert decision.kind == "error"


# ------------------------------------------------------------------ circumstances


def test_local_time_follows_the_zone_through_its_changes(the: ModuleType) -> None:
    text = '@id("night") permit (principal, action, resource) when { context.local.hour == 3 && context.local.minute == 0 };'
    berlin, utc = the.policies(text, timezone="Europe/Berlin"), the.policies(text)
    winter, summer = 1_774_663_200_000, 1_774_746_000_000  # 2026-03-28T02:00Z, 2026-03-29T01:00Z
    for moment in (winter, summer):
        for policies, late in ((berlin, 0), (berlin, 60_000), (utc, 0)):
            decision = policies.decide(
                policies.subject(the.facts()), the.to("support"), "GET", the.context(), moment + late
            )
            assert decision.allow == (policies is berlin and not late)


def test_circumstances_are_what_was_asked(the: ModuleType) -> None:
    text = """@id("x") permit (principal, action, resource) when {
      context.method == "POST" && context.protocol == "websocket" && context.host == "support.example"
      && context.path like "/tickets/*" && context.ip.isInRange(ip("203.0.113.0/24")) && context.local.weekday == 3
      && context.now == datetime("2026-03-04T10:00:00Z") && context.feed_age == 7 };"""
    policies = the.policies(text, engine="verify")
    assert decide(the, policies, the.facts(feed_age=7), method="POST", protocol="websocket").allow
    assert decide(the, policies, the.facts(), method="POST", protocol="websocket", feed_age=7).allow
    assert not decide(the, policies, the.facts(feed_age=7), method="POST").allow


def test_each_circumstance_is_read_alone_as_it_is_in_the_record(the: ModuleType) -> None:
    around = Circumstances(ZoneInfo("UTC")).of(the.context(), "GET", the.NOW, 7, {"hr": {"age": 5}})
    who, what = Entity(Uid("User", "a"), {}), Entity(Uid("Route", "r"), {})
    env = Env(who, Uid("Action", "GET"), what, around, {})
    assert len(around.record()) == len(set(NUMBERS.values())) == 9
    for name, value in around.record().items():
        assert compiled(pst.GetAttr(pst.Var("context"), name)).run(env) is value
    for part, value in around.record()["local"].items():
        code = compiled(pst.GetAttr(pst.GetAttr(pst.Var("context"), "local"), part))
        assert code.run(env) == code.number(env) == value
    assert around.record()["local"] == {"hour": 10, "minute": 0, "weekday": 3}
    deep = pst.GetAttr(pst.GetAttr(pst.Var("context"), "sources"), "hr")
    assert compiled(pst.GetAttr(deep, "age")).run(env) == 5
    for absent in (pst.GetAttr(pst.Var("context"), "odd"), pst.GetAttr(deep, "odd")):
        with pytest.raises(KeyError):
            compiled(absent).run(env)
    with pytest.raises(KeyError):
        around.read(0)


@pytest.mark.parametrize("feed_age", [-1, 1 << 63])
def test_an_age_cedar_can_not_hold_denies(the: ModuleType, feed_age: int) -> None:
    assert decide(the, the.policies(PERMIT), the.facts(), feed_age=feed_age).kind == "error"


def test_an_email_that_is_not_given_is_absent(the: ModuleType) -> None:
    policies = the.policies(
        '@id("x") permit (principal is User, action, resource) when { principal has email };'
    )
    assert decide(the, policies, the.facts()).allow
    assert not decide(the, policies, the.facts(principal=replace(the.CAROL, email=""))).allow


def test_every_fact_is_visible(the: ModuleType) -> None:
    """All attributes of the schema at once, in both engines, so that a renamed one is noticed."""
    text = """@id("user") permit (principal is User, action, resource == Route::"wiki") when {
      principal == User::"corp:carol" && principal.issuer == "https://idp.example" && principal.name == "Carol"
      && principal has email && principal.email == "carol@example" && principal.session.id == "ses_1"
      && principal.session.created_at == principal.session.auth_time && principal.session.amr.contains("otp")
      && principal.session.acr == "" && principal.session.provider == "corp" && principal has device
      && principal.device.id == "dev_1" && principal.device.name == "laptop" && principal.device.owner == "corp:carol"
      && principal.device.proof == "mtls" && principal.device has proved_at && principal.device has posture
      && principal.device.proved_at == principal.device.posture.reported_at
      && principal.device.posture.healthy && principal.device.posture.level == "self"
      && principal.device.posture.source == "ztproxy-agent" && principal.device.posture.os == "linux"
      && principal.device.posture.checks has disk_encrypted
      && principal.device.posture.checks.disk_encrypted.observed_at == principal.device.proved_at
      && !(principal.device.posture.checks has edr)
      && resource.host == "wiki.example" && resource.labels.contains("internal") && resource in App::"wiki" };
    @id("workload") permit (principal is Workload in Group::"deployers", action, resource == Route::"wiki") when {
      principal has spiffe_id && principal.spiffe_id == "spiffe://corp.example/ci" && principal.name == "ci"
      && principal.credential_expires > context.now && !(principal has device) };"""
    policies = the.policies(text, engine="verify")
    assert decide(the, policies, the.facts(), "wiki").policies == ("user",)
    ci = Principal("Workload", "spiffe://corp.example/ci", name="ci", groups=("deployers",))
    assert decide(the, policies, Facts(ci, certificate_expires_at=the.NOW + 1), "wiki").policies == (
        "workload",
    )
    assert not decide(the, policies, Facts(ci, certificate_expires_at=the.NOW), "wiki").allow


# ------------------------------------------------------------------ obligations, digest, composition


def test_obligations_of_all_permits_that_decide(the: ModuleType) -> None:
    policies = the.policies(
        '@id("a") @maxsession("30m") @record("metadata") permit (principal, action, resource);'
        '@id("b") @maxsession("5m") @record("metadata") permit (principal is User, action, resource);'
        '@id("c") @alert("soc") permit (principal is Workload, action, resource);'
    )
    duties = (("maxsession", "30m"), ("maxsession", "5m"), ("record", "metadata"))
    assert decide(the, policies, the.facts()).obligations == duties
    assert decide(the, policies, Facts(ANONYMOUS)).obligations == (
        ("record", "metadata"),
        ("maxsession", "30m"),
    )
    both = the.policies(*(p.statement.text for p in policies.policies[:-1]), engine="reference")
    assert decide(the, both, the.facts()).obligations == duties


def test_the_digest_names_everything_that_can_change_an_answer(the: ModuleType) -> None:
    texts = (SUPPORT, PERMIT)
    digests = [
        the.policies(*texts).digest,
        the.policies(SUPPORT).digest,
        the.policies(*reversed(texts)).digest,
        the.policies(*texts, timezone="Asia/Tokyo").digest,
        the.policies(SUPPORT + PERMIT).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert the.policies(*texts).digest == digests[0]
    assert all(len(one) == 64 for one, _ in pairwise(digests))


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_a_policy_on_one_route_never_changes_another_route(the: ModuleType, engine: str) -> None:
    wiki = [
        '@id("w1") permit (principal, action, resource == Route::"wiki");',
        '@id("w2") forbid (principal, action, resource == Route::"wiki");',
        '@id("w3") forbid (principal, action, resource in App::"wiki") when { context.feed_age + 9223372036854775807 > 0 };',
    ]
    callers = [the.facts(), the.facts(posture=None), the.facts(device=UNKNOWN), Facts(ANONYMOUS)]
    before = the.policies(SUPPORT, engine=engine)
    for more in (wiki[:1], wiki[:2], wiki):
        after = the.policies(SUPPORT, *more, engine=engine)
        for caller in callers:
            for name in ("support", "status-api", "portal"):
                for feed_age in (0, 5):
                    assert decide(the, after, caller, name, feed_age=feed_age) == decide(
                        the, before, caller, name, feed_age=feed_age
                    )


@pytest.mark.parametrize("engine", ["reference", "verify"])
def test_a_reference_engine_that_breaks_denies(
    the: ModuleType, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = the.policies('@id("a") permit (principal, action, resource);', engine=engine)
    assert decide(the, policies, the.facts()).allow

    def broken(*_: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr("cedarpy.is_authorized", broken)
    decision = decide(the, policies, the.facts())
    assert not decision.allow
    assert decision.kind == "error"


def test_addresses_are_kept_within_bounds(the: ModuleType) -> None:
    around = Circumstances(ZoneInfo("UTC"))
    for number in range(KEPT + 3):
        found = around.of(the.context(ip=str(IPv4Address(number))), "GET", the.NOW, 0, {})
        assert found.ip == found.record()["ip"] == Ip(4, number, 32)
    assert len(around._addresses) == 3
    with pytest.raises(EvalError):
        around.of(the.context(ip="10.0.0.256"), "GET", the.NOW, 0, {})
