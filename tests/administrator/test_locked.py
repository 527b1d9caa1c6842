"""Locks at the door: no policy, path, protocol or missing fact leads past one; nobody else meets one."""

from typing import Any

import pytest
from door_fakes import (
    CAROL,
    COOKIE,
    DIGEST,
    NOW,
    PORTAL,
    SESSION,
    STATUS,
    SUPPORT,
    WORKLOAD,
    World,
)
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ztproxy.model.decision import Refusal
from ztproxy.model.permit import Permit
from ztproxy.model.request import AccessRequest, Context, Evidence, Resource
from ztproxy.model.route import Route
from ztproxy.model.standing import Lock, Standing, key_of
from ztproxy.model.subject import Handle
from ztproxy.policy.load import load
from ztproxy.policy.shorthand import render_public

ANYTHING = '@id("anything") permit (principal, action, resource);'
PEOPLE = '@id("people") permit (principal is User, action, resource);'
ROUTES = [SUPPORT, STATUS, PORTAL]
ALICE = replace(SESSION, id="ses_2", principal=replace(CAROL, id="t:alice"), device_id="")
OTHER = "a" * 64
DEVICE_CERTIFICATE = replace(
    WORKLOAD, kind="device", bundle="devices", subject="spiffe://t/device/dev_1", fingerprint="d", spki="aa"
)


@pytest.fixture
def world() -> World:
    return opened()


def opened(text: str = ANYTHING) -> World:
    world = World()
    world.access.policies = load([("p.cedar", text)], ROUTES, engine="compiled")
    world.put("session", "ses_2", ALICE)
    world.put("handle", OTHER, Handle(session_id="ses_2", host="support.test", created_at=NOW))
    return world


def lock(world: World, target: str, value: str, **changes: Any) -> Lock:
    made = Lock(id="lck_1", target=target, value=value, reason="stolen", set_at=NOW, set_by="root")
    made = replace(made, **changes)
    world.put("lock", made.id, made)
    return made


MINE = [
    ("user", "t:carol"),
    ("session", "ses_1"),
    ("issuer", "t"),
    ("device", "dev_1"),
    ("route", "support"),
]


@pytest.mark.parametrize(("target", "value"), MINE)
async def test_who_is_locked_is_refused_whatever_policies_say(world: World, target: str, value: str) -> None:
    permit = await world.ask()
    assert isinstance(permit, Permit)
    assert world.access.reconsider(permit, world.clock.now()) == ""
    lock(world, target, value)
    assert world.access.reconsider(permit, world.clock.now()) == "locked", "live paths are cut"
    refusal = await world.ask()
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status, refusal.remedies) == ("locked", 403, ("contact-administrator",))
    assert "stolen" not in refusal.reason, "why is for the record"
    record = world.records[-1]
    assert (record.principal, record.session, record.code) == ("User::t:carol", "ses_1", "locked")
    assert record.detail == "lck_1: stolen"
    world.put("lock", "lck_1", None)
    assert isinstance(await world.ask(), Permit), "and is let in again at once"


@pytest.mark.parametrize(
    ("target", "value"),
    [("workload", "spiffe://t/ci"), ("credential", "f"), ("issuer", "w"), ("route", "status")],
)
async def test_a_locked_workload_is_refused(world: World, target: str, value: str) -> None:
    permit = await world.ask(STATUS, certificate=WORKLOAD)
    assert isinstance(permit, Permit)
    lock(world, target, value)
    assert world.access.reconsider(permit, world.clock.now()) == "locked"
    assert (await world.ask(STATUS, certificate=WORKLOAD)).code == "locked"
    assert world.records[-1].principal == "Workload::spiffe://t/ci"


@pytest.mark.parametrize(
    ("target", "value"), [("device", "dev_1"), ("credential", "d"), ("issuer", "devices")]
)
@pytest.mark.parametrize("handle", [DIGEST, None, "x" * 64])
async def test_a_locked_certificate_is_good_for_nothing_not_even_to_sign_in(
    world: World, target: str, value: str, handle: str | None
) -> None:
    lock(world, target, value)
    for route in (SUPPORT, PORTAL):
        answer = await world.ask(route, handle=handle, certificate=DEVICE_CERTIFICATE)
        assert answer.code == "locked"


async def test_a_lock_on_one_touches_nobody_else(world: World) -> None:
    for number, (target, value) in enumerate(MINE):
        lock(world, target, value if target not in ("issuer", "route") else "x", id=f"lck_{number}")
    permit = await world.ask(SUPPORT, handle=OTHER)
    assert isinstance(permit, Permit)
    assert permit.principal_id == "t:alice"
    assert world.access.reconsider(permit, world.clock.now()) == ""
    assert isinstance(await world.ask(SUPPORT, certificate=WORKLOAD), Permit)


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("user", "t:Carol"),
        ("user", "t:carol2"),
        ("user", "t:caro"),
        ("user", "t:c\u0430rol"),
        ("user", "ses_1"),
        ("session", "t:carol"),
        ("session", "SES_1"),
        ("session", "ses_2"),
        ("workload", "t:carol"),
        ("device", "dev_2"),
        ("device", "DEV_1"),
        ("route", "supp"),
        ("route", "t"),
        ("issuer", "T"),
        ("credential", DIGEST),
        ("credential", COOKIE),
    ],
)
async def test_a_lock_on_what_only_looks_alike_is_on_nobody_here(
    world: World, target: str, value: str
) -> None:
    lock(world, target, value)
    assert isinstance(await world.ask(), Permit)


async def test_a_lock_outranks_public_paths_and_a_route_lock_closes_them_for_everybody(world: World) -> None:
    world = opened(render_public("support", ["/a"]))
    assert isinstance(await world.ask(SUPPORT, handle=None), Permit)
    lock(world, "user", "t:carol")
    assert (await world.ask()).code == "locked"
    assert isinstance(await world.ask(SUPPORT, handle=None), Permit)
    permit = await world.ask(SUPPORT, handle=None)
    lock(world, "route", "support", id="lck_2")
    assert (await world.ask(SUPPORT, handle=None)).code == "locked"
    assert (await world.ask(SUPPORT, handle="x" * 64)).code == "locked", "an unknown cookie opens no more"
    assert world.access.reconsider(permit, world.clock.now()) == "locked"


async def test_who_is_locked_may_see_the_page_where_somebody_else_may_sign_in(world: World) -> None:
    world.put("handle", DIGEST, Handle(session_id="ses_1", host="portal.test", created_at=NOW))
    lock(world, "user", "t:carol")
    permit = await world.ask(PORTAL)
    assert isinstance(permit, Permit)
    assert permit.principal_id == "anonymous"
    lock(world, "route", "portal", id="lck_2")
    assert (await world.ask(PORTAL)).code == "locked"


async def test_only_its_own_expiry_ends_a_lock_and_to_the_millisecond(world: World) -> None:
    lock(world, "user", "t:carol", expires_at=NOW + 1000)
    lock(world, "session", "ses_1", id="lck_2", expires_at=NOW + 2000)
    for at, locked in ((0, True), (999, True), (1000, True), (1999, True), (2000, False)):
        world.clock.ms = NOW + at
        answer = await world.ask()
        assert (isinstance(answer, Refusal) and answer.code == "locked") is locked, at


async def test_clocks_that_differ_open_a_door_that_much_apart_and_no_more() -> None:
    ahead, behind = opened(), opened()
    ahead.clock.ms, behind.clock.ms = NOW + 1500, NOW
    for node in (ahead, behind):
        lock(node, "user", "t:carol", expires_at=NOW + 10_000)
    opens = []
    for node in (ahead, behind):
        skew = node.clock.ms - NOW
        for real in range(0, 12_000, 500):
            node.clock.ms = NOW + real + skew
            if isinstance(await node.ask(), Permit):
                opens.append(real)
                break
    assert opens == [8500, 10_000]


async def test_a_lock_that_comes_while_an_assertion_is_signed_is_met(world: World) -> None:
    world.signed = None
    before = world.fetch

    async def fetch(*args: Any) -> Any:
        lock(world, "route", "support")
        return await before(*args)

    world.fetch = fetch  # type: ignore[method-assign]
    assert (await world.ask()).code == "locked"
    world = opened()
    world.signed = None

    async def fetch_user(*args: Any) -> Any:
        lock(world, "user", "t:carol")
        return b"x\r\n"

    world.fetch = fetch_user  # type: ignore[method-assign]
    assert (await world.ask()).code == "locked"


async def test_what_can_not_be_recorded_is_refused_locked_or_not(world: World) -> None:
    lock(world, "user", "t:carol")
    world.audit_fails = True
    assert (await world.ask()).code == "audit-unavailable"


# ------------------------------------------------------------------ sessions that were ended all at once


@pytest.mark.parametrize(
    ("target", "value"), [("user", "t:carol"), ("device", "dev_1"), ("session", "ses_1")]
)
async def test_one_record_ends_all_sessions_that_began_before(target: str, value: str) -> None:
    world = opened(PEOPLE)
    permit = await world.ask()
    standing = Standing(target=target, value=value, ended_before=NOW)
    world.put("standing", key_of(target, value), standing)
    assert isinstance(await world.ask(), Permit), "one that began just then is none that began before"
    world.put("standing", key_of(target, value), replace(standing, ended_before=NOW + 1))
    assert world.access.reconsider(permit, world.clock.now()) == "session-ended"
    assert (await world.ask()).code == "session-ended"
    assert isinstance(await world.ask(SUPPORT, handle=OTHER), Permit), "nobody else's"
    world.put("session", "ses_1", replace(SESSION, created_at=NOW + 1))
    assert isinstance(await world.ask(), Permit), "who signed in again is in"


async def test_a_standing_is_of_its_own_kind_only(world: World) -> None:
    for target, value in (
        ("workload", "t:carol"),
        ("user", "ses_1"),
        ("device", "t:carol"),
        ("user", "T:CAROL"),
    ):
        world.put(
            "standing", key_of(target, value), Standing(target=target, value=value, ended_before=NOW + 1)
        )
    assert isinstance(await world.ask(), Permit)


# ------------------------------------------------------------------ what signals say, in policies and records

WARY = """
@id("wary") permit (principal, action, resource)
when { principal is User && principal.risk != "high" && principal.session.risk != "high"
  && principal has device && principal.device.compliance != "not-compliant" && principal.device.risk == "" };
@id("calm") permit (principal is Workload, action, resource) when { principal.risk != "high" };
"""


@pytest.mark.parametrize(
    ("target", "value", "changes", "recorded"),
    [
        ("user", "t:carol", {"risk": "high", "risk_at": NOW}, "risk=high"),
        ("session", "ses_1", {"risk": "high", "risk_at": NOW}, "session.risk=high"),
        ("device", "dev_1", {"risk": "low", "risk_at": NOW}, "device.risk=low"),
        (
            "device",
            "dev_1",
            {"compliance": "not-compliant", "compliance_at": NOW},
            "device.compliance=not-compliant",
        ),
    ],
)
async def test_policies_weigh_what_signals_say(
    target: str, value: str, changes: dict[str, Any], recorded: str
) -> None:
    world = opened(WARY)
    permit = await world.ask()
    assert isinstance(permit, Permit)
    assert world.records[-1].standing == ()
    world.put("standing", key_of(target, value), Standing(target=target, value=value, **changes))
    assert world.access.reconsider(permit, world.clock.now()) == "access-denied"
    assert (await world.ask()).code == "access-denied"
    assert world.records[-1].standing == (recorded,)
    assert world.records[-1].code == "access-denied"


async def test_a_workload_has_a_risk_too() -> None:
    world = opened(WARY)
    assert isinstance(await world.ask(STATUS, certificate=WORKLOAD), Permit)
    standing = Standing(target="workload", value="spiffe://t/ci", risk="high", risk_at=NOW)
    world.put("standing", key_of("workload", "spiffe://t/ci"), standing)
    assert isinstance(await world.ask(STATUS, certificate=WORKLOAD), Refusal)
    assert world.records[-1].standing == ("risk=high",)


async def test_a_workload_is_not_believed_by_news_that_are_too_old() -> None:
    world = opened(WARY)
    world.clock.seconds += 10.1
    assert (await world.ask(STATUS, certificate=WORKLOAD)).code == "facts-unavailable"


async def test_facts_are_made_once_and_serve_on_when_others_are_locked(world: World) -> None:
    await world.ask()
    caller = world.access._gatherer.gather(Evidence(handle=DIGEST), "support.test", NOW)
    assert world.access._gatherer.gather(Evidence(handle=DIGEST), "support.test", NOW) is caller
    subject = world.access._known(caller).subject
    lock(world, "user", "t:alice")
    again = world.access._gatherer.gather(Evidence(handle=DIGEST), "support.test", NOW)
    assert again is not caller
    assert world.access._known(again).subject is subject
    assert world.access._gatherer.gather(Evidence(handle=DIGEST), "support.test", NOW) is again


# ------------------------------------------------------------------ whatever policies there are


CONDITIONS = [
    "principal has device",
    "!(principal has device)",
    'context.protocol == "websocket"',
    'context.path like "/a*"',
    'principal.risk == ""',
    'principal.session.provider == "t"',
    "context.local.hour >= 1 && context.local.hour < 13",
]
SCOPES = [
    "principal",
    "principal is User",
    'principal == User::"t:carol"',
    'principal in Group::"contractors"',
]
policies_ = st.lists(
    st.tuples(
        st.sampled_from(["permit", "permit", "permit", "forbid"]),
        st.sampled_from(SCOPES[1:]),
        st.sampled_from(["action", 'action in Action::"read"', 'action == Action::"GET"']),
        st.sampled_from(["resource", 'resource == Route::"support"']),
        st.lists(st.sampled_from(CONDITIONS), max_size=2),
        st.sampled_from(["when", "unless"]),
    ),
    max_size=5,
)


def text_of(drawn: list[Any]) -> str:
    found = [ANYTHING]
    for number, (effect, who, action, resource, conditions, word) in enumerate(drawn):
        clauses = " ".join(f"{word} {{ {condition} }}" for condition in conditions)
        who = "principal is User" if who.startswith("principal in") else who
        found.append(f'@id("p{number}") {effect} ({who}, {action}, {resource}) {clauses};')
    return "\n".join(found)


def asked(world: World, protocol: str, path: str, route: Route = SUPPORT, **evidence: Any) -> Any:
    context = Context("0" * 32, "192.0.2.1", "support.test", path, protocol)
    request = AccessRequest(Evidence(**evidence), Resource("Route", route.name, route), "GET", context)
    return world.access.authorize(request)


@given(
    drawn=policies_,
    place=st.sampled_from(MINE),
    protocol=st.sampled_from(["http", "websocket"]),
    path=st.sampled_from(["/a", "/b", "/.ztproxy/x"]),
    gone=st.sets(st.sampled_from(["device", "posture", "standing", "source"])),
)
def test_a_lock_outranks_any_policies_and_no_missing_fact_leads_past_it(
    drawn: list[Any], place: tuple[str, str], protocol: str, path: str, gone: set[str]
) -> None:
    world = opened(text_of(drawn))
    lock(world, *place)
    world.put("standing", "user:t:carol", Standing(target="user", value="t:carol", risk="low"))
    for kind in gone:
        key = {"device": "dev_1", "posture": "dev_1", "standing": "user:t:carol", "source": "x"}[kind]
        world.put(kind, key, None)
    answer = asked(world, protocol, path, handle=DIGEST)
    assert isinstance(answer, Refusal)
    assert answer.code == "locked"


@given(drawn=policies_, device=st.booleans(), posture=st.booleans())
def test_a_lock_on_somebody_else_changes_no_answer(drawn: list[Any], device: bool, posture: bool) -> None:
    world = opened(text_of(drawn))
    if not device:
        world.put("device", "dev_1", None)
    if not posture:
        world.put("posture", "dev_1", None)
    before = asked(world, "http", "/a", handle=DIGEST)
    for number, target in enumerate(
        ("user", "session", "device", "route", "issuer", "credential", "workload")
    ):
        lock(world, target, "somebody else", id=f"lck_{number}")
    after = asked(world, "http", "/a", handle=DIGEST)
    assert type(after) is type(before)
    assert after == before if isinstance(before, Refusal) else after.principal_id == before.principal_id
