"""A connector's file is edited while it carries: SIGHUP takes it up, and cuts only what it allows no more."""

import asyncio
import os
import signal
from collections.abc import Iterator

import aiohttp
import pytest
from connected import CONFIGURATION, Connected, ConnectorProgram, until


@pytest.fixture(scope="module")
def estate() -> Iterator[Connected]:
    with Connected() as running:
        yield running


def edit(estate: Connected, one: ConnectorProgram, nodes: list[int], allow: str = "", more: str = "") -> None:
    """Write a connector's file anew and tell it. It drains for longer than metrics take on a busy machine."""
    proxies = ", ".join(f'"127.0.0.1:{estate.nodes[at].port}"' for at in nodes)
    allowed = allow or f'"http://127.0.0.1:{estate.site_port}"'
    text = CONFIGURATION.format(state=one.folder / "state", drain="12s", proxies=proxies, allow=allowed)
    one.file.write_text(text + more)
    os.kill(one.pid, signal.SIGHUP)


async def echoes(socket: aiohttp.ClientWebSocketResponse, text: str) -> bool:
    await socket.send_str(text)
    return (await socket.receive_str(timeout=20)) == text


async def status(estate: Connected, node: int) -> int:
    async with estate.session() as session, session.get(estate.url(node, "/x")) as answer:
        return answer.status


async def test_an_edited_file_is_taken_up_without_cutting_what_it_still_allows(estate: Connected) -> None:
    one = await asyncio.to_thread(estate.connector, [0])
    async with estate.session() as session, session.ws_connect(estate.url(0, "/ws")) as socket:
        assert await echoes(socket, "before")

        edit(estate, one, [0, 1], more="limits: {carrying: none}\n")
        await until(lambda: "connector.yaml:5:" in one.said())
        assert "not reloaded" in one.said()
        assert estate.ready(1) == 0 and await echoes(socket, "a bad file changes nothing")

        edit(estate, one, [0, 1])
        await until(lambda: estate.ready(1) >= 2)
        assert await echoes(socket, "a node is added")
        assert [await status(estate, node) for node in (0, 1)] == [200, 200]

        edit(estate, one, [1])
        await until(lambda: estate.ready(0) == 0)
        assert await echoes(socket, "its node is removed: it may finish")
        message = await socket.receive(timeout=60)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR), (
            "and not for ever"
        )
    assert await status(estate, 1) == 200


async def test_what_an_edited_list_does_not_have_is_cut_and_not_opened_again(estate: Connected) -> None:
    (one,) = estate.connectors
    async with estate.session() as session, session.ws_connect(estate.url(1, "/ws")) as socket:
        assert await echoes(socket, "before")
        edit(estate, one, [1], allow='"http://127.0.0.1:9"')
        message = await socket.receive(timeout=20)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    assert await status(estate, 1) == 502
    edit(estate, one, [1])
    await until(lambda: one.said().count('"reloaded"') >= 4)
    assert await status(estate, 1) == 200
    assert one.process is not None and one.process.poll() is None
