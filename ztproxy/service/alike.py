"""What the store and the workers of this node hold, as one digest each: whether nodes are in the same state.

Asked by `api.node` through `service.control`, when an administrator wants to know it, and by tests. The store
is read as a worker's snapshot is; nobody waits for this but who asked.
"""

from typing import Final

from ztproxy.api.node import Held, State
from ztproxy.model.messages import Changed
from ztproxy.service.hub import Hub
from ztproxy.store.interface import Store
from ztproxy.trust.digest import digest, holding
from ztproxy.trust.memory import KINDS, Memory

PATIENCE: Final = 20.0  # seconds for workers to answer
_PAGE: Final = 500


async def state(hub: Hub, store: Store) -> State:
    """Return what there is. Raises StoreUnavailable."""
    workers = [
        Held(of=f"worker {worker}", version=one.version, records=one.records, digest=one.digest)
        for worker, one in await hub.held(PATIENCE)
    ]
    return State(store=await _stored(store), workers=tuple(sorted(workers, key=lambda one: one.of)))


async def _stored(store: Store) -> Held | None:
    """Return what the store holds; None when it was written to meanwhile."""
    position = await store.position()
    memory = Memory(lambda: 0.0)
    for kind in KINDS:
        after = ""
        while page := await store.scan(kind, after=after, limit=_PAGE):
            for one in page:
                memory.apply(Changed(version=0, kind=kind, key=one.key, value=one.value))
            after = page[-1].key
    records, found = await digest(holding(memory))
    if await store.position() != position:
        return None
    return Held(of="store", version=position[0], records=records, digest=found)
