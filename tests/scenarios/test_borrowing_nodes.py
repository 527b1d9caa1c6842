"""Two nodes of two workers, and a connector that knows one of them: all reach the application."""

import asyncio
import json
import re
import signal
import ssl
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from connected import CONNECT, NAME, SITE, Connected, until

from bench.nodes import TRUST_DOMAIN, Estate
from ztproxy.administrator.issue import CONNECTORS, NODES


@pytest.fixture(scope="module")
def estate() -> Iterator[Connected]:
    with Connected() as running:
        yield running


async def statuses(estate: Connected, node: int, count: int = 12) -> list[int]:
    """What new connections to a node get: each may come to another worker."""
    async with estate.session(force_close=True) as session:

        async def ask() -> int:
            async with session.get(estate.url(node, "/x")) as answer:
                await answer.read()
                return answer.status

        return list(await asyncio.gather(*(ask() for _ in range(count))))


async def test_without_any_connector_nobody_reaches_it_and_it_is_said_why(estate: Connected) -> None:
    async with (
        estate.session() as session,
        session.get(estate.url(1, "/x"), headers={"Accept": "application/json"}) as answer,
    ):
        assert answer.status == 502
        assert "connector-unavailable" in await answer.text()


async def test_a_node_without_a_connector_borrows_from_one_that_has_it(estate: Connected) -> None:
    await asyncio.to_thread(estate.connector, [0])
    await until(lambda: estate.ready(0) >= 2)
    began = time.monotonic()
    while set(await statuses(estate, 1)) != {200}:
        assert time.monotonic() < began + 10
        await asyncio.sleep(0.1)
    assert estate.ready(1) == 0
    assert set(await statuses(estate, 0)) == {200}
    await until(lambda: estate.borrowed(1, "node") > 0)
    async with estate.session() as session:
        async with session.ws_connect(estate.url(1, "/ws")) as socket:
            await socket.send_str("hello")
            assert await socket.receive_str(timeout=10) == "hello"
        async with session.get(estate.url(1, f"/down?bytes={64 << 20}")) as answer:
            size = 0
            async for chunk in answer.content.iter_any():
                size += len(chunk)
            assert size == 64 << 20


async def listed(estate: Estate, node: int) -> Any:
    """What a node tells an administrator of connectors."""
    return await estate.nodes[node].ask("GET", "/v1/connectors")


async def test_every_node_shows_the_connectors_of_all_and_what_they_carry_there(estate: Connected) -> None:
    first = f"127.0.0.1:{estate.nodes[0].port}"
    async with (
        estate.session() as session,
        session.get(estate.url(0, "/events?count=900")) as answer,
        asyncio.timeout(40),
    ):
        await answer.content.readline()
        while True:
            (one,) = (await listed(estate, 1))["connectors"]
            if one["nodes"] and one["nodes"][0]["carrying"]:
                break
            await asyncio.sleep(0.1)
    (place,) = one["nodes"]
    assert (place["node"], place["here"], place["silent"]) == (first, False, False)
    assert one["live"]["ready"] == place["ready"] >= 2
    shown = await asyncio.to_thread(estate.nodes[1].cli, "connectors", "list")
    assert re.search(rf"^ *{NAME}/\w+ .* {first} +\d+ +\d+ +connected *$", shown.stdout, re.M), shown.stdout
    assert not shown.stderr


async def test_a_node_that_is_upgraded_finishes_what_it_has_lent(estate: Connected) -> None:
    """The old workers have no callers of their own any more, and yet somebody to wait for."""
    async with estate.session() as session, session.get(estate.url(1, "/events?count=900")) as answer:
        await answer.content.readline()
        done = await asyncio.to_thread(estate.nodes[0].cli, "upgrade")
        assert done.returncode == 0, done.stderr
        began = time.monotonic()
        while time.monotonic() < began + 4:
            assert await answer.content.readline()
    await until(lambda: estate.ready(0) >= 2)
    assert set(await statuses(estate, 1)) == {200}


async def test_a_captured_node_gets_what_connectors_allow_and_nothing_else(estate: Connected) -> None:
    """Somebody has a certificate of a node. The connector looks at its own list, and so does nobody else."""
    captured = estate.shows(NODES, "captured")
    await until(lambda: estate.ready(0) >= 2)  # those before have used some up
    outside = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = outside.sockets[0].getsockname()[1]
    for wanted, answered in ((port, b"not-allowed"), (estate.site_port, b"\x04")):
        question = b'{"scheme":"http","host":"127.0.0.1","port":%d}' % wanted
        frame = b"\x03" + len(question).to_bytes(2, "big") + question
        answer = await estate.said(0, captured, CONNECT, f"/.ztproxy/carry/{NAME}", frame)
        assert b" 101 " in answer
        assert answered in answer
    outside.close()
    assert b" 101 " not in await estate.said(0, captured, CONNECT, "/.ztproxy/carry"), "it takes work"
    assert b" 502 " in await estate.said(0, captured, CONNECT, "/.ztproxy/carry/other-name")
    for host in (SITE, "portal.localhost"):
        assert b" 101 " not in await estate.said(0, captured, host, f"/.ztproxy/carry/{NAME}")


async def test_a_captured_connector_can_not_borrow_nor_be_a_node(estate: Connected) -> None:
    folder = estate.connectors[0].folder / "state"
    captured = ssl.create_default_context(cafile=str(estate.root / "ca.pem"))
    captured.load_cert_chain(folder / "connector.pem", folder / "connector.key")
    assert b" 101 " in await estate.said(0, captured, CONNECT, "/.ztproxy/carry"), "it is what it says"
    assert b" 101 " not in await estate.said(0, captured, CONNECT, f"/.ztproxy/carry/{NAME}")
    other = estate.shows(CONNECTORS, NAME, "a" * 13)  # certified, and enrolled by nobody
    assert b" 101 " not in await estate.said(0, other, CONNECT, "/.ztproxy/carry")


async def test_a_lock_shuts_a_node_out_and_cuts_what_was_lent_to_it(estate: Connected) -> None:
    name = f"spiffe://{TRUST_DOMAIN}/node/127-0-0-1-{estate.nodes[1].port}"
    async with estate.session() as session, session.get(estate.url(1, "/events?count=300")) as answer:
        await answer.content.readline()
        done = await asyncio.to_thread(
            estate.nodes[0].cli, "locks", "add", "workload", name, "--reason", "captured"
        )
        assert done.returncode == 0, done.stderr
        with pytest.raises(aiohttp.ClientError):
            async with asyncio.timeout(10):
                await answer.read()
    assert set(await statuses(estate, 1, 4)) == {502}
    listed = json.loads((await asyncio.to_thread(estate.nodes[0].cli, "locks", "list", "--json")).stdout)
    locks = listed["locks"] if isinstance(listed, dict) else listed
    for lock in locks:
        await asyncio.to_thread(estate.nodes[0].cli, "locks", "remove", lock["id"])

    async def served() -> bool:
        return set(await statuses(estate, 1, 4)) == {200}

    async with asyncio.timeout(20):
        while not await served():
            await asyncio.sleep(0.2)


async def test_a_connector_that_is_gone_is_nobodys_within_seconds(estate: Connected) -> None:
    await asyncio.to_thread(estate.connectors[0].end, signal.SIGTERM)
    began = time.monotonic()
    async with estate.session(force_close=True) as session:
        while True:
            try:
                async with session.get(estate.url(1, "/x")) as answer:
                    if answer.status == 502:
                        break
            except aiohttp.ClientError:
                pass
            assert time.monotonic() < began + 15


async def test_of_a_node_that_is_dead_every_other_says_that_it_is_silent(estate: Connected) -> None:
    """What it had is shown for a while, as what it is: old."""
    connector = estate.connectors[0]
    await asyncio.to_thread(estate.start, connector, [0])
    first = f"127.0.0.1:{estate.nodes[0].port}"
    async with asyncio.timeout(30):
        while not any(one["node"] == first for one in (await listed(estate, 1))["nodes"]):
            await asyncio.sleep(0.1)
    await asyncio.to_thread(estate.nodes[0].end, signal.SIGKILL)
    async with asyncio.timeout(40):
        while not any(one["silent"] for one in (await listed(estate, 1))["nodes"]):
            await asyncio.sleep(0.2)
    (one,) = (await listed(estate, 1))["connectors"]
    assert "live" not in one
    shown = await asyncio.to_thread(estate.nodes[1].cli, "connectors", "list")
    assert "unknown: the node is silent, as of " in shown.stdout
    assert f"{first} is silent" in shown.stderr
