"""Public keys as JWK (RFC 7517): read strictly, written minimally, named by thumbprint (RFC 7638).

Called by `crypto.jose` and by everybody who stores or publishes a key. Symmetric keys do not exist here, so
no public key can ever be taken for a secret. Private members are refused, not skipped.
"""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.errors import JoseError as LibraryError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from msgspec import Struct

from ztproxy.crypto.encoding import (
    EncodingError,
    decode_base64url,
    encode_base64url,
    read_object,
    write_object,
)

#: Every signature algorithm we can check; callers narrow this down. Neither "none" nor any HMAC is here.
ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)

_RSA: Final = frozenset(name for name in ALGORITHMS if name[:2] in ("RS", "PS"))
_CURVES: Final[dict[tuple[str, str], tuple[int, frozenset[str]]]] = {
    ("EC", "P-256"): (32, frozenset({"ES256"})),
    ("EC", "P-384"): (48, frozenset({"ES384"})),
    ("EC", "P-521"): (66, frozenset({"ES512"})),
    ("OKP", "Ed25519"): (32, frozenset({"EdDSA", "Ed25519"})),
}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_SMALLEST_RSA: Final = 2048  # bits
_LARGEST_RSA: Final = 8192  # bits: beyond it checking one signature takes noticeably long
_MAX_KEYS: Final = 64


class KeyRefused(ValueError):
    """A key we do not use; the message says why and never quotes it."""


class VerifyKey(Struct, frozen=True):
    """A public key and the only algorithms it is used with."""

    kid: str  # "" when it has no name
    algorithms: frozenset[str]
    key: ECKey | OKPKey | RSAKey


def read_key(jwk: Mapping[str, Any], algorithms: Collection[str] = ALGORITHMS) -> VerifyKey:
    """Return a public signature key. Raises KeyRefused."""
    if _PRIVATE & jwk.keys():
        raise KeyRefused("holds private members")
    if jwk.get("use", "sig") != "sig" or "verify" not in _operations(jwk):
        raise KeyRefused("is not for signatures")
    suits = _suitable(jwk) & frozenset(algorithms) & ALGORITHMS
    if "alg" in jwk:
        suits &= {jwk["alg"]} if isinstance(jwk["alg"], str) else frozenset()
    if not suits:
        raise KeyRefused("suits no allowed algorithm")
    kid = jwk.get("kid", "")
    if not isinstance(kid, str):
        raise KeyRefused("its kid is no text")
    return VerifyKey(kid=kid, algorithms=suits, key=_load(jwk))


def read_key_set(document: bytes, algorithms: Collection[str] = ALGORITHMS) -> tuple[VerifyKey, ...]:
    """Return the usable keys of a JWKS; unusable ones are skipped (RFC 7517 section 5).

    Raises KeyRefused when it is no JWKS, is too long, or names two keys alike.
    """
    try:
        entries = read_object(document).get("keys")
    except EncodingError as error:
        raise KeyRefused("not a JWKS") from error
    if not isinstance(entries, list) or len(entries) > _MAX_KEYS:
        raise KeyRefused("not a JWKS of reasonable length")
    keys = tuple(key for entry in entries if (key := _usable(entry, algorithms)))
    named = [key.kid for key in keys if key.kid]
    if len(named) != len(set(named)):
        raise KeyRefused("two keys share a kid")
    return keys


def write_key(key: EllipticCurvePublicKey) -> dict[str, str]:
    """Return the JWK of a P-256 public key, required members only. Raises KeyRefused."""
    if not isinstance(key.curve, SECP256R1):
        raise KeyRefused("is not on P-256")
    numbers = key.public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": encode_base64url(numbers.x.to_bytes(32, "big")),
        "y": encode_base64url(numbers.y.to_bytes(32, "big")),
    }


def public_key(jwk: Mapping[str, Any]) -> EllipticCurvePublicKey:
    """Return the P-256 public key of a JWK. Raises KeyRefused."""
    loaded = read_key(jwk, {"ES256"}).key
    assert isinstance(loaded, ECKey)
    return loaded.public_key


def thumbprint(jwk: Mapping[str, str]) -> str:
    """Return the RFC 7638 SHA-256 thumbprint of an EC key, base64url."""
    members = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    return encode_base64url(hashlib.sha256(write_object(members)).digest())


def spki_digest(key: EllipticCurvePublicKey | EllipticCurvePrivateKey) -> str:
    """Return the lower-case hex SHA-256 of the SubjectPublicKeyInfo."""
    public = key.public_key() if isinstance(key, EllipticCurvePrivateKey) else key
    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _usable(entry: object, algorithms: Collection[str]) -> VerifyKey | None:
    if not isinstance(entry, dict):
        return None
    try:
        return read_key(entry, algorithms)
    except KeyRefused:
        return None


def _operations(jwk: Mapping[str, Any]) -> list[Any]:
    operations = jwk.get("key_ops", ["verify"])
    return operations if isinstance(operations, list) else []


def _suitable(jwk: Mapping[str, Any]) -> frozenset[str]:
    kind, curve = jwk.get("kty"), jwk.get("crv")
    if kind == "RSA":
        return _RSA
    if not isinstance(kind, str) or not isinstance(curve, str):
        return frozenset()
    return _CURVES.get((kind, curve), (0, frozenset[str]()))[1]


def _load(jwk: Mapping[str, Any]) -> ECKey | OKPKey | RSAKey:
    try:
        if jwk["kty"] == "RSA":
            return _load_rsa(jwk)
        return _load_curve(jwk)
    except (KeyRefused, LibraryError, ValueError, TypeError, KeyError) as error:
        raise KeyRefused(str(error) if isinstance(error, KeyRefused) else "is malformed") from error


def _load_rsa(jwk: Mapping[str, Any]) -> RSAKey:
    modulus = int.from_bytes(decode_base64url(jwk["n"]), "big")
    exponent = int.from_bytes(decode_base64url(jwk["e"]), "big")
    if not _SMALLEST_RSA <= modulus.bit_length() <= _LARGEST_RSA:
        raise KeyRefused("its modulus is too short or too long")
    if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > 64:
        raise KeyRefused("its exponent is not sound")
    return RSAKey.import_key({"kty": "RSA", "n": jwk["n"], "e": jwk["e"]})


def _load_curve(jwk: Mapping[str, Any]) -> ECKey | OKPKey:
    kind, curve = jwk["kty"], jwk["crv"]
    size = _CURVES[kind, curve][0]
    names = ("x", "y") if kind == "EC" else ("x",)
    for name in names:
        if len(decode_base64url(jwk[name])) != size:  # RFC 7518 section 6.2.1.2: always the full length
            raise KeyRefused("a coordinate has the wrong length")
    members = {"kty": kind, "crv": curve, **{name: jwk[name] for name in names}}
    key = ECKey.import_key(members) if kind == "EC" else OKPKey.import_key(members)
    _ = key.public_key  # a point off the curve is refused here
    return key
