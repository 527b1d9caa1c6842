"""The demo's certificates: one authority for servers, one for workloads. Made once and kept.

Called by `demo.run`. A deployment has its own authorities; ztproxy only reads what they issue.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ztproxy.demo.layout import DOMAIN, TRUST_DOMAIN, WORKLOAD, Layout, write
from ztproxy.net import keyfiles

AUTHORITY_LIFE: Final = timedelta(days=365)
LEAF_LIFE: Final = timedelta(days=30)
RENEW_BEFORE: Final = timedelta(days=2)
SERVER: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
# X509-SVID section 4.4: a leaf that names its use names both
WORKLOAD_USE: Final = x509.ExtendedKeyUsage(
    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
)


class Authority:
    """A certificate authority in a pair of files: made when missing or nearly over, read otherwise."""

    def __init__(self, cert: Path, name: str, uri: str = "") -> None:
        self.cert = cert
        if not _good(cert):
            self._make(name, uri)
        self.certificate = x509.load_pem_x509_certificate(cert.read_bytes())
        self._key = keyfiles.load_key(cert.with_suffix(".key"))

    def _make(self, name: str, uri: str) -> None:
        key = keyfiles.new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        template = _template(subject, key, AUTHORITY_LIFE).issuer_name(subject)
        template = template.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        template = template.add_extension(_usage(authority=True), critical=True)
        if uri:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
            template = template.add_extension(names, critical=False)
        _save(self.cert, template.sign(key, hashes.SHA256()), key)

    def issue(self, cert: Path, name: str, names: list[x509.GeneralName], use: x509.ExtendedKeyUsage) -> None:
        """A leaf certificate and its key, unless there is one from this authority that still stands."""
        if _good(cert) and self._issued(cert, names):
            return
        key = keyfiles.new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        template = _template(subject, key, LEAF_LIFE).issuer_name(self.certificate.subject)
        template = template.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        template = template.add_extension(_usage(authority=False), critical=True)
        template = template.add_extension(use, critical=False)
        template = template.add_extension(x509.SubjectAlternativeName(names), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        template = template.add_extension(issuer, critical=False)
        _save(cert, template.sign(self._key, hashes.SHA256()), key)

    def _issued(self, cert: Path, names: list[x509.GeneralName]) -> bool:
        leaf = x509.load_pem_x509_certificate(cert.read_bytes())
        if list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) != names:
            return False
        try:
            leaf.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True


def _template(subject: x509.Name, key: EllipticCurvePrivateKey, life: timedelta) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _save(cert: Path, certificate: x509.Certificate, key: EllipticCurvePrivateKey) -> None:
    write(cert.with_suffix(".key"), keyfiles.key_pem(key))
    write(cert, certificate.public_bytes(Encoding.PEM), mode=0o644)


def _good(cert: Path) -> bool:
    if not (cert.exists() and cert.with_suffix(".key").exists()):
        return False
    certificate = x509.load_pem_x509_certificate(cert.read_bytes())
    return certificate.not_valid_after_utc - datetime.now(UTC) > RENEW_BEFORE


def prepare(layout: Layout) -> None:
    """Everything the demo needs: tls/ca.pem, tls/server.pem, tls/workloads.pem, workload/deployer.pem."""
    servers = Authority(layout.path("tls", "ca.pem"), "ztproxy demo")
    hosts = [x509.DNSName(f"{name}.{DOMAIN}") for name in ("portal", "connect", *layout.apps)]
    servers.issue(layout.path("tls", "server.pem"), f"portal.{DOMAIN}", list(hosts), SERVER)
    workloads = Authority(
        layout.path("tls", "workloads.pem"), "ztproxy demo workloads", f"spiffe://{TRUST_DOMAIN}"
    )
    spiffe = x509.UniformResourceIdentifier(WORKLOAD)
    workloads.issue(layout.path("workload", "deployer.pem"), "deployer", [spiffe], WORKLOAD_USE)
