"""Where the demo's applications are: apart from the proxy, with one wire out and windows for the count."""

import asyncio
import subprocess
import sys

import aiohttp
import pytest
from aiohttp import web

from ztproxy.connector.allowed import place
from ztproxy.demo import apart, ports, wire
from ztproxy.demo.apart import Apart, counts_of
from ztproxy.demo.apps.counting import Arrivals, told
from ztproxy.demo.layout import APPS, Layout
from ztproxy.demo.namespace import Namespace, NotAllowed


@pytest.fixture
def layout(tmp_path, free_port):
    return Layout(tmp_path / "demo", free_port())


@pytest.fixture
def nowhere(monkeypatch):
    """A machine that lets nobody make a namespace."""

    def refuse(*_):
        raise NotAllowed("the kernel says no")

    monkeypatch.setattr(apart, "Namespace", refuse)


async def echo(reader, writer):
    while data := await reader.read(1000):
        writer.write(data.upper())
    writer.close()


async def over(*servers):
    """Everything is closed, on both sides."""
    for server in servers:
        server.close()
    async with asyncio.timeout(10):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)


async def test_what_comes_in_at_one_end_goes_out_at_the_other_and_back(tmp_path, free_port):
    path, port = tmp_path / "wire", free_port()
    far = await asyncio.start_unix_server(echo, tmp_path / "far")
    servers = [
        far,
        await wire.listen(f"127.0.0.1:{port}", f"unix:{path}"),
        await wire.listen(f"unix:{path}", f"unix:{tmp_path / 'far'}"),
    ]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello " * 100_000)
    async with asyncio.timeout(10):
        assert await reader.readexactly(600_000) == b"HELLO " * 100_000
        far.close()
        writer.write_eof()
        assert await reader.read() == b"", "an end is passed on"
    writer.close()
    await over(*servers)


async def test_an_end_where_nobody_is_closes(tmp_path, free_port):
    port = free_port()
    server = await wire.listen(f"127.0.0.1:{port}", f"unix:{tmp_path / 'nobody'}")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()
    await over(server)


async def test_through_a_window_one_sees_the_count_and_nothing_else(layout, nowhere):
    chosen = ports.prepare(layout)
    place_ = Apart(layout, chosen)
    await place_.open()
    runner = web.AppRunner(told(Arrivals()), access_log=None)
    await runner.setup()
    await web.UnixSite(runner, str(counts_of(layout.path("apart", "wiki")))).start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{chosen.wiki}") as session:
        async with session.get("/__requests") as answer:
            assert (await answer.json())["total"] == 0
        for path in ("/", "/static/app.css", "/__requests/", "/__requests/more"):
            async with session.get(path, headers={"Zt-Assertion": "x"}) as answer:
                assert answer.status == 404
        async with session.post("/__requests") as answer:
            assert answer.status == 405
    await runner.cleanup()
    place_.close()
    await over()


def test_without_a_namespace_they_are_on_private_sockets(layout, nowhere):
    place_ = Apart(layout, ports.prepare(layout))
    assert place_.why == "the kernel says no"
    assert place_.enter == []
    assert "--wire" not in place_.options
    for app in APPS:
        path = layout.root / "apart" / app
        assert place_.target(app) == place_.address(app) == f"unix:{path}"
        assert place(place_.target(app)).host == str(path), "a connector can allow that"
        assert path.parent.stat().st_mode & 0o077 == 0


async def test_in_a_namespace_nobody_outside_can_reach_them(layout):
    try:
        Namespace().close()
    except NotAllowed as why:
        pytest.skip(f"no network namespaces here: {why}")
    chosen = ports.prepare(layout)
    place_ = Apart(layout, chosen)
    try:
        assert place_.target("wiki") == f"http://127.0.0.1:{chosen.wiki}"
        serve = (
            "import http.server as h, sys; s = h.HTTPServer(('127.0.0.1', int(sys.argv[1])), "
            "h.SimpleHTTPRequestHandler); print('up', flush=True); s.serve_forever()"
        )
        dial = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5)"
        command = [*place_.enter, sys.executable, "-c", serve, str(chosen.wiki)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=layout.root)
        try:
            assert server.stdout is not None
            assert await asyncio.to_thread(server.stdout.readline) == b"up\n"
            inside = [*place_.enter, sys.executable, "-c", dial, str(chosen.wiki)]
            assert (await asyncio.to_thread(subprocess.run, inside, check=False)).returncode == 0
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", chosen.wiki)
        finally:
            server.kill()
            server.wait()
            server.stdout.close()
    finally:
        place_.close()
