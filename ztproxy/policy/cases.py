"""The tests that lie beside the policies: fixtures, cases, and what each case expects.

Called by `load`, so a set whose tests fail is not loaded, and by `ztproxy policy test`. The document comes
parsed from YAML; cases run through the same facts, subjects and contexts as requests, in both engines.
"""

import datetime as calendar
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from ztproxy.model.decision import Decision
from ztproxy.model.request import Context, Protocol, Resource
from ztproxy.model.standing import Compliance, Heard, Risk, Said, State
from ztproxy.model.subject import UNKNOWN, Check, CheckResult, Device, Facts, Posture, Principal, Session
from ztproxy.policy.engine import PolicySet
from ztproxy.policy.literals import datetime, duration
from ztproxy.policy.problems import Problem
from ztproxy.policy.values import EvalError

MAX_CASES: Final = 10_000


class PostureFixture(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`age`: since the report. `checks`: names and results."""

    age: str = "1m"
    healthy: bool = True
    level: Literal["self", "attested"] = "self"
    os: str = "linux"
    checks: dict[str, CheckResult] = {}


class DeviceFixture(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`proof_age`: since the device proved itself. `posture` null = never reported."""

    id: str = "dev_test"
    name: str = "test device"
    owner: str = ""
    proof: Literal["", "mtls", "agent"] = "mtls"
    proof_age: str = "0s"
    risk: Risk = ""
    compliance: Compliance = ""
    compliance_age: str = "0s"
    posture: PostureFixture | Literal["unknown"] | None = None


class SessionFixture(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`auth_age`: since the person proved who they are; `age`: since the session began."""

    auth_age: str = "10m"
    age: str = "10m"
    amr: tuple[str, ...] = ()
    acr: str = ""
    provider: str = "test"
    risk: Risk = ""


class Fixture(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A caller: a `user`, a `workload`, or nobody. `device` null = none."""

    user: str = ""
    workload: str = ""
    issuer: str = ""
    name: str = ""
    email: str = ""
    groups: tuple[str, ...] = ()
    risk: Risk = ""
    risk_age: str = "0s"
    session: SessionFixture = SessionFixture()
    credential_life: str = "1h"  # what is left of a workload's credential
    device: DeviceFixture | Literal["unknown"] | None = None


class SourceFixture(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A source of facts that was heard."""

    age: str = "0s"
    state: State = "ok"


class Circumstance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request's circumstances."""

    now: Any = "2026-03-04T10:00:00Z"  # text or what YAML makes of it; a Wednesday
    ip: str = "203.0.113.9"
    host: str = "app.example"
    path: str = "/"
    protocol: Protocol = "http"
    feed_age: str = "0s"
    sources: dict[str, SourceFixture] = {}


class Case(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question and its answer. `with`: changes to the fixture. `by`: @id of what decides."""

    name: str
    who: str = field(default="nobody", name="as")
    changes: dict[str, Any] = field(default_factory=dict, name="with")
    do: str = "GET"
    to: str
    context: dict[str, Any] = {}
    expect: Literal["allow", "deny", "error"]
    by: tuple[str, ...] | None = None
    line: int = field(default=0, name="__line__")


class Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. `defaults`: circumstances of every case; fixture `nobody` is always there."""

    defaults: dict[str, Any] = {}
    fixtures: dict[str, dict[str, Any]] = {}
    cases: tuple[Case, ...]


def run_tests(policies: PolicySet, document: Mapping[str, object], file: str = "tests") -> list[Problem]:
    """Run all cases in both engines. Returns a problem for each that fails, [] if all is well.

    A case may carry its line as `__line__`; problems then say it.
    """
    try:
        tests = msgspec.convert(document, Document)
    except msgspec.ValidationError as error:
        return [Problem(file, 0, f"not a document of tests: {error}", "see docs/reference/policy.md")]
    if len(tests.cases) > MAX_CASES:
        return [Problem(file, 0, f"more than {MAX_CASES} cases")]
    return [problem for case in tests.cases for problem in _run(policies, tests, case, file)]


def _run(policies: PolicySet, tests: Document, case: Case, file: str) -> list[Problem]:
    if case.who not in tests.fixtures and case.who != "nobody":
        return [
            Problem(
                file,
                case.line,
                f"case {case.name!r}: no fixture is called {case.who!r}",
                "name one of `fixtures`",
            )
        ]
    try:
        changed = _merged(tests.fixtures.get(case.who, {}), case.changes)
        fixture = msgspec.convert(changed, Fixture)
        around = msgspec.convert(_merged(tests.defaults, case.context), Circumstance)
        now = _instant(around.now)
        facts = replace(
            _facts(fixture, now, duration(around.feed_age).ms),
            sources=tuple(
                Heard(name, duration(one.age).ms, one.state) for name, one in around.sources.items()
            ),
        )
    except (msgspec.ValidationError, EvalError) as error:
        return [Problem(file, case.line, f"case {case.name!r}: {error}", "see docs/reference/policy.md")]
    context = Context("0" * 31 + "1", around.ip, around.host, around.path, around.protocol)
    found = [
        _judged(case, engine, decision)
        for engine, decision in policies.both(facts, Resource("Route", case.to), case.do, context, now)
    ]
    remedy = "mend the policy; or the case, if this is what is wanted now"
    return [Problem(file, case.line, f"case {case.name!r}: {text}", remedy) for text in found if text]


def _judged(case: Case, engine: str, decision: Decision) -> str:
    """Return how a decision differs from what the case expects, "" if it does not."""
    answer = "error" if decision.kind == "error" else "allow" if decision.allow else "deny"
    if answer != case.expect:
        decided = ", ".join(decision.policies + decision.errors) or "no policy"
        return f"expected {case.expect}, but the {engine} engine says {answer} by {decided}"
    if case.by is not None and sorted(case.by) != sorted(decision.policies):
        wanted, got = (", ".join(sorted(names)) or "no policy" for names in (case.by, decision.policies))
        return f"expected to be decided by {wanted}, but the {engine} engine says by {got}"
    return ""


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes`; mappings are merged, everything else is replaced."""
    merged = dict(base)
    for name, value in changes.items():
        before = merged.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[name] = _merged(before, value)
        else:
            merged[name] = value
    return merged


# ------------------------------------------------------------------ fixtures as facts


def _instant(value: object) -> int:
    if isinstance(value, calendar.datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=calendar.UTC)
        return int(aware.timestamp() * 1000)
    return datetime(str(value)).ms


def _facts(fixture: Fixture, now: int, feed_age: int) -> Facts:
    device, posture = _device(fixture, now)
    proof, proved_at = _proof(fixture.device, now)
    principal = _principal(fixture)
    return Facts(
        principal=principal,
        session=_session(fixture.session, principal, now) if fixture.user else None,
        device=device,
        device_proof=proof,
        device_proved_at=proved_at,
        posture=posture,
        certificate_expires_at=now + duration(fixture.credential_life).ms if fixture.workload else 0,
        feed_age=feed_age,
        said=_said(fixture, now),
    )


def _said(fixture: Fixture, now: int) -> Said:
    device = fixture.device if isinstance(fixture.device, DeviceFixture) else DeviceFixture()
    return Said(
        risk=fixture.risk,
        risk_at=now - duration(fixture.risk_age).ms if fixture.risk else 0,
        session_risk=fixture.session.risk,
        device_risk=device.risk,
        compliance=device.compliance,
        compliance_at=now - duration(device.compliance_age).ms if device.compliance else 0,
    )


def _proof(device: DeviceFixture | str | None, now: int) -> tuple[Literal["", "mtls", "agent"], int]:
    if not isinstance(device, DeviceFixture) or not device.proof:
        return "", 0
    return device.proof, now - duration(device.proof_age).ms


def _principal(fixture: Fixture) -> Principal:
    kind: Literal["User", "Workload", "Anonymous"]
    kind = "User" if fixture.user else "Workload" if fixture.workload else "Anonymous"
    return Principal(
        kind=kind,
        id=fixture.user or fixture.workload or "anonymous",
        issuer=fixture.issuer,
        name=fixture.name or fixture.user or fixture.workload,
        email=fixture.email,
        groups=fixture.groups,
    )


def _session(session: SessionFixture, principal: Principal, now: int) -> Session:
    return Session(
        id="ses_test",
        principal=principal,
        provider=session.provider,
        created_at=now - duration(session.age).ms,
        auth_time=now - duration(session.auth_age).ms,
        amr=session.amr,
        acr=session.acr,
    )


def _device(fixture: Fixture, now: int) -> tuple[Any, Any]:
    device = fixture.device
    if device is None:
        return None, None
    if isinstance(device, str):
        return UNKNOWN, UNKNOWN
    known = Device(id=device.id, name=device.name, spki="", owner=device.owner)
    if device.posture is None or isinstance(device.posture, str):
        return known, None if device.posture is None else UNKNOWN
    return known, _posture(device.id, device.posture, now)


def _posture(device_id: str, posture: PostureFixture, now: int) -> Posture:
    at = now - duration(posture.age).ms
    return Posture(
        device_id=device_id,
        reported_at=at,
        seq=1,
        source="test",
        level=posture.level,
        healthy=posture.healthy,
        checks={name: Check(result, at) for name, result in posture.checks.items()},
        os=posture.os,
    )
