"""The one door: who gets a permit, who gets which refusal, and that nothing passes unrecorded."""

import hashlib
from contextlib import suppress
from typing import Any

import pytest
from door_fakes import (
    CAROL,
    DIGEST,
    NOW,
    PORTAL,
    POSTURE,
    SESSION,
    STAMPS,
    STATUS,
    SUPPORT,
    WORKLOAD,
    World,
)
from msgspec.structs import replace

from ztproxy.model._seal import Seal
from ztproxy.model.changes import Changes, RequestFields, Stamp
from ztproxy.model.decision import Refusal
from ztproxy.model.durations import milliseconds
from ztproxy.model.permit import Permit
from ztproxy.model.request import Peer, TlsFacts
from ztproxy.model.route import Route
from ztproxy.model.subject import Handle, Posture
from ztproxy.trust.caller import Caller
from ztproxy.trust.gather import told_after


@pytest.fixture
def world() -> World:
    return World()


async def test_a_permit_carries_what_was_decided_and_is_recorded_first(world: World) -> None:
    permit = await world.ask()
    assert isinstance(permit, Permit)
    assert (permit.route, permit.session_id, permit.device_id, permit.handle) == (
        SUPPORT,
        "ses_1",
        "dev_1",
        DIGEST,
    )
    assert permit.identity == b"Zt-Assertion: x\r\n"
    assert permit.expires_at == NOW + 600_000, "@maxsession ends the path before the session would"
    assert not world.was_cold
    (record,) = world.records
    assert (record.allow, record.policies, record.principal) == (True, ("support",), "User::t:carol")
    assert (record.posture, record.posture_age, record.device_proof_age) == ("healthy", 0, 0)
    assert (record.resource, record.action, record.path) == ("Route::support", "GET", "/a")


async def test_nothing_passes_unrecorded(world: World) -> None:
    world.audit_fails = True
    refusal = await world.ask()
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status) == ("audit-unavailable", 503)
    refusal = await world.ask(STATUS)
    assert refusal.code == "audit-unavailable", "not even a refusal is served unrecorded"


@pytest.mark.parametrize(
    ("posture", "code"),
    [
        (None, "device-posture-missing"),
        (replace(POSTURE, healthy=False), "device-posture-unhealthy"),
        (replace(POSTURE, reported_at=NOW - 61_000), "device-posture-stale"),
    ],
    ids=["missing", "failing", "stale"],
)
async def test_what_is_wrong_with_a_device_has_its_own_code(
    world: World, posture: Posture | None, code: str
) -> None:
    world.put("posture", "dev_1", posture)
    refusal = await world.ask()
    assert (refusal.code, refusal.status) == (code, 403)
    assert refusal.remedies
    assert "support" not in refusal.reason.lower(), "the name of a policy stays inside"
    assert world.records[-1].code == code
    assert any(miss.startswith("support:") for miss in world.records[-1].near_misses)
    world.put("posture", "dev_1", POSTURE)
    assert isinstance(await world.ask(), Permit), "and is let in again at once"


async def test_no_device_and_an_old_proof(world: World) -> None:
    world.put("session", "ses_1", replace(SESSION, device_proved_at=NOW - 3_600_001))
    assert (await world.ask()).code == "device-check-required"
    world.put("session", "ses_1", replace(SESSION, device_id="", device_proved_at=0))
    assert (await world.ask()).code == "device-required"


async def test_nobody_is_asked_to_sign_in_and_learns_nothing(world: World) -> None:
    for target in (SUPPORT, STATUS, None):
        refusal = await world.ask(target, handle=None)
        assert (refusal.code, refusal.status, refusal.remedies) == ("login-required", 401, ("sign-in",))


async def test_a_known_person_gets_the_same_answer_for_forbidden_and_unknown(world: World) -> None:
    world.put("handle", DIGEST, Handle(session_id="ses_1", host="status.test", created_at=NOW))
    forbidden = await world.ask(STATUS)
    world.put("handle", DIGEST, Handle(session_id="ses_1", host="x.test", created_at=NOW))
    unknown = await world.ask(None)
    assert forbidden == unknown
    assert forbidden.code == "access-denied"


async def test_an_alert_is_told_at_each_use(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.ask(SUPPORT, certificate=WORKLOAD)
    assert not caplog.records
    await world.ask(STATUS, certificate=WORKLOAD)
    (told,) = caplog.records
    assert (told.levelname, told.alert, told.principal) == ("WARNING", "pipeline-seen", "spiffe://t/ci")  # type: ignore[attr-defined]


async def test_a_workload_reaches_its_one_route(world: World) -> None:
    permit = await world.ask(STATUS, certificate=WORKLOAD)
    assert isinstance(permit, Permit)
    assert (permit.principal_id, permit.session_id) == ("spiffe://t/ci", "")
    assert permit.expires_at == WORKLOAD.not_after
    assert (await world.ask(SUPPORT, certificate=WORKLOAD)).code == "access-denied"
    assert (await world.ask(STATUS, action="POST", certificate=WORKLOAD)).code == "access-denied"
    assert (await world.ask(STATUS, certificate=WORKLOAD, handle=DIGEST)).code == "credentials-conflict"


async def test_a_fresh_login_is_heard_of_before_it_is_refused(world: World) -> None:
    fresh = "f" * 43
    digest = hashlib.sha256(fresh.encode()).hexdigest()
    world.coming = [("handle", digest, Handle(session_id="ses_1", host="support.test", created_at=NOW))]
    assert isinstance(await world.ask(handle=digest), Permit)
    assert world.was_cold
    assert (await world.ask(handle="g" * 43)).code == "session-ended"
    world.heard = False
    assert (await world.ask(handle="g" * 43)).code == "facts-unavailable"


async def test_the_portal_is_there_for_whom_nobody_knows(world: World) -> None:
    for evidence in ({"handle": None}, {"handle": "g" * 43}):
        permit = await world.ask(PORTAL, **evidence)
        assert isinstance(permit, Permit)
        assert permit.session_id == ""
    world.clock.seconds += 60
    assert isinstance(await world.ask(PORTAL), Permit), "also while the feed is silent"
    assert (await world.ask()).code == "facts-unavailable"


async def test_an_assertion_is_fetched_once_and_without_one_nothing_goes(world: World) -> None:
    world.signed = None
    permit = await world.ask()
    assert world.was_cold
    assert permit.identity == b"Zt-Assertion: fetched\r\n"
    world.fetched = None
    assert (await world.ask()).code == "facts-unavailable"
    assert [record.allow for record in world.records] == [True, False]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("session", "ses_1", None), "session-ended"),
        (("handle", DIGEST, None), "session-ended"),
        (("posture", "dev_1", replace(POSTURE, healthy=False)), "device-posture-unhealthy"),
    ],
)
async def test_what_changes_while_an_assertion_is_signed_counts(
    world: World, change: tuple[str, str, Any], code: str
) -> None:
    async def fetch(caller: Caller, route: Route, now: int) -> bytes:
        world.put(*change)
        return b"Zt-Assertion: fetched\r\n"

    world.signed = None
    world.fetch = fetch  # type: ignore[method-assign]
    answer = await world.ask()
    assert isinstance(answer, Refusal)
    assert answer.code == code
    assert [record.allow for record in world.records] == [False]


async def test_a_live_path_is_decided_by_the_facts_of_now(world: World) -> None:
    permit = await world.ask()
    assert world.access.reconsider(permit, world.clock.now()) == ""
    world.put("posture", "dev_1", replace(POSTURE, healthy=False))
    assert world.access.reconsider(permit, world.clock.now()) == "device-posture-unhealthy"
    world.put("posture", "dev_1", POSTURE)
    world.put("session", "ses_1", replace(SESSION, ended_at=NOW))
    assert world.access.reconsider(permit, world.clock.now()) == "session-ended"
    world.put("handle", DIGEST, None)
    assert world.access.reconsider(permit, world.clock.now()) == "session-ended"
    assert len(world.records) == 1, "deciding again is no new request"


async def test_use_is_reported_rarely(world: World) -> None:
    session = replace(SESSION, idle_limit=120_000)
    world.put("session", "ses_1", session)
    await world.ask()
    assert world.touched == []
    world.clock.ms += told_after(session.idle_limit) + 10_000
    await world.ask()
    await world.ask()
    assert world.touched == ["ses_1"]


async def test_permits_cannot_be_made_by_hand(world: World) -> None:
    permit = await world.ask()
    fields = dict(zip(Permit.FIELDS, permit.values(), strict=True))
    assert all(line not in repr(permit) for line in permit.identity.decode().splitlines()), (
        "a log may show it"
    )
    with pytest.raises(TypeError):
        permit.replaced(principal_id="t:root")
    for seal in ({}, {"seal": None}, {"seal": Seal()}):
        with pytest.raises(TypeError):
            Permit(**fields, **seal)
    with suppress(TypeError):  # the compiled one passes over it
        permit.__init__(**{**fields, "principal_id": "t:root"}, seal=None)
    with pytest.raises(AttributeError):
        permit.principal_id = "t:root"
    with pytest.raises(AttributeError):
        del permit.principal_id
    assert permit.principal_id == "t:carol"


@pytest.mark.parametrize("name", Permit.FIELDS)
def test_nothing_is_a_permit_that_was_not_minted(name: str) -> None:
    with suppress(TypeError):  # there is no blank one of the compiled class
        blank = Permit.__new__(Permit)
        with pytest.raises(AttributeError):
            setattr(blank, name, "t:root")
        with pytest.raises(AttributeError):
            getattr(blank, name)
    with pytest.raises(TypeError):
        type("Forged", (Permit,), {"__init__": lambda self: None, name: "t:root"})()


async def test_refusals_before_policy_are_recorded_too(world: World) -> None:
    peer = Peer(ip="127.0.0.9", port=1, tls=TlsFacts(version="TLSv1.3", sni="x.test"))
    world.access.refuse(None, peer, Refusal("bad-request", 400, "1" * 32, detail="two-hosts"))
    record = world.records[-1]
    assert (record.decided, record.code, record.ip) == ("refused", "bad-request", "127.0.0.9")
    assert record.detail == "two-hosts"


def test_durations_of_obligations_only_close_doors() -> None:
    assert milliseconds("30m") == 1_800_000
    assert milliseconds("1h") == 3_600_000
    for typo in ("soon", "", "30", "m", "1h30m", "-1m", " 1m", "1m\n", "1234567890s", "²m"):
        assert milliseconds(typo) == 0


async def test_fields_of_the_route_go_with_the_permit() -> None:
    world = World()
    stamped = SUPPORT.replaced(changes=Changes(request=STAMPS))
    permit = await world.ask(stamped)
    assert permit.identity == b"Zt-Assertion: x\r\nX-User: t:carol in support\r\n"
    world.signed = None
    permit = await world.ask(stamped)
    assert permit.identity == b"Zt-Assertion: fetched\r\nX-User: t:carol in support\r\n"


async def test_a_value_too_long_for_any_upstream_is_a_refusal_on_record() -> None:
    world = World()
    groups = Changes(request=RequestFields((Stamp("X-Groups", ("", "principal.groups", "")),)))
    many = ("contractors", *(f"group-{number:06d}" for number in range(900)))
    world.put("session", "ses_1", replace(SESSION, principal=replace(CAROL, groups=many)))
    refusal = await world.ask(SUPPORT.replaced(changes=groups))
    assert isinstance(refusal, Refusal) and refusal.code == "head-too-large"
    assert [(record.allow, record.code) for record in world.records] == [(False, "head-too-large")]


async def test_what_records_say_of_a_resource_is_not_said_of_another_request(world: World) -> None:
    asked = (await world.ask()).request
    for _ in range(3):
        for protocol, action in (("websocket", "GET"), ("http", "GET"), ("http", "POST")):
            context = asked.context.replaced(protocol=protocol)
            permit = world.access.authorize(asked.replaced(action=action, context=context))
            assert isinstance(permit, Permit)
            assert (world.records[-1].protocol, world.records[-1].action) == (protocol, action)
