"""Signals on a whole node: a transmitter ends a live WebSocket through the gateway."""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from small_node import COOKIE, HOST, Application, Node

from ztproxy.net.names import Resolver

sys.path.insert(0, str(Path(__file__).parents[1] / "trust_signals"))

from caep_transmitter import CAEP, EXAMPLES, RISC, Transmitter

IDP = "https://idp.example"
CAROL = {"format": "iss_sub", "iss": IDP, "sub": "carol"}
HEADERS = {"Cookie": f"__Host-ztproxy={COOKIE}", "Accept": "application/json"}
SECTIONS = """
identity:
  providers: [{{name: corp, issuer: "{idp}", client_id: zt, client_secret: "file:secret"}}]
signals:
  transmitters:
    - name: tx
      issuer: {issuer}
      audience: ["https://portal.example"]
      delivery: {delivery}
      {authorization}
      token: file:token
      verify: 1s
  receivers: [{{name: rx, secret: "file:secret", audience: "https://rx.example"}}]
"""


def secret(node: Node, name: str, value: str) -> None:
    (node.root / name).write_text(value)
    (node.root / name).chmod(0o600)


@pytest.fixture(params=["push", "poll"])
async def both(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Node, Any]]:
    transmitter = Transmitter()
    server = TestServer(transmitter.app())
    await server.start_server()
    transmitter.issuer = str(server.make_url("")).rstrip("/")
    application = Application()
    node = Node(tmp_path, await application.start())
    secret(node, "secret", "s3cret")
    secret(node, "token", transmitter.bearer)
    secret(node, "push", "Bearer agreed-on")
    authorization = 'authorization: "file:push"' if request.param == "push" else ""
    with node.config.open("a") as config:
        config.write(
            SECTIONS.format(
                idp=IDP, issuer=transmitter.issuer, delivery=request.param, authorization=authorization
            )
        )
    await node.sign_in()
    transmitter.trust, transmitter.resolver = node.tls(), Resolver
    with node.running():
        yield node, transmitter
    await application.stop()
    await server.close()


def client(node: Node) -> aiohttp.ClientSession:
    context: ssl.SSLContext = node.tls()
    connector = aiohttp.TCPConnector(ssl=context, resolver=Resolver(), force_close=True)
    return aiohttp.ClientSession(connector=connector, headers=HEADERS)


async def heard(node: Node) -> None:
    async with asyncio.timeout(40):
        while 'ztproxy_signals_stream_up{source="tx"} 1.0' not in await asyncio.to_thread(node.scrape):
            await asyncio.sleep(0.2)


async def test_a_signal_cuts_what_is_open_and_every_worker_refuses(both: tuple[Node, Any]) -> None:
    node, transmitter = both
    origin = f"https://{HOST}:{node.port}"
    await heard(node)
    async with client(node) as session, session.ws_connect(origin + "/ws", origin=origin) as socket:
        await socket.send_str("alive")
        assert (await socket.receive(5)).data == "alive"
        for uri in (CAEP + "token-claims-change", CAEP + "session-presented"):
            await transmitter.deliver(uri, CAROL)
        await transmitter.deliver(RISC + "account-disabled", CAROL)
        closing = await socket.receive(10)
        assert closing.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        async with asyncio.timeout(10):
            refused = 0
            while refused < 12:
                async with session.get(f"https://{HOST}:{node.port}/a") as answer:
                    refused = refused + 1 if answer.status in (401, 403) else 0
        for uri in EXAMPLES:
            await transmitter.deliver(uri, CAROL)
        async with session.get(
            f"https://portal.localhost:{node.port}/.well-known/ssf-configuration"
        ) as answer:
            document = await answer.json()
            assert document["issuer"] == f"https://portal.localhost:{node.port}"
    shown = await asyncio.to_thread(node.cli, "recordings", "show", "signals")
    assert shown.returncode == 0 and "account-disabled" in shown.stdout, shown.stdout + shown.stderr
    locks = await asyncio.to_thread(node.cli, "locks", "list")
    assert locks.returncode == 0, locks.stderr
