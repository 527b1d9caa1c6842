"""Names below `localhost` are this machine (RFC 6761 section 6.3), whatever the system's resolver knows.

Browsers and curl do this by themselves; the demo's own HTTP clients do it with this resolver.
"""

import socket

from aiohttp.abc import AbstractResolver, ResolveResult


class LoopbackResolver(AbstractResolver):
    """Answers 127.0.0.1 for `localhost` and every name below it, and nothing else."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The one address there is; OSError for a name that is not below localhost."""
        if host != "localhost" and not host.endswith(".localhost"):
            raise OSError(f"{host} is not a name of this machine")
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)
        ]

    async def close(self) -> None:
        """Nothing is held."""
