"""The device check: who may ask for a challenge, which proofs count, and what a certificate saves."""

import asyncio
import json
import re

import pytest

from ztproxy.portal import app

ORIGIN = "https://portal.example:8443"
APP = "https://support.example:8443"
NONCE, PROOF = f"{ORIGIN}/.ztproxy/device/nonce", f"{ORIGIN}/.ztproxy/device/proof"


async def only_session(world):
    (session,) = await world.sessions.list()
    return session


async def test_a_proof_binds_the_device_to_the_session(world, browser):
    device, prove = await world.enrol("corp:carol")
    await browser.sign_in()
    page = await browser.prove(prove)
    assert page.status == 200
    assert json.loads(page.text) == {"name": "laptop", "reported": False, "healthy": False, "wanting": []}
    session = await only_session(world)
    assert (session.device_id, session.device_proved_at) == (device.id, world.clock.now())
    world.clock.advance(60)
    assert (await browser.prove(prove)).status == 200
    assert (await only_session(world)).device_proved_at == world.clock.now()


async def test_a_nonce_is_used_once(world, browser):
    _, prove = await world.enrol()
    await browser.sign_in()
    challenge = json.loads((await browser.challenge()).text)
    body = {"nonce": challenge["nonce"], "proof": prove(challenge)}
    assert (await browser.post(PROOF, json=body)).status == 200
    again = await browser.post(PROOF, json=body)
    assert (again.status, json.loads(again.text)["code"]) == (403, "device-proof-expired")


async def test_a_proof_may_come_in_pieces(world, browser):
    device, prove = await world.enrol()
    await browser.sign_in()
    challenge = json.loads((await browser.challenge()).text)
    body = json.dumps({"nonce": challenge["nonce"], "proof": prove(challenge)}).encode()

    async def pieces():
        for at in range(0, len(body), 100):
            yield body[at : at + 100]
            await asyncio.sleep(0.01)

    fields = {"Content-Type": "application/json", "Origin": ORIGIN}
    page = await browser.go("POST", PROOF, data=pieces(), headers=fields)
    assert page.status == 200
    assert (await only_session(world)).device_id == device.id


async def test_a_body_that_never_ends_ends_the_request(world, browser, monkeypatch):
    monkeypatch.setattr(app, "_LONGEST", 0.3)
    await browser.sign_in()

    async def drops():
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    fields = {"Content-Type": "application/json", "Origin": ORIGIN, "Accept": "application/json"}
    async with asyncio.timeout(5):
        page = await browser.go("POST", PROOF, data=drops(), headers=fields)
    assert (page.status, json.loads(page.text)["code"]) == (408, "request-timeout")


async def test_a_nonce_of_another_session_is_worth_nothing(world, browser, new_browser):
    _, prove = await world.enrol()
    await browser.sign_in()
    other = new_browser(world)
    await other.sign_in()
    challenge = json.loads((await other.challenge()).text)
    page = await browser.post(PROOF, json={"nonce": challenge["nonce"], "proof": prove(challenge)})
    assert page.status == 403
    assert all(not session.device_id for session in await world.sessions.list())


async def test_a_nonce_expires(world, browser):
    _, prove = await world.enrol()
    await browser.sign_in()
    challenge = json.loads((await browser.challenge()).text)
    world.clock.advance(121)
    page = await browser.post(PROOF, json={"nonce": challenge["nonce"], "proof": prove(challenge)})
    assert page.status == 403


@pytest.mark.parametrize(
    "changes", [{"aud": "https://evil.example"}, {"nonce": "x" * 43}, {"exp": 1}, {"iss": "dev_" + "a" * 26}]
)
async def test_proofs_that_are_not_believed(world, browser, changes):
    _, prove = await world.enrol()
    await browser.sign_in()
    page = await browser.prove(prove, **changes)
    assert (page.status, json.loads(page.text)["code"]) == (403, "device-proof-refused")
    assert not (await only_session(world)).device_id


async def test_a_revoked_device_proves_nothing(world, browser):
    device, prove = await world.enrol()
    await browser.sign_in()
    await world.devices.revoke(device.id, "ada")
    assert (await browser.prove(prove)).status == 403


async def test_somebody_elses_device_is_refused(world, browser):
    _, prove = await world.enrol("corp:dave")
    await browser.sign_in()
    assert (await browser.prove(prove)).status == 403
    assert not (await only_session(world)).device_id


async def test_a_session_keeps_its_device(world, browser):
    first, prove_first = await world.enrol()
    _, prove_second = await world.enrol()
    await browser.sign_in()
    await browser.prove(prove_first)
    page = await browser.prove(prove_second)
    assert (page.status, json.loads(page.text)["code"]) == (403, "device-mismatch")
    assert (await only_session(world)).device_id == first.id


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Origin": "https://support.example:8443"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content_Type": "text/plain"}, 415),
    ],
)
@pytest.mark.parametrize("url", [NONCE, PROOF])
async def test_other_pages_cannot_use_the_check(world, browser, url, headers, status):
    await browser.sign_in()
    page = await browser.post(url, data=b"{}", **{"Content_Type": "application/json"} | headers)
    assert page.status == status


async def test_without_a_session_there_is_no_challenge(world, browser):
    page = await browser.post(NONCE, json={})
    assert page.status == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"nonce": 1, "proof": ""}', 400),
        (b'{"nonce": "a"}', 400),
        (b'{"nonce": "a", "proof": "b", "more": 1}', 400),
        (b"\xff", 400),
        (b'{"nonce": "a", "proof": "' + b"x" * 17_000 + b'"}', 413),
        (b"[" * 10_000, 400),
    ],
)
async def test_bodies_that_are_not_read(world, browser, body, status):
    await browser.sign_in()
    page = await browser.post(PROOF, data=body, Content_Type="application/json", Accept="application/json")
    assert page.status == status
    assert page.headers["Content-Type"] == "application/problem+json"


async def test_challenges_are_bounded(world, browser):
    await browser.sign_in()
    for _ in range(120):
        assert (await browser.challenge()).status == 200
    assert (await browser.challenge()).status == 503


async def test_the_page_may_reach_the_agent_and_nothing_else(world, browser):
    page = await browser.get(f"{APP}/x")
    assert page.path == "/.ztproxy/device"
    policy = page.headers["Content-Security-Policy"]
    assert "connect-src 'self' http://127.0.0.1:7643;" in policy
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]* src=)", page.text) and "onclick" not in page.text
    assert 'data-first="1"' in page.text


async def test_a_check_asked_for_by_an_application_leads_back_to_it(world, browser):
    await browser.sign_in(f"{APP}/")
    page = await browser.get(f"{APP}/.ztproxy/device?rd=/tickets/7")
    assert page.path == "/.ztproxy/device" and page.url.startswith(ORIGIN)
    assert browser.onward(page) == f"{APP}/tickets/7"
    assert 'data-first=""' in page.text


async def test_a_check_without_a_session_signs_in_first(world, browser):
    page = await browser.get(f"{APP}/.ztproxy/device?rd=/tickets/7")
    assert page.path == "/.ztproxy/device" and 'data-first="1"' in page.text
    assert (await browser.get(browser.onward(page))).url == f"{APP}/tickets/7"


# certificates


async def test_a_device_certificate_binds_at_once(world, new_browser):
    device, _ = await world.enrol("corp:carol")
    browser = new_browser(world, certificate=world.certificate(device))
    page = await browser.get(f"{APP}/x")
    assert page.url == f"{APP}/x", "no check needed"
    assert (await only_session(world)).device_id == device.id


@pytest.mark.parametrize(
    "changes", [{"kind": "workload"}, {"spki": "0" * 64}, {"subject": "spiffe://corp.example/device/dev_x"}]
)
async def test_certificates_that_are_not_the_devices(world, new_browser, changes):
    device, _ = await world.enrol()
    browser = new_browser(world, certificate=world.certificate(device, **changes))
    assert (await browser.get(f"{APP}/x")).path == "/.ztproxy/device"
    assert not (await only_session(world)).device_id


async def test_certificates_of_revoked_or_foreign_devices(world, new_browser):
    revoked, _ = await world.enrol()
    await world.devices.revoke(revoked.id, "ada")
    foreign, _ = await world.enrol("corp:dave")
    for device in (revoked, foreign):
        await new_browser(world, certificate=world.certificate(device)).sign_in()
    assert [session.device_id for session in await world.sessions.list()] == ["", ""]


async def test_a_certificate_that_cannot_be_read_is_refused(world, browser):
    for text in ("!!!", "e30", "Zm9v"):
        page = await browser.get(f"{ORIGIN}/", **{"Zt-Certificate": text})
        assert page.status == 400
