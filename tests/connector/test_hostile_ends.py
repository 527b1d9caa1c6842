"""What a hostile end of a connection that carries can not do: a captured connector to a gateway, a captured
proxy to a connector, a neighbour that does not answer to those who wait.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from connector_site import Site
from gateway_live import DIAL_IN, Connecting, instance
from test_carrying_live import Impostor, cut_connectors, get, through, until

from ztproxy.connector.links import NODES
from ztproxy.model.resource import Upstream
from ztproxy.net.dial import Dialler, Unreachable
from ztproxy.upstream.carriers import Carriers
from ztproxy.upstream.health import ask
from ztproxy.wire.carrying import Open, Opened, Refused, Status, Wanted, written

SWITCH = b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: ztproxy-carry\r\n\r\n"

# ---------------------------------------------------------------------- cut in the midst of it


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_connector_that_is_cut_while_it_is_asked_answers_nobody(site: Site, scheme: Any) -> None:
    """It has been asked, or has said that it stands and is to pass on a handshake, and is revoked."""
    upstream = Upstream(
        scheme=scheme, host="127.0.0.1", port=9, ca=str(site.authority.file), connector="partner-site"
    )
    gateway = site.gateway(upstream, connect_timeout=1.5, retries=0)
    impostor = await Impostor.dial(site, gateway)
    impostor.say(Status("1"))
    async with gateway.session() as session:
        asking = asyncio.create_task(get(gateway, session))
        await impostor.is_asked()
        if scheme == "https":
            impostor.say(Opened())
            assert (await impostor.reader.readexactly(1)) == b"\x16"  # ClientHello
        cut_connectors(gateway)
        assert await impostor.is_cut()
        status, _ = await asking
        assert status == 502
    impostor.writer.transport.abort()
    assert not list(gateway.carriers)
    assert [one.end for one in gateway.ledger.records].count("cut: device-revoked") == 1


# ---------------------------------------------------------------------- captured connectors


async def test_as_many_refusals_as_questions_are_no_flood(site: Site, free_port: Callable[[], int]) -> None:
    """An application that is down must not use up the connections that others behind the connector need."""
    port = free_port()
    gateway = site.gateway(through(port))
    connecting = await site.connector(gateway, allow=[f"http://127.0.0.1:{port}"])
    async with gateway.session() as session:
        for _ in range(60):
            assert await get(gateway, session) == (502, "upstream-unreachable")
    assert connecting.links.ready
    assert "protocol" not in {record.end for record in gateway.ledger.records}


async def test_nothing_in_the_clear_passes_for_what_comes_by_tls(site: Site) -> None:
    """A captured connector answers a health check itself, in front of the handshake that it passes on."""
    files = site.authority.server("crm.internal")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)

    async def sick(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Sick\r\nContent-Length: 0\r\n\r\n")

    port = await site.listen(sick, ssl=context)
    upstream = Upstream(
        scheme="https",
        host="127.0.0.1",
        port=port,
        server_name="crm.internal",
        ca=str(site.authority.file),
        connector="partner-site",
    )
    gateway = site.gateway(upstream)
    impostor = await Impostor.dial(site, gateway)
    impostor.say(Status("1"))
    await until(lambda: len(gateway.carriers) == 1)
    question = b"GET / HTTP/1.1\r\nHost: crm.internal\r\n\r\n"
    asking = asyncio.create_task(ask(gateway.world.upstreams.dialler, upstream, question, 5.0))
    await impostor.is_asked()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    impostor.say(written(Opened()) + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    passing = [
        asyncio.create_task(passed_on(impostor.reader, writer)),
        asyncio.create_task(passed_on(reader, impostor.writer)),
    ]
    assert (await asking)[0] == 0
    for task in passing:
        task.cancel()
    writer.transport.abort()
    impostor.writer.transport.abort()
    await asyncio.gather(*passing, return_exceptions=True)


async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(4096):
        writer.write(data)


# ---------------------------------------------------------------------- neighbours


class Still:
    """Neighbours that do not answer."""

    async def ask_workers(self, name: str) -> Any:
        await asyncio.Event().wait()

    async def ask_nodes(self, name: str) -> Any:
        await asyncio.Event().wait()

    def known(self, name: str) -> bool:
        return False


async def test_nobody_waits_longer_for_neighbours_than_the_route_does_for_upstreams() -> None:
    carriers = Carriers()
    carriers.neighbours = Still()
    async with asyncio.timeout(10):
        with pytest.raises(Unreachable) as failed:
            await carriers.connect(through(9), lambda: None, None, patience=0.1)  # type: ignore[arg-type, return-value]
    assert failed.value.code == "connector-unavailable"


class Broken:
    """Connectors that can not even be looked for."""

    async def connect(self, *what: Any, **how: Any) -> Any:
        raise OSError("too many open files")


async def test_whatever_fails_on_the_way_to_a_connector_is_told_to_who_waits() -> None:
    with pytest.raises(Unreachable):
        await Dialler({}, Broken()).dial(through(9), lambda: None, patience=1.0)  # type: ignore[arg-type, return-value]


# ---------------------------------------------------------------------- captured proxies


class Captured:
    """A listener with a proxy's own certificate that says whatever it likes to a connector."""

    def __init__(self) -> None:
        self.ends = asyncio.Queue[bool]()

    async def start(self, site: Site, words: bytes) -> Connecting:
        files = site.authority.server(DIAL_IN)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(SWITCH + words)
            try:
                while await reader.read(4096):
                    pass
            finally:
                self.ends.put_nowait(True)

        port = await site.listen(talk, ssl=context)
        connecting = Connecting([port], instance(site.connectors), ["http://127.0.0.1:2"])
        site.ends.append(connecting.stop)
        return connecting


async def test_a_connection_comes_to_one_worker_of_one_node_for_ever(site: Site) -> None:
    """A captured proxy says with each word that it is somebody else, who has to be kept in mind."""
    proxy = Captured()
    words = b"".join(written(Wanted(f"n{number}", 0, 256, 64)) for number in range(20))
    connecting = await proxy.start(site, words)
    assert await asyncio.wait_for(proxy.ends.get(), 10)
    (keeper,) = connecting.links._all()
    assert len(keeper._places) <= 256


async def test_each_of_many_connections_may_be_of_another_node_but_not_without_end(site: Site) -> None:
    files = site.authority.server(DIAL_IN)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    dialled: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        dialled.append(1)
        writer.write(SWITCH + written(Wanted(f"n{len(dialled)}", 0, 1, 2)))
        await reader.read()

    port = await site.listen(talk, ssl=context)
    connecting = Connecting([port], instance(site.connectors), ["http://127.0.0.1:2"])
    site.ends.append(connecting.stop)
    (keeper,) = connecting.links._all()
    await until(lambda: len(dialled) > NODES + 5)
    assert len(keeper._places) <= NODES and connecting.links.ready <= NODES


async def test_who_asks_and_asks_without_waiting_for_answers_is_cut_off(site: Site) -> None:
    """Answers that nobody reads would fill memory."""
    proxy = Captured()
    questions = written(Open("http", "10.0.0.1", 80)) * 20_000
    await proxy.start(site, written(Wanted("n", 0, 1, 1)) + questions)
    assert await asyncio.wait_for(proxy.ends.get(), 20)


async def test_who_asks_again_and_again_fills_no_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    files = site.authority.server(DIAL_IN)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    done = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH + written(Wanted("n", 0, 1, 1)))
        await reader.readexactly(len(written(Status("1.2.3"))))
        for _ in range(100):
            writer.write(written(Open("http", "10.0.0.1", 80)))
            await reader.readexactly(len(written(Refused("not-allowed"))))
        done.set()
        await reader.read()

    port = await site.listen(talk, ssl=context)
    with caplog.at_level(logging.WARNING, "ztproxy.connector"):
        connecting = Connecting([port], instance(site.connectors), ["http://127.0.0.1:2"])
        site.ends.append(connecting.stop)
        await asyncio.wait_for(done.wait(), 20)
    told = [one for one in caplog.records if one.message == "a proxy asks for what is not on the list"]
    assert 0 < len(told) < 30
