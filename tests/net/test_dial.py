"""Dialling by name: one look-up for everybody who waits, and every address has its chance."""

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ztproxy.model.resource import Upstream
from ztproxy.net.dial import Dialled, Dialler, Unreachable


class Open(Dialled):
    carried = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def retire(self) -> None: ...


class Resolver:
    """Answers for names, as slowly as a test wants."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = threading.Event()
        self.answers.set()
        self.addresses = ["127.0.0.1"]

    def getaddrinfo(self, host: str, port: Any, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(host)
        self.answers.wait(10)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in self.addresses]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver.getaddrinfo)
    return resolver


@pytest.fixture
async def port(free_port: Callable[[], int]):
    number = free_port()
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", number)
    yield number
    server.close()
    await asyncio.sleep(0.02)


async def dial(dialler: Dialler, host: str, port: int, patience: float = 5.0) -> None:
    protocol = await dialler.dial(Upstream(scheme="http", host=host, port=port), Open, patience=patience)
    protocol.transport.close()


async def test_an_address_is_not_looked_up(resolver: Resolver, port: int) -> None:
    await dial(Dialler({}), "127.0.0.1", port)
    assert "127.0.0.1" not in resolver.asked[1:]  # the server of this test asked first


async def test_all_who_wait_for_a_name_share_one_look_up(resolver: Resolver, port: int) -> None:
    resolver.asked.clear()
    resolver.answers.clear()
    dialler = Dialler({})
    waiting = [asyncio.create_task(dial(dialler, "app.internal", port)) for _ in range(50)]
    other = asyncio.create_task(dial(dialler, "other.internal", port))
    await asyncio.sleep(0.05)
    resolver.answers.set()
    await asyncio.gather(*waiting, other)
    assert sorted(resolver.asked) == ["app.internal", "other.internal"]
    await dial(dialler, "app.internal", port)  # names move: an answer is for those who waited for it
    assert resolver.asked.count("app.internal") == 2


async def test_whoever_gives_up_leaves_the_look_up_to_the_others(resolver: Resolver, port: int) -> None:
    resolver.asked.clear()
    resolver.answers.clear()
    dialler = Dialler({})
    with pytest.raises(Unreachable, match="TimeoutError"):
        await dial(dialler, "app.internal", port, patience=0.05)
    waiting = asyncio.create_task(dial(dialler, "app.internal", port))
    await asyncio.sleep(0.05)
    resolver.answers.set()
    await waiting
    assert resolver.asked == ["app.internal"]


async def test_a_name_that_nobody_knows_is_said_to_all_and_asked_again(resolver: Resolver, port: int) -> None:
    resolver.addresses = []
    dialler = Dialler({})
    for _ in range(2):
        with pytest.raises(Unreachable, match=r"app\.internal: gaierror: .*Name or service not known"):
            await dial(dialler, "app.internal", port)
    resolver.addresses = ["127.0.0.1"]
    await dial(dialler, "app.internal", port)


async def test_the_next_address_is_tried_when_one_refuses(resolver: Resolver, port: int) -> None:
    resolver.addresses = ["127.0.0.2", "127.0.0.1"]
    await dial(Dialler({}), "app.internal", port)
    resolver.addresses = ["127.0.0.2", "127.0.0.3"]
    with pytest.raises(Unreachable, match=r"127\.0\.0\.2.*127\.0\.0\.3"):
        await dial(Dialler({}), "app.internal", port)
