"""go-spiffe's X509-SVIDs, good and bad, against our leaf rules."""

import base64
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ztproxy.crypto.certificates import CertificateError, check_svid, leaf_facts

pytestmark = pytest.mark.vectors

BAD = {
    "wrong-leaf-ca-true.pem": "CA",
    "wrong-leaf-cert-sign.pem": "keyCertSign",
    "wrong-leaf-crl-sign.pem": "cRLSign",
    "wrong-leaf-empty-id.pem": "URI",
    "wrong-leaf-no-digital-signature.pem": "digitalSignature",
}


@pytest.fixture
def folder(vectors: Path) -> Path:
    return vectors / "spiffe" / "svid" / "x509svid" / "testdata"


def leaf_of(path: Path) -> bytes:
    return x509.load_pem_x509_certificates(path.read_bytes())[0].public_bytes(Encoding.DER)


@pytest.mark.parametrize("name", ["good-leaf-only.pem", "good-leaf-and-intermediate.pem"])
def test_good_leaves_pass(folder: Path, name: str) -> None:
    facts = leaf_facts(leaf_of(folder / name))
    assert facts.spiffe_id is not None
    domain = facts.spiffe_id.removeprefix("spiffe://").partition("/")[0]
    assert str(check_svid(facts, domain)) == facts.spiffe_id
    with pytest.raises(CertificateError, match="trust domain"):
        check_svid(facts, "other.example")


@pytest.mark.parametrize(("name", "reason"), BAD.items())
def test_bad_leaves_are_refused_for_the_right_reason(folder: Path, name: str, reason: str) -> None:
    facts = leaf_facts(leaf_of(folder / name))
    domain = (facts.spiffe_id or "spiffe://x").removeprefix("spiffe://").partition("/")[0]
    with pytest.raises(CertificateError, match=reason):
        check_svid(facts, domain)


def test_a_corrupt_certificate_is_one_error(folder: Path) -> None:
    lines = (folder / "corrupt-cert.pem").read_text().splitlines()
    body = "".join(line for line in lines if line and not line.startswith("-----"))
    with pytest.raises(CertificateError, match="not a readable"):
        leaf_facts(base64.b64decode(body + "=" * (-len(body) % 4)))
