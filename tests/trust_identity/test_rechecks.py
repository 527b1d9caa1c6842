"""Asking a real OpenID provider again, on two nodes over one store: once, believed exactly, kept or ended."""

import asyncio
import importlib.util
import logging
import os
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ztproxy.administrator.freshness import ASIDE
from ztproxy.administrator.rechecks import AWAY, LEASE, LONGEST_WAIT, Rechecks
from ztproxy.administrator.returns import ProviderSources, Returns
from ztproxy.administrator.sessions import Limits, Sessions
from ztproxy.administrator.vault import Vault
from ztproxy.model.messages import RecheckWanted
from ztproxy.model.standing import Source
from ztproxy.net.clock import FixedClock
from ztproxy.store.sqlite import SqliteStore
from ztproxy.trust.identity.fetch import http_session
from ztproxy.trust.identity.oidc import Attempt, OpenIdClient
from ztproxy.trust.identity.provider import Provider

_spec = importlib.util.spec_from_file_location(
    "openid_provider", Path(__file__).with_name("openid_provider.py")
)
openid = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(openid)

SCOPES = ("openid", "profile", "email", "offline_access")
MINUTE = 60_000


class Node:
    """The control process of one node."""

    def __init__(self, place):
        self.client = OpenIdClient(place.registration, place.http, place.clock)
        self.returns = Returns({"corp": self.client})
        self.vault = Vault(place.store, self.returns.give_back)
        limits = Limits(idle=36_000_000, absolute=36_000_000)
        self.sessions = Sessions(place.store, place.clock, os.urandom, place.told.append, limits, self.vault)
        self.counts = []
        self.rechecks = Rechecks(
            self.sessions,
            self.vault,
            {"corp": self.client},
            place.clock,
            os.urandom,
            heard=ProviderSources(place.store, place.clock).heard,
            counted=self.counts.append,
        )


class Place:
    """A provider, a store, and as many nodes as a test wants."""

    def __init__(self, provider, http, clock, store):
        self.provider, self.http, self.clock, self.store = provider, http, clock, store
        self.told = []
        self.register()

    def register(self, scopes=SCOPES):
        self.registration = Provider(
            name="corp",
            title="Corp",
            issuer=self.provider.issuer,
            client_id="zt",
            client_secret="s",
            scopes=scopes,
        )
        self.node = Node(self)

    async def sign_in(self):
        attempt = Attempt("S" * 43, "N" * 43, "V" * 43, "https://p/cb", started_at=self.clock.now())
        client = self.node.client
        url = self.provider.authorize(await client.authorization_url(attempt))
        signed_in = await client.sign_in(dict(parse_qsl(urlsplit(url).query)), attempt)
        return await self.node.sessions.start(signed_in)

    async def again(self, session, node=None, after=0):
        outcome = await (node or self.node).rechecks.recheck(session.id, session.checked_at, after)
        return outcome.word

    def refreshes(self):
        return sum(form.get("grant_type") == "refresh_token" for form in self.provider.forms)

    def later(self, ms=MINUTE):
        self.clock.advance(ms / 1000)

    async def source(self):
        stored = await self.store.get("source", "corp")
        return None if stored is None else msgspec.msgpack.decode(stored.value, type=Source)


@pytest.fixture
async def place(tmp_path):
    provider = openid.OpenIdProvider()
    server = TestServer(provider.app())
    await server.start_server()
    provider.issuer = str(server.make_url("")).rstrip("/")
    clock = FixedClock()
    store = await SqliteStore.open(tmp_path / "ztproxy.db", clock.now)
    async with http_session() as http:
        yield Place(provider, http, clock, store)
    await store.close()
    await server.close()


async def test_groups_and_name_are_read_anew_and_the_id_stays(place):
    session = await place.sign_in()
    place.later()
    place.provider.person |= {"groups": ["guests"], "name": "Carol C."}
    assert await place.again(session) == "confirmed"
    now = await place.node.sessions.get(session.id)
    assert (now.principal.groups, now.principal.name) == (("guests",), "Carol C.")
    assert now.checked_at == session.checked_at + MINUTE
    assert now.auth_time == session.auth_time, "to be asked again is not to prove oneself again"
    assert place.told[-1].event == "changed"
    assert place.told[-1].detail == "-staff, +guests, name"
    assert (await place.source()).state == "ok"
    assert place.node.counts == ["confirmed"]


async def test_an_empty_answer_about_groups_takes_them_all(place):
    session = await place.sign_in()
    place.later()
    place.provider.claims = {"groups": None}
    assert await place.again(session) == "confirmed"
    assert (await place.node.sessions.get(session.id)).principal.groups == ()


async def test_the_token_rotates_and_is_good_the_next_time(place):
    session = await place.sign_in()
    for _ in range(3):
        place.later()
        session = await place.node.sessions.get(session.id)
        assert await place.again(session) == "confirmed"
    assert place.refreshes() == 3
    assert len(place.provider.refresh) == 1


async def test_two_nodes_and_many_workers_ask_once(place):
    session = await place.sign_in()
    place.later()
    other = Node(place)

    async def slowly(request):
        await asyncio.sleep(0.2)
        return await place.provider.on_token(request)

    place.provider.answers["/token"] = slowly
    askers = [place.again(session, node) for node in (place.node, other) * 5]
    assert set(await asyncio.gather(*askers)) == {"confirmed"}
    assert place.refreshes() == 1


async def test_who_comes_late_reads_before_asking(place):
    session = await place.sign_in()
    place.later()
    assert await place.again(session) == "confirmed"
    assert await place.again(session, Node(place)) == "confirmed"
    assert place.refreshes() == 1


async def test_a_word_that_came_since_asks_again(place):
    session = await place.sign_in()
    place.later()
    await place.again(session)
    place.later()
    after = place.clock.now()
    assert await place.again(session, after=after) == "confirmed"
    assert place.refreshes() == 2
    assert (await place.node.sessions.get(session.id)).checked_at >= after


async def test_a_reused_token_ends_the_session_for_good(place):
    session = await place.sign_in()
    place.later()
    place.provider.refresh.clear()
    assert await place.again(session) == "ended"
    ended = await place.node.sessions.get(session.id)
    assert ended.ended_by == "ended by provider: the refresh token is not valid any more"
    assert await place.node.vault.read(session.id) is None
    assert (await place.source()).state == "ok", "a no is an answer"


@pytest.mark.parametrize("kind", ["down", "html", "garbage", "misconfigured"])
async def test_a_provider_out_of_order_changes_nothing(place, kind, caplog):
    session = await place.sign_in()
    place.later()
    held = (await place.node.vault.read(session.id)).held.granted

    async def broken(request):
        await request.read()
        if kind == "down":
            return web.json_response({}, status=503)
        if kind == "html":
            return web.Response(text="<h1>Proxy error</h1>", content_type="text/html")
        if kind == "garbage":
            return web.Response(text="{", content_type="application/json")
        return web.json_response({"error": "invalid_client"}, status=401)

    place.provider.answers["/token"] = broken
    asked = len(place.provider.asked)
    assert await place.again(session) == "kept"
    assert await place.again(session) == "kept"
    assert place.provider.asked[asked:].count("/token") == 1, "it is left alone for a while"
    found = (await place.node.vault.read(session.id)).held
    assert (found.granted, found.failures, found.leased_until) == (held, 1, 0)
    assert place.clock.now() < found.retry_at <= place.clock.now() + 2_000
    assert await place.node.sessions.get(session.id) == session
    assert (await place.source()).state == "failing"
    place.later()
    del place.provider.answers["/token"]
    assert await place.again(session) == "confirmed"
    assert (await place.source()).state == "ok"
    assert held.refresh_token not in caplog.text


async def test_failures_wait_longer_and_longer(place):
    session = await place.sign_in()

    async def broken(request):
        return web.json_response({}, status=500)

    place.provider.answers["/token"] = broken
    waits = []
    for _ in range(12):
        place.later(LONGEST_WAIT)
        await place.again(session)
        waits.append((await place.node.vault.read(session.id)).held.retry_at - place.clock.now())
    assert waits[0] <= 2_000 < waits[3]
    assert LONGEST_WAIT // 2 <= waits[-1] <= LONGEST_WAIT
    assert len(set(waits[-3:])) == 3, "no two nodes come back in step"
    assert waits[-1] > AWAY


async def test_an_answer_about_somebody_else_ends_the_session(place):
    session = await place.sign_in()
    place.later()
    place.provider.person["sub"] = "mallory"
    assert await place.again(session) == "ended"
    assert "somebody else" in (await place.node.sessions.get(session.id)).ended_by


async def test_userinfo_about_somebody_else_ends_the_session(place):
    session = await place.sign_in()
    place.later()
    place.provider.userinfo = {"sub": "mallory", "groups": ["admins"]}
    assert await place.again(session) == "ended"


async def test_a_token_of_another_issuer_is_not_believed(place):
    session = await place.sign_in()
    place.later()
    place.provider.claims = {"iss": "https://evil.example", "groups": ["admins"]}
    assert await place.again(session) == "kept"
    now = await place.node.sessions.get(session.id)
    assert (now.principal.groups, now.checked_at) == (("staff",), session.checked_at)
    place.later()
    place.provider.claims = {}
    assert await place.again(session) == "confirmed", "the token that came with it was kept"


async def test_a_nonce_that_is_not_ours_is_not_believed(place):
    session = await place.sign_in()
    place.later()
    place.provider.claims = {"nonce": "X" * 43}
    assert await place.again(session) == "kept"


async def test_a_newer_time_of_proof_is_not_taken_from_a_refresh(place):
    session = await place.sign_in()
    place.later()
    place.provider.claims = {"auth_time": place.clock.now() // 1000, "amr": ["pwd"], "acr": "low"}
    assert await place.again(session) == "confirmed"
    now = await place.node.sessions.get(session.id)
    assert (now.auth_time, now.amr, now.acr) == (session.auth_time, ("pwd",), "low")


async def test_userinfo_is_the_newer_word(place):
    session = await place.sign_in()
    place.later()
    place.provider.userinfo = {"groups": []}
    assert await place.again(session) == "confirmed"
    assert (await place.node.sessions.get(session.id)).principal.groups == ()


async def test_without_a_refresh_token_the_access_token_serves_while_it_lives(place):
    place.register(scopes=("openid",))
    place.provider.token = {"expires_in": 300}
    place.provider.claims = {"groups": None}
    place.provider.userinfo = {"groups": ["staff"]}
    session = await place.sign_in()
    place.later()
    place.provider.userinfo = {"groups": ["guests"]}
    assert await place.again(session) == "confirmed"
    session = await place.node.sessions.get(session.id)
    assert session.principal.groups == ("guests",)
    place.later(300_000)
    assert await place.again(session) == "impossible"


async def test_who_told_of_groups_at_the_sign_in_has_to_tell_again(place):
    place.register(scopes=("openid",))
    place.provider.token = {"expires_in": 300}
    session = await place.sign_in()  # the groups came in the ID token, and nothing brings another
    place.later()
    assert await place.again(session) == "impossible"
    assert (await place.node.sessions.get(session.id)).checked_at == session.checked_at


async def test_what_needs_the_browser_is_not_borne_when_the_provider_fails_afterwards(place):
    place.register(scopes=("openid",))
    place.provider.token = {"expires_in": 300}
    session = await place.sign_in()
    place.later()
    assert await place.again(session) == "impossible"
    other, asked = Node(place), len(place.provider.asked)
    assert await place.again(session, other) == "impossible"
    assert len(place.provider.asked) == asked, "nobody asks again at once, on no node"

    async def broken(request):
        return web.json_response({}, status=500)

    place.provider.answers["/userinfo"] = broken
    place.later(ASIDE)
    assert await place.again(session, other) == "impossible"
    assert len(place.provider.asked) > asked
    assert await place.again(session) == "impossible"
    del place.provider.answers["/userinfo"]
    place.provider.userinfo = {"groups": ["guests"]}
    place.later()
    assert await place.again(session) == "confirmed"
    assert not (await place.node.vault.read(session.id)).held.unable


async def test_nothing_to_ask_with(place):
    place.register(scopes=("openid",))
    session = await place.sign_in()
    place.later()
    assert await place.again(session) == "impossible"
    assert await place.node.vault.read(session.id) is None


async def test_a_lease_left_over_ends_by_itself(place):
    session = await place.sign_in()
    place.later()
    found = await place.node.vault.read(session.id)
    left = msgspec.structs.replace(found.held, leased_until=place.clock.now() + LEASE)
    await place.node.vault.write(session.id, left, found.version)
    asking = asyncio.create_task(place.again(session))
    await asyncio.sleep(0.25)
    assert place.refreshes() == 0
    place.later(LEASE)
    assert await asking == "confirmed"
    assert place.refreshes() == 1


async def test_signing_out_gives_the_grant_back(place):
    session = await place.sign_in()
    token = next(iter(place.provider.refresh))
    await place.node.sessions.end(session.id, "sign-out")
    await place.node.returns.close()
    assert place.provider.revoked == [token]
    assert await place.node.vault.read(session.id) is None


async def test_a_session_that_ends_meanwhile_takes_the_new_token_along(place):
    session = await place.sign_in()
    place.later()

    async def meanwhile(request):
        answer = await place.provider.on_token(request)
        await place.node.sessions.end(session.id, "sign-out")
        return answer

    place.provider.answers["/token"] = meanwhile
    assert await place.again(session) == "ended"
    await place.node.returns.close()
    assert place.provider.refresh == {}, "neither the old one nor the new one is good any more"


async def test_a_full_store_of_evidence_keeps(place):
    session = await place.sign_in()
    place.later()
    place.provider.person["groups"] = ["guests"]

    def full(_):
        raise OSError("full")

    place.node.sessions._witness = full
    answer = await place.node.rechecks.answer(RecheckWanted(7, session.id, session.checked_at))
    assert (answer.ask, answer.outcome) == (7, "kept")
    assert (await place.node.sessions.get(session.id)).principal.groups == ("staff",)


async def test_no_secret_in_sessions_records_logs_or_errors(place, caplog):
    caplog.set_level(logging.DEBUG)
    session = await place.sign_in()
    seen = set(place.provider.refresh)
    place.later()
    await place.again(session)
    seen |= set(place.provider.refresh)
    place.later()
    place.provider.refresh.clear()
    found = await place.node.vault.read(session.id)
    session = await place.node.sessions.get(session.id)
    assert await place.again(session) == "ended"
    shown = [caplog.text, repr(place.told), repr(session), repr(found)]
    for kind in ("session", "handle", "source"):
        shown += [str(stored.value) for stored in await place.store.scan(kind)]
    assert len(seen) == 2
    assert not any(token in text for token in seen for text in shown)
