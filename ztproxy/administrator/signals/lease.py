"""Which node does what only one should do: keeps streams, polls, and sends.

Called by the control process's background work. Nobody's wall clock counts: whoever has it stops by their own
monotonic clock, and another takes over after having watched for longer, by theirs, that it is not renewed.
What was sent just before may arrive later, so everything done under it can be done twice.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from ztproxy.net.clock import Clock
from ztproxy.store.interface import Conflict, Records, StoreUnavailable

#: Seconds for which it is ours after a renewal, for which others watch before they take it, between renewals.
HELD: Final = 15.0
WATCHED: Final = 20.0
RENEW: Final = 5.0

Result = TypeVar("Result")


class Lease:
    """A place for one, under a name. Record kind "lease"."""

    def __init__(self, records: Records, clock: Clock, name: str, owner: str) -> None:
        self._records = records
        self._clock = clock
        self._name = name
        self._owner = owner.encode()
        self._until = -1.0
        self._watched = (-1, 0.0)  # the version somebody else wrote, and when we saw it first

    @property
    def held(self) -> bool:
        """Whether it is ours now, by the clock that never jumps."""
        return self._clock.monotonic() < self._until

    async def renew(self) -> bool:
        """Take it or keep it; False when it is somebody else's. Raises StoreUnavailable."""
        began = self._clock.monotonic()
        stored = await self._records.get("lease", self._name)
        if stored is not None and stored.value != self._owner and not self._left(stored.version):
            self._until = -1.0
            return False
        version = 0 if stored is None else stored.version
        try:
            await self._records.put("lease", self._name, self._owner, if_version=version)
        except Conflict:
            self._until = -1.0
            return False
        self._until = began + HELD  # before anybody else may begin, who can not have seen it earlier
        return True

    def _left(self, version: int) -> bool:
        """Tell whether somebody else's lease was not renewed for as long as we watched."""
        now = self._clock.monotonic()
        if self._watched[0] != version:
            self._watched = (version, now)
        return now - self._watched[1] >= WATCHED

    async def while_held(self, work: Coroutine[Any, Any, Result]) -> Result | None:
        """Do it for as long as this is ours; what is under way when that ends is broken off (None)."""
        task = asyncio.create_task(work)
        try:
            while not task.done() and (left := self._until - self._clock.monotonic()) > 0:
                await asyncio.wait({task}, timeout=left)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        return None if task.cancelled() else task.result()

    async def release(self) -> None:
        """Give it up, so that nobody has to wait. Where that can not be written it runs out."""
        self._until = -1.0
        try:
            stored = await self._records.get("lease", self._name)
            if stored is not None and stored.value == self._owner:
                await self._records.delete("lease", self._name, if_version=stored.version)
        except (Conflict, StoreUnavailable):
            return
