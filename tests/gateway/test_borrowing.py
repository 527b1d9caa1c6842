"""A worker without a ready connection of a connector borrows one: from another worker, or from another node.

Two whole data planes in this process, real sockets between them; the connector knows only one of the two.
"""

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from gateway_fakes import ROUTE
from gateway_live import DIAL_IN, DOMAIN, Connecting, Gateway, bundle, instance
from gateway_pki import Authority

from ztproxy.connector.link import Link
from ztproxy.gateway.borrowing import Door, Neighbourhood
from ztproxy.gateway.lending import Worker
from ztproxy.model.node import Node
from ztproxy.model.resource import Upstream
from ztproxy.net.certificates import read_bundle
from ztproxy.upstream.carriers import AGAIN, ANOTHER

MIB = 1 << 20
NAME = "partner-site"


def application() -> web.Application:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=request.path)

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    async def much(request: web.Request) -> web.Response:
        return web.Response(body=bytes(20 * MIB))

    async def count(request: web.Request) -> web.Response:
        received = 0
        async for chunk in request.content.iter_any():
            received += len(chunk)
        return web.Response(text=str(received))

    app = web.Application(client_max_size=100 * MIB)
    app.router.add_get("/ws", echo)
    app.router.add_get("/much", much)
    app.router.add_post("/count", count)
    app.router.add_get("/{path:.*}", answer)
    return app


class Nodes:
    """The one that has no connector, `far`, and the one that has, `near`."""

    def __init__(self, authority: Authority, upstream: Upstream, folder: Path) -> None:
        self.connectors = Authority(authority.directory, "connectors")
        self.authority = Authority(authority.directory, "nodes")
        self.folder = folder
        route = ROUTE.replaced(upstream=upstream, max_body=200 * MIB)
        bundles = [
            bundle(self.connectors),
            read_bundle("nodes", "node", self.authority.file, DOMAIN),
        ]
        self.near, self.far = (Gateway(route, authority, bundles) for _ in range(2))
        self.upstream = upstream
        self.servers: list[asyncio.Server] = []
        self.connecting: Connecting | None = None
        self.elsewhere: list[Node] = []  # what `far` knows of others
        self.workers: dict[Gateway, list[str]] = {self.near: [], self.far: []}  # whom each may ask
        self.asked = 0

    async def start(self) -> None:
        for gateway in (self.near, self.far):
            gateway.start()
            gateway.carriers.neighbours = Neighbourhood(
                lambda gateway=gateway: gateway.world,  # type: ignore[misc]
                lambda gateway=gateway: self.workers[gateway],  # type: ignore[misc]
                lambda name: [one for one in self.elsewhere if name in one.connectors],
                lambda: Door(DIAL_IN, f"{DIAL_IN}:{self.near.port}", lambda: self.context()),
            )

    async def connect(self, allow: Sequence[str] | None = None) -> None:
        """Have a connector at `near`."""
        allowed = [self.upstream.url] if allow is None else allow
        self.connecting = Connecting([self.near.port], instance(self.connectors), allowed)
        await self.connecting.ready()

    async def context(self) -> ssl.SSLContext:
        self.asked += 1
        return self.shows(f"spiffe://{DOMAIN}/node/far")

    def shows(self, uri: str, authority: Authority | None = None) -> ssl.SSLContext:
        files = (authority or self.authority).client(uri)
        context = self.near.authority.trust()
        context.load_cert_chain(files.certificate, files.key)
        return context

    def knows(self, *ports: int) -> None:
        """Tell `far` of nodes that have the connector."""
        self.elsewhere = [Node(f"n{port}", f"127.0.0.1:{port}", (NAME,)) for port in ports]

    async def worker(self, gateway: Gateway) -> str:
        """Let a gateway lend to the other workers of its node; return where."""
        path = str(self.folder / f"{len(self.servers)}.sock")
        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_unix_server(lambda: Worker(gateway.carriers), path))
        return path

    async def stop(self) -> None:
        self.far.world.upstreams.close()
        for server in self.servers:
            server.close()
        if self.connecting is not None:
            await self.connecting.stop()
        await over(self.near, self.far)
        for gateway in (self.far, self.near):
            await gateway.stop()

    async def get(self, path: str = "/x") -> tuple[int, str]:
        async with self.far.session() as session, session.get(self.far.url + path) as answer:
            return answer.status, await answer.text()


async def over(*gateways: Gateway) -> None:
    """Wait until nothing is carried any more."""
    async with asyncio.timeout(5):
        while any(gateway.paths.live for gateway in gateways):
            await asyncio.sleep(0.01)


@pytest.fixture
async def nodes(authority: Authority, free_port: Callable[[], int], tmp_path: Path) -> AsyncIterator[Nodes]:
    port = free_port()
    runner = web.AppRunner(application(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    made = Nodes(authority, Upstream(scheme="http", host="127.0.0.1", port=port, connector=NAME), tmp_path)
    await made.start()
    yield made
    await made.stop()
    await runner.cleanup()
    await asyncio.sleep(0.02)


Way = Callable[[Nodes], Awaitable[None]]


async def by_a_worker(nodes: Nodes) -> None:
    nodes.workers[nodes.far] = [await nodes.worker(nodes.near)]


async def by_a_node(nodes: Nodes) -> None:
    nodes.knows(nodes.near.port)


WAYS = pytest.mark.parametrize("way", [by_a_worker, by_a_node])


@WAYS
async def test_what_is_borrowed_carries_everything(nodes: Nodes, way: Way) -> None:
    await way(nodes)
    await nodes.connect()
    async with nodes.far.session() as session:
        for number in range(5):
            async with session.get(f"{nodes.far.url}/{number}") as answer:
                assert (answer.status, await answer.text()) == (200, f"/{number}")
        async with session.get(f"{nodes.far.url}/much") as answer:
            assert len(await answer.read()) == 20 * MIB
        async with session.post(f"{nodes.far.url}/count", data=io.BytesIO(bytes(20 * MIB))) as answer:
            assert await answer.text() == str(20 * MIB)
        async with session.ws_connect(f"{nodes.far.url}/ws", origin=nodes.far.url) as socket:
            await socket.send_str("hello")
            assert await socket.receive_str(timeout=5) == "hello"
    assert sum(nodes.far.carriers.borrowed.values()) < 5, (
        "a connection is used by one request after the other"
    )
    assert len(nodes.far.carriers) == 0, "what is borrowed is nobody's to lend on"


async def test_a_node_whose_connections_are_all_in_use_is_waited_for(nodes: Nodes) -> None:
    """However long ago there was one here."""
    nodes.far.carriers._began = -1e9
    assert (await nodes.get())[0] == 502, "nobody is known to have one"
    await by_a_node(nodes)
    asking = asyncio.create_task(nodes.get())
    await asyncio.sleep(0.4)
    assert not asking.done()
    await nodes.connect()
    assert await asking == (200, "/x")


@WAYS
async def test_what_is_lent_is_written_together_with_the_rest(nodes: Nodes, way: Way) -> None:
    """By the same outbox as everything else of the worker that lends."""
    await way(nodes)
    await nodes.connect()
    assert (await nodes.get())[0] == 200
    turn = nodes.near.world.outbox.turn
    for _ in range(20):
        assert (await nodes.get())[0] == 200
    assert nodes.near.world.outbox.turn >= turn + 40  # questions and answers
    assert sum(nodes.near.carriers.lent.values()) == 1


@WAYS
async def test_who_borrows_waits_for_a_connector_that_is_at_work(
    nodes: Nodes, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    dial = Link._dial

    async def slow(link: Link, asked: Any) -> None:
        await asyncio.sleep(1.5)  # longer than a silent one gets
        await dial(link, asked)

    monkeypatch.setattr(Link, "_dial", slow)
    await way(nodes)
    await nodes.connect()
    assert await nodes.get() == (200, "/x")
    assert nodes.far.carriers.refused == {}


@WAYS
async def test_a_connectors_own_list_holds_for_who_borrows(nodes: Nodes, way: Way) -> None:
    await way(nodes)
    await nodes.connect(["http://127.0.0.1:1"])
    status, _ = await nodes.get()
    assert status == 502
    assert nodes.far.records[-1].end == "connector-refused"


@WAYS
async def test_an_application_that_is_gone_is_told_apart_from_a_connector_that_is(
    nodes: Nodes, way: Way, free_port: Callable[[], int]
) -> None:
    nothing = f"http://127.0.0.1:{free_port()}"
    await way(nodes)
    await nodes.connect([nodes.upstream.url, nothing])
    upstream = msgspec.structs.replace(nodes.upstream, port=int(nothing.rpartition(":")[2]))
    nodes.far.world.routes.routes.insert(0, ROUTE.replaced(upstream=upstream))  # type: ignore[attr-defined]
    assert (await nodes.get())[0] == 502
    assert nodes.far.records[-1].end == "upstream-unreachable"


async def test_who_has_none_is_passed_over_and_the_next_is_asked(
    nodes: Nodes, free_port: Callable[[], int]
) -> None:
    await nodes.connect()
    empty = Nodes.worker
    nodes.workers[nodes.far] = [str(nodes.folder / "nobody.sock"), await empty(nodes, nodes.far)]
    nodes.knows(free_port(), nodes.near.port)  # the first one is dead
    assert await nodes.get() == (200, "/x")
    assert nodes.far.carriers.borrowed == {(NAME, "node"): 1}


async def test_a_node_lends_what_another_of_its_workers_has(
    nodes: Nodes, authority: Authority, tmp_path: Path
) -> None:
    """A question comes to any worker of the other node: here to one that has none itself."""
    await nodes.connect()
    other = Gateway(
        ROUTE.replaced(upstream=nodes.upstream),
        authority,
        [bundle(nodes.connectors), read_bundle("nodes", "node", nodes.authority.file, DOMAIN)],
    )
    other.start()
    path = await nodes.worker(nodes.near)
    other.carriers.neighbours = Neighbourhood(lambda: other.world, lambda: [path], lambda _: [], lambda: None)
    nodes.knows(other.port)
    try:
        assert await nodes.get() == (200, "/x")
        assert (other.carriers.lent, nodes.near.carriers.lent) == ({NAME: 1}, {NAME: 1})
    finally:
        nodes.far.world.upstreams.close()
        await over(other)
        await other.stop()


async def test_a_node_that_can_not_show_who_it_is_answers_all_the_same(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without descriptors, or with a file of authorities that holds none."""

    async def fails() -> ssl.SSLContext:
        raise OSError("too many open files")

    monkeypatch.setattr(nodes, "context", fails)
    nodes.knows(nodes.near.port)
    async with asyncio.timeout(10):
        status, answer = await nodes.get()
    assert (status, msgspec.json.decode(answer)["code"]) == (502, "connector-unavailable")


async def test_two_that_have_none_do_not_ask_each_other_in_a_circle(nodes: Nodes) -> None:
    """Each believes that the other has it, as after a connector has left both."""
    nodes.workers = {
        nodes.near: [await nodes.worker(nodes.far)],
        nodes.far: [await nodes.worker(nodes.near)],
    }
    nodes.knows(nodes.near.port)
    nodes.far.carriers._began = -1e6  # nobody was here lately: no use in waiting for long
    async with asyncio.timeout(8):
        assert (await nodes.get())[0] == 502
    assert nodes.far.records[-1].end == "connector-unavailable"
    asked = [record.end for record in nodes.near.ledger.records]
    assert set(asked) == {"connector-unavailable"}
    assert len(asked) <= 2 * (ANOTHER / AGAIN + 1)


@WAYS
async def test_a_connector_that_is_lost_takes_only_its_own_along(nodes: Nodes, way: Way) -> None:
    await way(nodes)
    await nodes.connect()
    async with (
        nodes.far.session() as session,
        session.ws_connect(f"{nodes.far.url}/ws", origin=nodes.far.url) as socket,
    ):
        await socket.send_str("hello")
        assert await socket.receive_str(timeout=5) == "hello"
        assert nodes.connecting is not None
        await nodes.connecting.stop()
        await socket.receive(timeout=5)
        assert socket.closed
    await nodes.connect()
    assert await nodes.get() == (200, "/x")


async def test_what_ends_a_nodes_path_ends_what_was_lent_to_it(nodes: Nodes) -> None:
    await nodes.connect()
    nodes.knows(nodes.near.port)
    async with (
        nodes.far.session() as session,
        session.ws_connect(f"{nodes.far.url}/ws", origin=nodes.far.url) as socket,
    ):
        await socket.send_str("hello")
        assert await socket.receive_str(timeout=5) == "hello"
        (lent,) = [
            number
            for number, live in nodes.near.paths.live.items()
            if live.permit.request.context.path.endswith(NAME)
        ]
        nodes.near.paths.live[lent].cut("locked")
        await socket.receive(timeout=5)
        assert socket.closed
    assert any(record.end == "cut: locked" for record in nodes.near.ledger.records)


@WAYS
async def test_what_ends_a_connectors_path_ends_what_was_lent_of_it(nodes: Nodes, way: Way) -> None:
    """A revoked connector is cut where it came in, whoever has borrowed it."""
    await nodes.connect()
    await way(nodes)
    async with (
        nodes.far.session() as session,
        session.ws_connect(f"{nodes.far.url}/ws", origin=nodes.far.url) as socket,
    ):
        await socket.send_str("hello")
        assert await socket.receive_str(timeout=5) == "hello"
        for number, live in list(nodes.near.paths.live.items()):
            if live.permit.request.context.path == "/.ztproxy/carry":
                nodes.near.paths.close(number)
                live.cut("device-revoked")
        await socket.receive(timeout=5)
        assert socket.closed
    assert nodes.near.carriers.lending == 0


# ---------------------------------------------------------------------- attackers


async def said(port: int, context: ssl.SSLContext, path: str, more: bytes = b"") -> bytes:
    """What the listener answers whoever asks to borrow."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=DIAL_IN)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: {DIAL_IN}:{port}\r\nConnection: Upgrade\r\n"
        "Upgrade: ztproxy-carry\r\n\r\n".encode()
        + more
    )
    answer = b""
    with suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(2):
            while chunk := await reader.read(4096):
                answer += chunk
    writer.close()
    return answer


async def test_only_a_node_borrows_and_only_a_connector_carries(nodes: Nodes) -> None:
    await nodes.connect()
    port, far = nodes.near.port, nodes.shows(f"spiffe://{DOMAIN}/node/far")
    assert b" 101 " in await said(port, far, f"/.ztproxy/carry/{NAME}")
    connector = instance(nodes.connectors)
    assert b" 101 " not in await said(port, connector, f"/.ztproxy/carry/{NAME}"), "a connector borrows"
    assert b" 101 " not in await said(port, far, "/.ztproxy/carry"), "a node takes connectors' work"
    for path in ("/.ztproxy/carry/", "/.ztproxy/carry/a/b", "/.ztproxy/carry/%2e%2e", "/.ztproxy/carry/A"):
        assert b" 101 " not in await said(port, far, path)
    for uri in ("connector/far/aaaaaaaaaaaaa", "node/far/x", "device/far", "node"):
        assert b" 101 " not in await said(
            port, nodes.shows(f"spiffe://{DOMAIN}/{uri}"), f"/.ztproxy/carry/{NAME}"
        )
    assert b" 101 " not in await said(
        port, nodes.shows("spiffe://other.example/node/far"), f"/.ztproxy/carry/{NAME}"
    )


async def test_a_connectors_certificate_makes_nobody_a_node(nodes: Nodes) -> None:
    """The authority of connectors does not vouch for nodes, whatever name it may be made to write."""
    await nodes.connect()
    forged = nodes.shows(f"spiffe://{DOMAIN}/node/far", nodes.connectors)
    assert b" 101 " not in await said(nodes.near.port, forged, f"/.ztproxy/carry/{NAME}")


async def test_a_captured_node_can_not_make_a_connector_dial_outside_its_list(
    nodes: Nodes, free_port: Callable[[], int]
) -> None:
    await nodes.connect()
    reached: list[Any] = []
    port = free_port()
    server = await asyncio.start_server(lambda *_: reached.append(1), "127.0.0.1", port)
    question = b'{"scheme":"http","host":"127.0.0.1","port":%d}' % port
    frame = b"\x03" + len(question).to_bytes(2, "big") + question
    answer = await said(
        nodes.near.port, nodes.shows(f"spiffe://{DOMAIN}/node/far"), f"/.ztproxy/carry/{NAME}", frame
    )
    server.close()
    assert b" 101 " in answer
    assert b"not-allowed" in answer
    assert not reached


async def test_garbage_from_who_borrows_ends_that_connection_and_nothing_more(nodes: Nodes) -> None:
    await nodes.connect()
    nodes.knows(nodes.near.port)
    await said(
        nodes.near.port, nodes.shows(f"spiffe://{DOMAIN}/node/far"), f"/.ztproxy/carry/{NAME}", b"\xff" * 5000
    )
    assert await nodes.get() == (200, "/x")


async def test_garbage_at_a_workers_socket_ends_that_connection(nodes: Nodes) -> None:
    await nodes.connect()
    path = await nodes.worker(nodes.near)
    for garbage in (b"\xff\xff\xff", b"\x06\xff\xff", b"\x06\x00\x02{}", b"\x01\x00\x02{}"):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(garbage)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
    assert nodes.near.carriers.lent == {}


async def test_a_neighbour_that_stands_still_is_given_up_and_the_next_is_asked(
    nodes: Nodes, free_port: Callable[[], int]
) -> None:
    await nodes.connect()
    port, kept = free_port(), []
    server = await asyncio.start_server(lambda *both: kept.append(both), "127.0.0.1", port)
    nodes.knows(port, nodes.near.port)
    assert await nodes.get() == (200, "/x")
    assert await nodes.get("/y") == (200, "/y")
    server.close()
    for _, writer in kept:
        writer.close()
