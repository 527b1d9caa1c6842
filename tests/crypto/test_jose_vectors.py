"""Wycheproof: every JWS, JWK and ECDSA case, good and hostile.

What Wycheproof calls valid and we refuse is named here with the reason; everything else must agree.
"""

import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ztproxy.crypto.encoding import decode_base64url, encode_base64url
from ztproxy.crypto.jose import JoseError, kid_of, verify_bytes
from ztproxy.crypto.jwk import KeyRefused, read_key, read_key_set, thumbprint, write_key

pytestmark = pytest.mark.vectors

#: valid by Wycheproof, refused by us
STRICTER = {
    346: "the key says PS256, the token PS384",
    347: "the key says ES521, an algorithm that does not exist",
    350: "the key says PS256, the token PS384",
    351: "the key says ES521, an algorithm that does not exist",
    372: "a character that is not base64url",
    373: "a character that is not base64url",
}
#: invalid by Wycheproof, not for us to notice
NOT_OURS = {
    "rejectsRocaKey": "the 2017 weak key generator of one chip",
}
#: labelled invalid, yet character by character the text of case 357, which is labelled valid
SAME_AS_357 = {367, 370}
ANY_TYPE = ("", "JWT", "JOSE")


def groups(vectors: Path, name: str) -> Iterator[dict[str, Any]]:
    yield from json.loads((vectors / "wycheproof" / name).read_text())["testGroups"]


def believed(jws: str, jwk: dict[str, Any]) -> bool:
    try:
        key_set = [read_key(jwk)]
        verify_bytes(jws, key_set, ANY_TYPE)
    except (JoseError, KeyRefused):
        return False
    return True


def readable(jws: str) -> bool:
    try:
        kid_of(jws)
    except JoseError:
        return False
    return True


def test_signatures(vectors: Path) -> None:
    seen = 0
    for group in groups(vectors, "json_web_signature_test.json"):
        public = group.get("public")
        for case in group["tests"]:
            seen += 1
            number, jws = case["tcId"], case["jws"]
            assert isinstance(jws, str)
            if public is None:
                check_symmetric(group["private"], case)
                continue
            wanted = case["result"] == "valid" and number not in STRICTER
            assert believed(jws, public) is wanted, f"{number} {case['comment']}"
    assert seen == 401


def check_symmetric(secret: dict[str, Any], case: dict[str, Any]) -> None:
    """We never verify HMAC: the key is refused, and bad encodings are refused before any signature."""
    with pytest.raises(KeyRefused):
        read_key(secret)
    jws, number = case["jws"], case["tcId"]
    if readable(jws):
        signed, _, signature = jws.rpartition(".")
        key = decode_base64url(secret["k"])
        mac = hmac.new(key, signed.encode(), hashlib.sha256).digest()
        genuine = hmac.compare_digest(mac, decode_base64url(signature)) and '"HS256"' in header_of(jws)
        valid = case["result"] == "valid" or number in SAME_AS_357
        assert genuine is valid, f"{number} {case['comment']}"
    else:
        assert case["result"] == "invalid" or number in STRICTER, f"{number} {case['comment']}"


def header_of(jws: str) -> str:
    return decode_base64url(jws.partition(".")[0]).decode()


def test_two_cases_are_labelled_wrongly_and_not_read_wrongly(vectors: Path) -> None:
    found = {
        case["tcId"]: case["jws"]
        for group in groups(vectors, "json_web_signature_test.json")
        for case in group["tests"]
    }
    assert {found[number] for number in SAME_AS_357} == {found[357]}


def test_named_exceptions_verify_once_the_contradiction_is_gone(vectors: Path) -> None:
    for group in groups(vectors, "json_web_signature_test.json"):
        for case in group["tests"]:
            if case["tcId"] in (346, 347, 350, 351):
                key = {name: value for name, value in group["public"].items() if name != "alg"}
                assert believed(case["jws"], key)


@pytest.mark.parametrize("name", ["json_web_key_test.json", "json_web_crypto_test.json"])
def test_keys(vectors: Path, name: str) -> None:
    for group in groups(vectors, name):
        keys = group.get("public") or group["private"]
        document = json.dumps(keys if "keys" in keys else {"keys": [keys]}).encode()
        for case in group["tests"]:
            if "jws" not in case or not isinstance(case["jws"], str):
                continue
            if case["result"] == "invalid" and not _known(group, case):
                assert not believed_by_set(case["jws"], document), f"{case['tcId']} {case['comment']}"
            if case["result"] == "valid" and "HS" not in header_of(case["jws"]):
                assert believed_by_set(case["jws"], document), f"{case['tcId']} {case['comment']}"


def _known(group: dict[str, Any], case: dict[str, Any]) -> bool:
    return "roca" in group["comment"] or case["comment"] in NOT_OURS


def believed_by_set(jws: str, document: bytes) -> bool:
    try:
        verify_bytes(jws, read_key_set(document), ANY_TYPE)
    except (JoseError, KeyRefused):
        return False
    return True


def test_ecdsa_in_jws_form(vectors: Path) -> None:
    """The fixed-length signatures of ES256, wrapped into tokens: only the message is not ours to choose."""
    from joserfc.jws import JWSRegistry

    seen = 0
    for group in groups(vectors, "ecdsa_secp256r1_sha256_p1363_test.json"):
        public = load_pem_public_key(group["publicKeyPem"].encode())
        key = read_key(write_key(public))  # type: ignore[arg-type]
        for case in group["tests"]:
            seen += 1
            genuine = JWSRegistry.algorithms["ES256"].verify(
                bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"]), key.key
            )
            assert genuine is (case["result"] == "valid"), case["tcId"]
    assert seen > 200


def test_ed25519_keys_verify(vectors: Path) -> None:
    from joserfc.jws import JWSRegistry

    for group in groups(vectors, "ed25519_test.json"):
        x = encode_base64url(bytes.fromhex(group["publicKey"]["pk"]))
        try:
            key = read_key({"kty": "OKP", "crv": "Ed25519", "x": x})
        except KeyRefused:
            continue
        for case in group["tests"]:
            try:
                genuine = JWSRegistry.algorithms["EdDSA"].verify(
                    bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"]), key.key
                )
            except ValueError:
                genuine = False
            assert genuine is (case["result"] == "valid"), case["tcId"]


def test_thumbprint_of_ec_keys_matches_the_library(vectors: Path) -> None:
    from joserfc.jwk import ECKey

    for group in groups(vectors, "ecdsa_secp256r1_sha256_p1363_test.json"):
        jwk = write_key(load_pem_public_key(group["publicKeyPem"].encode()))  # type: ignore[arg-type]
        assert thumbprint(jwk) == ECKey.import_key(dict(jwk)).thumbprint()
