"""Who a worker's neighbours are: the other workers of its node, and other nodes, by what the feed says.

Made by `service.worker`, which also listens where the other workers ask.
"""

import asyncio
import os
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from ztproxy.config.settings import Settings
from ztproxy.gateway import lending
from ztproxy.gateway.borrowing import Door, Neighbourhood
from ztproxy.model.node import Node
from ztproxy.net.dial import Context
from ztproxy.service.assemble import Assembly, Lasting
from ztproxy.service.membership import Membership

_RANDOM: Final = secrets.SystemRandom()


def neighbourhood(lasting: Lasting, now: Callable[[], Assembly], index: int) -> Neighbourhood:
    """Return whom worker `index` asks. `now` gives the assembly in force."""
    membership = Membership(lasting.link, lasting.clock)
    carriers, state = lasting.carriers, lasting.state

    def workers() -> Sequence[str]:
        """In an upgrade the successor has our number, and we are the one who leaves."""
        others = [one for one in range(carriers.workers) if one != index or carriers.leaving]
        _RANDOM.shuffle(others)
        return [str(state.lending(one)) for one in others]

    def nodes(name: str) -> Sequence[Node]:
        own = now().settings.node_name
        found = [one for one in lasting.memory.nodes.values() if name in one.connectors and one.name != own]
        _RANDOM.shuffle(found)
        return found

    def door() -> Door | None:
        assembly = now()
        settings = assembly.settings
        if settings.connectors is None or not settings.node_address:
            return None

        async def context() -> Context | None:
            return await membership.context(assembly.authorities)

        host = settings.connectors.host
        return Door(host, _authority(settings, host), context)

    return Neighbourhood(lambda: now().world, workers, nodes, door)


async def listen(lasting: Lasting, index: int) -> asyncio.Server:
    """Listen where the other workers of this node ask worker `index`. Raises OSError.

    The path is not removed in the end: by then it may be a successor's.
    """
    path = lasting.state.lending(index)
    path.unlink(missing_ok=True)
    before = os.umask(0o077)
    try:
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(lambda: lending.Worker(lasting.carriers), str(path))
    finally:
        os.umask(before)


def _authority(settings: Settings, host: str) -> str:
    return settings.external(host).removeprefix("https://")
