"""Client certificates: leaf only, one bundle only, SPIFFE rules where a trust domain is configured."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from gateway_pki import Authority, Files, usage

from ztproxy.net.certificates import Bundle, classify, read_bundle

ID = "spiffe://corp.example/ci/deployer"


def der(files: Files) -> bytes:
    return x509.load_pem_x509_certificate(files.certificate.read_bytes()).public_bytes(Encoding.DER)


def bundle(authority: Authority, **changes: str) -> Bundle:
    values = {"name": "workloads", "kind": "workload", "trust_domain": "corp.example", **changes}
    return read_bundle(values["name"], values["kind"], authority.file, values["trust_domain"])  # type: ignore[arg-type]


def test_a_workload(authority: Authority) -> None:
    found = classify([der(authority.client(ID)), authority.der], [bundle(authority)])
    assert found is not None
    assert (found.kind, found.bundle, found.subject) == ("workload", "workloads", ID)
    assert found.not_before < found.not_after
    assert len(found.fingerprint) == len(found.spki) == 64


@pytest.mark.parametrize(
    "uris",
    [
        (),
        (ID, "spiffe://corp.example/other"),
        (ID, "https://corp.example/"),
        ("spiffe://other.example/ci/deployer",),
        ("spiffe://corp.example",),
        ("spiffe://corp.example/a/../b",),
        ("https://corp.example/ci",),
    ],
)
def test_not_an_svid_of_that_domain(authority: Authority, uris: tuple[str, ...]) -> None:
    leaf = der(authority.client(*uris, common_name="ci"))
    assert classify([leaf, authority.der], [bundle(authority)]) is None


def test_a_key_that_may_sign_certificates_is_no_leaf(authority: Authority) -> None:
    files = authority.client(ID, key_usage=usage(digital_signature=True, key_cert_sign=True))
    assert classify([der(files), authority.der], [bundle(authority)]) is None


def test_without_spiffe_the_common_name_speaks(authority: Authority) -> None:
    plain = [bundle(authority, trust_domain="", kind="device")]
    found = classify([der(authority.client(common_name="laptop")), authority.der], plain)
    assert found is not None
    assert (found.kind, found.subject) == ("device", "x509:laptop")
    found = classify([der(authority.client(ID, common_name="laptop")), authority.der], plain)
    assert found is not None
    assert found.subject == ID
    two = der(authority.client(ID, "spiffe://corp.example/b", common_name="laptop"))
    assert classify([two, authority.der], plain) is None


def test_a_ca_is_nobody(authority: Authority) -> None:
    assert classify([authority.der], [bundle(authority, trust_domain="")]) is None


def test_exactly_one_bundle(authority: Authority, tmp_path: Path) -> None:
    chain = [der(authority.client(ID)), authority.der]
    other = Authority(tmp_path, "other authority")
    assert classify(chain, [bundle(other)]) is None
    assert classify(chain, [bundle(other), bundle(authority)]) is not None
    assert classify(chain, [bundle(authority), bundle(authority, name="same again")]) is None
    assert classify([], [bundle(authority)]) is None


def test_identity_is_never_taken_from_further_up(authority: Authority, tmp_path: Path) -> None:
    """The chain carries somebody else's certificate in the middle; only the leaf speaks."""
    mine = der(authority.client("spiffe://corp.example/mine"))
    theirs = der(authority.client("spiffe://corp.example/theirs"))
    found = classify([mine, theirs, authority.der], [bundle(authority)])
    assert found is not None
    assert found.subject == "spiffe://corp.example/mine"


def test_garbage_is_nobody(authority: Authority) -> None:
    assert classify([b"garbage", authority.der], [bundle(authority)]) is None
