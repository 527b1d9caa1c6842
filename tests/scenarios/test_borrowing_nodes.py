"""Two nodes of two workers, and a connector that knows one of them: all reach the application."""

import asyncio
import signal
import time
from collections.abc import Iterator

import aiohttp
import pytest
from connected import Connected, until


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
    one = await asyncio.to_thread(estate.connector, [0])
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
    one.end(signal.SIGTERM)


async def test_a_connector_that_is_gone_is_nobodys_within_seconds(estate: Connected) -> None:
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
