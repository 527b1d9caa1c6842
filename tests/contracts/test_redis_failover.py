"""Redis with replicas, Sentinel, TLS and ACL users: nothing acknowledged is lost, and no server is believed
that may have a successor."""

import asyncio
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis_servers import Servers, behind_tls

from ztproxy.model.quota import Rate, Spent
from ztproxy.store.interface import StoreUnavailable
from ztproxy.store.redis import RedisStore
from ztproxy.store.redis_client import RedisOptions
from ztproxy.store.redis_pot import RedisPot

pytestmark = pytest.mark.redis


def now() -> int:
    return 1_800_000_000_000


@pytest.fixture
def servers(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Servers]:
    if shutil.which("redis-server") is None:
        pytest.skip("the redis-server program is not installed")
    made = Servers(tmp_path, free_port)
    yield made
    made.end()


def knows_a_replica(sentinel: int) -> None:
    deadline = time.monotonic() + 15
    command = ["redis-cli", "-p", str(sentinel), "sentinel", "replicas", "zt"]
    while b"runid" not in subprocess.run(command, capture_output=True, check=False).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)


async def opened(options: RedisOptions, seconds: float = 10, **more: Any) -> RedisStore:
    deadline = time.monotonic() + seconds
    while True:
        store = None
        try:
            store = await RedisStore.open(options, now, name="main", **more)
            await store.position()
            return store
        except StoreUnavailable:
            if store is not None:
                await store.close()
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


async def test_what_replicas_acknowledged_survives_a_failover(servers: Servers) -> None:
    master = servers.server()
    replica = servers.server(f"replicaof 127.0.0.1 {master}", "replica-priority 1")
    await (await opened(RedisOptions(url=f"redis://127.0.0.1:{master}"), replicas=1)).close()
    sentinel = servers.start(  # now that there is one: it asks for replicas at once, then every 10 s
        "port {port}", f"sentinel monitor zt 127.0.0.1 {master} 1",
        "sentinel down-after-milliseconds zt 500", "sentinel failover-timeout zt 2000",
        program="redis-sentinel",
    )  # fmt: skip
    options = RedisOptions(sentinels=(("127.0.0.1", sentinel),), master="zt", timeout=3.0)
    store = await opened(options, replicas=1)
    acknowledged = [f"k{number}" for number in range(50)]
    for key in acknowledged:
        await store.put("session", key, b"v")
    version, stamp = await store.position()
    await asyncio.to_thread(knows_a_replica, sentinel)
    await asyncio.to_thread(servers.kill, master)
    deadline = time.monotonic() + 50  # usually two; a Sentinel that was held up waits for 30 seconds (TILT)
    while True:
        try:
            assert await store.after(version, stamp=stamp) is not None
            break
        except StoreUnavailable as error:
            if "cut off" in str(error):  # the new master has no replica yet: promoted, and not believed alone
                break
            assert time.monotonic() < deadline, error
            await asyncio.sleep(0.1)
    alone = await opened(RedisOptions(url=f"redis://127.0.0.1:{replica}"))
    assert {found.key for found in await alone.scan("session")} == set(acknowledged)
    assert await alone.after(version, stamp=stamp) == [], "and it is the same history"
    await alone.close()
    await store.close()


async def test_a_master_without_its_replicas_acknowledges_nothing_and_is_not_believed(
    servers: Servers,
) -> None:
    master = servers.server()
    replica = servers.server(f"replicaof 127.0.0.1 {master}")
    store = await opened(RedisOptions(url=f"redis://127.0.0.1:{master}", timeout=2.0), replicas=1)
    await store.put("session", "k", b"v")
    await asyncio.to_thread(servers.kill, replica)
    with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
        await store.put("session", "lost", b"v")
    deadline = time.monotonic() + 5
    with pytest.raises(StoreUnavailable, match="cut off"):
        while time.monotonic() < deadline:
            await store.after(0)
    await store.close()


async def test_a_replica_is_not_believed(servers: Servers) -> None:
    master = servers.server()
    replica = servers.server(f"replicaof 127.0.0.1 {master}")
    await (await opened(RedisOptions(url=f"redis://127.0.0.1:{master}"), replicas=1)).close()
    store = await RedisStore.open(RedisOptions(url=f"redis://127.0.0.1:{replica}"), now)
    for call in (store.after(0), store.position(), store.put("session", "k", b"v")):
        with pytest.raises(StoreUnavailable, match="replica"):
            await call
    await store.close()


async def test_tls_and_an_acl_user_that_may_no_more_than_needed(servers: Servers, tmp_path: Path) -> None:
    options = behind_tls(servers, tmp_path)
    store = await opened(options)
    version = await store.put("session", "k", b"v", expires_at=now() + 5)
    assert await store.put("session", "k", b"w", if_version=version) == 2
    assert await store.wait(1, 1)
    assert [one.value for one in await store.scan("session")] == [b"w"]
    assert await store.delete("session", "k") and await store.sweep() == 0
    assert [one.version for one in await store.after(0) or ()] == [1, 2, 3]
    await store.close()
    pot = RedisPot.open(options, node="a")
    assert (await pot.charge([Spent("k", Rate(0.001, 9), 2, 7.0, True)])).left == (7.0,)
    assert (await pot.charge([Spent("k", Rate(0.001, 9), 3, 4.0, True)])).left[0] == pytest.approx(
        4.0, abs=0.1
    )
    await pot.close()
    for wrong, words in (
        ({"password": "wrong"}, "refused"),
        ({"server_name": "other.corp.example"}, "certificate"),
        ({"tls": ssl.create_default_context()}, "certificate"),
    ):
        with pytest.raises(StoreUnavailable, match=words):
            await RedisStore.open(msgspec.structs.replace(options, **wrong), now)
