"""The gateway on real sockets: TLS in front, other people's servers behind, big bodies, WebSockets, cuts."""

import asyncio
import io
import resource
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import h11
import pytest
import uvloop
from aiohttp import web
from gateway_fakes import ROUTE, refusal
from gateway_live import HOST, Connecting, Gateway, bundle, instance
from gateway_pki import Authority

from ztproxy.model.resource import Upstream

MIB = 1 << 20


Start = Callable[..., Awaitable[Gateway]]


@pytest.fixture(params=["direct", "through a connector"])
async def start(request: pytest.FixtureRequest, authority: Authority, free_port: Callable[[], int]):
    """Starts an upstream (an aiohttp application or a stream callback) and a gateway in front of it, which
    reaches it by itself or through a connector: callers must not see a difference."""
    through = request.param != "direct"
    ends: list[Callable[[], Awaitable[Any]]] = []

    async def start(behind: Any, **changes: Any) -> Gateway:
        port = free_port()
        if isinstance(behind, web.Application):
            runner = web.AppRunner(behind, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            ends.append(runner.cleanup)
        else:
            ends.append(await serve(behind, port))
        connector = "partner-site" if through else ""
        upstream = Upstream(scheme="http", host="127.0.0.1", port=port, connector=connector)
        route = ROUTE.replaced(upstream=upstream, max_body=200 * MIB, **changes)
        connectors = Authority(authority.directory, "connectors")
        gateway = Gateway(route, authority, [bundle(connectors)])
        gateway.start()
        ends.append(gateway.stop)
        if through:
            connecting = Connecting([gateway.port], instance(connectors), [upstream.url])
            ends.append(connecting.stop)
            await connecting.ready()
        return gateway

    yield start
    for end in reversed(ends):
        await end()
    await asyncio.sleep(0.02)


async def serve(callback: Any, port: int) -> Callable[[], Awaitable[None]]:
    tasks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            await callback(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", port, limit=1 << 16)

    async def end() -> None:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    return end


# ---------------------------------------------------------------------- other people's servers and clients


def echo() -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        return web.json_response(
            {"method": request.method, "path": request.path_qs, "size": len(body), "host": request.host},
            headers={"X-Seen": request.headers.get("X-Test", "")},
        )

    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", answer)
    return application


async def test_aiohttp_on_both_sides(start: Start) -> None:
    gateway = await start(echo())
    async with gateway.session() as session:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            async with session.request(
                method, f"{gateway.url}/a/b?c=d", data=b"x" * 1000, headers={"X-Test": "y"}
            ) as got:
                assert got.status == 200
                assert got.headers["X-Seen"] == "y"
                assert await got.json() == {
                    "method": method,
                    "path": "/a/b?c=d",
                    "size": 1000,
                    "host": f"{HOST}:{gateway.port}",
                }
        async with session.head(f"{gateway.url}/") as got:
            assert (got.status, await got.read()) == (200, b"")
    assert [record.end for record in gateway.records] == ["complete"] * 7
    assert len(gateway.world.upstreams) == 1


async def test_many_at_once(start: Start) -> None:
    gateway = await start(echo())

    async def one(session: aiohttp.ClientSession, number: int) -> str:
        async with session.post(f"{gateway.url}/{number}", data=b"z" * number) as got:
            answer = await got.json()
            assert answer["size"] == number
            return str(answer["path"])

    async with gateway.session() as session:
        paths = await asyncio.gather(*(one(session, number) for number in range(0, 3000, 15)))
    assert paths == [f"/{number}" for number in range(0, 3000, 15)]


async def h11_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with a chunked body and trailers; fails loudly on whatever h11 does not like."""
    peer = h11.Connection(h11.SERVER)
    while True:
        event = peer.next_event()
        if event is h11.NEED_DATA:
            peer.receive_data(await reader.read(65536))
        elif isinstance(event, h11.EndOfMessage):
            assert event.headers == []
            head = h11.Response(status_code=200, headers=[("Transfer-Encoding", "chunked")])
            end = h11.EndOfMessage(headers=[("X-Trailer", "t")])
            for sent in (head, h11.Data(b"one"), h11.Data(b"two"), end):
                writer.write(peer.send(sent) or b"")
            peer.start_next_cycle()
        elif isinstance(event, h11.ConnectionClosed):
            return


async def test_h11_behind_and_chunks_in_front(start: Start) -> None:
    gateway = await start(h11_server)

    async def pieces():
        for _ in range(20):
            yield b"piece"
            await asyncio.sleep(0)

    async with gateway.session() as session:
        for _ in range(3):
            async with session.post(f"{gateway.url}/", data=pieces()) as got:
                assert await got.read() == b"onetwo"
    assert {record.received for record in gateway.records} == {100}
    assert {record.sent for record in gateway.records} == {6}


async def test_the_pool_survives_a_server_that_closes_idle_connections(start: Start) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    gateway = await start(once)
    async with gateway.session() as session:
        for _ in range(20):
            async with session.get(f"{gateway.url}/") as got:
                assert (got.status, await got.read()) == (200, b"hi")


# ---------------------------------------------------------------------- truncation


async def test_a_truncated_response_looks_truncated(start: Start) -> None:
    async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()

    gateway = await start(dying)
    async with gateway.session() as session:
        with pytest.raises(aiohttp.ClientError):
            async with session.get(f"{gateway.url}/") as got:
                await got.read()
    await asyncio.sleep(0.05)
    assert gateway.records[0].end == "upstream-failed"


async def test_an_early_answer_arrives_although_the_client_is_still_sending(start: Start) -> None:
    async def impatient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 4\r\n\r\nnope")
        await reader.read()

    gateway = await start(impatient)
    reader, writer = await gateway.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 1000000\r\n\r\n")
    writer.write(b"x" * 30000)
    answer = await asyncio.wait_for(reader.readuntil(b"nope"), 5)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"Connection: close" in answer
    writer.close()
    assert len(gateway.world.upstreams) == 0


async def test_an_answer_of_an_upstream_that_hangs_up_on_an_upload_arrives(start: Start) -> None:
    """It does not read what comes; closing then sends a reset, which may overtake nothing it said before."""
    if not isinstance(asyncio.get_running_loop(), uvloop.Loop):
        pytest.skip("when a write fails, the standard library's loop drops what could still be read")

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope")

    gateway = await start(rude)
    for _ in range(10):
        reader, writer = await gateway.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 8000000\r\n\r\n")
        for _ in range(20):
            writer.write(b"x" * (1 << 16))
            await asyncio.sleep(0)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert answer.startswith(b"HTTP/1.1 413 ")
        writer.close()
    assert len(gateway.world.upstreams) == 0


async def test_a_client_that_closes_its_half_ends_the_exchange(start: Start) -> None:
    """The loop's TLS knows no half-closed connections: nothing is left behind, and nothing seems complete."""
    asked = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        assert await reader.read() == b""

    gateway = await start(slow)
    _, writer = await gateway.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n")
    await asyncio.wait_for(asked.wait(), 5)
    writer.close()
    for _ in range(200):
        if gateway.records:
            break
        await asyncio.sleep(0.01)
    assert [record.end for record in gateway.records] == ["client-gone"]


# ---------------------------------------------------------------------- big bodies


async def test_twenty_mebibytes_each_way_at_once(start: Start) -> None:
    total = 20 * MIB

    async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        left = total
        while left:
            data = await reader.read(1 << 16)
            left -= len(data)
            writer.write(data)
            await writer.drain()
        await reader.read()

    gateway = await start(mirror)
    reader, writer = await gateway.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: %d\r\n\r\n" % total)

    async def send() -> None:
        for number in range(total >> 16):
            writer.write(bytes((number % 251,)) * (1 << 16))
            await writer.drain()

    sending = asyncio.create_task(send())
    await reader.readuntil(b"\r\n\r\n")
    for number in range(total >> 16):
        assert await asyncio.wait_for(reader.readexactly(1 << 16), 20) == bytes((number % 251,)) * (1 << 16)
    await sending
    writer.close()
    await asyncio.sleep(0.05)
    (record,) = gateway.records
    assert (record.received, record.sent, record.end) == (total, total, "complete")


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_fifty_mebibytes_up_to_a_slow_reader(start: Start) -> None:
    total = 50 * MIB
    got = offered = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.3)
        assert offered < 24 * MIB, "nobody held the client back"
        while got < total:
            got += len(await reader.read(1 << 16))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    gateway = await start(slow)
    reader, writer = await gateway.connect()
    before = peak()
    writer.write(b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: %d\r\n\r\n" % total)
    block = b"x" * (1 << 16)
    for _ in range(total // len(block)):
        writer.write(block)
        offered += len(block)
        await writer.drain()
    assert (await asyncio.wait_for(reader.readline(), 30)).startswith(b"HTTP/1.1 200")
    assert got == total
    assert peak() - before < 24 * MIB
    writer.close()
    await asyncio.sleep(0.05)
    assert gateway.records[0].received == total


async def test_fifty_mebibytes_down_to_a_slow_reader(start: Start) -> None:
    total = 50 * MIB
    sent = 0

    async def fast(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        block = b"x" * (1 << 16)
        while sent < total:
            writer.write(block)
            sent += len(block)
            await writer.drain()
        await reader.read()

    gateway = await start(fast)
    reader, writer = await gateway.connect(limit=1 << 16)
    before = peak()
    writer.write(b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n")
    await asyncio.sleep(0.5)
    assert sent < 24 * MIB, "nobody held the upstream back"
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    got = 0
    while got < total:
        got += len(await asyncio.wait_for(reader.read(1 << 16), 10))
    assert got == total
    assert peak() - before < 24 * MIB
    writer.close()
    await asyncio.sleep(0.05)
    assert gateway.records[0].sent == total


# ---------------------------------------------------------------------- WebSockets and cuts


def chat() -> web.Application:
    async def talk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await (socket.send_bytes if isinstance(message.data, bytes) else socket.send_str)(message.data)
        return socket

    application = web.Application()
    application.router.add_get("/chat", talk)
    return application


async def test_websocket_echo(start: Start) -> None:
    gateway = await start(chat())
    async with gateway.session() as session, session.ws_connect(f"{gateway.url}/chat") as ws:
        for message in ("hello", "ü" * 50_000):
            await ws.send_str(message)
            assert await ws.receive_str(timeout=5) == message
        await ws.send_bytes(bytes(200_000))
        assert len(await ws.receive_bytes(timeout=5)) == 200_000
        assert "websocket" in {request.context.protocol for request in gateway.door.requests}
    for _ in range(100):
        if gateway.records:
            break
        await asyncio.sleep(0.01)
    record = gateway.records[0]
    assert (record.status, record.end) == (101, "complete")
    assert record.sent > 200_000


async def test_a_cut_websocket_ends_with_a_reason(start: Start) -> None:
    gateway = await start(chat())
    async with gateway.session() as session, session.ws_connect(f"{gateway.url}/chat") as ws:
        await ws.send_str("hello")
        await ws.receive_str(timeout=5)
        gateway.paths.cut("session-ended")
        message = await ws.receive(timeout=5)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert (message.data, message.extra) == (1008, "session-ended")
    assert gateway.records[0].end == "cut: session-ended"


async def test_a_cut_download_stops_at_once(start: Start) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"tick")
            await writer.drain()
            await asyncio.sleep(0.01)

    gateway = await start(endless)
    async with gateway.session() as session, session.get(f"{gateway.url}/") as got:
        await got.content.readexactly(8)
        gateway.paths.cut("device-revoked")
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(got.read(), 5)


# ---------------------------------------------------------------------- refusals over TLS


async def test_refusals_arrive_whole(start: Start) -> None:
    gateway = await start(echo())
    gateway.door.answer = lambda request: refusal("access-denied")
    async with gateway.session() as session:
        for size in (0, 1000, 60_000, 5 * MIB):
            async with session.post(f"{gateway.url}/", data=io.BytesIO(b"x" * size)) as got:
                assert got.status == 403
                assert (await got.json())["code"] == "access-denied"


async def test_an_oversized_head_gets_its_answer(start: Start) -> None:
    gateway = await start(echo())
    reader, writer = await gateway.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: app.example\r\nX: " + b"a" * 60_000)
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 431 ")
    writer.close()


async def test_http_2_is_not_negotiated(start: Start) -> None:
    gateway = await start(echo())
    gateway.trust.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await gateway.connect()
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    assert tls.selected_alpn_protocol() == "http/1.1"
    writer.close()
