"""Keys that are used and keys that are not."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ztproxy.crypto.encoding import encode_base64url
from ztproxy.crypto.jwk import (
    KeyRefused,
    public_key,
    read_key,
    read_key_set,
    spki_digest,
    thumbprint,
    write_key,
)


@pytest.fixture
def jwk(private: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    return write_key(private.public_key())


def test_a_key_survives_the_round_trip(private: ec.EllipticCurvePrivateKey, jwk: dict[str, str]) -> None:
    assert public_key(jwk) == private.public_key()
    assert spki_digest(public_key(jwk)) == spki_digest(private)


def test_the_thumbprint_ignores_further_members(jwk: dict[str, str]) -> None:
    assert thumbprint({**jwk, "kid": "x", "use": "sig"}) == thumbprint(jwk)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"d": "AA"}, "private"),
        ({"use": "enc"}, "signatures"),
        ({"key_ops": ["sign"]}, "signatures"),
        ({"key_ops": "verify"}, "signatures"),
        ({"alg": "ES384"}, "algorithm"),
        ({"alg": "HS256"}, "algorithm"),
        ({"alg": None}, "algorithm"),
        ({"kty": "oct"}, "algorithm"),
        ({"kty": ["EC"]}, "algorithm"),
        ({"crv": "secp256k1"}, "algorithm"),
        ({"kid": 1}, "kid"),
        ({"x": "AA"}, "length"),
        ({"x": None}, "malformed"),
        ({"y": encode_base64url(b"\1" * 32)}, "malformed"),
    ],
)
def test_keys_that_are_refused(jwk: dict[str, str], changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(KeyRefused, match=reason):
        read_key({**jwk, **changes})


def test_other_kinds_of_keys() -> None:
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    ed = OKPKey.generate_key("Ed25519", private=False).as_dict(private=False)
    assert read_key(ed).algorithms == {"EdDSA", "Ed25519"}
    assert read_key(RSAKey.generate_key(2048).as_dict(private=False), {"RS256"}).algorithms == {"RS256"}
    assert read_key(ECKey.generate_key("P-521").as_dict(private=False)).algorithms == {"ES512"}
    assert isinstance(ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey)


def test_short_rsa_keys_are_refused() -> None:
    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    jwk = {"kty": "RSA", "e": "AQAB", "n": encode_base64url(numbers.n.to_bytes(128, "big"))}
    with pytest.raises(KeyRefused, match="modulus"):
        read_key(jwk)


def test_a_set_skips_what_it_does_not_know_and_refuses_two_of_a_name(jwk: dict[str, str]) -> None:
    odd = [{"kty": "new"}, 7, {**jwk, "use": "enc"}]
    found = read_key_set(json.dumps({"keys": [*odd, {**jwk, "kid": "a"}]}).encode())
    assert [key.kid for key in found] == ["a"]
    for bad in ({"keys": [{**jwk, "kid": "a"}] * 2}, {"keys": {}}, [], {"keys": [jwk] * 65}):
        with pytest.raises(KeyRefused):
            read_key_set(json.dumps(bad).encode())
