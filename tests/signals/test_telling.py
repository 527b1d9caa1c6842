"""Our transmitter: what happens here reaches a receiver by push and by poll, ours among them."""

import asyncio
import os
from contextlib import AsyncExitStack
from types import SimpleNamespace

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ztproxy.administrator.sessions import Limits, Sessions
from ztproxy.administrator.signals.sources import Sources
from ztproxy.administrator.signals.streams import Stream, Streams, Told
from ztproxy.api.transmitter import _delivered
from ztproxy.model.subject import Posture, Principal
from ztproxy.net.clock import SystemClock
from ztproxy.portal.app import _edge
from ztproxy.service.telling import Telling
from ztproxy.store.interface import StoreUnavailable
from ztproxy.store.sqlite import SqliteStore
from ztproxy.trust.identity.provider import SignIn
from ztproxy.trust.signals.events import CAEP, URIS
from ztproxy.trust.signals.transmitter import OAuth

IDP = "https://idp.example"
PUSH, POLL = "urn:ietf:rfc:8935", "urn:ietf:rfc:8936"
EVENTS = ("session-established", "session-presented", "session-revoked", "device-compliance-change")


async def until(fact, seconds=15):
    async with asyncio.timeout(seconds):
        while not (found := await fact()):
            await asyncio.sleep(0.02)
        return found


class Ours:
    """A control process that tells."""

    def __init__(self, origin, folder):
        self.issuer = origin
        self.audience = "https://receiver.example"
        self.folder = folder

    async def open(self, port, stack, **changes):
        clock = SystemClock()
        self.store = await SqliteStore.open(self.folder / "ours.db", clock.now)
        stack.push_async_callback(self.store.close)
        limits = Limits(idle=1_800_000, absolute=36_000_000)
        self.sessions = Sessions(self.store, clock, os.urandom, lambda _: None, limits)
        told = Told(
            **{"name": "rx", "secret": "s3:cret", "audience": self.audience, "subjects": "complex"}
            | {"events": EVENTS}
            | changes
        )
        settings = SimpleNamespace(
            told=lambda: (told,), portal_origin=self.issuer, portal=SimpleNamespace(host="portal.example")
        )
        self.telling = Telling(settings, self.store, clock, SimpleNamespace(keys=self.folder))
        stack.push_async_callback(self.telling.stop)

        @web.middleware
        async def as_gateway(request, handler):
            headers = request.headers.copy()
            headers.setdefault("Zt-Host", "portal.example:8443")
            return await handler(request.clone(headers=headers))

        app = web.Application(middlewares=[as_gateway, _edge])
        app.add_routes(self.telling.routes())
        server = TestServer(app, port=port)
        await server.start_server()
        stack.push_async_callback(server.close)
        await self.telling.start()
        return self

    async def sign_in(self, name="carol"):
        person = Principal(
            kind="User", id=f"corp:{name}", issuer=IDP, name=name, email=f"{name}@corp.example"
        )
        return await self.sessions.start(SignIn(principal=person, provider="corp", auth_time=1, acr="aal2"))

    async def report(self, seq, healthy):
        now = SystemClock().now()
        posture = Posture(
            device_id="dev_laptop", reported_at=now, seq=seq, source="t", level="self", healthy=healthy
        )
        await self.store.put("posture", "dev_laptop", msgspec.msgpack.encode(posture))

    async def ask(self, method, path, body=None, bearer="s3:cret", **query):
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        url = f"{self.issuer}/.ztproxy/signals/{path}"
        async with aiohttp.request(method, url, json=body, headers=headers, params=query) as response:
            text = await response.read()
            return response.status, msgspec.json.decode(text) if text else None


@pytest.fixture
async def make_ours(tmp_path, free_port):
    async with AsyncExitStack() as stack:

        async def make(**changes):
            port = free_port()
            folder = tmp_path / "ours"
            folder.mkdir()
            return await Ours(f"http://127.0.0.1:{port}", folder).open(port, stack, **changes)

        yield make


@pytest.fixture
async def ours(make_ours):
    return await make_ours()


@pytest.mark.parametrize("delivery", ["push", "poll"])
async def test_our_transmitter_drives_our_receiver(ours, make_node, free_port, delivery):
    port = free_port()
    node = await make_node(
        transmitter=ours,
        port=port,
        delivery=delivery,
        managed=True,
        token="",
        oauth=OAuth(f"{ours.issuer}/.ztproxy/signals/token", "rx", "s3:cret"),
        events=tuple(URIS[name] for name in EVENTS),
        endpoint=f"http://127.0.0.1:{port}/.ztproxy/signals/push/tx",
        authorization="Bearer agreed-on" if delivery == "push" else "",
        verify_every=60_000,
    )
    theirs = await node.sign_in()
    await node.told.start()

    async def verified():
        return (await Sources(node.store, node.clock).get("tx")).state == "ok"

    await until(verified)
    session = await ours.sign_in()
    await ours.sessions.new_handle(session.id, "app.example")
    await ours.sessions.end(session.id, "cut by dave")
    await ours.report(1, True)
    await ours.report(2, False)

    async def everything():
        events = [record.event for record in node.records if type(record).__name__ == "SignalRecord"]
        return set(EVENTS) <= set(events)

    await until(everything)
    # Of theirs the provider told no name: whoever ends carol's session elsewhere ends it.
    assert await node.ended(theirs)
    assert (await node.standings.get("device", "dev_laptop")).compliance == "not-compliant"
    told = [one for one in node.records if type(one).__name__ == "SignalRecord"]
    assert all(one.reason for one in told)


async def test_discovery_keys_and_who_may_ask(ours):
    async with aiohttp.request("GET", f"{ours.issuer}/.well-known/ssf-configuration") as response:
        document = await response.json()
    assert document["issuer"] == ours.issuer and document["spec_version"] == "1_0"
    async with aiohttp.request("GET", document["jwks_uri"]) as response:
        (key,) = (await response.json())["keys"]
    assert key["alg"] == "RS256" and "d" not in key
    for bearer in ("", "wrong", "a.b.c"):
        status, body = await ours.ask("GET", "stream", bearer=bearer)
        assert (status, body["err"]) == (401, "authentication_failed")
    async with aiohttp.request(
        "POST",
        f"{ours.issuer}/.ztproxy/signals/token",
        data={"grant_type": "client_credentials", "client_id": "rx", "client_secret": "no"},
    ) as response:
        assert response.status == 401
    async with aiohttp.request(
        "POST",
        f"{ours.issuer}/.ztproxy/signals/token",
        data={
            "grant_type": "client_credentials",
            "client_id": "rx",
            "client_secret": "s3:cret",
            "scope": "ssf.read",
        },
    ) as response:
        token = (await response.json())["access_token"]
    assert (await ours.ask("GET", "stream", bearer=token))[0] == 200
    assert (await ours.ask("POST", "stream", {"events_requested": []}, bearer=token))[0] == 403


async def test_the_life_of_a_stream(ours):
    wanted = {"events_requested": [CAEP + "session-revoked", "https://example.com/x"]}
    status, stream = await ours.ask("POST", "stream", wanted)
    assert status == 201 and stream["events_delivered"] == [CAEP + "session-revoked"]
    assert stream["delivery"]["method"] == POLL
    assert (await ours.ask("POST", "stream", wanted))[0] == 409
    own = {"stream_id": stream["stream_id"]}
    assert (await ours.ask("GET", "stream", **own))[1] == stream
    assert (await ours.ask("GET", "stream", stream_id="another"))[0] == 404
    status, changed = await ours.ask("PATCH", "stream", {**own, "description": "theirs"})
    assert (status, changed["description"]) == (200, "theirs")
    assert changed["events_requested"] == stream["events_requested"]
    for endpoint in ("http://169.254.169.254/x", "http://intern.example/", "file:///etc/passwd", 7, None):
        bad = {**own, "delivery": {"method": PUSH, "endpoint_url": endpoint}}
        assert (await ours.ask("PATCH", "stream", bad))[0] == 400
    secret = {
        "method": PUSH,
        "endpoint_url": "https://rx.example/p",
        "authorization_header": "Bearer x\r\ny: z",
    }
    assert (await ours.ask("PATCH", "stream", {**own, "delivery": secret}))[0] == 400
    assert (await ours.ask("POST", "status", {**own, "status": "paused", "reason": "ours"}))[0] == 200
    assert (await ours.ask("GET", "status", **own))[1] == {**own, "status": "paused", "reason": "ours"}
    assert (await ours.ask("POST", "status", {**own, "status": "off"}))[0] == 400
    assert (await ours.ask("DELETE", "stream", **own))[0] == 204
    assert (await ours.ask("GET", "status", **own))[0] == 404


async def test_polls_acknowledge_and_paused_streams_keep(ours):
    _, stream = await ours.ask("POST", "stream", {"events_requested": [URIS[name] for name in EVENTS]})
    own = {"stream_id": stream["stream_id"]}
    await ours.ask("POST", "verify", {**own, "state": "s"})
    assert (await ours.ask("POST", "verify", {**own, "state": "s"}))[0] == 429
    _, first = await ours.ask("POST", "poll", {"maxEvents": 1})
    (jti,) = first["sets"]
    await ours.sign_in()

    async def two():
        _, polled = await ours.ask("POST", "poll", {"maxEvents": 10, "returnImmediately": True})
        return len(polled["sets"]) == 2 and polled

    await until(two)
    _, one = await ours.ask("POST", "poll", {"maxEvents": 1, "returnImmediately": True})
    assert list(one["sets"]) == [jti] and one["moreAvailable"]
    await ours.ask("POST", "status", {**own, "status": "paused"})
    now = {"returnImmediately": True}
    assert (await ours.ask("POST", "poll", {**now, "ack": [jti]}))[1] == {"sets": {}, "moreAvailable": False}
    await ours.ask("POST", "status", {**own, "status": "enabled"})
    _, left = await ours.ask("POST", "poll", now)
    assert jti not in left["sets"] and len(left["sets"]) == 3  # established, and both changes of the stream
    errors = {jti: {"err": "invalid_key", "description": "x"} for jti in left["sets"]}
    assert (await ours.ask("POST", "poll", {**now, "setErrs": errors}))[1]["sets"] == {}


async def test_a_queue_that_is_full_disables_its_stream_and_says_so(ours, monkeypatch):
    monkeypatch.setattr("ztproxy.administrator.signals.streams.MOST", 3)
    _, stream = await ours.ask("POST", "stream", {"events_requested": [URIS["session-established"]]})
    for number in range(5):
        await ours.sign_in(f"p{number}")

    async def disabled():
        _, body = await ours.ask("GET", "status", stream_id=stream["stream_id"])
        return body["status"] == "disabled" and body["reason"]

    async def said():
        _, polled = await ours.ask("POST", "poll", {"returnImmediately": True})
        return polled["sets"]

    await until(disabled)
    assert len(await until(said)) == 1  # stream-updated


async def test_what_could_not_be_queued_is_told_all_the_same(ours, monkeypatch):
    """The store is away between the change and its telling: remembered is only what was told."""
    added, failures = Streams._add, []

    async def away_once(self, told, claims):
        if len(failures) < 2:
            failures.append(claims)
            raise StoreUnavailable("told to fail")
        await added(self, told, claims)

    monkeypatch.setattr(Streams, "_add", away_once)
    wanted = [URIS["session-established"], URIS["device-compliance-change"]]
    await ours.ask("POST", "stream", {"events_requested": wanted})
    await ours.sign_in("p")

    async def said():
        _, polled = await ours.ask("POST", "poll", {"returnImmediately": True})
        return polled["sets"]

    assert len(await until(said)) == 1
    assert len(failures) == 2


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:9/x", "https://localhost/", "https://[::ffff:127.0.0.1]/"]
)
def test_a_receiver_can_not_have_us_ask_our_own_machine(endpoint):
    delivery = {"method": PUSH, "endpoint_url": endpoint}
    with pytest.raises(web.HTTPBadRequest):
        _delivered(Stream("s", POLL), delivery, "https://portal.example")
    assert _delivered(Stream("s", POLL), delivery, "http://127.0.0.1:7").endpoint == endpoint
