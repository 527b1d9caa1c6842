"""Which node does what only one should do: keeps streams, polls, and sends.

Called by the control process's background work. Two that believe to hold it for a moment do no harm:
everything done under it can be done twice.
"""

from typing import Final

from ztproxy.net.clock import Clock
from ztproxy.store.interface import Conflict, Records, StoreUnavailable

#: ms after which somebody else may take over from a node that is gone, and seconds between renewals.
HELD: Final = 30_000
RENEW: Final = 8.0


class Lease:
    """A place for one, under a name. Record kind "lease"."""

    def __init__(self, records: Records, clock: Clock, name: str, owner: str) -> None:
        self._records = records
        self._clock = clock
        self._name = name
        self._owner = owner.encode()
        self._until = -1.0

    @property
    def held(self) -> bool:
        """Whether it is ours now, by the clock that never jumps."""
        return self._clock.monotonic() < self._until

    async def renew(self) -> bool:
        """Take it or keep it; False when it is somebody else's. Raises StoreUnavailable."""
        began = self._clock.monotonic()
        stored = await self._records.get("lease", self._name)
        if stored is not None and stored.value != self._owner:
            self._until = -1.0
            return False
        version = 0 if stored is None else stored.version
        expires_at = self._clock.now() + HELD
        try:
            await self._records.put(
                "lease", self._name, self._owner, if_version=version, expires_at=expires_at
            )
        except Conflict:
            self._until = -1.0
            return False
        self._until = began + HELD / 1000 - 5  # we stop before anybody else may begin
        return True

    async def release(self) -> None:
        """Give it up, so that nobody has to wait. Where that can not be written it runs out."""
        self._until = -1.0
        try:
            stored = await self._records.get("lease", self._name)
            if stored is not None and stored.value == self._owner:
                await self._records.delete("lease", self._name, if_version=stored.version)
        except (Conflict, StoreUnavailable):
            return
