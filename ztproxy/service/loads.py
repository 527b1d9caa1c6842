"""What each connector carries at each node: told to the nodes that share a store, for administrators alone.

Made by `service.tenure`; the administrator's API asks. Nothing is decided by it, and workers never hold it:
they are told only who has which names (`service.whereabouts`). A node writes one record: soon when connectors
come or go, seldom while only their numbers change; one that is on its own, or has none, writes nothing.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from ztproxy.api.connectors import Heard
from ztproxy.model.node import KIND as NODE
from ztproxy.model.node import LOAD, Carried, Load, name_of
from ztproxy.store.interface import Records
from ztproxy.telemetry.snapshot import ConnectorState

#: Seconds between two looks, and ms between two records that differ in numbers only.
EVERY: Final = 1.0
SELDOM: Final = 10_000
#: ms after which it is told again although nothing has changed, and for which it is kept.
AGAIN: Final = 300_000
KEPT: Final = 900_000
#: Connectors in one record: it stays small. Those that carry most come first.
MOST: Final = 100

_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(Load)


class Loads:
    """`address` is this node's as others reach it, "" where there are none; `states` is what its workers have
    of connectors, `now` the time in ms."""

    def __init__(
        self,
        records: Records,
        now: Callable[[], int],
        address: Callable[[], str],
        states: Callable[[], Iterable[ConnectorState]],
    ) -> None:
        self._records = records
        self._now = now
        self._address = address
        self._states = states
        self._told: Load | None = None
        self._cleared = ""  # the name under which nothing is told any more

    async def tell(self) -> None:
        """Write what this node has, if that is news. Raises StoreUnavailable: the next call does it."""
        load = _cut(self._here())
        if not load.address:
            return
        if not load.connectors:
            await self._clear(load)
        elif self._is_news(load):
            await self._records.put(LOAD, load.node, _encode(load), expires_at=load.at + KEPT)
            self._told, self._cleared = load, ""

    async def all(self) -> list[Heard]:
        """Return what this node has, and what others told; first this one. Raises StoreUnavailable."""
        here = self._here()
        speaking = {one.key for one in await self._records.scan(NODE)}
        others = [load for load in await self._read() if load.node != here.node]
        return [
            Heard(here, here=True, silent=False),
            *(Heard(load, here=False, silent=load.node not in speaking) for load in others),
        ]

    async def _read(self) -> list[Load]:
        found = []
        for one in await self._records.scan(LOAD):
            try:
                found.append(_decoder.decode(one.value))
            except msgspec.MsgspecError:
                continue  # of a version that we do not know
        return found

    async def _clear(self, load: Load) -> None:
        if self._cleared != load.node:
            await self._records.delete(LOAD, load.node)
            self._told, self._cleared = None, load.node

    def _is_news(self, load: Load) -> bool:
        told, age = self._told, 0 if self._told is None else load.at - self._told.at
        if told is None or not 0 <= age < AGAIN or _who(load) != _who(told):
            return True
        return age >= SELDOM and load.connectors != told.connectors

    def _here(self) -> Load:
        """Return all that is here; what is told of it is cut to its size."""
        address = self._address()
        carried = sorted(together(self._states()), key=lambda one: (-one.carrying, one.key))
        return Load(name_of(address), address, self._now(), tuple(carried))


def _who(load: Load) -> tuple[str, set[tuple[str, bool]]]:
    return load.node, {(one.key, one.draining) for one in load.connectors}


def _cut(load: Load) -> Load:
    carried = load.connectors
    kept, left_out = carried[:MOST], max(0, len(carried) - MOST)
    return msgspec.structs.replace(load, connectors=kept, left_out=left_out)


def together(states: Iterable[ConnectorState]) -> list[Carried]:
    """Return what all workers have of each connector."""
    found: dict[str, Carried] = {}
    for one in states:
        key = f"{one.name}/{one.instance}"
        known = found.get(key, Carried(key, one.version, 0, 0))
        found[key] = Carried(
            key,
            one.version or known.version,
            known.ready + one.ready,
            known.carrying + one.carrying,
            known.draining or one.draining,
        )
    return list(found.values())
