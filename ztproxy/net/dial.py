"""Connections to upstreams: TCP, TLS over TCP, or a unix socket.

`upstream.pool` calls it, with a permit in its hands; nobody else dials applications.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import TypeVar

import aiofastnet

from ztproxy.model.resource import TlsFiles, Upstream

_P = TypeVar("_P", bound=asyncio.Protocol)


class Unreachable(Exception):
    """No connection could be made; the message says why, for the log."""


class Dialler:
    """Makes connections. `contexts` holds a TLS context for all files that upstreams name."""

    def __init__(self, contexts: Mapping[TlsFiles, ssl.SSLContext]) -> None:
        self._contexts = contexts

    async def dial(self, upstream: Upstream, factory: Callable[[], _P], *, patience: float) -> _P:
        """Return the protocol of a new, ready connection, within `patience` seconds. Raises Unreachable."""
        try:
            async with asyncio.timeout(patience):
                return await self._connect(upstream, factory)
        except (OSError, ValueError, KeyError) as failed:  # TLS and time-outs are OSErrors too
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
