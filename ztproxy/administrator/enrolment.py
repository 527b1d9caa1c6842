"""What enrolling anything has in common: one-time codes, and statements signed with the key that is enrolled.

Used by `administrator.devices` and `administrator.connectors`. It must never keep a code in the clear, let
one be used twice, or believe a key that a statement brings along.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from msgspec import Struct
from msgspec.structs import replace

from ztproxy.crypto import statements
from ztproxy.crypto.csr import RequestRefused, read_request
from ztproxy.crypto.ids import Entropy, handle_digest, new_code, normal_code
from ztproxy.crypto.jose import Expected, JoseError, verify
from ztproxy.crypto.jwk import read_key
from ztproxy.net.clock import Clock
from ztproxy.store.interface import Conflict, Records, Versioned

CODE_LIFETIME: Final = 10 * 60_000  # ms
CODE_ATTEMPTS: Final = 5
LONGEST_NAME: Final = 128  # characters

_PAGE: Final = 500

_encode = msgspec.msgpack.Encoder().encode


class Refused(Exception):
    """Somebody or their word is not believed. `code` is stable, see `api.problems`."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Permission(Struct, frozen=True):
    """What a code permits once. Record kinds of their own, key = hex SHA-256 of the code."""

    attempts: int = 0
    used: bool = False  # whoever had it is being enrolled


P = TypeVar("P", bound=Permission)


class Code(Struct, Generic[P], frozen=True):
    """A code that is good at the moment, as it is stored."""

    stored: Versioned
    permission: P


class Codes(Generic[P]):
    """The one-time codes of one record kind, each with a permission."""

    def __init__(
        self, records: Records, clock: Clock, entropy: Entropy, kind: str, permission: type[P]
    ) -> None:
        self._records = records
        self._clock = clock
        self._entropy = entropy
        self._kind = kind
        self._decode = msgspec.msgpack.Decoder(permission).decode

    async def create(self, permission: P, lifetime: int = CODE_LIFETIME) -> str:
        """Return a new code, good for `lifetime` ms."""
        code = new_code(self._entropy)
        await self._records.put(
            self._kind,
            _key_of(code),
            _encode(permission),
            if_version=0,
            expires_at=self._clock.now() + lifetime,
        )
        return code

    async def find(self, code: str) -> Code[P]:
        """Return what a code is good for. Raises Refused when it is not valid."""
        stored = await self._records.get(self._kind, _key_of(code))
        permission = None if stored is None else self._decode(stored.value)
        if stored is None or permission is None or permission.used:
            raise no_code()
        return Code(stored, permission)

    async def redeem(self, code: Code[P], csr: str) -> EllipticCurvePublicKey:
        """Use a code up for the key of a certificate request (PEM): of two who do so at once, one gets it.

        Raises Refused. A right code with a wrong request is counted.
        """
        key = await self._key_in(csr, code)
        try:
            used = await self._records.delete(self._kind, code.stored.key, if_version=code.stored.version)
        except Conflict:
            used = False
        if not used:
            raise no_code()
        return key

    async def begin(self, code: Code[P], csr: str) -> EllipticCurvePublicKey:
        """Like `redeem`, but until `finish` it can be seen that somebody is being enrolled by it."""
        key = await self._key_in(csr, code)
        try:
            await self._write(code, replace(code.permission, used=True))
        except Conflict:
            raise no_code() from None
        return key

    async def finish(self, code: Code[P]) -> bool:
        """Forget a code that was begun with; False when it was withdrawn meanwhile."""
        return await self._records.delete(self._kind, code.stored.key)

    async def _key_in(self, csr: str, code: Code[P]) -> EllipticCurvePublicKey:
        try:
            return read_request(csr)
        except RequestRefused as error:
            await self.count(code)
            raise Refused("certificate-request-invalid", str(error)) from error

    async def _write(self, code: Code[P], permission: P) -> None:
        """Write a code anew. Raises Conflict."""
        stored = code.stored
        await self._records.put(
            self._kind,
            stored.key,
            _encode(permission),
            if_version=stored.version,
            expires_at=stored.expires_at,
        )

    async def count(self, code: Code[P]) -> None:
        """Count a wrong use of a right code: a few times is a mistake, more is an attack."""
        stored, attempts = code.stored, code.permission.attempts + 1
        if attempts >= CODE_ATTEMPTS:
            await self._records.delete(self._kind, stored.key)
            return
        try:
            await self._write(code, replace(code.permission, attempts=attempts))
        except Conflict:  # somebody else uses the same code right now: neither of them is trusted
            await self._records.delete(self._kind, stored.key)

    async def withdraw(self, concerns: Callable[[P], bool]) -> int:
        """Make codes worthless that somebody has and has not used; return how many."""
        gone = 0
        async for stored in pages(self._records, self._kind):
            if concerns(self._decode(stored.value)):
                gone += await self._records.delete(self._kind, stored.key)
        return gone


class Holder(Protocol):
    """Who is enrolled, as far as its signatures go."""

    @property
    def jwk(self) -> dict[str, str]:
        """Its public key."""


def claims_of(
    token: str,
    holder: Holder,
    signer: str,
    typ: str,
    audience: str,
    now: int,
    *,
    longest_life: int = statements.LIFE,
    max_size: int = statements.MAX_SIZE,
) -> dict[str, Any]:
    """Return what a statement claims if it is signed by this holder, for us and now. Raises Refused.

    The key is the enrolled one, never one that the statement brings.
    """
    expected = Expected(
        issuer=signer, audience=audience, types=(typ,), longest_life=longest_life, max_size=max_size
    )
    try:
        claims = verify(token, [read_key({**holder.jwk, "kid": signer}, {"ES256"})], expected, now)
    except JoseError as error:
        raise Refused("statement-invalid", str(error)) from error
    if claims["aud"] != audience:
        raise Refused("statement-invalid", "is for several audiences")
    return claims


async def pages(records: Records, kind: str, after: str = "") -> AsyncIterator[Versioned]:
    """Yield all live records of a kind in the order of their keys, a page at a time."""
    while page := await records.scan(kind, after=after, limit=_PAGE):
        for stored in page:
            yield stored
        after = page[-1].key


def printable(text: str) -> str:
    """Return what somebody wrote as one bounded line that can be shown anywhere."""
    return "".join(character for character in text if character.isprintable()).strip()[:LONGEST_NAME]


def no_code() -> Refused:
    """Return the one refusal of every code that is not good."""
    return Refused("enrolment-code-invalid", "this code is not valid, not any more, or was used")


def _key_of(code: str) -> str:
    """Where a code is stored; what is no code is looked for where nothing is."""
    return handle_digest(normal_code(code) or "no code")
