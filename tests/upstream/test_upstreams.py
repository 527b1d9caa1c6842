"""The executor: nothing without a permit, never a dirty connection, over http, https and unix sockets."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from gateway_fakes import HOST, ROUTE, permit_of
from gateway_pki import Authority

from ztproxy.model.request import AccessRequest, Context, Evidence, Resource
from ztproxy.model.resource import Upstream
from ztproxy.net.clock import SystemClock
from ztproxy.net.dial import Dialler
from ztproxy.net.outbox import Outbox
from ztproxy.net.tls import client_contexts
from ztproxy.net.wheel import Wheel
from ztproxy.upstream.exchange import Exchange
from ztproxy.upstream.receiver import Receiver
from ztproxy.upstream.request import Request
from ztproxy.upstream.upstreams import Upstreams
from ztproxy.wire.http1 import ResponseHead

GET = b"GET /x HTTP/1.1\r\nHost: app.example\r\n\r\n"


def permit(upstream: Upstream, **changes: object):
    route = ROUTE.replaced(upstream=upstream, **changes)
    context = Context(request_id="0" * 32, ip="192.0.2.7", host=HOST, path="/x")
    return permit_of(AccessRequest(Evidence(), Resource("Route", "app", route), "GET", context), route)


class Keeper(Receiver):
    """A receiver that keeps everything; `over` is set at the end."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.body = b""
        self.code = ""
        self.over = asyncio.Event()

    def responded(self, head: ResponseHead, body: bytes, ended: bool) -> None:
        assert self.head is None
        self.head = head
        self.received(body, ended)

    def received(self, body: bytes, ended: bool) -> None:
        self.body += body
        if ended:
            self.over.set()

    def failed(self, code: str, flaw: str = "") -> None:
        self.code = code
        self.over.set()

    def flow(self, full: bool) -> None: ...


Make = Callable[..., Upstreams]
Serve = Callable[..., Awaitable[Upstream]]


@pytest.fixture
async def make():
    """Makes pools, and closes them in the end."""
    pools: list[Upstreams] = []

    def make(*upstreams: Upstream) -> Upstreams:
        clock = SystemClock()
        dialler = Dialler(client_contexts(upstreams))
        pools.append(Upstreams(dialler, wheel=Wheel(clock), outbox=Outbox()))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()
    await asyncio.sleep(0.05)


@pytest.fixture
async def serve(free_port: Callable[[], int]):
    """Makes raw servers that answer each head, until the client leaves."""
    servers: list[asyncio.Server] = []
    running: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def serve(answer: bytes) -> Upstream:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            running.add(asyncio.current_task())  # type: ignore[arg-type]
            writers.append(writer)
            try:
                while answer:
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(answer)
                await reader.read()
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        port = free_port()
        servers.append(await asyncio.start_server(talk, "127.0.0.1", port, backlog=1024))
        return Upstream(scheme="http", host="127.0.0.1", port=port)

    serve.running = running  # type: ignore[attr-defined]
    yield serve
    for server in servers:
        server.close()
    for writer in writers:
        writer.transport.abort()
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await asyncio.sleep(0.02)


async def fetch(
    pool: Upstreams, upstream: Upstream, data: bytes = GET, timeout: float = 2.0, **options: bool
) -> Keeper:
    keeper = Keeper()
    values = {"complete": True, "replayable": True, **options}
    pool.open(permit(upstream, connect_timeout=timeout), Request(data, **values), keeper)
    await asyncio.wait_for(keeper.over.wait(), 5)
    return keeper


@pytest.fixture
async def app():
    """An aiohttp application on TCP, with TLS and on a unix socket."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.method} {request.path} {request.headers['Host']}")

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    yield runner
    await runner.cleanup()


async def test_without_a_permit_nothing_happens(make: Make) -> None:
    pool = make()
    for instead in (None, ROUTE, "permit"):
        with pytest.raises(TypeError):
            pool.open(instead, Request(GET, True, True), Keeper())  # type: ignore[arg-type]


async def test_http_and_reuse(app: web.AppRunner, make: Make, free_port: Callable[[], int]) -> None:
    upstream = Upstream(scheme="http", host="127.0.0.1", port=free_port())
    await web.TCPSite(app, upstream.host, upstream.port).start()
    pool = make()
    for _ in range(3):
        keeper = await fetch(pool, upstream)
        assert keeper.body == b"GET /x app.example"
        assert len(pool) == 1
    assert len(await asyncio.gather(*(fetch(pool, upstream) for _ in range(5)))) == 5
    assert len(pool) == 5
    pool.close()
    await asyncio.sleep(0.05)
    assert len(pool) == 0


async def test_a_crowd_at_one_application_dials_once(make: Make, serve: Serve) -> None:
    """As many as answer at once, as many connections: 400 of them, again and again, make no new one."""
    upstream = await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    pool = make()
    for _ in range(3):
        keepers = await asyncio.gather(*(fetch(pool, upstream) for _ in range(400)))
        assert all(keeper.body == b"hi" for keeper in keepers)
    assert len(pool) == len(serve.running) == 400  # type: ignore[attr-defined]


async def test_unix(app: web.AppRunner, make: Make, tmp_path: Path) -> None:
    upstream = Upstream(scheme="unix", host=str(tmp_path / "app.sock"), port=0)
    await web.UnixSite(app, upstream.host).start()
    assert (await fetch(make(), upstream)).body == b"GET /x app.example"


async def test_https_verifies_the_configured_name(
    app: web.AppRunner, make: Make, free_port: Callable[[], int], authority: Authority
) -> None:
    files = authority.server("inside.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    port = free_port()
    await web.TCPSite(app, "127.0.0.1", port, ssl_context=context).start()
    good = Upstream(
        scheme="https", host="127.0.0.1", port=port, server_name="inside.example", ca=str(authority.file)
    )
    other_name = msgspec.structs.replace(good, server_name="other.example")
    other_ca = msgspec.structs.replace(good, ca=None)
    no_context = msgspec.structs.replace(good, ca="/elsewhere.pem")
    pool = make(good, other_name, other_ca)
    assert (await fetch(pool, good)).body == b"GET /x app.example"
    for bad in (other_name, other_ca, no_context):
        assert (await fetch(pool, bad)).code == "upstream-unreachable"
    assert len(pool) == 1


async def test_an_upstream_that_wants_a_certificate_gets_that_of_the_route_and_no_other(
    make: Make, free_port: Callable[[], int], authority: Authority
) -> None:
    async def who(request: web.Request) -> web.Response:
        certificate = request.transport.get_extra_info("peercert")  # type: ignore[union-attr]
        return web.Response(text=str(certificate["subject"]))

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", who)
    runner = web.AppRunner(application)
    await runner.setup()
    server = authority.server("inside.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    context.load_verify_locations(str(authority.file))
    context.verify_mode = ssl.CERT_REQUIRED
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    bare = Upstream(
        scheme="https", host="127.0.0.1", port=port, server_name="inside.example", ca=str(authority.file)
    )
    ours = [authority.client(common_name=name) for name in ("gateway-a", "gateway-b")]
    one, other = (
        msgspec.structs.replace(bare, certificate=str(files.certificate), key=str(files.key))
        for files in ours
    )
    pool = make(bare, one, other)
    for _ in range(2):
        assert b"gateway-a" in (await fetch(pool, one)).body
        assert b"gateway-b" in (await fetch(pool, other)).body
    assert len(pool) == 2  # never one for both
    assert (await fetch(pool, bare)).code in ("upstream-unreachable", "upstream-invalid")
    assert len(pool) == 2
    await runner.cleanup()


async def test_nobody_there(make: Make, free_port: Callable[[], int], tmp_path: Path) -> None:
    for upstream in (
        Upstream(scheme="http", host="127.0.0.1", port=free_port()),
        Upstream(scheme="unix", host=str(tmp_path / "none.sock"), port=0),
        Upstream(scheme="http", host="does-not-exist.invalid", port=80),
    ):
        assert (await fetch(make(), upstream)).code == "upstream-unreachable"


async def test_why_an_upstream_can_not_be_reached_is_in_the_log_once_a_minute(
    make: Make, free_port: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    here, there = (Upstream(scheme="http", host=f"127.0.0.{host}", port=free_port()) for host in (1, 2))
    pool = make()
    for upstream in (here, here, there, here):
        await fetch(pool, upstream)

    def said() -> list[tuple[str, str]]:
        return [(one.route, one.target) for one in caplog.records]  # type: ignore[attr-defined]

    assert said() == [("app", here.place), ("app", there.place)]
    assert "ConnectionRefused" in caplog.records[0].reason  # type: ignore[attr-defined]
    pool._wheel.now += 61
    await fetch(pool, here)
    assert len(said()) == 3


async def test_a_server_that_accepts_and_never_shakes_hands(serve: Serve, make: Make) -> None:
    upstream = msgspec.structs.replace(await serve(b""), scheme="https")
    assert (await fetch(make(upstream), upstream, timeout=0.2)).code == "upstream-unreachable"


@pytest.mark.parametrize(
    ("answer", "pooled"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!", False),
        (b"HTTP/1.1 204 No Content\r\n\r\nx", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200", False),
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nWWW-Authenticate: NTLM\r\n\r\n", False),
    ],
)
async def test_only_clean_connections_are_pooled(
    serve: Serve, make: Make, answer: bytes, pooled: bool
) -> None:
    pool = make()
    upstream = await serve(answer)
    await fetch(pool, upstream)
    assert len(pool) == pooled


async def test_a_half_sent_request_never_leaves_its_connection_behind(serve: Serve, make: Make) -> None:
    upstream = await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    pool = make()
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc"
    assert (await fetch(pool, upstream, post, complete=False, replayable=False)).body == b"hi"
    assert len(pool) == 0


async def test_aborting_at_any_moment_leaves_nothing(serve: Serve, make: Make) -> None:
    upstream = await serve(b"")
    pool = make()
    for turns in range(8):
        exchange: Exchange = pool.open(permit(upstream), Request(GET, True, True), Keeper())
        for _ in range(turns):
            await asyncio.sleep(0)
        exchange.abort()
    await asyncio.sleep(0.05)
    assert len(pool) == 0
    assert all(task.done() for task in serve.running)  # type: ignore[attr-defined]
