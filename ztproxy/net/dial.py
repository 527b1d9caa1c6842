"""Connections to upstreams: TCP, TLS over TCP, a unix socket, or whatever a connector carries to.

`upstream.pool` calls it, with a permit in its hands; nobody else dials applications.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import aiofastnet

from ztproxy.model.resource import TlsFiles, Upstream

#: For rooms that pass contexts on and know nothing of TLS.
Context = ssl.SSLContext


class Carriage(Protocol):
    """What carries a connection (gateway.carrier)."""

    @property
    def lent(self) -> bool:
        """Whether somebody else speaks with the connector: what arrives there our kernel does not know."""

    def lost(self) -> None:
        """The connection is gone."""

    def unheard(self) -> None:
        """What was sent on it does not arrive (net.alive)."""


class Dialled(asyncio.Protocol):
    """What `Dialler` connects: a protocol whose connection a connector may carry."""

    __slots__ = ()  # where there are any, mypyc compiles no class below it

    carried: Carriage | None  # to be told what becomes of the connection

    def retire(self) -> None:
        """Close as soon as nothing is under way: what carries it takes nothing new."""


_P = TypeVar("_P", bound=Dialled)


class Unreachable(Exception):
    """No connection could be made; the message says why, for the log. `code` is one of model.codes."""

    def __init__(self, message: str, code: str = "upstream-unreachable", detail: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail


class Connectors(Protocol):
    """Who carries to upstreams that we can not dial (upstream.carriers)."""

    async def connect(
        self,
        upstream: Upstream,
        factory: Callable[[], _P],
        context: ssl.SSLContext | None,
        *,
        patience: float,
    ) -> _P:
        """Return the protocol of a new connection through a connector. Raises Unreachable."""


class Dialler:
    """Makes connections. `contexts` holds a TLS context for all files that upstreams name."""

    def __init__(
        self, contexts: Mapping[TlsFiles, ssl.SSLContext], connectors: Connectors | None = None
    ) -> None:
        self._contexts = contexts
        self._connectors = connectors

    async def dial(self, upstream: Upstream, factory: Callable[[], _P], *, patience: float) -> _P:
        """Return the protocol of a new, ready connection, within `patience` seconds. Raises Unreachable."""
        if upstream.connector:
            return await self._through(upstream, factory, patience)
        try:
            async with asyncio.timeout(patience):
                return await self._connect(upstream, factory)
        except (OSError, ValueError, KeyError) as failed:  # TLS and time-outs are OSErrors too
            raise Unreachable(f"{upstream.host}: {type(failed).__name__}: {failed}") from failed

    async def _through(self, upstream: Upstream, factory: Callable[[], _P], patience: float) -> _P:
        if self._connectors is None:
            raise Unreachable("there are no connectors here", "connector-unavailable")
        context = None
        if upstream.scheme == "https" and (context := self._contexts.get(upstream.tls_files)) is None:
            raise Unreachable(f"{upstream.host}: no TLS context")
        try:
            return await self._connectors.connect(upstream, factory, context, patience=patience)
        except (
            OSError,
            ValueError,
        ) as failed:  # what no connector is to be blamed for: of names, of ourselves
            raise Unreachable(f"{upstream.host}: {type(failed).__name__}: {failed}") from failed

    async def _connect(self, upstream: Upstream, factory: Callable[[], _P]) -> _P:
        loop = asyncio.get_running_loop()
        if upstream.scheme == "unix":
            _, protocol = await aiofastnet.create_unix_connection(loop, factory, upstream.host)
        elif upstream.scheme == "http":
            _, protocol = await aiofastnet.create_connection(loop, factory, upstream.host, upstream.port)
        else:
            _, protocol = await aiofastnet.create_connection(
                loop,
                factory,
                upstream.host,
                upstream.port,
                ssl=self._contexts[upstream.tls_files],
                server_hostname=upstream.server_name or upstream.host,
            )
        return protocol


async def ask_worker(path: str, factory: Callable[[], asyncio.Protocol]) -> None:
    """Connect to another worker of this node at its socket. Raises OSError."""
    await aiofastnet.create_unix_connection(asyncio.get_running_loop(), factory, path)


async def ask_node(
    address: str, factory: Callable[[], asyncio.Protocol], context: Context, server_name: str
) -> None:
    """Connect to another node at HOST:PORT and shake hands. Raises OSError, ValueError."""
    host, _, port = address.rpartition(":")
    await aiofastnet.create_connection(
        asyncio.get_running_loop(),
        factory,
        host.removeprefix("[").removesuffix("]"),
        int(port),
        ssl=context,
        server_hostname=server_name,
    )


async def shake_hands(
    transport: asyncio.Transport, protocol: Dialled, context: ssl.SSLContext, server_name: str
) -> asyncio.Transport:
    """Speak TLS to the upstream over a connection that is carried; nobody on the way can read it.

    Returns the transport for `protocol`, which is not told yet. Raises OSError, among them ssl.SSLError.
    """
    inner = await aiofastnet.start_tls(
        asyncio.get_running_loop(),
        transport,
        protocol,
        context,
        server_hostname=server_name,
    )
    if inner.is_closing():
        raise ConnectionResetError("lost during the handshake")
    return inner
