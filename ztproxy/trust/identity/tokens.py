"""ID tokens: verified with the provider's keys, every claim that matters checked.

OpenID Connect Core 1.0 section 3.1.3.7, over the strict reading of `crypto.jose`. Called by
`trust.identity.oidc`. Nothing of a token is believed, or even handed out, before its signature is verified.
"""

import hashlib
from collections.abc import Callable, Mapping
from hmac import compare_digest
from typing import Any, Final

from msgspec import Struct

from ztproxy.crypto import jose
from ztproxy.crypto.encoding import decode_base64url, encode_base64url, read_object
from ztproxy.trust.identity.keys import Keys
from ztproxy.trust.identity.provider import Provider, SignInRefused

#: Clock difference between a provider and us that is put up with, in seconds.
LEEWAY: Final = 60
_LONGEST: Final = 64 * 1024
_HASHES: Final[dict[str, Callable[[bytes], Any]]] = {
    "256": hashlib.sha256,
    "384": hashlib.sha384,
    "512": hashlib.sha512,
}


class Answered(Struct, frozen=True):
    """What this sign-in's token must agree with. `now` in ms."""

    nonce: str
    access_token: str
    now: int
    renewed: bool = False  # a later token of the same sign-in: it need not name the nonce, Core section 12.2


async def verify(token: object, provider: Provider, keys: Keys, answered: Answered) -> Mapping[str, Any]:
    """Return the claims of a genuine ID token. Raises SignInRefused, TemporaryProviderError."""
    if not isinstance(token, str):
        raise SignInRefused("token-invalid", "no ID token")
    expected = jose.Expected(
        issuer=provider.issuer,
        audience=provider.client_id,
        types=("JWT", ""),  # an ID token says nothing or JWT: an access or logout token is not one
        leeway=LEEWAY,
        max_size=_LONGEST,
    )
    try:
        candidates = await keys.naming(jose.kid_of(token, _LONGEST))
        claims = jose.verify(token, candidates, expected, answered.now)
    except jose.JoseError as error:
        raise SignInRefused("token-invalid", str(error)) from error
    _check_answer(claims, provider.client_id, answered)
    _check_at_hash(token, claims, answered.access_token)
    return claims


def _check_answer(claims: Mapping[str, Any], client_id: str, answered: Answered) -> None:
    """Issued to us, at a stated time, in answer to this very sign-in."""
    if "iat" not in claims:
        raise SignInRefused("token-invalid", "no iat")
    party, audience = claims.get("azp"), claims["aud"]
    several = isinstance(audience, list) and len(audience) > 1
    if party != client_id and ("azp" in claims or several):
        raise SignInRefused("token-invalid", "issued to another party")
    if answered.renewed and "nonce" not in claims:
        return
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not compare_digest(nonce.encode(), answered.nonce.encode()):
        raise SignInRefused("token-invalid", "not an answer to this sign-in")


def _check_at_hash(token: str, claims: Mapping[str, Any], access_token: str) -> None:
    """The access token belongs to this ID token: left half of its hash, Core section 3.1.3.6."""
    stated = claims.get("at_hash")
    if stated is None:
        return
    algorithm = str(read_object(decode_base64url(token.partition(".")[0]))["alg"])
    digest = _HASHES.get(algorithm[-3:], hashlib.sha512)(access_token.encode()).digest()
    half = encode_base64url(digest[: len(digest) // 2])
    if not isinstance(stated, str) or not compare_digest(stated.encode(), half.encode()):
        raise SignInRefused("token-invalid", "the access token was exchanged")
