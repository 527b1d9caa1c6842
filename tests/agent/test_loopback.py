"""The desk on 127.0.0.1, asked by the right page and by everybody else, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from ztproxy.agent.loopback import application
from ztproxy.agent.state import Identity
from ztproxy.crypto.jose import Expected, SigningKey, signing_key, verify
from ztproxy.crypto.jwk import read_key
from ztproxy.crypto.statements import PROOF
from ztproxy.net.clock import FixedClock
from ztproxy.net.keyfiles import new_key

DEVICE = "dev_" + "a" * 26
PORTAL = "https://portal.example:8443"
WISH = {"nonce": "n" * 43, "audience": PORTAL}


class Answer:
    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }

    @property
    def readable(self) -> bool:
        """Whether any page at all may learn something of it."""
        return any(name.startswith("access-control") for name in self.headers) or bool(self.body)


class Desk:
    def __init__(self, port: int, signer: SigningKey, clock: FixedClock) -> None:
        self.port, self.signer, self.clock = port, signer, clock

    async def ask(
        self, method: str = "POST", path: str = "/v1/prove", body: Any = WISH, **headers: Any
    ) -> Answer:
        """Send exactly these headers; `...` removes one, a list sends it twice."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        wanted: dict[str, Any] = {
            "Host": f"127.0.0.1:{self.port}",
            "Origin": PORTAL,
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            "Connection": "close",
        }
        wanted.update({name.replace("_", "-"): value for name, value in headers.items()})
        lines = [f"{method} {path} HTTP/1.1"]
        for name, value in wanted.items():
            if value is not ...:
                lines += [f"{name}: {one}" for one in (value if isinstance(value, list) else [value])]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        raw = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return Answer(raw)


@pytest.fixture
async def desk(free_port: Callable[[], int]) -> AsyncIterator[Desk]:
    port, clock, signer = free_port(), FixedClock(), signing_key(new_key(), kid=DEVICE)
    identity = Identity(id=DEVICE, name="laptop", portal=PORTAL, origins=(PORTAL,), port=port)
    runner = web.AppRunner(application(identity, signer, clock, port), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield Desk(port, signer, clock)
    await runner.cleanup()


async def test_the_portals_page_gets_a_proof(desk: Desk) -> None:
    for host in (f"127.0.0.1:{desk.port}", f"localhost:{desk.port}"):
        answer = await desk.ask(Host=host)
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == PORTAL
        assert answer.headers["vary"] == "Origin"
        assert answer.headers["cache-control"] == "no-store"
        proof = json.loads(answer.body)["proof"]
        expected = Expected(issuer=DEVICE, audience=PORTAL, types=(PROOF,), longest_life=60)
        claims = verify(proof, [read_key(desk.signer.jwk)], expected, desk.clock.now())
        assert claims["nonce"] == WISH["nonce"]


async def test_the_preflight_of_the_portals_page(desk: Desk) -> None:
    answer = await desk.ask(
        "OPTIONS",
        body=b"",
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="content-type",
        Access_Control_Request_Private_Network="true",
    )
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == PORTAL
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert answer.headers["access-control-allow-headers"] == "content-type"
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert "access-control-allow-local-network" not in answer.headers
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        ...,
        "null",
        "",
        "*",
        "https://evil.example",
        "https://portal.example",
        "https://portal.example:8443/",
        "https://portal.example:8443.evil.example",
        "https://PORTAL.example:8443",
        "http://portal.example:8443",
        [PORTAL, PORTAL],
        [PORTAL, "https://evil.example"],
    ],
)
@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
async def test_other_origins_learn_nothing(desk: Desk, origin: Any, method: str) -> None:
    answer = await desk.ask(method, Origin=origin, Access_Control_Request_Method="POST")
    assert answer.status == 403
    assert not answer.readable


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost", "127.0.0.1:1", "[::1]:{port}", ""],
)
async def test_a_rebound_name_learns_nothing(desk: Desk, host: str) -> None:
    answer = await desk.ask(Host=host.format(port=desk.port))
    assert answer.status == 403
    assert not answer.readable


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("POST", "/"),
        ("GET", "/v1/prove"),
        ("PUT", "/v1/prove"),
        ("POST", "/v1/prove/"),
        ("POST", "/v2"),
    ],
)
async def test_there_is_nothing_else(desk: Desk, method: str, path: str) -> None:
    answer = await desk.ask(method, path)
    assert answer.status == 404
    assert not answer.readable


@pytest.mark.parametrize(
    "audience", ["https://evil.example", "https://app.example:8443", PORTAL + "/", "", None, [PORTAL]]
)
async def test_nothing_is_signed_for_another_audience(desk: Desk, audience: Any) -> None:
    answer = await desk.ask(body={**WISH, "audience": audience})
    assert answer.status == 403
    assert b"proof" not in answer.body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"nonce":"' + b"n" * 43 + b'"}',
        b'{"nonce":"a","nonce":"b","audience":"x"}',
        {**WISH, "further": 1},
        {**WISH, "nonce": "short"},
        {**WISH, "nonce": "n" * 257},
        {**WISH, "nonce": 'n" * 16, "x": "'},
        {**WISH, "nonce": None},
    ],
)
async def test_bad_wishes(desk: Desk, body: Any) -> None:
    answer = await desk.ask(body=body)
    assert answer.status == 400
    assert json.loads(answer.body) == {"error": 400}


async def test_types_and_sizes(desk: Desk) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ...):
        assert (await desk.ask(Content_Type=kind)).status == 415
    assert (await desk.ask(body=b" " * 2049)).status == 413
    assert (await desk.ask("OPTIONS", body=b"", Access_Control_Request_Method="GET")).status == 403


async def test_it_signs_so_often_and_not_more(desk: Desk) -> None:
    assert [(await desk.ask()).status for _ in range(11)] == [200] * 10 + [429]
    desk.clock.advance(1)
    assert (await desk.ask()).status == 200
