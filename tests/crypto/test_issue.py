"""Issued certificates, read by us and by OpenSSL; and a checker that notices what a template gets wrong."""

import os
import subprocess
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from ztproxy.crypto import checker, issue, signing, template
from ztproxy.crypto.certificates import CertificateError, check_svid, leaf_facts
from ztproxy.crypto.csr import RequestRefused, make_request, read_request
from ztproxy.crypto.jwk import spki_digest
from ztproxy.crypto.signing import Issuer
from ztproxy.crypto.spiffe import parse_id

HOUR = 3_600_000
DEVICE = "dev_" + "a" * 26


def now() -> int:
    import time

    return int(time.time()) * 1000


def term(lifetime: int = HOUR) -> template.Term:
    return template.term(now(), lifetime, os.urandom)


@pytest.fixture(scope="module")
def root(private: ec.EllipticCurvePrivateKey) -> Issuer:
    return issue.create_authority("Example devices", private, term(24 * HOUR))


def openssl(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(["openssl", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_openssl_verifies_a_device(
    root: Issuer, stranger: ec.EllipticCurvePrivateKey, tmp_path: Path
) -> None:
    leaf = issue.issue_device(root, "corp.example", DEVICE, stranger.public_key(), term())
    (tmp_path / "ca.pem").write_text(issue.pem(root.certificate))
    (tmp_path / "leaf.pem").write_text(issue.pem(leaf))
    for purpose in ("sslclient", "sslserver"):
        answer = openssl(
            "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem", "leaf.pem", cwd=tmp_path
        )
        assert answer.strip() == "leaf.pem: OK"
    text = openssl("x509", "-in", "leaf.pem", "-noout", "-text", cwd=tmp_path)
    assert f"URI:spiffe://corp.example/device/{DEVICE}" in text
    assert "TLS Web Client Authentication, TLS Web Server Authentication" in text
    assert "X509v3 Key Usage: critical\n                Digital Signature\n" in text
    assert "X509v3 Basic Constraints: critical\n                CA:FALSE" in text
    assert "NIST CURVE: P-256" in text


def test_openssl_refuses_a_leaf_as_issuer(
    root: Issuer, stranger: ec.EllipticCurvePrivateKey, tmp_path: Path
) -> None:
    leaf = issue.issue_device(root, "corp.example", DEVICE, stranger.public_key(), term())
    below = signing.sign(
        template.identity(parse_id("spiffe://corp.example/x"), stranger.public_key(), term()),
        Issuer(key=stranger, certificate=leaf),
    )
    for name, certificate in (("ca", root.certificate), ("leaf", leaf), ("below", below)):
        (tmp_path / f"{name}.pem").write_text(issue.pem(certificate))
    answer = openssl("verify", "-CAfile", "ca.pem", "-untrusted", "leaf.pem", "below.pem", cwd=tmp_path)
    assert "invalid CA certificate" in answer


def test_openssl_verifies_a_server_for_its_names(
    root: Issuer, stranger: ec.EllipticCurvePrivateKey, tmp_path: Path
) -> None:
    leaf = issue.issue_server(
        root, stranger.public_key(), term(), dns_names=("a.example", "b.example"), addresses=("127.0.0.1",)
    )
    (tmp_path / "ca.pem").write_text(issue.pem(root.certificate))
    (tmp_path / "leaf.pem").write_text(issue.pem(leaf))

    def verify(*check: str) -> str:
        return openssl(
            "verify", "-purpose", "sslserver", *check, "-CAfile", "ca.pem", "leaf.pem", cwd=tmp_path
        )

    assert "OK" in verify("-verify_hostname", "b.example")
    assert "OK" in verify("-verify_ip", "127.0.0.1")
    assert "hostname mismatch" in verify("-verify_hostname", "c.example")


def test_leaf_facts_and_svid_rules(root: Issuer, stranger: ec.EllipticCurvePrivateKey) -> None:
    leaf = issue.issue_identity(
        root, parse_id("spiffe://corp.example/ci/deployer"), stranger.public_key(), term()
    )
    facts = leaf_facts(leaf.public_bytes(Encoding.DER))
    assert str(check_svid(facts, "corp.example")) == facts.spiffe_id == "spiffe://corp.example/ci/deployer"
    assert facts.common_name == "deployer"
    assert facts.spki == spki_digest(stranger)
    assert facts.not_after - facts.not_before == HOUR + template.BACKDATE
    assert int(facts.serial, 16) == leaf.serial_number
    with pytest.raises(CertificateError, match="another"):
        check_svid(facts, "corp.example.evil")


@pytest.mark.parametrize("cut", [0, 1, 100, 300])
def test_truncated_and_extended_der_is_refused(root: Issuer, cut: int) -> None:
    der = root.certificate.public_bytes(Encoding.DER)
    with pytest.raises(CertificateError):
        leaf_facts(der[: len(der) - cut] + (b"\0" if cut == 0 else b""))


def test_a_ca_is_no_svid(root: Issuer) -> None:
    with pytest.raises(CertificateError, match="URI"):
        check_svid(leaf_facts(root.certificate.public_bytes(Encoding.DER)), "corp.example")


ID = parse_id(f"spiffe://corp.example/device/{DEVICE}")
WRONG = {
    "uris": ("spiffe://corp.example/device/other",),
    "dns_names": ("portal.example",),
    "is_ca": True,
    "key_usage": frozenset({"digital_signature", "key_cert_sign"}),
    "extended_key_usage": ("1.3.6.1.5.5.7.3.2",),
    "not_after": now() + 2 * HOUR,
    "not_before": now() - 24 * HOUR,
}


@pytest.mark.parametrize("field", WRONG)
def test_the_checker_notices_a_wrong_template(
    root: Issuer, stranger: ec.EllipticCurvePrivateKey, field: str
) -> None:
    good = template.identity(ID, stranger.public_key(), term())
    bounds = checker.Bounds(spki=spki_digest(stranger), now=now(), lifetime=HOUR + 2000)
    checker.check_identity(signing.sign(good, root), root.certificate, ID, bounds)
    bad = signing.sign(msgspec.structs.replace(good, **{field: WRONG[field]}), root)
    with pytest.raises(CertificateError):
        checker.check_identity(bad, root.certificate, ID, bounds)


def test_the_checker_notices_what_nobody_asked_for(
    root: Issuer, stranger: ec.EllipticCurvePrivateKey
) -> None:
    bounds = checker.Bounds(spki=spki_digest(stranger), now=now(), lifetime=HOUR + 2000)
    builder = signing._builder(template.identity(ID, stranger.public_key(), term()))
    odd = builder.issuer_name(root.certificate.subject).add_extension(
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), critical=False
    )
    with pytest.raises(CertificateError, match="nobody asked for"):
        checker.check_identity(odd.sign(root.key, SHA256()), root.certificate, ID, bounds)


def test_the_checker_notices_a_leaf_that_outlives_its_root(
    private: ec.EllipticCurvePrivateKey, stranger: ec.EllipticCurvePrivateKey
) -> None:
    short = issue.create_authority("Short", private, term(HOUR // 2))
    leaf = signing.sign(template.identity(ID, stranger.public_key(), term()), short)
    bounds = checker.Bounds(spki=spki_digest(stranger), now=now(), lifetime=HOUR + 2000)
    with pytest.raises(CertificateError, match="outlives"):
        checker.check_identity(leaf, short.certificate, ID, bounds)


@pytest.mark.parametrize(
    ("uris", "reason"),
    [
        (("spiffe://corp.example/a", "spiffe://corp.example/b"), "2 URI names"),
        (("spiffe://corp.example/a", "https://corp.example/"), "2 URI names"),
        (("spiffe://corp.example",), "no path"),
        (("https://corp.example/a",), "no SPIFFE ID"),
        ((), "0 URI names"),
    ],
)
def test_one_spiffe_id_with_a_path_and_no_other_name(
    root: Issuer, stranger: ec.EllipticCurvePrivateKey, uris: tuple[str, ...], reason: str
) -> None:
    odd = msgspec.structs.replace(template.identity(ID, stranger.public_key(), term()), uris=uris)
    facts = leaf_facts(signing.sign(odd, root).public_bytes(Encoding.DER))
    assert (facts.spiffe_id is None) is (reason != "no path")
    with pytest.raises(CertificateError, match=reason):
        check_svid(facts, "corp.example")


def test_the_checker_notices_a_foreign_signature_and_key(
    root: Issuer, private: ec.EllipticCurvePrivateKey, stranger: ec.EllipticCurvePrivateKey
) -> None:
    other = issue.create_authority("Example devices", stranger, term(24 * HOUR))
    leaf = issue.issue_identity(other, ID, private.public_key(), term())
    bounds = checker.Bounds(spki=spki_digest(private), now=now(), lifetime=HOUR + 2000)
    with pytest.raises(CertificateError, match="signed"):
        checker.check_identity(leaf, root.certificate, ID, bounds)
    with pytest.raises(CertificateError, match="another key"):
        checker.check_identity(
            leaf, other.certificate, ID, msgspec.structs.replace(bounds, spki=spki_digest(stranger))
        )


def test_no_leaf_outlives_its_authority(root: Issuer, stranger: ec.EllipticCurvePrivateKey) -> None:
    leaf = issue.issue_device(root, "corp.example", DEVICE, stranger.public_key(), term(1000 * HOUR))
    assert leaf.not_valid_after_utc <= root.certificate.not_valid_after_utc


def test_a_stored_authority_is_checked(
    root: Issuer, private: ec.EllipticCurvePrivateKey, stranger: ec.EllipticCurvePrivateKey
) -> None:
    stored = issue.pem(root.certificate).encode()
    assert issue.load_authority(private, stored, now()).certificate == root.certificate
    with pytest.raises(CertificateError, match="another key"):
        issue.load_authority(stranger, stored, now())
    with pytest.raises(CertificateError, match="not valid at this time"):
        issue.load_authority(private, stored, now() + 48 * HOUR)
    with pytest.raises(CertificateError, match="not readable"):
        issue.load_authority(private, b"-----", now())
    leaf = issue.issue_device(root, "corp.example", DEVICE, private.public_key(), term())
    with pytest.raises(CertificateError):
        issue.load_authority(private, issue.pem(leaf).encode(), now())


def test_requests(private: ec.EllipticCurvePrivateKey) -> None:
    pem = make_request(private, "laptop")
    assert read_request(pem) == private.public_key()
    for bad in ("", "x" * 5000, pem.replace("M", "N", 3), "ü", pem[: len(pem) // 2]):
        with pytest.raises(RequestRefused):
            read_request(bad)


def test_a_request_on_another_curve_is_refused() -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(RequestRefused, match="P-256"):
        read_request(make_request(other, "laptop"))


def test_a_request_signed_by_another_key_is_refused(
    private: ec.EllipticCurvePrivateKey, stranger: ec.EllipticCurvePrivateKey
) -> None:
    """Proof of possession: the victim's public key with the attacker's signature."""
    mine = x509.load_pem_x509_csr(make_request(private, "laptop").encode())
    theirs = x509.load_pem_x509_csr(make_request(stranger, "laptop").encode())
    der = mine.public_bytes(Encoding.DER)
    forged = der.replace(mine.tbs_certrequest_bytes, theirs.tbs_certrequest_bytes)
    import base64

    body = base64.encodebytes(forged).decode()
    with pytest.raises(RequestRefused):
        read_request(f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n")


def test_an_issuer_does_not_print_its_key(root: Issuer) -> None:
    assert repr(root) == "Issuer('CN=Example devices')"
