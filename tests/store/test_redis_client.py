"""What a client of Redis is made of, without a server."""

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from ztproxy.store.redis_client import RedisOptions, reach


@pytest.mark.parametrize(
    "options",
    [
        RedisOptions(url="redis://127.0.0.1:1"),
        RedisOptions(url="unix:///nowhere.sock"),
        RedisOptions(url="redis://127.0.0.1:1", cluster=True),
        RedisOptions(sentinels=(("127.0.0.1", 1),), master="main"),
    ],
    ids=["server", "unix", "cluster", "sentinel"],
)
def test_no_connection_looks_its_version_up_on_the_disk(
    options: RedisOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up() -> str:
        raise AssertionError("2 ms for each connection")

    monkeypatch.setattr("redis.utils.get_lib_version", look_up)
    client = reach(options).client
    if isinstance(client, RedisCluster):
        node = client.startup_nodes[0]
        connection = node.connection_class(**node.connection_kwargs)
    else:
        assert isinstance(client, Redis)
        connection = client.connection_pool.make_connection()
    assert connection.driver_info is not None
    assert connection.driver_info.lib_version == redis.__version__
