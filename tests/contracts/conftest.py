"""Every store back end, behind one fixture. Redis is a real server with its own directory."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parent))

from redis_servers import Servers, behind_tls, cluster

from bench.machine import free_port
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


@pytest.fixture(scope="session")
def more_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """For what takes a while to start."""
    needs_redis()
    servers = Servers(tmp_path_factory.mktemp("servers"), free_port)
    yield servers
    servers.end()


@pytest.fixture(scope="session")
def redis_behind_tls(more_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> RedisOptions:
    return behind_tls(more_servers, tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def redis_cluster(more_servers: Servers) -> RedisOptions:
    return cluster(more_servers)


@pytest.fixture
def wall() -> Wall:
    return Wall()


Opener = Callable[..., Awaitable[Store]]


def options_of(request: pytest.FixtureRequest) -> RedisOptions:
    """How the back end is reached, with the patience that a busy machine needs."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        options = server.options
    else:
        options = request.getfixturevalue(request.param.replace("-", "_"))
    return replace(options, connect_timeout=10.0, timeout=20.0)


REDIS = ("redis", "redis-behind-tls", "redis-cluster")


@pytest.fixture(params=["sqlite", *(pytest.param(one, marks=pytest.mark.redis) for one in REDIS)])
async def opener(request: pytest.FixtureRequest, tmp_path: Path, wall: Wall) -> AsyncIterator[Opener]:
    """Open the same fresh database as often as wanted: `await opener(keep=…)`."""
    opened: list[Store] = []
    name = f"t{time.monotonic_ns()}"

    async def open_store(**options: int) -> Store:
        if request.param == "sqlite":
            store: Store = await SqliteStore.open(tmp_path / "zt.db", wall, **options)
        else:
            store = await RedisStore.open(reached, wall, name=name, **options)
        opened.append(store)
        return store

    if request.param != "sqlite":
        reached = options_of(request)
    yield open_store
    for store in opened:
        await store.close()


@pytest.fixture
async def store(opener: Opener) -> Store:
    return await opener()
