"""What a token may look like, and every way in which it may not."""

import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.crypto.encoding import EncodingError, decode_base64url, encode_base64url, read_object
from ztproxy.crypto.jose import Expected, JoseError, SigningKey, kid_of, sign, signing_key, verify
from ztproxy.crypto.jwk import VerifyKey, read_key

NOW = 1_800_000_000_000
SECONDS = NOW // 1000
EXPECTED = Expected(issuer="https://us", audience="https://them", types=("thing+jwt",))
CLAIMS: dict[str, Any] = {"iss": "https://us", "aud": "https://them", "iat": SECONDS, "exp": SECONDS + 60}


@pytest.fixture
def key(private: ec.EllipticCurvePrivateKey) -> SigningKey:
    return signing_key(private)


@pytest.fixture
def keys(key: SigningKey) -> list[VerifyKey]:
    return [read_key(key.jwk)]


def forge(key: SigningKey, header: bytes, payload: bytes) -> str:
    """Sign any bytes as header and payload, correctly, by another hand than ours."""
    from joserfc.jwk import ECKey
    from joserfc.jws import JWSRegistry

    assert isinstance(key.key, ec.EllipticCurvePrivateKey)
    pem = key.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    signed = f"{encode_base64url(header)}.{encode_base64url(payload)}"
    signature = JWSRegistry.algorithms["ES256"].sign(signed.encode(), ECKey.import_key(pem))
    return f"{signed}.{encode_base64url(signature)}"


def with_header(key: SigningKey, **changes: Any) -> str:
    header: dict[str, Any] = {"alg": "ES256", "typ": "thing+jwt", "kid": key.kid, **changes}
    header = {name: value for name, value in header.items() if value is not ...}
    return forge(key, json.dumps(header).encode(), json.dumps(CLAIMS).encode())


def test_what_is_signed_is_believed(key: SigningKey, keys: list[VerifyKey]) -> None:
    token = sign({**CLAIMS, "groups": ["ä", "b"]}, key, "thing+jwt")
    assert kid_of(token) == key.kid
    assert verify(token, keys, EXPECTED, NOW)["groups"] == ["ä", "b"]


def test_signatures_have_one_length_whatever_their_numbers(key: SigningKey, keys: list[VerifyKey]) -> None:
    for number in range(400):  # of 128 signatures one has a number that begins with a zero byte
        token = sign({**CLAIMS, "jti": str(number)}, key, "thing+jwt")
        assert len(decode_base64url(token.rpartition(".")[2])) == 64
        assert verify(token, keys, EXPECTED, NOW)["jti"] == str(number)


def test_each_type_and_key_has_a_header_of_its_own(key: SigningKey) -> None:
    other = signing_key(ec.generate_private_key(ec.SECP256R1()), "other")
    for _ in range(2):
        for which, typ in ((key, "a"), (key, "b"), (other, "a")):
            header = read_object(decode_base64url(sign(CLAIMS, which, typ).partition(".")[0]))
            assert header == {"alg": "ES256", "typ": typ, "kid": which.kid}


def test_a_signing_key_does_not_print_itself(key: SigningKey) -> None:
    assert repr(key) == f"SigningKey(kid={key.kid!r})"
    assert "d" not in key.jwk


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"alg": "none"}, "algorithm"),
        ({"alg": "HS256"}, "algorithm"),
        ({"alg": "ES384"}, "no key"),
        ({"alg": "RS256"}, "no key"),
        ({"alg": ["ES256"]}, "algorithm"),
        ({"alg": ...}, "algorithm"),
        ({"typ": "JWT"}, "type"),
        ({"typ": ...}, "type"),
        ({"typ": 1}, "type"),
        ({"kid": "other"}, "no key"),
        ({"kid": "../../etc/passwd"}, "kid"),
        ({"kid": "a?b=c"}, "kid"),
        ({"kid": ""}, "kid"),
        ({"kid": None}, "kid"),
        ({"kid": 7}, "kid"),
        ({"kid": "x" * 257}, "kid"),
        ({"crit": ["exp"]}, "extension"),
        ({"crit": []}, "extension"),
        ({"crit": ["b64"], "b64": False}, "extension"),
    ],
)
def test_headers_that_are_refused(
    key: SigningKey, keys: list[VerifyKey], changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(JoseError, match=reason):
        verify(with_header(key, **changes), keys, EXPECTED, NOW)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://us/"}, "issuer"),
        ({"iss": ...}, "issuer"),
        ({"iss": ["https://us"]}, "issuer"),
        ({"aud": "https://them/"}, "audience"),
        ({"aud": ...}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": ["https://them", 1]}, "audience"),
        ({"aud": {"https://them": 1}}, "audience"),
        ({"exp": ...}, "no end"),
        ({"exp": None}, "no number"),
        ({"exp": str(SECONDS + 60)}, "no number"),
        ({"exp": True}, "no number"),
        ({"exp": 1e300}, "range"),
        ({"exp": 10**400}, "range"),
        ({"exp": -1}, "range"),
        ({"exp": SECONDS - 31}, "expired"),
        ({"nbf": SECONDS + 31}, "future"),
        ({"iat": SECONDS + 31}, "future"),
        ({"iat": "now"}, "no number"),
    ],
)
def test_claims_that_are_refused(
    key: SigningKey, keys: list[VerifyKey], changes: dict[str, Any], reason: str
) -> None:
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not ...}
    with pytest.raises(JoseError, match=reason):
        verify(sign(claims, key, "thing+jwt"), keys, EXPECTED, NOW)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"iss":"https://us","iss":"https://evil"}',
        b'{"exp":NaN}',
        b'{"exp":Infinity}',
        b'{"a":"\\ud800"}',
        b"[1]",
        b'"text"',
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b'{"a":' + b"[" * 5000,
    ],
)
def test_json_that_is_refused(key: SigningKey, keys: list[VerifyKey], payload: bytes) -> None:
    header = json.dumps({"alg": "ES256", "typ": "thing+jwt", "kid": key.kid}).encode()
    with pytest.raises(JoseError, match="claims"):
        verify(forge(key, header, payload), keys, EXPECTED, NOW)


def test_a_duplicate_header_name_is_refused(key: SigningKey, keys: list[VerifyKey]) -> None:
    header = b'{"alg":"ES256","alg":"none","typ":"thing+jwt"}'
    with pytest.raises(JoseError):
        verify(forge(key, header, json.dumps(CLAIMS).encode()), keys, EXPECTED, NOW)


def test_leeway_is_bounded_and_inclusive(key: SigningKey, keys: list[VerifyKey]) -> None:
    token = sign({**CLAIMS, "exp": SECONDS - 29, "iat": SECONDS + 30}, key, "thing+jwt")
    assert verify(token, keys, EXPECTED, NOW)
    with pytest.raises(ValueError, match="leeway"):
        verify(
            token,
            keys,
            Expected(issuer="https://us", audience="https://them", types=("thing+jwt",), leeway=61),
            NOW,
        )


def test_life_is_bounded_when_asked(key: SigningKey, keys: list[VerifyKey]) -> None:
    short = Expected(issuer="https://us", audience="https://them", types=("thing+jwt",), longest_life=60)
    assert verify(sign(CLAIMS, key, "thing+jwt"), keys, short, NOW)
    for claims in ({**CLAIMS, "exp": SECONDS + 61}, {k: v for k, v in CLAIMS.items() if k != "iat"}):
        with pytest.raises(JoseError, match="too long"):
            verify(sign(claims, key, "thing+jwt"), keys, short, NOW)


def test_another_key_of_the_same_name_is_refused(
    key: SigningKey, stranger: ec.EllipticCurvePrivateKey
) -> None:
    other = read_key(signing_key(stranger, kid=key.kid).jwk)
    with pytest.raises(JoseError, match="wrong"):
        verify(sign(CLAIMS, key, "thing+jwt"), [other], EXPECTED, NOW)


def test_hmac_with_the_public_key_is_refused(
    private: ec.EllipticCurvePrivateKey, key: SigningKey, keys: list[VerifyKey]
) -> None:
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = json.dumps({"alg": "HS256", "typ": "thing+jwt", "kid": key.kid}).encode()
    signed = f"{encode_base64url(header)}.{encode_base64url(json.dumps(CLAIMS).encode())}"
    mac = hmac.new(public, signed.encode(), hashlib.sha256).digest()
    with pytest.raises(JoseError, match="algorithm"):
        verify(f"{signed}.{encode_base64url(mac)}", keys, EXPECTED, NOW)


def test_a_token_without_kid_needs_a_single_choice(
    key: SigningKey, keys: list[VerifyKey], stranger: ec.EllipticCurvePrivateKey
) -> None:
    token = with_header(key, kid=...)
    assert verify(token, keys, EXPECTED, NOW)
    with pytest.raises(JoseError, match="no key"):
        verify(token, [*keys, read_key(signing_key(stranger).jwk)], EXPECTED, NOW)


def test_size_is_bounded_before_anything_else(keys: list[VerifyKey]) -> None:
    with pytest.raises(JoseError, match="longer"):
        verify("a" * 32769, keys, EXPECTED, NOW)


def test_every_changed_character_is_noticed(key: SigningKey, keys: list[VerifyKey]) -> None:
    token = sign(CLAIMS, key, "thing+jwt")
    for index, old in enumerate(token):
        changed = token[:index] + ("A" if old != "A" else "B") + token[index + 1 :]
        with pytest.raises(JoseError):
            verify(changed, keys, EXPECTED, NOW)


@given(st.text(max_size=200))
def test_any_text_is_one_kind_of_error(text: str) -> None:
    for candidate in (text, f"{text}.{text}.{text}", f"e30.{text}.AA"):
        with pytest.raises(JoseError):
            verify(candidate, [], EXPECTED, NOW)


@given(st.binary(max_size=100))
def test_base64url_is_a_bijection(data: bytes) -> None:
    assert decode_base64url(encode_base64url(data)) == data


@given(st.text("ABCDwxyz0189-_=+/ ", max_size=12))
def test_base64url_has_one_spelling(text: str) -> None:
    try:
        assert encode_base64url(decode_base64url(text)) == text
    except EncodingError:
        pass


@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_one_kind_of_error(data: bytes) -> None:
    try:
        assert isinstance(read_object(data), dict)
    except EncodingError:
        pass
