"""The streams of those whom we tell: one each, kept in the store with what waits to be delivered.

Called by `api.transmitter` on every node and by `administrator.signals.teller`. A queue is durable and
bounded: what does not fit disables the stream, visibly, and is not dropped in silence. It is counted now and
then, not for each event, so that what waits makes telling no slower; the bound is met to some percent.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ztproxy.administrator.signals.telling import Subjects, Telling, claims_of, of_stream
from ztproxy.net.clock import Clock
from ztproxy.store.interface import Conflict, Records, Versioned

#: Tokens that wait for one receiver, and how long they do, in ms.
MOST: Final = 10_000
KEPT: Final = 7 * 86_400_000
SHARE: Final = 4  # of what is free a node fills one in so many before it counts again: others tell, too
STEPS: Final = (
    100  # it always fills one in so many of all, or a queue that is nearly full was counted each time
)
_PAGE: Final = 500

Status = Literal["enabled", "paused", "disabled"]

_encode = msgspec.msgpack.Encoder().encode


class Told(Struct, frozen=True):
    """Somebody whom we tell, as configured."""

    name: str
    secret: str
    audience: str
    subjects: Subjects
    events: tuple[str, ...]  # names

    def __repr__(self) -> str:
        return f"Told({self.name!r})"


class Stream(Struct, frozen=True):
    """A receiver's stream. Record kind "signal-receiver" (sealed), key = the receiver's name."""

    id: str
    method: str
    endpoint: str = ""  # of pushes
    authorization: str = ""
    requested: tuple[str, ...] = ()  # URIs
    description: str = ""
    status: Status = "enabled"
    reason: str = ""


class Waiting(Struct, frozen=True):
    """A token to deliver. Record kind "outbox", key = name, "/", and what orders them."""

    jti: str
    token: str


_decode_stream = msgspec.msgpack.Decoder(Stream).decode
_decode_waiting = msgspec.msgpack.Decoder(Waiting).decode


class Streams:
    """All streams. `sign(claims)` makes a token of them."""

    def __init__(
        self, records: Records, clock: Clock, sign: Callable[[dict[str, Any]], str], issuer: str
    ) -> None:
        self._records = records
        self._clock = clock
        self._sign = sign
        self._issuer = issuer
        self._order = 0
        self._room: dict[str, int] = {}  # tokens to add before it is counted again

    async def get(self, name: str) -> Stream | None:
        """Return a receiver's stream."""
        stored = await self._records.get("signal-receiver", name)
        return None if stored is None else _decode_stream(stored.value)

    async def create(self, name: str, stream: Stream) -> bool:
        """Keep a new stream; False when there is one."""
        try:
            await self._records.put("signal-receiver", name, _encode(stream), if_version=0)
        except Conflict:
            return False
        return True

    async def change(self, name: str, stream: Stream) -> None:
        """Keep a stream as it is now."""
        await self._records.put("signal-receiver", name, _encode(stream))

    async def delete(self, name: str) -> None:
        """Forget a stream and what waits in it."""
        await self._records.delete("signal-receiver", name)
        await self._clear(name)

    async def set_status(self, told: Told, stream: Stream, status: Status, reason: str = "") -> None:
        """Change a stream's status and say so over the stream; a disabled one keeps nothing."""
        if status == stream.status:
            return
        if status == "disabled":
            await self._clear(told.name)
        changed = replace(stream, status=status, reason=reason)
        await self.change(told.name, changed)
        members = {"status": status, **({"reason": reason} if reason else {})}
        await self._of_itself(told, of_stream(stream.id, "stream-updated", members))

    async def verify(self, told: Told, stream: Stream, state: str) -> None:
        """Queue a verification event."""
        await self._of_itself(told, of_stream(stream.id, "verification", {"state": state} if state else {}))

    async def tell(self, told: Told, telling: Telling) -> None:
        """Queue an event for a receiver that wants it."""
        stream = await self.get(told.name)
        if stream is None or stream.status == "disabled" or telling.name not in _names(told, stream):
            return
        claims = claims_of(telling, told.subjects)
        if claims is None:
            return
        if not await self._fits(told.name):
            await self.set_status(told, stream, "disabled", "too many events wait")
            return
        await self._add(told, claims)

    async def waiting(self, name: str, limit: int) -> Sequence[tuple[str, Waiting]]:
        """Return what waits, the oldest first, with the key to take it away by."""
        return [(one.key, _decode_waiting(one.value)) for one in await self._waiting(name, limit)]

    async def delivered(self, key: str) -> None:
        """Take away what was delivered, or will never be."""
        await self._records.delete("outbox", key)

    async def acknowledged(self, name: str, jtis: set[str]) -> None:
        """Take away what a poll acknowledges or complains about."""
        left = set(jtis)
        if not left:
            return
        async for stored in self._each(name, MOST):  # the oldest first, and those are what is acknowledged
            jti = _decode_waiting(stored.value).jti
            if jti in left:
                await self.delivered(stored.key)
                left.discard(jti)
            if not left:
                return

    async def _of_itself(self, told: Told, claims: dict[str, Any]) -> None:
        """Queue an event about the stream, while there is room: receivers can ask for any number of them."""
        if await self._fits(told.name):
            await self._add(told, claims)

    async def _fits(self, name: str) -> bool:
        """Take one place in a queue; False when there is none."""
        room = self._room.get(name, 0)
        if room <= 0:
            free = MOST - len(await self._waiting(name, MOST))
            if free <= 0:
                return False
            room = max(free // SHARE, MOST // STEPS, 1)
        self._room[name] = room - 1
        return True

    async def _add(self, told: Told, claims: dict[str, Any]) -> None:
        now, jti = self._clock.now(), secrets.token_hex(16)
        token = self._sign(
            {"iss": self._issuer, "aud": told.audience, "iat": now // 1000, "jti": jti, **claims}
        )
        self._order += 1
        key = f"{told.name}/{now:015d}-{self._order % 1_000_000:06d}-{jti[:8]}"
        await self._records.put("outbox", key, _encode(Waiting(jti, token)), expires_at=now + KEPT)

    async def _waiting(self, name: str, limit: int) -> Sequence[Versioned]:
        found: list[Versioned] = []
        async for one in self._each(name, limit):
            found.append(one)
            if len(found) >= limit:
                break
        return found

    async def _each(self, name: str, most: int) -> AsyncIterator[Versioned]:
        """Yield what waits, the oldest first, for somebody who wants `most` of it."""
        after = prefix = f"{name}/"
        while page := await self._records.scan("outbox", after=after, limit=min(most, _PAGE)):
            for one in page:
                if not one.key.startswith(prefix):
                    return
                yield one
            after = page[-1].key

    async def _clear(self, name: str) -> None:
        for stored in await self._waiting(name, MOST + 1000):
            await self._records.delete("outbox", stored.key)


def _names(told: Told, stream: Stream) -> set[str]:
    return {uri.rpartition("/")[2] for uri in stream.requested} & set(told.events)
