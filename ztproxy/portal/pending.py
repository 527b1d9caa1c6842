"""One-time things of the portal: sign-ins under way and device-check nonces, each short-lived.

Kept in `records` under the digest of a value only one browser (or provider, or agent) was told.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from ztproxy.crypto.ids import handle_digest, new_token
from ztproxy.net.clock import Clock
from ztproxy.portal.journey import Journey
from ztproxy.store.interface import Conflict, Records
from ztproxy.trust.identity.oidc import Attempt

LOGIN_LIFETIME: Final = 600_000  # ms
NONCE_LIFETIME: Final = 120_000  # ms


class Login(Struct, frozen=True):
    """A sign-in under way. Record kind "login", key = hex SHA-256 of the state."""

    provider: str
    attempt: Attempt
    flow: str  # digest of the flow cookie on the portal host
    journey: Journey


class Nonce(Struct, frozen=True):
    """A challenge for the device agent. Record kind "nonce", key = hex SHA-256 of it."""

    session_id: str


_encode = msgspec.msgpack.Encoder().encode
_decode_login = msgspec.msgpack.Decoder(Login).decode
_decode_nonce = msgspec.msgpack.Decoder(Nonce).decode


class Pending:
    """Puts one-time records in, takes each out once."""

    def __init__(self, records: Records, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._records = records
        self._clock = clock
        self._entropy = entropy

    def new_attempt(self, redirect_uri: str, *, fresh: bool, silent: bool = False) -> Attempt:
        """Return an attempt of new random values."""
        return Attempt(
            state=new_token(self._entropy),
            nonce=new_token(self._entropy),
            verifier=new_token(self._entropy),
            redirect_uri=redirect_uri,
            fresh=fresh,
            silent=silent,
            started_at=self._clock.now(),
        )

    async def put_login(self, login: Login) -> None:
        """Keep a sign-in until its answer comes."""
        await self._put("login", login.attempt.state, login, LOGIN_LIFETIME)

    async def take_login(self, state: str) -> Login | None:
        """Return the sign-in a state belongs to, once."""
        value = await self._take("login", state)
        return None if value is None else _decode_login(value)

    async def new_nonce(self, session_id: str) -> str:
        """Return a new challenge for the device of this session."""
        nonce = new_token(self._entropy)
        await self._put("nonce", nonce, Nonce(session_id=session_id), NONCE_LIFETIME)
        return nonce

    async def take_nonce(self, nonce: str, session_id: str) -> bool:
        """Whether the challenge was given to this session and not used yet."""
        value = await self._take("nonce", nonce)
        return value is not None and _decode_nonce(value).session_id == session_id

    async def _put(self, kind: str, secret: str, value: Struct, lifetime: int) -> None:
        expires_at = self._clock.now() + lifetime
        await self._records.put(
            kind, handle_digest(secret), _encode(value), if_version=0, expires_at=expires_at
        )

    async def _take(self, kind: str, secret: str) -> bytes | None:
        key = handle_digest(secret)
        stored = await self._records.get(kind, key)
        if stored is None or self._clock.now() >= stored.expires_at:
            return None
        try:
            mine = await self._records.delete(kind, key, if_version=stored.version)
        except Conflict:
            return None
        return stored.value if mine else None
