"""Where the demo's applications are: in a network namespace of their own, where that is allowed.

Made by `demo.run`. The proxy has no way there: what may leave is one wire to the front door, and what reaches
the applications comes through the connector that dialled out over it. Where no namespace is to be had they
listen on sockets in a private folder, which only the connector is told of. From outside one can read how many
requests each application has seen, and nothing else.
"""

import asyncio
from pathlib import Path
from typing import Final

from ztproxy.demo import wire
from ztproxy.demo.configuration import Ports
from ztproxy.demo.layout import APPS, Layout
from ztproxy.demo.namespace import Namespace, NotAllowed

LOOPBACK: Final = "127.0.0.1"


class Apart:
    """The place, until `close`. `why` says why it is no namespace, "" when it is one."""

    def __init__(self, layout: Layout, ports: Ports) -> None:
        self._layout = layout
        self._ports = ports
        self._servers: list[asyncio.Server] = []
        self._namespace: Namespace | None = None
        self.why = ""
        try:
            self._namespace = Namespace()
        except NotAllowed as why:
            self.why = str(why)

    @property
    def enter(self) -> list[str]:
        """What to write before a command so that it runs there."""
        return [] if self._namespace is None else self._namespace.enter

    def address(self, app: str) -> str:
        """Where an application listens, as what is beside it sees that: HOST:PORT or unix:PATH."""
        if self._namespace is None:
            return f"unix:{self._socket(app)}"
        return f"{LOOPBACK}:{getattr(self._ports, app)}"

    def target(self, app: str) -> str:
        """The same as configurations write it."""
        address = self.address(app)
        return address if address.startswith("unix:") else f"http://{address}"

    @property
    def options(self) -> list[str]:
        """What the applications are told of where they are."""
        counts = ["--counts", str(self._socket("").parent)]
        if self._namespace is None:
            return counts
        return [*counts, "--wire", f"{LOOPBACK}:{self._layout.port}=unix:{self._socket('wire')}"]

    async def open(self) -> None:
        """Put up the wire, and the windows for the counts. Raises OSError."""
        front = f"{LOOPBACK}:{self._layout.port}"
        ends = [] if self._namespace is None else [(f"unix:{self._socket('wire')}", front)]
        for app in APPS:
            ends.append((f"{LOOPBACK}:{getattr(self._ports, app)}", f"unix:{counts_of(self._socket(app))}"))
        for here, there in ends:
            self._servers.append(await wire.listen(here, there))

    def close(self) -> None:
        """Take everything down."""
        for server in self._servers:
            server.close()
        if self._namespace is not None:
            self._namespace.close()

    def _socket(self, name: str) -> Path:
        return self._layout.path("apart", name or "-")


def counts_of(socket: Path) -> Path:
    """Where the count of the application with this socket can be read."""
    return socket.with_suffix(".count")
