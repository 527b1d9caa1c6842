"""Which connectors this node has, told to the nodes that share its store.

Made by `service.tenure`. Workers say which names they have ready connections of; what all of them come to is
one record per node, written when it changes and else only so often that it does not run out. A node that dies
says nothing any more, and its record runs out within seconds. A control process that makes way for another
takes nothing back: the workers, and their connectors, are still there. Nothing here is written per connection
or request, and nothing while a node has no connectors.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from ztproxy.model.node import KIND, Node, name_of
from ztproxy.store.interface import Records

#: ms that a node is believed after its last word, and after which it says it again.
BELIEVED: Final = 10_000
AGAIN: Final = 3_000
#: Seconds between looks at what has changed.
EVERY: Final = 0.2

_encode: Final = msgspec.msgpack.Encoder().encode


class Whereabouts:
    """`address` gives HOST:PORT of this node as others reach it, "" where there are none; `now` in ms."""

    def __init__(self, records: Records, now: Callable[[], int], address: Callable[[], str]) -> None:
        self._records = records
        self._now = now
        self._address = address
        self._workers: dict[int, tuple[str, ...]] = {}  # pid -> names
        self._told: Node | None = None
        self._told_at = 0

    def note(self, pid: int, connectors: tuple[str, ...]) -> None:
        """Take what a worker has."""
        if connectors:
            self._workers[pid] = connectors
        else:
            self._workers.pop(pid, None)

    async def tell(self) -> None:
        """Write what has changed, or is about to run out. Raises StoreUnavailable: the next call does it."""
        now, node = self._now(), self._node()
        told = self._told
        if told is not None and (node is None or node.name != told.name):
            await self._records.delete(KIND, told.name)
            self._told = None
        if node is not None and (node != told or not 0 <= now - self._told_at < AGAIN):
            await self._records.put(KIND, node.name, _encode(node), expires_at=now + BELIEVED)
            self._told, self._told_at = node, now

    def _node(self) -> Node | None:
        """Return what is to be told, None for nothing."""
        address = self._address()
        names = sorted({name for names in self._workers.values() for name in names})
        return Node(name_of(address), address, tuple(names)) if address and names else None
