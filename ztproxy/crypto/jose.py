"""Compact JWS and JWT, checked strictly over joserfc's algorithms (RFC 7515, 7519, 8725).

Called by everything that signs or believes a token. joserfc checks signatures; what a token may look like
is decided here: one spelling, one key, an algorithm the key is meant for, a type, an end, a named audience.
Messages of errors never quote a token.
"""

import hashlib
import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.errors import JoseError as LibraryError
from joserfc.jwk import RSAKey
from joserfc.jws import JWSRegistry
from msgspec import Struct

from ztproxy.crypto.encoding import (
    EncodingError,
    decode_base64url,
    encode_base64url,
    read_object,
    write_object,
)
from ztproxy.crypto.jwk import ALGORITHMS, VerifyKey, thumbprint, write_key

#: Characters of a token read at most, unless a caller says less.
MAX_TOKEN: Final = 32 * 1024
MAX_LEEWAY: Final = 60  # seconds

_KID: Final = re.compile(r"[A-Za-z0-9._~@:=+-]{1,256}", re.ASCII)  # neither a path nor a query
_ES256: Final = ECDSA(SHA256())
_LATEST: Final = 1 << 43  # seconds; beyond it a time is a mistake


class JoseError(ValueError):
    """A token that is not believed; the message says why."""


class SignatureRefused(JoseError):
    """Not signed with a key of ours: another algorithm, another key, or a wrong signature."""


class Expected(Struct, frozen=True):
    """What a token has to say before its claims are believed. Times in seconds."""

    issuer: str
    audience: str
    types: tuple[str, ...] = ("JWT",)  # allowed `typ`, case-insensitive; "" allows its absence
    leeway: int = 30
    longest_life: int = 0  # exp - iat at most; makes iat required. 0 = any
    max_size: int = MAX_TOKEN


class SigningKey(Struct, frozen=True):
    """An ES256 or RS256 private key with its name."""

    kid: str
    key: EllipticCurvePrivateKey | RSAKey
    jwk: dict[str, str]  # public half, with kid, alg and use: as published

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r})"


class _Parts(Struct, frozen=True):
    header: dict[str, Any]
    payload: bytes
    signature: bytes
    signed: bytes


def signing_key(private: EllipticCurvePrivateKey, kid: str = "") -> SigningKey:
    """Return a P-256 key ready to sign, named `kid` or by its thumbprint. Raises KeyRefused."""
    jwk = write_key(private.public_key())
    name = kid or thumbprint(jwk)
    return SigningKey(kid=name, key=private, jwk={**jwk, "kid": name, "alg": "ES256", "use": "sig"})


def rsa_signing_key(private: RSAPrivateKey) -> SigningKey:
    """Return an RSA key ready to sign RS256, named by its thumbprint (RFC 7638)."""
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key = RSAKey.import_key(pem)
    public = {name: str(key.as_dict(private=False)[name]) for name in ("e", "kty", "n")}
    name = encode_base64url(hashlib.sha256(write_object(public)).digest())
    return SigningKey(kid=name, key=key, jwk={**public, "kid": name, "alg": "RS256", "use": "sig"})


def sign(claims: dict[str, Any], key: SigningKey, typ: str) -> str:
    """Return a compact JWS of claims, with the key's own algorithm."""
    signed = f"{_header(key.jwk['alg'], typ, key.kid)}.{encode_base64url(write_object(claims))}"
    return f"{signed}.{encode_base64url(_signature(signed.encode('ascii'), key))}"


@lru_cache(64)
def _header(algorithm: str, typ: str, kid: str) -> str:
    """Return the first part of a token: the same of all that a key signs."""
    return encode_base64url(write_object({"alg": algorithm, "typ": typ, "kid": kid}))


def _signature(signed: bytes, key: SigningKey) -> bytes:
    if isinstance(key.key, RSAKey):
        return bytes(_algorithm(key.jwk["alg"]).sign(signed, key.key))
    r, s = decode_dss_signature(key.key.sign(signed, _ES256))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")  # RFC 7518 section 3.4


def kid_of(token: str, max_size: int = MAX_TOKEN) -> str:
    """Return the key name an unverified token asks for, "" without one. Raises JoseError."""
    return _kid(_read(token, max_size).header)


def verify(token: str, keys: Sequence[VerifyKey], expected: Expected, now: int) -> dict[str, Any]:
    """Return the claims of a token that is signed by one of the keys and says what is expected.

    `now` in ms. Raises JoseError.
    """
    try:
        claims = read_object(verify_bytes(token, keys, expected.types, expected.max_size))
    except EncodingError as error:
        raise JoseError(f"claims: {error}") from error
    _check_parties(claims, expected)
    _check_times(claims, expected, now)
    return claims


def verify_bytes(
    token: str, keys: Sequence[VerifyKey], types: Collection[str], max_size: int = MAX_TOKEN
) -> bytes:
    """Return the payload of a compact JWS signed by one of the keys. Raises JoseError."""
    parts = _read(token, max_size)
    _check_type(parts.header, types)
    _check_signature(parts, keys)
    return parts.payload


def _read(token: str, max_size: int) -> _Parts:
    if len(token) > max_size:
        raise JoseError(f"longer than {max_size} characters")
    pieces = token.split(".")
    if len(pieces) != 3 or not pieces[0] or not pieces[2]:
        raise JoseError("not a compact JWS")
    try:
        header, payload, signature = (decode_base64url(piece) for piece in pieces)
        fields = read_object(header)
    except EncodingError as error:
        raise JoseError(str(error)) from error
    if "crit" in fields:
        raise JoseError("demands an extension that is not understood")
    return _Parts(fields, payload, signature, f"{pieces[0]}.{pieces[1]}".encode("ascii"))


def _check_type(header: dict[str, Any], types: Collection[str]) -> None:
    found = header.get("typ", "")
    if not isinstance(found, str) or found.lower() not in {name.lower() for name in types}:
        raise JoseError("is of another type")


def _check_signature(parts: _Parts, keys: Sequence[VerifyKey]) -> None:
    name = parts.header.get("alg")
    if not isinstance(name, str) or name not in ALGORITHMS:
        raise SignatureRefused("is signed with an algorithm that is not allowed")
    key = _choose(_kid(parts.header), name, keys)
    algorithm = _algorithm(name)
    try:
        algorithm.check_key(key.key)
        genuine = algorithm.verify(parts.signed, parts.signature, key.key)
    except (LibraryError, ValueError) as error:
        raise SignatureRefused("signature can not be checked") from error
    if not genuine:
        raise SignatureRefused("signature is wrong")


def _choose(kid: str, algorithm: str, keys: Sequence[VerifyKey]) -> VerifyKey:
    """The key by its name; without a name only when there is no choice."""
    found = [key for key in keys if algorithm in key.algorithms and (not kid or key.kid == kid)]
    if len(found) != 1:
        raise SignatureRefused("names no key of ours that is meant for its algorithm")
    return found[0]


def _kid(header: dict[str, Any]) -> str:
    kid = header.get("kid", "")
    if kid == "" and "kid" not in header:
        return ""
    if not isinstance(kid, str) or not _KID.fullmatch(kid):
        raise JoseError("its kid is malformed")
    return kid


def _check_parties(claims: dict[str, Any], expected: Expected) -> None:
    if claims.get("iss") != expected.issuer:
        raise JoseError("is from another issuer")
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(name, str) for name in audiences):
        raise JoseError("has no audience")
    if expected.audience not in audiences:
        raise JoseError("is for another audience")


def _check_times(claims: dict[str, Any], expected: Expected, now: int) -> None:
    if not 0 <= expected.leeway <= MAX_LEEWAY:
        raise ValueError(f"leeway is beyond {MAX_LEEWAY} s")
    early, late = now / 1000 + expected.leeway, now / 1000 - expected.leeway
    expires = _time(claims, "exp")
    if expires is None or expires <= late:
        raise JoseError("has no end" if expires is None else "has expired")
    for name in ("nbf", "iat"):
        begins = _time(claims, name)
        if begins is not None and begins > early:
            raise JoseError(f"{name} is in the future")
    issued = _time(claims, "iat")
    if expected.longest_life and (issued is None or expires - issued > expected.longest_life):
        raise JoseError("lives too long, or does not say since when")


def _time(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate; None when it is absent. null, text and booleans are not times."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise JoseError(f"{name} is no number")
    if not 0 <= value <= _LATEST:  # also what is infinite or no number at all
        raise JoseError(f"{name} is out of range")
    return float(value)


def _algorithm(name: str) -> Any:
    return JWSRegistry.algorithms[name]
