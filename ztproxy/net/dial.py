"""Connections to upstreams: TCP, TLS over TCP, a unix socket, or whatever a connector carries to.

`upstream.pool` calls it, with a permit in its hands; nobody else dials applications.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from ipaddress import ip_address
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


class _Lookups:
    """Asks for addresses of names, for one name once at a time: whoever wants it meanwhile waits along.

    An answer can take ten seconds, and in all that time it holds a thread, whoever has given up on it. There
    are only so many of those: a busy application whose name nobody answers for must not take them all.
    """

    def __init__(self) -> None:
        self._asked: dict[str, asyncio.Task[list[str]]] = {}  # names come from the configuration

    async def addresses(self, host: str) -> list[str]:
        """Return the addresses of a name, best first; of an address itself. Raises OSError."""
        try:
            ip_address(host)
        except ValueError:
            pass
        else:
            return [host]
        asked = self._asked.get(host)
        if asked is None:
            asked = self._asked[host] = asyncio.create_task(_look_up(host))
            asked.add_done_callback(lambda task: self._answered(host, task))
        return await asyncio.shield(asked)

    def _answered(self, host: str, asked: asyncio.Task[list[str]]) -> None:
        del self._asked[host]
        if not asked.cancelled():
            asked.exception()  # nobody may be left to hear of it


async def _look_up(host: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Dialler:
    """Makes connections. `contexts` holds a TLS context for all files that upstreams name."""

    def __init__(
        self, contexts: Mapping[TlsFiles, ssl.SSLContext], connectors: Connectors | None = None
    ) -> None:
        self._contexts = contexts
        self._connectors = connectors
        self._lookups = _Lookups()

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
            return (await aiofastnet.create_unix_connection(loop, factory, upstream.host))[1]
        context = self._contexts[upstream.tls_files] if upstream.scheme == "https" else None
        name = (upstream.server_name or upstream.host) if context is not None else None
        failures: list[OSError] = []
        for address in await self._lookups.addresses(upstream.host):
            try:
                _, protocol = await aiofastnet.create_connection(
                    loop, factory, address, upstream.port, ssl=context, server_hostname=name
                )
            except ssl.SSLError:
                raise  # somebody is there, and not whom we want
            except OSError as failed:
                failures.append(failed)
            else:
                return protocol
        if len(failures) == 1:
            raise failures[0]
        raise OSError("; ".join(map(str, failures)) or "the name has no address")


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
