"""The applications believe a verified assertion and nothing else, and count what arrives."""

import json
import time

import pytest
from joserfc.jwk import ECKey

from ztproxy.demo.apps import status, support, wiki


@pytest.mark.parametrize("make", [support.make, wiki.make, status.make])
async def test_nobody_is_served_without_an_assertion(client, make):
    app = await client(make)
    assert (await app.get("/")).status == 401


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://portal.test"},
        {"aud": "https://other.test:8443"},
        {"exp": int(time.time()) - 120},
        {"exp": None},
        {"sub": None},
        {"kid": "k2"},
        {"key": ECKey.generate_key("P-256")},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_an_assertion_that_does_not_stand_is_none(client, signer, wrong):
    app = await client(support.make)
    assert (await app.get("/", headers=signer.sign(**wrong))).status == 401


async def test_garbage_is_no_assertion(client):
    app = await client(support.make)
    for value in ("", "a.b.c", "x" * 4000, "eyJhbGciOiJub25lIn0.e30."):
        assert (await app.get("/", headers={"Zt-Assertion": value})).status == 401


async def test_the_desk_says_who_is_asking(client, signer):
    app = await client(support.make)
    page = await (await app.get("/", headers=signer.sign(name="<b>Carol</b>"))).text()
    assert "&lt;b&gt;Carol&lt;/b&gt;" in page
    assert 'data-principal="demo:carol"' in page


async def test_a_comment_reaches_every_open_page(client, signer):
    app = await client(support.make)
    async with app.ws_connect("/live", headers=signer.sign()) as socket:
        assert (await socket.receive_json())["kind"] == "hello"
        assert (await socket.receive_json())["kind"] == "presence"
        form = {"text": "Found it.", "state": "solved"}
        await app.post("/tickets/1042/comments", data=form, headers=signer.sign(), allow_redirects=False)
        event = await socket.receive_json()
        assert event["comment"] | {"at": ""} == {
            "ticket": 1042,
            "author": "Carol",
            "at": "",
            "text": "Found it.",
        }
        assert (await socket.receive_json())["ticket"]["state"] == "solved"
        await socket.send_str("ping")
        assert (await socket.receive_json()) == {"kind": "echo", "text": "ping"}


async def test_a_new_ticket_and_a_search(client, signer):
    app = await client(support.make)
    form = {"subject": "Toner", "customer": "Kiosk", "text": "empty", "priority": "urgent"}
    made = await app.post("/new", data=form, headers=signer.sign(), allow_redirects=False)
    assert made.status == 303
    found = await (await app.get("/?q=toner kiosk", headers=signer.sign())).text()
    assert made.headers["Location"] in found
    assert "Warehouse" not in found


async def test_a_form_of_another_site_changes_nothing(client, signer):
    app = await client(wiki.make)
    headers = {**signer.sign(), "Sec-Fetch-Site": "cross-site"}
    answer = await app.post("/home/edit", data={"text": "gone", "version": "1"}, headers=headers)
    assert answer.status == 403


async def test_the_wiki_keeps_what_was_and_notices_a_conflict(client, signer):
    app = await client(wiki.make)
    form = {"text": "## New\n<script>\n\n- see [call](/on-call)", "note": "rewritten", "version": "1"}
    assert (await app.post("/home/edit", data=form, headers=signer.sign())).status == 200
    assert (await app.post("/home/edit", data=form, headers=signer.sign())).status == 409
    page = await (await app.get("/home", headers=signer.sign())).text()
    assert "<h2>New</h2>" in page and "&lt;script&gt;" in page and '<a href="/on-call">call</a>' in page
    history = await (await app.get("/home/history", headers=signer.sign())).text()
    assert "rewritten" in history and "+## New" in history


async def test_the_pipeline_deploys(client, signer):
    app = await client(status.make)
    order = {"service": "orders", "version": "1.5.0"}
    made = await app.post("/deployments", json=order, headers=signer.sign(sub="spiffe://x/ci"))
    assert made.status == 201
    assert json.loads(await made.text())["by"] == "spiffe://x/ci"
    services = json.loads(await (await app.get("/status", headers=signer.sign())).text())["services"]
    assert {"name": "orders", "version": "1.5.0", "state": "running"} in services
    for wrong in (b"{", b'{"service":"x","version":"1"}', b'{"service":"orders","version":""}'):
        assert (await app.post("/deployments", data=wrong, headers=signer.sign())).status in (400, 422)


async def test_every_arrival_is_counted_and_the_count_is_not_for_the_proxy(client, signer):
    app = await client(status.make)
    await app.get("/status")
    await app.get("/status", headers={**signer.sign(), "Zt-Request-Id": "ab"})
    report = json.loads(await (await app.get("/__requests")).text())
    assert report["total"] == 2 and report["paths"] == {"GET /status": 2}
    assert report["last"][1] == {"method": "GET", "path": "/status", "id": "ab"}
    through = await app.get("/__requests", headers={**signer.sign(), "Zt-Request-Id": "ab"})
    assert through.status == 404
