"""The proxy in one network namespace, the application in another, and no way between them but what the
connector dials: everything passes that way, and nothing can be found the other way."""

import asyncio
import io
import json
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from connected import Connected
from namespaces import PROXY, SITE, Apart, apart, inside

#: MiB each way; the whole journey is 1024.
SIZE = int(os.environ.get("ZTPROXY_JOURNEY_MIB", "64")) << 20


@pytest.fixture(scope="module")
def two() -> Iterator[Apart]:
    with apart() as made:
        made.close_site()
        yield made


@pytest.fixture(scope="module")
def estate(two: Apart) -> Iterator[Connected]:
    with inside(two.proxy), Connected(nodes=1, beside=two.site.enter, proxy=PROXY) as running:
        running.connector([0])
        yield running


async def test_requests_websockets_and_event_streams_pass(estate: Connected) -> None:
    async with estate.session() as session:
        for number in range(20):
            async with session.get(estate.url(0, f"/x{number}")) as answer:
                said = await answer.json()
                assert (answer.status, said["path"]) == (200, f"/x{number}")
        async with session.ws_connect(estate.url(0, "/ws")) as socket:
            for number in range(100):
                await socket.send_str(f"message {number}")
                assert await socket.receive_str(timeout=10) == f"message {number}"
        async with session.get(estate.url(0, "/events?count=5")) as answer:
            assert await answer.text() == "".join(f"data: {number}\n\n" for number in range(5))


async def test_much_passes_both_ways(estate: Connected) -> None:
    async with estate.session() as session:
        began, size = time.monotonic(), 0
        async with session.get(estate.url(0, f"/down?bytes={SIZE}")) as answer:
            async for chunk in answer.content.iter_any():
                size += len(chunk)
        down = time.monotonic() - began
        assert size == SIZE
        began = time.monotonic()
        async with session.post(estate.url(0, "/up"), data=pieces(SIZE)) as answer:
            assert await answer.text() == str(SIZE)
        up = time.monotonic() - began
        print(f"{SIZE >> 20} MiB: down {SIZE / down / 1e6:.0f} MB/s, up {SIZE / up / 1e6:.0f} MB/s")


async def pieces(size: int) -> Any:
    piece = bytes(1 << 18)
    for _ in range(size // len(piece)):
        yield piece


async def test_a_download_that_nobody_takes_holds_nobody_up(estate: Connected) -> None:
    """Two streams of one connector, one of them stalled for good."""
    async with (
        estate.session() as session,
        session.get(estate.url(0, f"/down?bytes={1 << 30}")) as stalled,
        asyncio.timeout(60),
    ):
        await stalled.content.readexactly(1 << 16)
        size = 0
        async with session.get(estate.url(0, f"/down?bytes={32 << 20}")) as answer:
            async for chunk in answer.content.iter_any():
                size += len(chunk)
        assert size == 32 << 20
        for _ in range(20):
            async with session.post(estate.url(0, "/up"), data=io.BytesIO(bytes(1 << 16))) as answer:
                assert await answer.text() == str(1 << 16)
        stalled.close()


def test_a_scan_of_the_site_finds_nothing_and_nobody_there_listens_to_the_wire(
    two: Apart, estate: Connected
) -> None:
    assert two.ports(two.proxy, SITE) == []
    listening = two.site.run("ss", "--listening", "--tcp", "--numeric", "--no-header")
    assert {line.split()[3] for line in listening.splitlines()} == {f"127.0.0.1:{estate.site_port}"}


def test_the_proxy_has_no_way_to_the_application(two: Apart, estate: Connected) -> None:
    for address in (SITE, "127.0.0.1"):
        command = ["curl", "--silent", "--max-time", "2", f"http://{address}:{estate.site_port}/x"]
        assert subprocess.run([*two.proxy.enter, *command], check=False).returncode in (7, 28)
    assert (
        json.loads(two.site.run("curl", "--silent", f"http://127.0.0.1:{estate.site_port}/x"))["path"] == "/x"
    )


async def test_a_connector_that_was_cut_off_comes_back_by_itself(two: Apart, estate: Connected) -> None:
    """The wire is cut without a word to anybody, for longer than anybody waits."""
    async with estate.session(force_close=True) as session:

        async def status() -> int:
            try:
                async with asyncio.timeout(10), session.get(estate.url(0, "/x")) as answer:
                    return answer.status
            except (aiohttp.ClientError, TimeoutError):
                return 0

        assert await status() == 200
        await asyncio.to_thread(two.cut)
        try:
            assert await status() in (0, 502, 504)
            async with asyncio.timeout(40):
                while await status() not in (502, 504):
                    await asyncio.sleep(0.1)
        finally:
            await asyncio.to_thread(two.mend)
        began = time.monotonic()
        async with asyncio.timeout(60):
            while await status() != 200:
                await asyncio.sleep(0.1)
        print(f"back after {time.monotonic() - began:.1f} s")
