"""Back-channel logout ends the session the provider names, or all of the person; nothing else does."""

import json

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from caep_transmitter import Signer

from ztproxy.administrator.signals.logouts import Logouts
from ztproxy.administrator.whose import Whose
from ztproxy.api import logout
from ztproxy.crypto.jwk import read_key_set
from ztproxy.trust.identity.fetch import http_session
from ztproxy.trust.identity.oidc import OpenIdClient
from ztproxy.trust.identity.provider import Provider

EVENT = "http://schemas.openid.net/event/backchannel-logout"


class Idp(Signer):
    def logout_token(self, header=None, **changes):
        now = self.now()
        claims = {
            "iss": self.issuer,
            "aud": "zt",
            "iat": now,
            "exp": now + 120,
            "jti": f"j{id(changes)}{now}{json.dumps(changes, sort_keys=True)[:60]}".replace('"', ""),
            "events": {EVENT: {}},
            "sub": "carol",
            "sid": "s1",
        } | changes
        kept = {name: value for name, value in claims.items() if value is not None}
        return self.sign(kept, header={"typ": "logout+jwt"} | (header or {}))


@pytest.fixture
async def idp(node):
    idp = Idp()

    async def discovery(_):
        names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        return web.json_response(
            {"issuer": idp.issuer}
            | {name: f"{idp.issuer}/{name}" for name in names}
            | {"token_endpoint_auth_methods_supported": ["none"]}
        )

    async def keys(_):
        return web.json_response(idp.jwks)

    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", discovery)
    app.router.add_get("/jwks_uri", keys)
    server = TestServer(app)
    await server.start_server()
    idp.issuer = str(server.make_url("")).rstrip("/")
    async with http_session() as http:
        provider = Provider(name="corp", title="Corp", issuer=idp.issuer, client_id="zt")
        ending = Logouts(node.store, node.clock, Whose(node.store), node.sessions, node.standings)
        own = web.Application()
        clients = {"corp": OpenIdClient(provider, http, node.clock)}
        own.add_routes(logout.routes(clients, ending, "portal.example"))
        receiver = TestServer(own)
        await receiver.start_server()
        idp.url = str(receiver.make_url("/.ztproxy/back-channel-logout/corp"))
        yield idp
        await receiver.close()
    await server.close()


async def post(idp, token, **form):
    headers = {"Zt-Host": "portal.example"}
    data = {"logout_token": token} | form
    async with aiohttp.request("POST", idp.url, data=data, headers=headers) as response:
        assert response.headers["Cache-Control"] == "no-store"
        return response.status


async def test_by_session(node, idp):
    one, two, unnamed = await node.sign_in(sid="s1"), await node.sign_in(sid="s2"), await node.sign_in()
    assert await post(idp, idp.logout_token()) == 200
    assert [await node.ended(session) for session in (one, two, unnamed)] == [True, False, True]


async def test_by_session_alone_and_by_person(node, idp):
    one, two, bob = await node.sign_in(sid="s1"), await node.sign_in(sid="s2"), await node.sign_in("bob")
    assert await post(idp, idp.logout_token(sub=None)) == 200
    assert await node.ended(one) and not await node.ended(two)
    assert await post(idp, idp.logout_token(sid=None)) == 200
    assert await node.ended(two) and not await node.ended(bob)
    assert (await node.standings.get("user", "corp:carol")).ended_before


async def test_a_session_name_does_not_end_somebody_elses(node, idp):
    bob = await node.sign_in("bob", sid="s1")
    assert await post(idp, idp.logout_token()) == 200
    assert not await node.ended(bob)


async def test_a_token_counts_once(node, idp):
    token = idp.logout_token()
    assert [await post(idp, token), await post(idp, token)] == [200, 400]


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "n"},
        {"events": {}},
        {"events": {EVENT: "yes"}},
        {"events": None},
        {"sub": None, "sid": None},
        {"jti": None},
        {"iat": None},
        {"exp": None},
        {"exp": 1},
        {"exp": 4_000_000_000},
        {"aud": "another"},
        {"iss": "https://evil.example"},
        {"sid": 5},
        {"header": {"typ": "secevent+jwt"}},
        {"header": {"alg": "RS384"}},
    ],
)
async def test_what_is_no_logout_of_this_provider(node, idp, changes):
    carol = await node.sign_in(sid="s1")
    assert await post(idp, idp.logout_token(**changes)) == 400
    assert not await node.ended(carol)
    assert read_key_set(json.dumps(idp.jwks).encode())


async def test_only_a_form_with_one_token(node, idp):
    token = idp.logout_token()
    async with aiohttp.ClientSession(headers={"Zt-Host": "portal.example"}) as http:
        for data in ({"logout_tokens": token}, [("logout_token", token), ("logout_token", token)], token):
            async with http.post(idp.url, data=data) as response:
                assert response.status == 400
        async with http.post(idp.url + "x", data={"logout_token": token}) as response:
            assert response.status == 404
        many = {"logout_token": "x" * 60_000}
        async with http.post(idp.url, data=many) as response:
            assert response.status == 400
