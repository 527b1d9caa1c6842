"""What identity providers can be asked again with, for each session: stored apart from it, fed to no worker.

Written at sign-in and by `administrator.rechecks`; deleted with the session. Who is to ask is settled here
too: a lease in the same record, so that all nodes together ask once. Never logs or shows what it keeps.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from ztproxy.store.interface import Conflict, Records
from ztproxy.trust.identity.provider import Granted

KIND: Final = "tokens"
_PAGE: Final = 500


class Held(Struct, frozen=True):
    """Record kind "tokens", key = session id. Times in ms."""

    provider: str
    granted: Granted
    expires_at: int  # as the session
    leased_until: int = 0  # somebody asks the provider
    failures: int = 0  # in a row
    retry_at: int = 0
    unable: bool = False  # the provider said nothing without the browser: what it said before is not borne


class Found(Struct, frozen=True):
    """A record as it was read; only who writes over that very version has the lease."""

    held: Held
    version: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Held).decode


class Vault:
    """All of them, in `records`, which seals this kind.

    `give_back(provider, granted)` has a grant revoked where it was given, beside everything else.
    """

    def __init__(self, records: Records, give_back: Callable[[str, Granted], None]) -> None:
        self._records = records
        self.give_back = give_back

    async def put(self, session_id: str, provider: str, granted: Granted | None, expires_at: int) -> None:
        """Keep what a sign-in granted, in place of what was there."""
        if granted is None or not (granted.refresh_token or granted.access_token):
            await self._records.delete(KIND, session_id)
            return
        held = Held(provider=provider, granted=granted, expires_at=expires_at)
        await self._records.put(KIND, session_id, _encode(held), expires_at=expires_at)

    async def read(self, session_id: str) -> Found | None:
        """Return what is kept for a session."""
        stored = await self._records.get(KIND, session_id)
        return None if stored is None else Found(held=_decode(stored.value), version=stored.version)

    async def write(self, session_id: str, held: Held, version: int) -> Found | None:
        """Write over `version`; None when somebody else was faster, or it is gone."""
        try:
            written = await self._records.put(
                KIND, session_id, _encode(held), if_version=version, expires_at=held.expires_at
            )
        except Conflict:
            return None
        return Found(held=held, version=written)

    async def forget(self, session_id: str) -> None:
        """Delete what is kept for a session that is over, and give it back."""
        while (stored := await self._records.get(KIND, session_id)) is not None:
            try:
                mine = await self._records.delete(KIND, session_id, if_version=stored.version)
            except Conflict:  # renewed meanwhile: what was read is worth nothing any more
                continue
            if mine:
                held = _decode(stored.value)
                self.give_back(held.provider, held.granted)
            return

    async def kept(self, after: str = "") -> Sequence[str]:
        """Return the ids of sessions for which something is kept, in their order, a page at a time."""
        return [stored.key for stored in await self._records.scan(KIND, after=after, limit=_PAGE)]
