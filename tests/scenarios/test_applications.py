"""Applications nobody here wrote, unchanged, behind the proxy: JupyterLab in a browser, httpbin by curl."""

import asyncio
import hashlib
import io
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import expect

from ztproxy.net.names import Resolver

SIZE = 30 * 1024 * 1024


@pytest.fixture
async def adam(sign_in) -> AsyncIterator:
    async with sign_in("adam") as person:
        yield person


@pytest.fixture
def client(demo, adam) -> Callable:
    """An HTTP client with the administrator's cookies for one application, trusting the demo's authority."""

    @asynccontextmanager
    async def make(app: str):
        tls = ssl.create_default_context(cafile=demo.facts["ca"])
        connector = aiohttp.TCPConnector(ssl=tls, resolver=Resolver())
        headers = {"Cookie": await adam.cookie(app), "Accept": "application/json"}
        async with aiohttp.ClientSession(demo.url(app), connector=connector, headers=headers) as session:
            yield session

    return make


async def test_a_notebook_is_run_in_the_browser(demo, adam):
    page = await adam.visit("lab", "/lab")
    await page.locator(".jp-LauncherCard[data-category='Notebook']").first.click(timeout=40_000)
    await expect(page.get_by_text("| Idle")).to_be_visible(timeout=40_000)  # the kernel's WebSocket is open
    cell = page.locator(".jp-Notebook .jp-InputArea-editor .cm-content").first
    await cell.fill("print('kernel says', 6 * 7)")
    await expect(cell).to_contain_text("6 * 7")
    await cell.press("Shift+Enter")
    await expect(page.locator(".jp-OutputArea-output").first).to_contain_text(
        "kernel says 42", timeout=40_000
    )


async def test_a_terminal_answers_over_its_websocket(demo, adam, client):
    await adam.visit("lab", "/lab")
    async with client("lab") as session:
        own = await _xsrf(adam)
        async with session.post("/api/terminals", headers=own) as made:
            assert made.status == 200
            name = (await made.json())["name"]
        origin = demo.url("lab", "")
        async with session.ws_connect(f"/terminals/websocket/{name}", headers={"Origin": origin}) as socket:
            await socket.send_json(["stdin", "echo terminal $((6 * 7))\r"])
            seen = ""
            async with asyncio.timeout(20):
                while "terminal 42" not in seen:
                    kind, *rest = await socket.receive_json()
                    seen += str(rest[0]) if kind == "stdout" else ""


async def test_a_page_of_another_site_gets_no_websocket(demo, adam, client):
    await adam.visit("lab", "/lab")
    async with client("lab") as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect("/api/events/subscribe", headers={"Origin": "https://evil.example"})
        assert refused.value.status == 403


async def test_thirty_megabytes_up_and_down(demo, adam, client):
    await adam.visit("lab", "/lab")
    data = os.urandom(SIZE)
    async with client("lab") as session:
        own = await _xsrf(adam)
        content = {"type": "file", "format": "text", "content": data.hex()[:SIZE]}
        body = io.BytesIO(json.dumps(content).encode())
        own |= {"Content-Type": "application/json"}
        async with session.put("/api/contents/large.txt", data=body, headers=own) as put:
            assert put.status == 201, await put.text()
        async with session.get("/files/large.txt", headers=own) as got:
            assert got.status == 200
            back = await got.read()
    assert hashlib.sha256(back).digest() == hashlib.sha256(data.hex()[:SIZE].encode()).digest()


async def _xsrf(adam) -> dict[str, str]:
    """What Jupyter wants to see with every change: the value of its own cookie, in a header."""
    cookies = dict(word.split("=", 1) for word in (await adam.cookie("lab")).split("; "))
    return {"X-XSRFToken": cookies["_xsrf"]}


async def test_httpbin(demo, adam, client, tmp_path: Path):
    await adam.visit("httpbin", "/get")
    async with client("httpbin") as session:
        async with session.get("/get", params={"q": "a b"}) as got:
            seen = await got.json()
        assert seen["args"] == {"q": "a b"}
        headers = {name.lower(): value for name, value in seen["headers"].items()}
        assert "__Host-ztproxy" not in headers.get("cookie", "")
        assert headers["zt-principal"] and headers["zt-assertion"].count(".") == 2
        for status in (204, 404, 418, 503):
            async with session.get(f"/status/{status}") as got:
                assert got.status == status
        async with session.get("/redirect/2", allow_redirects=False) as got:
            assert got.status == 302
        async with session.get("/cookies/set?own=1", allow_redirects=False) as got:
            assert "own=1" in got.headers["Set-Cookie"]
        async with session.get(
            "/cookies", headers={"Cookie": await adam.cookie("httpbin") + "; own=1"}
        ) as got:
            assert (await got.json())["cookies"] == {"own": "1"}
        async with session.get("/stream/20") as got:
            assert len((await got.text()).splitlines()) == 20
        async with session.get("/drip?numbytes=10&duration=1&delay=0") as got:
            assert await got.read() == b"*" * 10
        async with session.get("/gzip") as got:
            assert (await got.json())["gzipped"] is True
        async with session.head("/get") as got:
            assert got.status == 200 and int(got.headers["Content-Length"]) > 0
        async with session.delete("/anything/x") as got:
            assert (await got.json())["method"] == "DELETE"
        chunks = _chunks()
        async with session.post("/post", data=chunks) as got:
            assert json.loads((await got.json())["data"]) == {"chunked": True}


async def _chunks():
    yield b'{"chun'
    await asyncio.sleep(0.05)
    yield b'ked": true}'


async def test_our_cookie_can_not_be_set_by_an_application(adam, client):
    await adam.visit("httpbin", "/get")
    before = await adam.cookie("httpbin")
    stolen = "/response-headers?Set-Cookie=__Host-ztproxy=stolen;Path=/;Secure"
    async with client("httpbin") as session, session.get(stolen) as got:
        assert got.status == 200
        assert "Set-Cookie" not in got.headers
    assert await adam.cookie("httpbin") == before
