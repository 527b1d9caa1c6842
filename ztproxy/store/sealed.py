"""Values that are secrets, sealed before they reach a back end: a wrapper over any store, by kind.

Made by `service.storage`. Who reads the database, its backups or the wire to it learns nothing that can be
used; who writes it can not move a value to another place. What does not open is an error, never a value.
Workers hold none of these kinds, so the feed passes as it is.
"""

from collections.abc import Callable, Sequence
from typing import Final, Self

from msgspec.structs import replace

from ztproxy.crypto.envelope import NONCE_BYTES, CannotOpen, Envelope
from ztproxy.store.interface import Change, Conflict, Place, Store, StoreUnavailable, Versioned

#: Sign-ins under way (verifiers, nonces), handoff and enrolment codes, challenges, refresh tokens.
SEALED: Final = frozenset(
    {"login", "nonce", "code", "enrolment", "connector-code", "tokens", "signal-receiver"}
)
_MARK: Final = ("meta", "sealed")
_MARKED: Final = b"ztproxy"


class SealedStore:
    """Implements `store.interface.Store` over another one. `entropy` gives nonces."""

    __slots__ = ("_entropy", "_envelope", "_store")

    def __init__(self, store: Store, keys: Sequence[bytes], entropy: Callable[[int], bytes]) -> None:
        self._store = store
        self._envelope = Envelope(keys)
        self._entropy = entropy

    async def prove(self) -> Self:
        """Find out at the start whether our keys are those of this store. Raises StoreUnavailable."""
        found = await self._store.get(*_MARK)
        version = 0
        if found is not None:
            self._open(found)
            if self._envelope.is_current(found.value):
                return self
            version = found.version  # sealed anew, so that the old key is not needed for it any more
        try:
            await self._store.put(*_MARK, self._seal(*_MARK, _MARKED), if_version=version)
        except Conflict:  # another node was quicker: are its keys ours?
            return await self.prove()
        return self

    async def get(self, kind: str, key: str) -> Versioned | None:
        """Return the live record, or None."""
        found = await self._store.get(kind, key)
        return self._open(found) if found is not None and kind in SEALED else found

    async def some(self, places: Sequence[Place]) -> Sequence[Versioned]:
        """Return those live records that there are."""
        found = await self._store.some(places)
        return [self._open(one) if one.kind in SEALED else one for one in found]

    async def put(
        self, kind: str, key: str, value: bytes, *, if_version: int | None = None, expires_at: int = 0
    ) -> int:
        """Write and publish in one step; return the new version."""
        if kind in SEALED:
            value = self._seal(kind, key, value)
        return await self._store.put(kind, key, value, if_version=if_version, expires_at=expires_at)

    async def scan(self, kind: str, *, after: str = "", limit: int = 1000) -> Sequence[Versioned]:
        """Return live records of a kind in key order."""
        found = await self._store.scan(kind, after=after, limit=limit)
        return [self._open(one) for one in found] if kind in SEALED else found

    async def delete(self, kind: str, key: str, *, if_version: int | None = None) -> bool:
        """Delete and publish; False when nothing was there."""
        return await self._store.delete(kind, key, if_version=if_version)

    async def head(self) -> int:
        """Return the number of the newest change."""
        return await self._store.head()

    async def position(self) -> tuple[int, int]:
        """Return number and stamp of the newest change."""
        return await self._store.position()

    async def after(
        self, version: int, *, stamp: int | None = None, limit: int = 1000
    ) -> Sequence[Change] | None:
        """Return changes after `version`, values of sealed kinds as they are stored."""
        return await self._store.after(version, stamp=stamp, limit=limit)

    async def wait(self, version: int, seconds: float) -> bool:
        """Return True as soon as the head is past `version`."""
        return await self._store.wait(version, seconds)

    async def sweep(self) -> int:
        """Delete and publish expired records."""
        return await self._store.sweep()

    async def close(self) -> None:
        """Close the store below."""
        await self._store.close()

    def _seal(self, kind: str, key: str, value: bytes) -> bytes:
        return self._envelope.seal(value, _place(kind, key), self._entropy(NONCE_BYTES))

    def _open(self, found: Versioned) -> Versioned:
        try:
            value = self._envelope.open(found.value, _place(found.kind, found.key))
        except CannotOpen as error:
            raise StoreUnavailable(
                f"a sealed value ({found.kind}) does not open: {error};"
                " `store.keys` must hold the key it was made with"
            ) from None
        return replace(found, value=value)


def _place(kind: str, key: str) -> bytes:
    return f"{kind}\0{key}".encode()
