"""Agents over HTTP: what is answered, and with which code it is refused."""

from typing import Any

import pytest
from aiohttp import ClientResponse

from ztproxy.crypto import posture_document, statements
from ztproxy.crypto.csr import make_request
from ztproxy.crypto.jose import sign, signing_key
from ztproxy.crypto.posture_document import Observation, PostureDocument
from ztproxy.net.keyfiles import new_key

ENROL, POSTURE, RENEW = (f"/.ztproxy/devices/{verb}" for verb in ("enrol", "posture", "renew"))
ORIGIN = "https://portal.example:8443"


async def problem(response: ClientResponse, status: int, code: str) -> None:
    assert response.status == status
    assert response.content_type == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    body = await response.json()
    assert (body["code"], body["type"], body["status"]) == (code, f"urn:ztproxy:problem:{code}", status)


async def test_enrol_report_renew(service: Any) -> None:
    key = new_key()
    code = await service.devices.create_code("laptop", "corp:carol")
    wish = {"code": code, "csr": make_request(key, "x"), "name": "x"}
    response = await service.post(ENROL, json=wish)
    assert response.status == 201 and response.headers["Cache-Control"] == "no-store"
    enrolled = await response.json()
    assert enrolled["portal"] == ORIGIN and enrolled["device"]["name"] == "laptop"
    assert enrolled["certificate"].count("BEGIN CERTIFICATE") == 2
    await problem(await service.post(ENROL, json=wish), 403, "enrolment-code-invalid")

    device = enrolled["device"]["id"]
    signer = signing_key(key, kid=device)
    now = service.clock.now()
    document = PostureDocument(1, "test", "", {"disk": Observation("fail", now // 1000)})
    claims = posture_document.build(document, device, ORIGIN, now, "j")
    report = sign(claims, signer, posture_document.TYPE)
    response = await service.post(POSTURE, data=report)
    assert response.status == 200
    assert await response.json() == {"seq": 1, "healthy": False, "checks": {"disk": "fail"}}
    await problem(await service.post(POSTURE, data=report), 409, "posture-replayed")

    renewal = sign(statements.renewal(device, ORIGIN, now), signer, statements.RENEWAL)
    response = await service.post(RENEW, data=renewal)
    assert response.status == 200 and "BEGIN CERTIFICATE" in (await response.json())["certificate"]
    await service.devices.revoke(device, "dana")
    await problem(await service.post(RENEW, data=renewal), 403, "device-revoked")


async def test_guessing_is_slow(service: Any) -> None:
    wish = {"code": "0000-0000-0000", "csr": make_request(new_key(), "x")}
    for _ in range(5):
        await problem(await service.post(ENROL, json=wish), 403, "enrolment-code-invalid")
    response = await service.post(ENROL, json=wish)
    assert response.headers["Retry-After"] == "60"
    await problem(response, 429, "too-many-requests")
    await problem(await service.post(ENROL, json=wish, ip="203.0.113.8"), 403, "enrolment-code-invalid")
    service.clock.advance(10)
    await problem(await service.post(ENROL, json=wish), 403, "enrolment-code-invalid")
    await problem(await service.post(ENROL, json=wish), 429, "too-many-requests")


async def test_a_right_code_does_not_pass_the_bound(service: Any) -> None:
    code = await service.devices.create_code("laptop")
    wish = {"code": "0000-0000-0000", "csr": make_request(new_key(), "x")}
    for _ in range(5):
        await service.post(ENROL, json=wish)
    await problem(await service.post(ENROL, json={**wish, "code": code}), 429, "too-many-requests")
    assert await service.devices.list() == []


@pytest.mark.parametrize("path", [ENROL, POSTURE, RENEW])
@pytest.mark.parametrize("host", ["app.example:8443", "", "portal.example.evil", "portal.example:x"])
async def test_other_hosts_have_none_of_this(service: Any, path: str, host: str) -> None:
    await problem(await service.post(path, host=host, data="x"), 404, "not-found")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"code":1,"csr":""}',
        b'{"code":"x","code":"y","csr":""}',
        b'{"code":"x","csr":"","further":1}',
        b"\xff",
        b"[" * 3000,
    ],
)
async def test_bad_wishes(service: Any, body: bytes) -> None:
    response = await service.post(ENROL, data=body, content_type="application/json")
    await problem(response, 400, "bad-request")


async def test_bodies_are_bounded_and_typed(service: Any) -> None:
    large = await service.post(ENROL, data=b" " * 6000, content_type="application/json")
    await problem(large, 413, "body-too-large")
    await problem(await service.post(POSTURE, data=b"a" * 16385), 413, "body-too-large")
    for path in (POSTURE, RENEW):
        await problem(await service.post(path, data=b"\xff"), 400, "bad-request")
        await problem(await service.post(path, data=b"a.b.c"), 403, "statement-invalid")
        typed = await service.post(path, data=b"x", content_type="text/plain")
        await problem(typed, 415, "media-type-not-supported")
    typed = await service.post(ENROL, data=b"{}", content_type="text/plain")
    await problem(typed, 415, "media-type-not-supported")


async def test_only_post(service: Any) -> None:
    for path in (ENROL, POSTURE, RENEW):
        assert (await service.client.get(path)).status == 405


async def test_a_closed_store_is_a_503(service: Any) -> None:
    await service.store.close()
    response = await service.post(ENROL, json={"code": "0000-0000-0000", "csr": ""})
    await problem(response, 503, "facts-unavailable")
