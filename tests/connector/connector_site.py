"""Gateways and connectors on real sockets, in this process."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gateway_fakes import ROUTE
from gateway_live import INSTANCES, Connecting, Gateway, bundle, instance
from gateway_pki import Authority

from ztproxy.connector.links import Limits
from ztproxy.model.resource import Upstream


class Site:
    """A gateway, what it wants to reach, and the connectors that may reach it."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.connectors = Authority(directory, "connectors")
        self.ends: list[Callable[[], Awaitable[Any]]] = []

    async def listen(self, behind: Callable[..., Any], **options: Any) -> int:
        """Serve streams on loopback; return the port."""
        tasks: set[asyncio.Task[Any]] = set()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.current_task())  # type: ignore[arg-type]
            try:
                await behind(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0, **options)

        async def end() -> None:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.ends.append(end)
        return int(server.sockets[0].getsockname()[1])

    def gateway(self, upstream: Upstream, **changes: Any) -> Gateway:
        """Start a gateway whose only application is behind connectors."""
        route = ROUTE.replaced(upstream=upstream, **changes)
        gateway = Gateway(route, self.authority, [bundle(self.connectors)])
        gateway.start()
        self.ends.append(gateway.stop)
        return gateway

    async def connector(
        self,
        *gateways: Gateway,
        allow: list[str],
        name: str = "partner-site",
        index: int = 0,
        limits: Limits | None = None,
    ) -> Connecting:
        """Start a connector and wait until it is ready at all gateways, and they have heard that."""
        ports = [gateway.port for gateway in gateways]
        connecting = Connecting(ports, instance(self.connectors, name, index), allow, limits)
        self.ends.append(connecting.stop)
        await connecting.ready(len(gateways))
        async with asyncio.timeout(10):
            while not all(_has(gateway, name, INSTANCES[index]) for gateway in gateways):
                await asyncio.sleep(0.01)
        return connecting


def _has(gateway: Gateway, name: str, which: str) -> bool:
    """Tell whether a gateway has a connection of a connector that is ready, or carries already."""
    return any((one.name, one.instance) == (name, which) and not one.gone for one in gateway.carriers)
