"""Pushes (RFC 8935): every event does what it should to whom it should, once; what is forged does nothing."""

import json

import pytest
from aiohttp import web
from caep_transmitter import CAEP, EXAMPLES, RISC, new_rsa

from ztproxy.administrator.sessions import SignInOverdue
from ztproxy.model.subject import Principal
from ztproxy.trust.identity.provider import SignIn

IDP = "https://idp.example"

CAROL = {"format": "iss_sub", "iss": IDP, "sub": "carol"}
LAPTOP = {"format": "opaque", "id": "dev_laptop"}
#: Event -> what becomes of: carol's session, a lock, a standing (target, field).
ENDS = {
    "session-revoked",
    "credential-change",
    "assurance-level-change",
    "risk-level-change",
    "account-credential-change-required",
    "account-purged",
    "account-disabled",
    "identifier-recycled",
    "credential-compromise",
    "recovery-activated",
    "sessions-revoked",
}
RECHECKS = {"token-claims-change", "identifier-changed", "recovery-information-changed"}


async def test_every_event_does_what_it_should(node, transmitter):
    for number, uri in enumerate(EXAMPLES):
        name = uri.rpartition("/")[2]
        who = f"person{number}"
        session = await node.sign_in(who, email="")
        subject = {"format": "complex", "user": {**CAROL, "sub": who}, "device": LAPTOP}
        simple = LAPTOP if name == "device-compliance-change" else {**CAROL, "sub": who}
        assert await node.push(transmitter.make(uri, simple if number % 2 else subject)) == (202, None)
        assert await node.ended(session) == (name in ENDS), name
        standing = await node.standings.get("user", f"corp:{who}")
        assert bool(standing and standing.recheck_after) == (name in RECHECKS), name
        locked = [lock.value for lock in await node.locks.list()]
        assert (f"corp:{who}" in locked) == (name in ("account-disabled", "account-purged")), name
        if name == "risk-level-change":
            assert (standing.risk, standing.risk_reason) == ("high", "PASSWORD_FOUND_IN_DATA_BREACH")
    device = await node.standings.get("device", "dev_laptop")
    assert device.compliance == "not-compliant" and device.ended_before


async def test_a_token_that_comes_again_is_acknowledged_and_does_nothing(node, transmitter):
    token = transmitter.make(CAEP + "session-revoked", CAROL)
    assert (await node.push(token))[0] == 202
    again = await node.sign_in()
    assert (await node.push(token))[0] == 202
    assert not await node.ended(again)
    assert node.outcomes() == ["done"]


async def test_account_enabled_unlocks_what_the_same_source_locked_and_old_news_change_nothing(
    node, transmitter
):
    ours = await node.locks.add("user", "corp:carol", "by hand", "dave")
    now = transmitter.now()
    disabled, enabled = RISC + "account-disabled", RISC + "account-enabled"
    await node.push(transmitter.make(disabled, CAROL, {"event_timestamp": now - 20}))
    assert {lock.set_by for lock in await node.locks.list()} == {"dave", "signals:tx"}
    await node.push(transmitter.make(enabled, CAROL, {"event_timestamp": now - 10}))
    assert [lock.id for lock in await node.locks.list()] == [ours.id]
    await node.push(transmitter.make(disabled, CAROL, {"event_timestamp": now - 15}))
    assert [lock.id for lock in await node.locks.list()] == [ours.id]
    assert node.outcomes()[-1] == "overtaken"


async def test_a_session_is_found_by_the_name_its_provider_gave_it(node, transmitter):
    one, two = await node.sign_in(sid="s1"), await node.sign_in(sid="s2")
    unnamed = await node.sign_in()
    session = {"format": "opaque", "id": "s1"}
    subject = {"format": "complex", "user": CAROL, "session": session}
    await node.push(transmitter.make(CAEP + "session-revoked", subject))
    # Of a session without a name nobody can say that it is another one: undefined matches.
    assert [await node.ended(one) for one in (one, two, unnamed)] == [True, False, True]
    three = await node.sign_in(sid="s3")
    await node.push(transmitter.make(CAEP + "session-revoked", {"format": "opaque", "id": "s3"}))
    assert await node.ended(three) and not await node.ended(two)


async def test_a_session_that_is_only_about_to_begin_is_found_as_well(node, transmitter):
    """By the name its provider gave it, or with its person: whoever is signing in has to begin again."""
    now = node.clock.now() - 1_000
    signed_in = {
        name: SignIn(
            Principal(kind="User", id=f"corp:{person}", issuer=IDP, name=person),
            "corp",
            now,
            sid=name,
            began=now,
            asked_at=now,
        )
        for name, person in (("s1", "carol"), ("s2", "carol"), ("s3", "bob"), ("s4", "dave"))
    }
    session = {"format": "opaque", "id": "s3"}
    await node.push(transmitter.make(CAEP + "session-revoked", session))
    named = {"format": "complex", "user": CAROL, "session": {"format": "opaque", "id": "s1"}}
    await node.push(transmitter.make(CAEP + "session-revoked", named))
    for name in ("s1", "s2", "s3"):
        with pytest.raises(SignInOverdue):
            await node.sessions.start(signed_in[name])
    assert await node.sessions.start(signed_in["s4"])


async def test_subjects_by_email_device_and_name(make_node, transmitter):
    node = await make_node(device_names=True)
    carol, bob = await node.sign_in(device="dev_laptop"), await node.sign_in("bob", email="bob@corp.example")
    await node.push(
        transmitter.make(CAEP + "session-revoked", {"format": "email", "email": "BOB@corp.example"})
    )
    assert await node.ended(bob) and not await node.ended(carol)
    other = {"format": "complex", "user": CAROL, "device": {"format": "opaque", "id": "dev_phone"}}
    await node.push(transmitter.make(CAEP + "session-revoked", other))
    assert not await node.ended(carol)
    serial = {"format": "complex", "device": {"format": "opaque", "id": "SERIAL-7"}}
    await node.push(transmitter.make(CAEP + "device-compliance-change", serial))
    assert (await node.standings.get("device", "dev_phone")).compliance == "not-compliant"
    spiffe = {"format": "uri", "uri": "spiffe://corp.example/device/dev_laptop"}
    good = {"current_status": "compliant", "previous_status": "not-compliant"}
    await node.push(transmitter.make(CAEP + "device-compliance-change", spiffe, good))
    device = await node.standings.get("device", "dev_laptop")
    assert device.compliance == "compliant" and not device.ended_before


async def test_a_transmitter_reaches_nobody_else(make_node, transmitter):
    node = await make_node(providers=("partner",))
    carol = await node.sign_in(sid="s1")
    email = {"format": "email", "email": "carol@corp.example"}
    for subject in (CAROL, email, {"format": "opaque", "id": "s1"}):
        assert (await node.push(transmitter.make(CAEP + "session-revoked", subject)))[0] == 202
    strange = {"format": "iss_sub", "iss": "https://other.example", "sub": "carol"}
    await node.push(transmitter.make(RISC + "account-disabled", strange))
    assert not await node.ended(carol) and not await node.locks.list()
    assert set(node.outcomes()) == {"unmatched"}


async def test_what_is_configured_goes_before_the_default(make_node, transmitter):
    actions = {"session-revoked": (), "risk-level-change": ("note",), "opt-in": ("lock",)}
    node = await make_node(actions=actions)
    carol = await node.sign_in()
    await node.push(transmitter.make(CAEP + "session-revoked", CAROL))
    await node.push(transmitter.make(CAEP + "risk-level-change", CAROL))
    assert not await node.ended(carol)
    assert (await node.standings.get("user", "corp:carol")).risk == "high"
    await node.push(transmitter.make(RISC + "opt-in", CAROL))
    assert [lock.value for lock in await node.locks.list()] == ["corp:carol"]


async def test_a_critical_member_that_nobody_here_understands_discards_the_event(node, transmitter):
    carol = await node.sign_in()
    tenant = {"format": "complex", "user": CAROL, "tenant": {"format": "opaque", "id": "t1"}}
    assert (await node.push(transmitter.make(CAEP + "session-revoked", tenant)))[0] == 202
    assert not await node.ended(carol) and node.outcomes() == ["discarded"]


async def refused(node, token, err, **headers):
    status, body = await node.push(token, **headers)
    assert (status, body["err"]) == (400, err), body
    assert set(body) == {"err", "description"} and body["description"]


async def test_what_is_not_genuine_is_refused_with_the_codes_of_the_rfc(node, transmitter):
    carol = await node.sign_in()
    event = CAEP + "session-revoked"
    claims = transmitter.claims(event, {}, CAROL)
    raw = json.dumps(claims)
    await refused(node, transmitter.sign(claims, key=new_rsa()), "invalid_key")
    await refused(node, transmitter.hmac_with_public_key(claims), "invalid_key")
    await refused(node, transmitter.unsigned(claims), "invalid_request")
    await refused(node, transmitter.make(event, CAROL, iss="https://evil.example"), "invalid_issuer")
    await refused(node, transmitter.make(event, CAROL, aud="https://evil.example"), "invalid_audience")
    await refused(node, transmitter.sign(claims, header={"typ": "JWT"}), "invalid_request")
    await refused(node, transmitter.sign(claims, header={"crit": ["b64"], "b64": True}), "invalid_request")
    await refused(node, transmitter.sign(None, raw=raw[:-1] + ',"jti":"2"}'), "invalid_request")
    await refused(node, transmitter.make(event, CAROL, exp=2_000_000_000), "invalid_request")
    await refused(node, "x" * 40_000, "invalid_request")
    await refused(node, "ü", "invalid_request")
    await refused(node, "", "invalid_request")
    good = transmitter.sign(claims)
    await refused(node, good, "invalid_request", **{"Content-Type": "application/jwt"})
    await refused(node, good, "authentication_failed", Authorization="Bearer else")
    await refused(node, good, "authentication_failed", Authorization="")
    status, _ = await transmitter.push(good, node.url)
    assert status == 400
    assert not await node.ended(carol) and not node.outcomes()
    assert (await node.push(good))[0] == 202 and await node.ended(carol)


async def test_only_on_the_portal_and_only_known_names(node, transmitter):
    token = transmitter.make(CAEP + "session-revoked", CAROL)
    assert (await node.push(token, **{"Zt-Host": "app.example"}))[0] == 404
    node.url += "2"
    assert (await node.push(token))[0] == 404


async def test_keys_that_are_not_to_be_had_are_no_reason_to_lose_the_event(node, transmitter):
    async def away(_):
        return web.Response(status=500)

    transmitter.answers["/jwks"] = away
    status, _ = await node.push(transmitter.make(CAEP + "session-revoked", CAROL))
    assert status == 503


STRANGE = [{"current_level": ["HIGH"]}, {"principal": {"a": 1}}, {"change_type": []}, {"current_status": {}}]


@pytest.mark.parametrize("members", STRANGE)
async def test_members_of_other_types_do_no_harm(node, transmitter, members):
    for name in ("risk-level-change", "credential-change", "device-compliance-change"):
        assert (await node.push(transmitter.make(CAEP + name, CAROL, members)))[0] == 202


async def test_news_that_overtakes_while_an_account_is_unlocked_keeps_it_locked(node, transmitter):
    """Two nodes, or two requests: the older word has looked at the locks when the later one comes."""
    now, enabled, disabled = transmitter.now(), RISC + "account-enabled", RISC + "account-disabled"
    await node.push(transmitter.make(disabled, CAROL, {"event_timestamp": now - 20}))
    look, later = node.locks.list, []

    async def list_and_wait():
        found = await look()
        if not later:
            later.append(transmitter.make(disabled, CAROL, {"event_timestamp": now - 5}))
            assert (await node.push(later[0]))[0] == 202
        return found

    node.locks.list = list_and_wait
    assert (await node.push(transmitter.make(enabled, CAROL, {"event_timestamp": now - 10})))[0] == 202
    assert later and [lock.value for lock in await look()] == ["corp:carol"]
    await node.push(transmitter.make(enabled, CAROL, {"event_timestamp": now}))
    assert not await look()


async def test_sessions_end_also_when_there_is_no_room_for_a_lock(node, transmitter, monkeypatch):
    session, disabled = await node.sign_in(), RISC + "account-disabled"
    monkeypatch.setattr("ztproxy.administrator.locks.MOST", 0)
    token = transmitter.make(disabled, CAROL)
    assert (await node.push(token))[0] == 503  # it has to come again
    assert await node.ended(session)
    monkeypatch.undo()
    assert (await node.push(token))[0] == 202
    assert [lock.value for lock in await node.locks.list()] == ["corp:carol"]


async def test_a_name_that_nobody_can_have_does_no_harm(node, transmitter):
    workload = {"format": "uri", "uri": "spiffe://corp.example/" + "w" * 1500}
    assert (await node.push(transmitter.make(CAEP + "risk-level-change", workload)))[0] == 202
    assert node.outcomes() == ["unmatched"]


async def test_events_are_taken_in_while_discovery_is_away(node, transmitter, monkeypatch):
    assert (await node.push(transmitter.make(CAEP + "session-revoked", CAROL)))[0] == 202
    monkeypatch.setattr("ztproxy.trust.signals.remote._FRESH", -1.0)

    async def away(_):
        return web.Response(status=503)

    transmitter.answers["/.well-known/ssf-configuration"] = away
    session = await node.sign_in()
    assert (await node.push(transmitter.make(CAEP + "session-revoked", CAROL)))[0] == 202
    assert await node.ended(session)
