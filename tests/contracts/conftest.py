"""Every store back end, behind one fixture. Redis is a real server with its own directory."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from ztproxy.store.interface import Store
from ztproxy.store.redis import RedisStore
from ztproxy.store.redis_client import RedisOptions
from ztproxy.store.sqlite import SqliteStore

START = 1_700_000_000_000  # before now by the clock of the server, which waits for its own time, too


class Wall:
    """A wall clock set by hand."""

    def __init__(self) -> None:
        self.ms = START

    def __call__(self) -> int:
        return self.ms


class RedisServer:
    """A redis-server of our own that keeps what it acknowledged."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"unix://{directory}/redis.sock"
        self.options = RedisOptions(url=self.url)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        command = ["redis-server", "--port", "0", "--unixsocket", f"{self.directory}/redis.sock"]
        command += ["--dir", str(self.directory), "--appendonly", "yes", "--appendfsync", "always"]
        command += ["--save", "", "--daemonize", "no", *options]
        with (self.directory / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self._await_answer()

    def _await_answer(self) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(f"{self.directory}/redis.sock")
                    probe.sendall(b"PING\r\n")
                    if probe.recv(64).startswith((b"+PONG", b"-NOAUTH")):
                        return
            except OSError:
                pass
            time.sleep(0.02)
        raise RuntimeError((self.directory / "redis.log").read_text())

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def needs_redis() -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("the redis-server program is not installed")


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    needs_redis()
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def wall() -> Wall:
    return Wall()


Opener = Callable[..., Awaitable[Store]]


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
async def opener(request: pytest.FixtureRequest, tmp_path: Path, wall: Wall) -> AsyncIterator[Opener]:
    """Open the same fresh database as often as wanted: `await opener(keep=…)`."""
    opened: list[Store] = []
    name = f"t{time.monotonic_ns()}"

    async def open_store(**options: int) -> Store:
        if request.param == "sqlite":
            store: Store = await SqliteStore.open(tmp_path / "zt.db", wall, **options)
        else:
            server: RedisServer = request.getfixturevalue("redis_server")
            store = await RedisStore.open(server.options, wall, name=name, **options)
        opened.append(store)
        return store

    if request.param == "redis":
        await asyncio.to_thread(needs_redis)
        request.getfixturevalue("redis_server")
    yield open_store
    for store in opened:
        await store.close()


@pytest.fixture
async def store(opener: Opener) -> Store:
    return await opener()
