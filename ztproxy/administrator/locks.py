"""Locks: nobody passes where one is on, whatever policies say, until it is taken away or its time is over.

Set and taken away by the administrator's API and by signals; workers read what this writes, through the feed.
A lock is in force before it is witnessed, so that a failing audit keeps no door open; it is taken away only
after that is witnessed. It must never end a lock for any other reason.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final

import msgspec

from ztproxy.crypto.ids import Entropy, new_lock_id
from ztproxy.model.record import StandingRecord
from ztproxy.model.standing import LOCKABLE, Lock
from ztproxy.net.clock import Clock
from ztproxy.store.interface import Records, Versioned
from ztproxy.trust.standing import Place

LONGEST: Final = 512  # characters of a value; a reason may have as many
MOST: Final = 10_000  # locks at once
#: Seconds for which locks that were read are believed in this process. The door has them from the feed.
FRESH: Final = 0.2

_PAGE: Final = 1000
_FINGERPRINT: Final = frozenset("0123456789abcdef")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Lock).decode


class LockRefused(Exception):
    """A lock that would lock nothing, or could not be kept. The text says what to do instead."""


class LockTable:
    """The locks in force as the control process reads them, where sessions and devices are dealt with."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._read: dict[Place, tuple[Lock, ...]] = {}
        self._read_at = float("-inf")

    async def on(self, places: Iterable[Place]) -> Lock | None:
        """Return a lock that is on one of these, if any. What was read is believed for `FRESH`."""
        at = self._clock.monotonic()
        if at - self._read_at >= FRESH:
            table: dict[Place, tuple[Lock, ...]] = {}
            async for lock in _each(self._records):
                place = lock.target, lock.value
                table[place] = (*table.get(place, ()), lock)
            self._read, self._read_at = table, at
        now = self._clock.now()
        for place in places:
            for lock in self._read.get(place, ()):
                if not lock.expires_at or now < lock.expires_at:
                    return lock
        return None


class Locks:
    """All locks, in `records`.

    `routes` are the names of routes there are. `witness` writes the audit record and raises when it can not.
    """

    def __init__(
        self,
        records: Records,
        clock: Clock,
        entropy: Entropy,
        witness: Callable[[StandingRecord], None],
        routes: Iterable[str],
    ) -> None:
        self._records = records
        self._clock = clock
        self._entropy = entropy
        self._witness = witness
        self._routes = frozenset(routes)

    async def add(self, target: str, value: str, reason: str, by: str, expires_at: int = 0) -> Lock:
        """Lock a target until `expires_at` (ms; 0 = until the lock is removed). Raises LockRefused."""
        now = self._clock.now()
        if expires_at and expires_at <= now:
            raise LockRefused("it would have expired already; give a time to come, or none")
        if len(await self.list()) >= MOST:
            raise LockRefused(
                f"there are {MOST} locks; remove some, or lock what many of them have in common"
            )
        lock = Lock(
            id=new_lock_id(self._entropy),
            target=target,
            value=self._value(target, value),
            reason=_line(reason),
            set_at=now,
            set_by=_line(by),
            expires_at=expires_at,
        )
        await self._records.put("lock", lock.id, _encode(lock), if_version=0, expires_at=expires_at)
        self._tell(lock, "locked", lock.set_by)
        return lock

    async def remove(self, id: str, by: str) -> bool:
        """Take a lock away; False when there is none of this id."""
        stored = await self._records.get("lock", id)
        if stored is None:
            return False
        self._tell(_lock_of(stored), "unlocked", _line(by))
        return await self._records.delete("lock", id)

    async def list(self) -> Sequence[Lock]:
        """Return all locks in force, the oldest first."""
        found = [lock async for lock in _each(self._records)]
        return sorted(found, key=lambda lock: (lock.set_at, lock.id))

    def _value(self, target: str, value: str) -> str:
        """Return the value as callers have it. Raises LockRefused for what no caller can have."""
        if target not in LOCKABLE:
            raise LockRefused(f"{_line(target)!r} can not be locked; name one of {', '.join(LOCKABLE)}")
        if not value or len(value) > LONGEST or not value.isprintable() or value != value.strip():
            raise LockRefused(f"the {target} to lock is empty, too long, or no plain text")
        if target == "credential":
            value = value.replace(":", "").lower()
            if len(value) != 64 or not _FINGERPRINT.issuperset(value):
                raise LockRefused("a credential is named by the SHA-256 of its certificate: 64 hex digits")
        if target == "route" and value not in self._routes:
            raise LockRefused(
                f"no route is called {value!r}; there are {', '.join(sorted(self._routes))}"[:800]
            )
        return value

    def _tell(self, lock: Lock, event: str, by: str) -> None:
        self._witness(
            StandingRecord(
                id=lock.id,
                at=self._clock.now(),
                event=event,
                target=lock.target,
                value=lock.value,
                by=by,
                session=lock.value if lock.target == "session" else "",
                expires_at=lock.expires_at,
                detail=lock.reason,
            )
        )


async def _each(records: Records) -> AsyncIterator[Lock]:
    after = ""
    while page := await records.scan("lock", after=after, limit=_PAGE):
        for stored in page:
            yield _lock_of(stored)
        after = page[-1].key


def _lock_of(stored: Versioned) -> Lock:
    """Return a lock as far as it can be read: whatever else is wrong with it, it can be seen and removed."""
    try:
        return _decode(stored.value)
    except msgspec.MsgspecError:
        why = "this record can not be read; while it is there workers refuse everybody"
        return Lock(stored.key, "unreadable", "", why, 0, "")


def _line(text: str) -> str:
    """Return what a person wrote as one line that can be shown anywhere."""
    return "".join(character for character in text if character.isprintable()).strip()[:LONGEST]
