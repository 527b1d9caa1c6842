"""How Redis is reached: one server, the master that Sentinels name, or a cluster; with TLS and an ACL user.

Called by `store.redis` and `store.redis_pot`. Nothing is sent twice by itself: whether a command that got no
answer was done is for the caller to find out (`Unanswered`). Errors never hold an address or a password.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import redis
from msgspec import Struct
from redis.asyncio import Connection, ConnectionPool, Redis, Sentinel, UnixDomainSocketConnection
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
)
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import TimeoutError as NoAnswer

from ztproxy.store.interface import StoreUnavailable

CONNECTIONS: Final = 64  # to one server at the most

#: What servers show of a connection (CLIENT LIST). By itself each new one looks up its version on the disk.
_DRIVER: Final = DriverInfo(lib_version=redis.__version__)

_WORDS: Final[Mapping[type[Exception], str]] = {
    AuthenticationError: "our user or password is refused",
    NoPermissionError: "the ACL of our user does not permit what we need",
    ReadOnlyError: "the server is a replica",
    BusyLoadingError: "the server is still loading its data",
    NoAnswer: "no answer in time",
}


AnyConnection = TypeVar("AnyConnection", bound=AbstractConnection)


class RedisOptions(Struct, frozen=True, kw_only=True):
    """Where Redis is and how it is spoken to. Give `url`, or `sentinels` and `master`. Times in seconds."""

    url: str = ""  # redis://, rediss:// or unix://, without user, password and options
    sentinels: tuple[tuple[str, int], ...] = ()
    master: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    cluster: bool = False
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    connect_timeout: float = 2.0
    timeout: float = 5.0


Client = Redis | RedisCluster
#: Looks at a server over a connection that was just made, and raises Unfit.
Vet = Callable[[AbstractConnection], Awaitable[None]]


class Unfit(RedisError):
    """The server that was reached is none to keep records on."""


class Unanswered(StoreUnavailable):
    """The connection ended, or the time was over, before there was an answer: it may have been done."""


class Reached:
    """A client and what has to be closed with it."""

    __slots__ = ("_sentinel", "client")

    def __init__(self, client: Client, sentinel: Sentinel | None = None) -> None:
        self.client = client
        self._sentinel = sentinel

    async def close(self) -> None:
        """Close all connections."""
        await self.client.aclose()
        if self._sentinel is not None:
            await self._sentinel.aclose()


def reach(options: RedisOptions, vet: Vet | None = None) -> Reached:
    """Return a client, which connects when it is used. Raises StoreUnavailable for what is no address.

    `vet` looks at every server that is connected to, every time: another one may be the master by then.
    """
    if options.sentinels:
        return _by_sentinel(options, vet)
    parts = urlsplit(options.url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise StoreUnavailable("not a redis://, rediss:// or unix:// address of a Redis server")
    if parts.scheme == "unix":
        pool = ConnectionPool(
            connection_class=_connection(UnixDomainSocketConnection, vet),
            path=parts.path,
            **_common(options),
        )
        return Reached(Redis.from_pool(pool))
    host, port = parts.hostname or "", parts.port or 6379
    if options.cluster:
        return Reached(_cluster(options, host, port, vet))
    pool = ConnectionPool(
        connection_class=_connection(_encrypted(Connection, options), vet),
        host=host,
        port=port,
        db=int(parts.path.strip("/") or 0),
        **_common(options),
    )
    return Reached(Redis.from_pool(pool))


def _common(options: RedisOptions) -> dict[str, Any]:
    return {
        "username": options.username,
        "password": options.password,
        "max_connections": CONNECTIONS,
        **_times(options),
    }


def _times(options: RedisOptions) -> dict[str, Any]:
    return {
        "socket_timeout": options.timeout,
        "socket_connect_timeout": options.connect_timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": _DRIVER,
    }


def _by_sentinel(options: RedisOptions, vet: Vet | None) -> Reached:
    manager = Sentinel([])  # type: ignore[no-untyped-call]
    manager.sentinels = [
        Redis.from_pool(
            ConnectionPool(
                connection_class=_encrypted(Connection, options),
                host=host,
                port=port,
                username=options.sentinel_username,
                password=options.sentinel_password,
                **_times(options),
            )
        )
        for host, port in options.sentinels
    ]
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        options.master,
        manager,
        connection_class=_connection(_encrypted(SentinelManagedConnection, options), vet),
        **_common(options),
    )
    return Reached(Redis.from_pool(pool), manager)


def _cluster(options: RedisOptions, host: str, port: int, vet: Vet | None) -> RedisCluster:
    client = RedisCluster(host=host, port=port, **_common(options))
    kind = _connection(_encrypted(Connection, options), vet)
    client.connection_kwargs["connection_class"] = kind  # of the servers that are found later
    for node in client.startup_nodes:
        node.connection_class = kind
    return client


def _connection(plain: type[AnyConnection], vet: Vet | None) -> type[AnyConnection]:
    """Return a kind of connection whose server is looked at before it is used."""
    if vet is None:
        return plain
    look = vet

    class Vetted(plain):  # type: ignore[misc, valid-type]
        async def on_connect_check_health(self, check_health: bool = True) -> None:
            await super().on_connect_check_health(check_health=check_health)
            await look(self)

    return Vetted


def _encrypted(plain: type[Connection], options: RedisOptions) -> type[Connection]:
    """Return a kind of connection that speaks TLS with our context, where there is one."""
    if options.tls is None:
        return plain
    context, name = options.tls, options.server_name

    class Tls(plain):  # type: ignore[misc, valid-type]
        def _connection_arguments(self) -> Mapping[str, Any]:
            arguments = super()._connection_arguments()
            return {**arguments, "ssl": context, "server_hostname": name or arguments["host"]}

    return Tls


@asynccontextmanager
async def told() -> AsyncIterator[None]:
    """Say what failed in words of our own. Raises StoreUnavailable, Unanswered.

    The client loses some cancellations: up to Python 3.11 `asyncio.wait_for`, with which it sends, forgets
    one that comes as the sending ends. Who tries again and again would never end, so they are told here.
    """
    task = asyncio.current_task()
    cancels = task.cancelling() if task else 0
    failed: Exception | None = None
    try:
        yield
    except (RedisError, RedisClusterException, OSError) as error:
        failed = error
    if task and task.cancelling() > cancels:
        raise asyncio.CancelledError from failed
    if failed is not None:
        lost = isinstance(failed, ConnectionLost | NoAnswer | OSError)
        raise (Unanswered if lost else StoreUnavailable)(f"Redis: {_words(failed)}") from failed


def _words(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:  # in a cluster it hides behind another one
        if isinstance(cause, Unfit):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    for kind, words in _WORDS.items():
        if isinstance(error, kind):
            return words
    if str(error).startswith("NOREPLICAS"):
        return "the server is cut off from its replicas: another one may be the master by now"
    cause = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
