"""Streams that we keep: made, verified, polled; a lost one makes its source stale, and it recovers by
itself.
"""

import asyncio

import pytest
from aiohttp import web
from caep_transmitter import CAEP, EXAMPLES, SSF, new_rsa

from ztproxy.administrator.signals.sources import Sources
from ztproxy.store.interface import StoreUnavailable
from ztproxy.trust.signals.transmitter import OAuth

IDP = "https://idp.example"
CAROL = {"format": "iss_sub", "iss": IDP, "sub": "carol"}


async def until(fact, seconds=15):
    """What `fact` says once it says something true."""
    async with asyncio.timeout(seconds):
        while not (found := await fact()):
            await asyncio.sleep(0.02)
        return found


def source(node):
    return Sources(node.store, node.clock).get("tx")


async def is_ok(node):
    return (await source(node)).state == "ok"


@pytest.fixture
async def polling(make_node):
    node = await make_node(delivery="poll", managed=True, authorization="")
    assert (await source(node)) is None
    await node.told.start()
    assert (await source(node)).state == "failing"  # never heard is not well
    return node


async def test_every_event_by_poll_is_acknowledged(polling, transmitter):
    carol = await polling.sign_in()
    await until(lambda: is_ok(polling))
    sent = [(await transmitter.deliver(uri, CAROL))[0] for uri in EXAMPLES]

    async def acknowledged():
        return set(sent) <= set(transmitter.acked)

    await until(acknowledged)
    assert await polling.ended(carol) and not transmitter.errors
    assert "corp:carol" not in [lock.value for lock in await polling.locks.list()]  # enabled came last


async def test_forged_tokens_of_a_poll_are_reported(polling, transmitter):
    await until(lambda: is_ok(polling))
    claims = transmitter.claims(CAEP + "session-revoked", {}, CAROL)
    carol = await polling.sign_in()
    await transmitter.deliver_token(transmitter.sign(claims, key=new_rsa()), "j1")
    await transmitter.deliver_token(transmitter.make(CAEP + "session-revoked", CAROL, aud="x"), "j2")

    async def reported():
        return len(transmitter.errors) == 2

    await until(reported)
    assert {jti: error["err"] for jti, error in transmitter.errors.items()} == {
        "j1": "invalid_key",
        "j2": "invalid_audience",
    }
    assert not await polling.ended(carol)


async def test_a_paused_stream_is_told_and_asked_to_flow_again(polling, transmitter):
    await until(lambda: is_ok(polling))
    transmitter.state = {"status": "paused", "reason": "maintenance", "locked": True}

    async def paused():
        return (await source(polling)).state == "paused"

    await until(paused)
    assert (await source(polling)).detail == "maintenance"
    heard = (await source(polling)).heard_at
    transmitter.state = {"status": "paused"}  # and now it may be enabled
    await until(lambda: is_ok(polling))
    assert transmitter.state == {"status": "enabled"} and (await source(polling)).heard_at > heard


async def test_silence_is_noticed_when_verifications_do_not_arrive(polling, transmitter):
    await until(lambda: is_ok(polling))
    transmitter.silent = True

    async def failing():
        return (await source(polling)).state == "failing"

    await until(failing)
    assert "verification" in (await source(polling)).detail


async def test_a_stream_that_is_gone_is_made_again(polling, transmitter):
    await until(lambda: is_ok(polling))
    transmitter.stream = None
    transmitter.asked.clear()

    async def made():
        return ("POST", "/streams") in transmitter.asked and transmitter.stream

    await until(made)


async def test_a_transmitter_that_is_away_makes_its_source_stale_and_comes_back(polling, transmitter):
    async def away(_):
        return web.Response(status=503)

    await until(lambda: is_ok(polling))
    for path in ("/poll", "/streams", "/status", "/verify"):
        transmitter.answers[path] = away

    async def failing():
        return (await source(polling)).state == "failing"

    await until(failing)
    transmitter.answers.clear()
    await until(lambda: is_ok(polling))


async def test_what_the_stream_itself_says_is_believed(node, transmitter):
    await node.told.start()
    stream = {"format": "opaque", "id": "f67e"}
    await node.push(transmitter.make(SSF + "verification", stream, {}))
    assert await is_ok(node)
    members = {"status": "disabled", "reason": "licence"}
    await node.push(transmitter.make(SSF + "stream-updated", stream, members))
    assert ((await source(node)).state, (await source(node)).detail) == ("disabled", "licence")
    await node.push(transmitter.make(CAEP + "session-revoked", CAROL))
    assert (await source(node)).state == "disabled"  # a straggler does not make it flow
    status, body = await node.push(transmitter.make(SSF + "verification", stream, {"state": "made up"}))
    assert (status, body["err"]) == (400, "invalid_state")


async def test_a_push_stream_is_made_with_a_token_of_our_own_and_verified(make_node, transmitter, free_port):
    oauth = OAuth(f"{transmitter.issuer}/token", "us", "s3:cret")
    transmitter.bearer = "by-oauth"
    port = free_port()
    url = f"http://127.0.0.1:{port}/.ztproxy/signals/push/tx"
    node = await make_node(port=port, managed=True, token="", oauth=oauth, endpoint=url)
    await node.told.start()
    await until(lambda: is_ok(node))
    delivery = transmitter.stream["delivery"]
    assert delivery["endpoint_url"] == url and delivery["authorization_header"] == "Bearer agreed-on"
    assert transmitter.verifications[0]["state"] and set(transmitter.bearers) == {"Bearer by-oauth"}
    carol = await node.sign_in()
    for uri in EXAMPLES:
        assert (await transmitter.deliver(uri, CAROL))[1] == (202, None)
    assert await node.ended(carol)


async def test_nobody_polls_without_the_lease(make_node, transmitter):
    node = await make_node(delivery="poll", managed=True)
    await node.store.put("lease", "signals", b"another node")
    await node.told.start()
    await asyncio.sleep(1.2)
    assert not transmitter.asked


async def test_one_event_that_can_not_be_taken_hides_no_other(polling, transmitter, monkeypatch):
    await until(lambda: is_ok(polling))
    carol, note = await polling.sign_in(), polling.standings.note

    async def broken(target, value, **changes):
        if value == "corp:mallory":
            raise RuntimeError("told to fail")
        return await note(target, value, **changes)

    monkeypatch.setattr(polling.standings, "note", broken)
    subjects = [{**CAROL, "sub": name} for name in ("mallory", "carol")]
    bad, good = [(await transmitter.deliver(CAEP + "session-revoked", one))[0] for one in subjects]

    async def acknowledged():
        return good in transmitter.acked

    await until(acknowledged)
    assert await polling.ended(carol) and bad not in transmitter.acked


async def test_a_node_can_stop_while_the_store_is_away(polling, monkeypatch):
    """A reload then, too: what was in force before must not go on because its lease can not be given up."""

    async def gone(*_, **__):
        raise StoreUnavailable("told to fail")

    monkeypatch.setattr(type(polling.store), "get", gone)
    await polling.told.stop()
