"""What is particular to Redis: what it must be set to, what it survives, and how it fails."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from ztproxy.net.clock import SystemClock
from ztproxy.store.interface import StoreUnavailable
from ztproxy.store.redis import RedisStore
from ztproxy.store.redis_client import RedisOptions

pytestmark = pytest.mark.redis
RedisServer = Any


def now() -> int:
    return 1_800_000_000_000


@pytest.fixture
def own_server(redis_server: RedisServer, tmp_path: Path) -> Any:
    """A server that a test may kill."""
    server = type(redis_server)(tmp_path)
    server.start()
    yield server
    server.kill()


async def test_what_was_acknowledged_survives_kill_9_of_the_server(own_server: RedisServer) -> None:
    async with await RedisStore.open(own_server.options, now) as store:
        acknowledged: list[str] = []

        async def write(writer: int) -> None:
            for number in range(10_000):
                await store.put("session", f"{writer}-{number}", b"v")
                acknowledged.append(f"{writer}-{number}")

        writing = [asyncio.create_task(write(writer)) for writer in range(4)]
        await asyncio.sleep(0.3)
        await asyncio.to_thread(own_server.kill)
        results = await asyncio.gather(*writing, return_exceptions=True)
        assert all(isinstance(result, StoreUnavailable) for result in results)
        assert len(acknowledged) > 10
        await asyncio.to_thread(own_server.start)
        kept = {found.key for found in await store.scan("session", limit=100_000)}
        assert kept >= set(acknowledged)
        changes = await store.after(0, limit=100_000)
        assert changes is not None and {change.key for change in changes} == kept
        assert await store.put("session", "more", b"v") == len(changes) + 1


async def test_a_server_that_is_gone_is_told_at_once(own_server: RedisServer) -> None:
    store = await RedisStore.open(own_server.options, now)
    await asyncio.to_thread(own_server.kill)
    start = time.monotonic()
    for call in (
        store.get("session", "k"),
        store.put("session", "k", b"v"),
        store.delete("session", "k"),
        store.scan("session"),
        store.head(),
        store.after(0),
        store.wait(0, 1),
        store.sweep(),
    ):
        with pytest.raises(StoreUnavailable):
            await call
    assert time.monotonic() - start < 5
    await store.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--appendfsync", "everysec"), "appendfsync always"),
        (("--appendonly", "no"), "appendonly yes"),
        (("--maxmemory-policy", "allkeys-lru"), "noeviction"),
    ],
)
async def test_a_forgetful_server_is_refused(
    redis_server: RedisServer, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    server = type(redis_server)(tmp_path)
    await asyncio.to_thread(server.start, *options)
    try:
        with pytest.raises(StoreUnavailable, match=message):
            await RedisStore.open(server.options, now)
        if "maxmemory" not in options[0]:
            await (await RedisStore.open(server.options, now, durable=False)).close()
    finally:
        server.kill()


async def test_a_server_that_comes_back_forgetful_is_refused_until_it_is_not(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    server = type(redis_server)(tmp_path)
    await asyncio.to_thread(server.start)
    store = await RedisStore.open(server.options, now)
    try:
        await store.put("session", "k", b"v")
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start, "--appendonly", "no")
        for call in (store.put("session", "lost", b"v"), store.after(0), store.position(), store.head()):
            with pytest.raises(StoreUnavailable, match="not durable"):
                await call
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        assert await store.put("session", "l", b"v") == 2
    finally:
        await store.close()
        await asyncio.to_thread(server.kill)


@pytest.mark.parametrize(
    "url", ["unix:///nowhere/secret.sock", "http://secret@x", "redis://:secret@127.0.0.1:1"]
)
async def test_an_address_that_does_not_work_is_told_without_its_secret(url: str) -> None:
    with pytest.raises(StoreUnavailable) as told:
        await RedisStore.open(RedisOptions(url=url), now)
    assert "secret" not in str(told.value)


async def test_a_wrong_password_is_told(redis_server: RedisServer, tmp_path: Path) -> None:
    server = type(redis_server)(tmp_path)
    await asyncio.to_thread(server.start, "--requirepass", "right")
    try:
        for password in ("secret", None):
            with pytest.raises(StoreUnavailable) as told:
                await RedisStore.open(RedisOptions(url=server.url, password=password), now)
            assert "secret" not in str(told.value)
        await (await RedisStore.open(RedisOptions(url=server.url, password="right"), now)).close()
    finally:
        server.kill()


async def test_installations_do_not_see_each_other(redis_server: RedisServer) -> None:
    one = await RedisStore.open(redis_server.options, now, name="one")
    two = await RedisStore.open(redis_server.options, now, name="two")
    await one.put("session", "k", b"v")
    assert await two.get("session", "k") is None and await two.head() == 0
    await one.close()
    await two.close()


async def test_all_keys_share_one_slot(redis_server: RedisServer) -> None:
    store = await RedisStore.open(redis_server.options, now, name="slots")
    await store.put("session", "k", b"v", expires_at=now() + 5)
    keys = [key async for key in store._client.scan_iter("*slots*")]
    assert len(keys) == 5 and all(key.startswith(b"{ztproxy:slots}:") for key in keys)
    await store.close()


async def test_it_runs_on_a_cluster(redis_server: RedisServer, tmp_path: Path, free_port: Any) -> None:
    port, bus = str(free_port()), str(free_port())
    server = type(redis_server)(tmp_path)
    options = ("--port", port, "--cluster-enabled", "yes", "--cluster-port", bus)
    await asyncio.to_thread(server.start, *options)
    process = await asyncio.create_subprocess_exec(
        "redis-cli", "-s", f"{tmp_path}/redis.sock", "cluster", "addslotsrange", "0", "16383",
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await process.wait() == 0
    try:
        store = await opened_when_ready(f"redis://127.0.0.1:{port}")
        waiter = asyncio.create_task(store.wait(0, 5))
        await asyncio.sleep(0.05)
        assert await store.put("session", "k", b"v", if_version=0) == 1
        assert await waiter is True
        assert [found.key for found in await store.scan("session")] == ["k"]
        assert await store.delete("session", "k") is True
        assert len(await store.after(0) or ()) == 2
        await store.close()
    finally:
        server.kill()


async def opened_when_ready(url: str) -> RedisStore:
    deadline = time.monotonic() + 10
    while True:
        store = None
        try:
            store = await RedisStore.open(RedisOptions(url=url, cluster=True), now)
            await store.head()
            return store
        except StoreUnavailable:
            if store is not None:
                await store.close()
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


async def test_a_node_whose_clock_is_ahead_takes_nothing_from_the_others(redis_server: RedisServer) -> None:
    """A lock of an hour, and one node that lives tomorrow: there it is over, elsewhere it holds."""
    real, options = SystemClock().now, RedisOptions(url=redis_server.url)
    async with (
        await RedisStore.open(options, real, name="skew", durable=False) as node,
        await RedisStore.open(options, lambda: real() + 86_400_000, name="skew", durable=False) as ahead,
    ):
        await node.put("lock", "lck_1", b"v", expires_at=real() + 3_600_000)
        await node.put("lock", "lck_2", b"v", expires_at=real() - 1)
        await ahead.sweep()
        assert [one.key for one in await node.scan("lock")] == ["lck_1"]
        changes = await node.after(0)
        assert changes is not None
        assert [(one.key, one.value) for one in changes] == [
            ("lck_1", b"v"),
            ("lck_2", b"v"),
            ("lck_2", None),
        ]
