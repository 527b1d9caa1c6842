"""Locks set from the command line, on a whole node: every protocol is cut and refused, until it is gone."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from small_node import COOKIE, HOST, Application, Node, eventually

from ztproxy.net.names import Resolver

HEADERS = {"Cookie": f"__Host-ztproxy={COOKIE}", "Accept": "application/json"}
POLICY_VIOLATION = 1008
CUT = 5.0  # seconds; the bound is published elsewhere, here it must only come


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    application = Application()
    made = Node(tmp_path, await application.start())
    await made.sign_in()
    with made.running():
        yield made
    await application.stop()


async def cli(node: Node, *words: str) -> str:
    done: subprocess.CompletedProcess[str] = await asyncio.to_thread(node.cli, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def client(node: Node) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=node.tls(), resolver=Resolver(), force_close=True)
    return aiohttp.ClientSession(connector=connector, headers=HEADERS)


async def answers(node: Node) -> set[tuple[int, str]]:
    """What several connections, so all workers, get."""
    found = set()
    async with client(node) as session:
        for _ in range(12):
            async with session.get(f"https://{HOST}:{node.port}/a") as answer:
                body = await answer.read()
                code = json.loads(body)["code"] if answer.status != 200 else ""
                found.add((answer.status, code))
    return found


async def become(node: Node, expected: tuple[int, str]) -> None:
    """Wait until every connection gets this, whichever worker takes it."""
    async with asyncio.timeout(CUT):
        while await answers(node) != {expected}:
            pass


@pytest.mark.parametrize(
    ("target", "value"),
    [("user", "corp:carol"), ("session", "ses_carol"), ("route", "app"), ("issuer", "corp")],
)
async def test_a_lock_cuts_and_refuses_every_protocol_until_it_is_removed(
    node: Node, target: str, value: str
) -> None:
    origin = f"https://{HOST}:{node.port}"
    events = {"Accept": "text/event-stream"}
    async with client(node) as session, session.ws_connect(origin + "/ws", origin=origin) as socket:
        async with session.get(origin + "/slow?parts=600", headers=events) as stream:
            assert await stream.content.readline() == b"part\n"
            await socket.send_str("hello")
            assert await socket.receive_str(timeout=10) == "hello"
            lock = (await cli(node, "locks", "add", target, value, "--reason", "a test")).split()[0]
            async with asyncio.timeout(CUT):
                closed = await socket.receive()
                assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, POLICY_VIOLATION)
                assert "locked" in str(closed.extra)
                with pytest.raises(aiohttp.ClientPayloadError):
                    await stream.content.read()
        await become(node, (403, "locked"))  # each worker hears of it by itself
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(origin + "/ws", origin=origin)
        assert refused.value.status == 403
    assert json.loads(await cli(node, "locks", "list", "--json"))[0]["id"] == lock
    await cli(node, "locks", "remove", lock)
    await become(node, (200, ""))
    owner = value if target == "session" else "standing"
    await asyncio.to_thread(eventually, lambda: "unlocked" in node.cli("recordings", "show", owner).stdout)
    shown = await cli(node, "recordings", "show", owner)
    assert f"locked {target} {value}" in shown and "a test" in shown
    why = f"{lock}: a test"
    await asyncio.to_thread(eventually, lambda: why in node.cli("recordings", "show", "ses_carol").stdout)


async def test_all_sessions_of_a_person_are_cut_at_once_and_nobody_elses(node: Node) -> None:
    origin = f"https://{HOST}:{node.port}"
    async with client(node) as session, session.ws_connect(origin + "/ws", origin=origin) as socket:
        await cli(node, "sessions", "cut", "--user", "corp:carole")
        assert await answers(node) == {(200, "")}
        await cli(node, "sessions", "cut", "--user", "corp:carol", "--by", "ada")
        closed = await socket.receive(timeout=CUT)
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, POLICY_VIOLATION)
    await become(node, (401, "session-ended"))
