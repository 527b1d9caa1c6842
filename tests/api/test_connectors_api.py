"""Connectors over HTTP: what they and administrators are answered, and with which code they are refused."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from ztproxy.administrator.connectors import Connectors
from ztproxy.administrator.issue import CONNECTORS, load_authority
from ztproxy.api import admin
from ztproxy.api import connectors as api
from ztproxy.crypto import statements
from ztproxy.crypto.csr import make_request
from ztproxy.crypto.jose import sign, signing_key
from ztproxy.model.node import Carried, Load
from ztproxy.model.record import SessionRecord
from ztproxy.net.clock import FixedClock
from ztproxy.net.keyfiles import new_key
from ztproxy.store.sqlite import SqliteStore

ENROL, RENEW = (f"/.ztproxy/connectors/{verb}" for verb in ("enrol", "renew"))
ORIGIN = "https://portal.example:8443"
PLACE = api.Place("connect.example", ("gw1.example:443", "gw2.example:443"))


class World:
    """Both sides of the API, on a real store."""

    def __init__(self, store: SqliteStore, folder: Path, clock: FixedClock, place: api.Place | None) -> None:
        authority = load_authority(
            folder,
            CONNECTORS,
            trust_domain="corp.example",
            lifetime=3_600_000,
            clock=clock,
            entropy=os.urandom,
        )
        self.clock, self.store, self.told = clock, store, list[SessionRecord]()
        self.connectors = Connectors(store, clock, os.urandom, authority, self.told.append, origin=ORIGIN)
        self.heard: list[api.Heard] = []
        self.application = web.Application()
        self.application.add_routes(api.routes(self.connectors, place, clock))
        nobody: Any = None
        administrators = api.admin_routes(self.connectors, place, ["site", "other"], self._loads)
        self.application.add_subapp("/admin", admin.make(nobody, nobody, administrators))
        self.client: TestClient[web.Request, web.Application]

    async def _loads(self) -> list[api.Heard]:
        return self.heard

    async def post(self, path: str, *, host: str = "portal.example:8443", **body: Any) -> ClientResponse:
        headers = {"Zt-Client-Ip": "203.0.113.7", "Zt-Host": host}
        if "json" not in body:
            headers["Content-Type"] = body.pop("content_type", "application/jose")
        return await self.client.post(path, headers=headers, **body)

    async def administer(self, path: str, by: str = "ops") -> tuple[int, Any]:
        response = await self.client.post(f"/admin/v1/connectors{path}", json={"by": by})
        return response.status, await response.json()

    async def listed(self) -> Any:
        response = await self.client.get("/admin/v1/connectors")
        return await response.json()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async for made in _world(tmp_path, PLACE):
        yield made


async def _world(folder: Path, place: api.Place | None) -> AsyncIterator[World]:
    clock = FixedClock()
    store = await SqliteStore.open(folder / "ztproxy.db", clock.now)
    made = World(store, folder, clock, place)
    async with TestClient(TestServer(made.application)) as client:
        made.client = client
        yield made
    await store.close()


async def code_of(response: ClientResponse) -> tuple[int, str]:
    assert response.content_type == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    return response.status, (await response.json())["code"]


async def test_invite_enrol_renew_list_revoke(world: World) -> None:
    status, invited = await world.administer("/site/codes")
    assert (status, invited["portal"], invited["host"]) == (200, ORIGIN, "connect.example")
    key = new_key()
    wish = {"code": invited["code"], "csr": make_request(key, "x"), "name": "site"}
    response = await world.post(ENROL, json=wish)
    assert (response.status, response.headers["Cache-Control"]) == (201, "no-store")
    enrolled = await response.json()
    instance = enrolled["connector"]["instance"]
    assert enrolled["connector"] == {"name": "site", "instance": instance}
    assert (enrolled["portal"], enrolled["host"]) == (ORIGIN, "connect.example")
    assert enrolled["proxies"] == list(PLACE.proxies)
    assert enrolled["certificate"].count("BEGIN CERTIFICATE") == 2
    assert await code_of(await world.post(ENROL, json=wish)) == (403, "enrolment-code-invalid")

    signer = signing_key(key, kid=f"site:{instance}")
    claims = statements.renewal(signer.kid, ORIGIN, world.clock.now())
    renewal = sign(claims, signer, statements.CONNECTOR_RENEWAL)
    renewed = await (await world.post(RENEW, data=renewal)).json()
    assert renewed["connector"] == enrolled["connector"]
    assert renewed["proxies"] == list(PLACE.proxies)

    listed = await world.listed()
    assert listed["never_enrolled"] == ["other"]
    (one,) = listed["connectors"]
    assert (one["name"], one["instance"], "live" in one) == ("site", instance, False)
    assert not {"jwk", "certificates"} & one.keys()

    assert await world.administer(f"/site/{instance}/revoke") == (200, {"revoked": [f"site/{instance}"]})
    assert await world.administer(f"/site/{instance}/revoke") == (200, {"revoked": []})
    assert await code_of(await world.post(RENEW, data=renewal)) == (403, "connector-revoked")
    assert (await world.listed())["connectors"][0]["revoked_by"] == "ops"


async def test_what_all_nodes_have_of_a_connector_is_shown_and_how_old_that_is(world: World) -> None:
    _, invited = await world.administer("/site/codes")
    wish = {"code": invited["code"], "csr": make_request(new_key(), "x")}
    instance = (await (await world.post(ENROL, json=wish)).json())["connector"]["instance"]
    key = f"site/{instance}"
    told = [
        ("gw1.example:443", True, False, (Carried(key, "", 2, 3), Carried("site/another", "9", 9, 9))),
        ("gw2.example:443", False, False, (Carried(key, "1.2", 1, 1, draining=True),)),
        ("gw3.example:443", False, True, (Carried(key, "1.1", 70, 80),)),
    ]
    world.heard = [
        api.Heard(Load(f"gw{at}", address, at, carried), here=here, silent=silent)
        for at, (address, here, silent, carried) in enumerate(told)
    ]
    listed = await world.listed()
    (one,) = listed["connectors"]
    assert one["live"] == {"version": "1.2", "ready": 3, "carrying": 4}, "a silent node may have nothing left"
    assert [(at["node"], at["silent"], at["at"], at["ready"], at["carrying"]) for at in one["nodes"]] == [
        ("gw1.example:443", False, 0, 2, 3),
        ("gw2.example:443", False, 1, 1, 1),
        ("gw3.example:443", True, 2, 70, 80),
    ]
    assert [(at["node"], at["here"], at["connectors"], at["ready"]) for at in listed["nodes"]] == [
        ("gw1.example:443", True, 2, 11),
        ("gw2.example:443", False, 1, 1),
        ("gw3.example:443", False, 1, 70),
    ]
    world.heard = world.heard[2:]
    (one,) = (await world.listed())["connectors"]
    assert "live" not in one


async def test_what_is_no_request_is_refused_before_it_is_read(world: World) -> None:
    csr = make_request(new_key(), "x")
    cases = [
        ({"json": {"code": "A", "csr": csr}, "host": "app.example"}, (404, "not-found")),
        ({"json": {"code": "A", "csr": csr, "instance": "x"}}, (400, "bad-request")),
        ({"json": {"code": "A", "csr": "x" * 6000}}, (413, "body-too-large")),
        ({"data": b"{}", "content_type": "text/plain"}, (415, "media-type-not-supported")),
    ]
    for body, expected in cases:
        assert await code_of(await world.post(ENROL, **body)) == expected
    assert await code_of(await world.post(RENEW, data=b"x" * 5000)) == (413, "body-too-large")
    assert await code_of(await world.post(RENEW, data=b"\xff")) == (400, "bad-request")
    assert await code_of(await world.post(RENEW, data=b"a.b.c")) == (403, "statement-invalid")


async def test_guessing_is_slow(world: World) -> None:
    wish = {"code": "0000-0000-0000", "csr": make_request(new_key(), "x")}
    for _ in range(5):
        assert (await world.post(ENROL, json=wish)).status == 403
    response = await world.post(ENROL, json=wish)
    assert (response.status, response.headers["Retry-After"]) == (429, "60")


async def test_administrators_are_told_what_is_wrong(world: World) -> None:
    status, problem = await world.administer("/Site/codes")
    assert (status, problem["code"]) == (400, "connector-name-invalid")
    assert "begins with a-z" in problem["detail"]
    response = await world.client.post("/admin/v1/connectors/site/codes", data=b"[]")
    assert response.status == 400
    assert await world.administer("/nobody/revoke") == (200, {"revoked": []})


async def test_without_a_place_for_connectors_nobody_is_enrolled(tmp_path: Path) -> None:
    async for world in _world(tmp_path, None):
        code = await world.connectors.create_code("site", "ops")
        wish = {"code": code, "csr": make_request(new_key(), "x")}
        assert await code_of(await world.post(ENROL, json=wish)) == (404, "connectors-not-configured")
        assert await code_of(await world.post(RENEW, data=b"a.b.c")) == (404, "connectors-not-configured")
        status, problem = await world.administer("/site/codes")
        assert (status, problem["code"]) == (404, "connectors-not-configured")
