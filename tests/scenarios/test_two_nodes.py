"""Two nodes share one real Redis: what one is told the other knows; without Redis both are shut."""

import asyncio
import base64
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from small_node import COOKIE, HOST, Application, Node, eventually

from ztproxy.crypto.ids import handle_digest
from ztproxy.model.subject import Handle, Principal, Session
from ztproxy.net.clock import SystemClock
from ztproxy.store.interface import Store
from ztproxy.store.redis import RedisStore
from ztproxy.store.redis_client import RedisOptions

pytestmark = [pytest.mark.scenario, pytest.mark.redis]


class Redis:
    """A redis-server of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"unix://{directory}/redis.sock"

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", f"{self.directory}/redis.sock",
             "--dir", str(self.directory), "--appendonly", "yes", "--appendfsync", "always", "--save", ""],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        eventually(lambda: self.command("ping") == b"PONG\n")

    def command(self, *words: str) -> bytes:
        command = ["redis-cli", "-s", f"{self.directory}/redis.sock", *words]
        return subprocess.run(command, capture_output=True, check=False).stdout

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        pytest.skip("the redis-server program is not installed")
    (tmp_path / "redis").mkdir()
    server = Redis(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


def node(root: Path, upstream: int, redis: Redis) -> Node:
    root.mkdir()
    key = root.parent / "store.key"
    key.write_text(base64.b64encode(bytes(range(32))).decode())
    key.chmod(0o600)
    made = Node(root, upstream)
    text = made.config.read_text().replace("workers: 2", "workers: 1")
    text = text.replace("policies/*.cedar]", "policies/*.cedar], feed_limit: 2s")
    made.config.write_text(f'{text}store: {{keys: ["file:{key}"], redis: {{url: "{redis.url}"}}}}\n')
    return made


async def ask(node: Node) -> int:
    connector = aiohttp.TCPConnector(ssl=node.tls())
    async with aiohttp.ClientSession(connector=connector) as http:
        answer = await http.get(
            f"https://127.0.0.1:{node.port}/x",
            headers={"Host": HOST, "Cookie": f"__Host-ztproxy={COOKIE}", "Accept": "application/json"},
            server_hostname=HOST,
            allow_redirects=False,
        )
        return answer.status


async def sign_in(store: Store) -> None:
    now = SystemClock().now()
    person = Principal(kind="User", id="corp:carol", issuer="corp", name="Carol", groups=("staff",))
    session = Session(
        id="ses_carol",
        principal=person,
        provider="corp",
        created_at=now,
        auth_time=now,
        last_seen_at=now,
        expires_at=now + 3_600_000,
    )
    handle = Handle(session_id=session.id, host=HOST, created_at=now)
    await store.put("session", session.id, msgspec.msgpack.encode(session))
    await store.put("handle", handle_digest(COOKIE), msgspec.msgpack.encode(handle))


async def becomes(node: Node, status: int, seconds: float = 15) -> float:
    began = time.monotonic()
    while (found := await ask(node)) != status:
        assert time.monotonic() - began < seconds, found
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_two_nodes_are_of_one_mind(tmp_path: Path, redis: Redis) -> None:
    application = Application()
    upstream = await application.start()
    one, two = (node(tmp_path / name, upstream, redis) for name in ("one", "two"))
    store = await RedisStore.open(RedisOptions(url=redis.url), SystemClock().now)
    with one.running(), two.running():
        assert [await ask(one), await ask(two)] == [401, 401]
        await sign_in(store)
        assert [await ask(two), await ask(one)] == [200, 200], "a fresh session works on any node at once"

        done = await asyncio.to_thread(one.cli, "sessions", "cut", "ses_carol")
        assert done.returncode == 0, done.stderr
        assert await becomes(two, 401) < 1
        assert await becomes(one, 401) < 1

        await sign_in(store)
        assert [await ask(two), await ask(one)] == [200, 200]
        await asyncio.to_thread(redis.kill)
        for each in (one, two):  # nobody can say that she is still welcome
            await becomes(each, 503)
        await asyncio.to_thread(redis.start)
        for each in (one, two):
            await becomes(each, 200)

        redis.command("flushall")
        for each in (one, two):
            await becomes(each, 401)
        await sign_in(store)
        assert [await ask(two), await ask(one)] == [200, 200]
    await store.close()
    await application.stop()
