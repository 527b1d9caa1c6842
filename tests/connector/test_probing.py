"""What `ztproxy connector check` finds when it dials, told so that somebody can mend it."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ztproxy.connector import probing
from ztproxy.connector.links import Proxy
from ztproxy.connector.probing import Finding, findings
from ztproxy.crypto import issue, template
from ztproxy.net import keyfiles
from ztproxy.net.clock import SystemClock

NAME = "connect.example"


class Ground:
    """An authority, and servers by it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, 0
        now, key, own = SystemClock().now(), keyfiles.new_key(), keyfiles.new_key()
        root = issue.create_authority("Test", key, template.term(now, 3_600_000, os.urandom))
        term = template.term(now, 3_600_000, os.urandom)
        leaf = issue.issue_server(root, own.public_key(), term, dns_names=(NAME,))
        self.ca = folder / "ca.pem"
        self.ca.write_text(issue.pem(root.certificate))
        (folder / "server.pem").write_text(issue.pem(leaf))
        (folder / "server.key").write_bytes(keyfiles.key_pem(own))

    async def serve(self, served: Callable[..., object]) -> asyncio.Server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        server = await asyncio.start_server(served, "127.0.0.1", 0, ssl=context)  # type: ignore[arg-type]
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def probed(self, name: str = NAME, *, believed: bool = True) -> Finding:
        context = ssl.create_default_context(cafile=self.ca if believed else None)
        (found,) = [one async for one in findings([Proxy("127.0.0.1", self.port, name)], context, [])]
        return found


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    made = Ground(tmp_path)
    waiting: set[asyncio.StreamWriter] = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting.add(writer)
        await reader.read()
        writer.transport.abort()

    server = await made.serve(served)
    yield made
    server.close()
    for writer in waiting:
        writer.transport.abort()


async def test_a_proxy_that_takes_us_is_there(ground: Ground) -> None:
    assert await ground.probed() == Finding(f"proxy 127.0.0.1:{ground.port}", "")


async def test_a_proxy_of_another_authority_or_name_is_not_believed(ground: Ground) -> None:
    assert "its certificate is not believed" in (await ground.probed(believed=False)).why
    assert "its certificate is not believed" in (await ground.probed("other.example")).why


async def test_a_proxy_that_does_not_take_us_is_told_of(ground: Ground) -> None:
    async def closes(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with await ground.serve(closes):
        assert (await ground.probed()).why


async def test_applications_are_there_or_not(tmp_path: Path, free_port: Callable[[], int]) -> None:
    async def served(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    path = tmp_path / "app.sock"
    plain = await asyncio.start_server(served, "127.0.0.1", 0)
    local = await asyncio.start_unix_server(served, path)
    there = f"http://127.0.0.1:{plain.sockets[0].getsockname()[1]}"
    nobody = f"tcp://127.0.0.1:{free_port()}"
    entries = [there, f"unix:{path}", nobody, "unix:/nonexistent/socket"]
    context = ssl.create_default_context()
    async with plain, local:
        found = {one.what: one.why async for one in findings([], context, entries)}
    assert list(found) == entries
    assert [bool(found[entry]) for entry in entries] == [False, False, True, True]
    assert "refused" in found[nobody].lower()


async def test_who_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: object) -> asyncio.StreamWriter:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(probing, "_application", never)
    monkeypatch.setattr(probing, "PATIENCE", 0.05)
    (found,) = [one async for one in findings([], ssl.create_default_context(), ["http://10.0.0.1:1"])]
    assert found.why.startswith("does not answer within")
