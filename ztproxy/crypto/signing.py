"""Templates into certificates: the one place that signs X.509.

Called by `crypto.issue`. It adds nothing of its own but the key identifiers and the criticality that
RFC 5280 asks for.
"""

from datetime import UTC, datetime
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID, ObjectIdentifier
from msgspec import Struct

from ztproxy.crypto.template import Template


class Issuer(Struct, frozen=True):
    """A certificate authority: its key and its own certificate."""

    key: EllipticCurvePrivateKey
    certificate: x509.Certificate

    def __repr__(self) -> str:
        return f"Issuer({self.certificate.subject.rfc4514_string()!r})"


def sign(template: Template, issuer: Issuer) -> x509.Certificate:
    """Return a certificate signed by an authority."""
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    builder = _builder(template).issuer_name(issuer.certificate.subject)
    return builder.add_extension(authority_key, critical=False).sign(issuer.key, SHA256())


def self_sign(template: Template, key: EllipticCurvePrivateKey) -> x509.Certificate:
    """Return a certificate signed by its own key."""
    return _builder(template).issuer_name(_name(template.common_name)).sign(key, SHA256())


def _builder(template: Template) -> x509.CertificateBuilder:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(template.common_name))
        .public_key(template.public_key)
        .serial_number(template.serial)
        .not_valid_before(_time(template.not_before))
        .not_valid_after(_time(template.not_after))
    )
    for extension, critical in _extensions(template):
        builder = builder.add_extension(extension, critical=critical)
    return builder


def _extensions(template: Template) -> list[tuple[x509.ExtensionType, bool]]:
    path_length = 0 if template.is_ca else None
    found: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=template.is_ca, path_length=path_length), True),
        (_key_usage(template.key_usage), True),
        (x509.SubjectKeyIdentifier.from_public_key(template.public_key), False),
    ]
    if template.extended_key_usage:
        usages = [ObjectIdentifier(usage) for usage in template.extended_key_usage]
        found.append((x509.ExtendedKeyUsage(usages), False))
    names = _names(template)
    if names:
        found.append((x509.SubjectAlternativeName(names), False))
    return found


def _names(template: Template) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in template.uris]
    names += [x509.DNSName(name) for name in template.dns_names]
    names += [x509.IPAddress(ip_address(address)) for address in template.addresses]
    return names


def _key_usage(usages: frozenset[str]) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature="digital_signature" in usages,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign="key_cert_sign" in usages,
        crl_sign="crl_sign" in usages,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds // 1000, UTC)
