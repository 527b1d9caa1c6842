"""Resolves names for our HTTP clients: names below `localhost` are this machine, whoever is asked otherwise.

RFC 6761 section 6.3 wants that of name resolution libraries; browsers and curl do it, glibc does it for
`localhost` itself only. It must never send such a name to a name server.
"""

import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver


class Resolver(AbstractResolver):
    """The system's resolver, and loopback for `localhost` and every name below it."""

    def __init__(self) -> None:
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name. Raises OSError."""
        name = host.lower().rstrip(".")
        if name != "localhost" and not name.endswith(".localhost"):
            return await self._system.resolve(host, port, family)
        return [_loopback(host, port)]

    async def close(self) -> None:
        """Let go of the system's resolver."""
        await self._system.close()


def _loopback(host: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host="127.0.0.1",
        port=port,
        family=socket.AF_INET,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST,
    )
