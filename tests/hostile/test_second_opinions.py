"""h11 and nginx read the corpus, too: we are never laxer than they, and what we let pass they read as we do.

A case that names h11 or nginx says why that one differs; the difference must then be there.
"""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import h11
import pytest
from hostile_cases import LIMIT, REQUESTS, Case, Request, in_origin_form, play, requests_by_h11

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


async def ours(case: Case) -> list[Request]:
    """Return the complete requests that reach the application."""
    outcome, _ = await play([case.send])
    return list(outcome.requests[: outcome.complete])


@pytest.mark.parametrize("case", REQUESTS, ids=[f"{case.file}: {case.name}" for case in REQUESTS])
async def test_h11(case: Case) -> None:
    compare(case, await ours(case), requests_by_h11(case.send), case.h11)


def compare(case: Case, mine: list[Request], theirs: list[Request], reason: str) -> None:
    agree = mine == theirs[: len(mine)]
    assert agree is not bool(reason), f"{case.name}\nwe: {mine}\nthey: {theirs}"


# ---------------------------------------------------------------------- nginx

CONFIGURATION = """\
daemon off;
master_process off;
pid {place}/pid;
error_log {place}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {place}/body;
  proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi;
  scgi_temp_path {place}/scgi;
  large_client_header_buffers 4 64k;
  client_header_timeout 1s;
  client_body_timeout 1s;
  keepalive_timeout 1s;
  client_max_body_size 0;
  underscores_in_headers on;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{behind};
      proxy_http_version 1.1;
      proxy_set_header X-Case $remote_port;
    }}
  }}
}}
"""


class Recorder:
    """An application that notes what reaches it, by the port of the client that nginx had before it."""

    def __init__(self) -> None:
        self.requests: dict[int, list[Request]] = {}

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = h11.Connection(h11.SERVER, max_incomplete_event_size=4 * LIMIT)
        request: h11.Request | None = None
        body = b""
        try:
            while True:
                event = wire.next_event()
                if event is h11.NEED_DATA:
                    wire.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage) and request is not None:
                    number = int(dict(request.headers)[b"x-case"])
                    self.requests.setdefault(number, []).append((request.method, request.target, body))
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    return
                else:
                    return
        except (h11.RemoteProtocolError, ConnectionError):
            return
        finally:
            writer.close()


@pytest.fixture
async def behind_nginx(tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[tuple[int, Recorder]]:
    if NGINX is None:
        pytest.skip("needs nginx (package nginx-light)")
    port, behind = free_port(), free_port()
    file = tmp_path / "nginx.conf"
    file.write_text(CONFIGURATION.format(place=tmp_path, port=port, behind=behind))
    recorder = Recorder()
    server = await asyncio.start_server(recorder.talk, "127.0.0.1", behind)
    process = subprocess.Popen([NGINX, "-p", str(tmp_path), "-c", str(file)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            except OSError:
                await asyncio.sleep(0.02)
        yield port, recorder
    finally:
        process.terminate()
        process.wait(10)
        server.close()
        await server.wait_closed()


async def ask(port: int, data: bytes) -> int:
    """Send bytes, read until the other side closes, and return our port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number: int = writer.get_extra_info("sockname")[1]
    try:
        writer.write(data)
        await asyncio.wait_for(reader.read(-1), 8)
    except ConnectionError:
        pass
    writer.close()
    return number


async def test_nginx(behind_nginx: tuple[int, Recorder]) -> None:
    port, recorder = behind_nginx
    gate = asyncio.Semaphore(200)

    async def one(case: Case) -> list[Request]:
        async with gate:
            return recorder.requests.get(await ask(port, case.send), [])

    theirs = await asyncio.gather(*map(one, REQUESTS))
    differing = []
    for case, found in zip(REQUESTS, theirs, strict=True):
        try:
            compare(case, await ours(case), [(m, in_origin_form(t), b) for m, t, b in found], case.nginx)
        except AssertionError as difference:
            differing.append(str(difference))
    assert not differing, "\n".join(differing)
    refused = sum(1 for case, found in zip(REQUESTS, theirs, strict=True) if not found)
    assert 50 < refused < len(REQUESTS) - 50, "nginx answered nothing, or let everything pass"
