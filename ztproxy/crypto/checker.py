"""Looks at certificates we have just signed, as a stranger would: reads the DER and believes nothing else.

Called by `crypto.issue` on everything before it leaves the authority, and on the authority's own certificate
when it is loaded. It shares no code with `crypto.template` or `crypto.signing`, so that a mistake there does
not hide itself here.
"""

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct

from ztproxy.crypto.certificates import (
    CLIENT_AUTH,
    SERVER_AUTH,
    CertificateError,
    LeafFacts,
    check_svid,
    leaf_facts,
)
from ztproxy.crypto.spiffe import SpiffeId

_SLACK: Final = 5 * 60_000  # ms a leaf may begin before it was made
_BOTH_SIDES: Final = frozenset({CLIENT_AUTH, SERVER_AUTH})
_SERVER_ONLY: Final = frozenset({SERVER_AUTH})
_LEAF_USAGE: Final = frozenset({"digital_signature"})
_ROOT_USAGE: Final = frozenset({"key_cert_sign", "crl_sign"})
_EXTENSIONS: Final = frozenset(
    {
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.ExtendedKeyUsage.oid,
        x509.SubjectAlternativeName.oid,
        x509.SubjectKeyIdentifier.oid,
        x509.AuthorityKeyIdentifier.oid,
    }
)


class Bounds(Struct, frozen=True):
    """Whose key a leaf must hold and how long it may live (ms)."""

    spki: str
    now: int
    lifetime: int


def check_identity(leaf: x509.Certificate, root: x509.Certificate, id_: SpiffeId, bounds: Bounds) -> None:
    """Check a device's or workload's leaf. Raises CertificateError."""
    facts = _leaf(leaf, root, bounds)
    if check_svid(facts, id_.trust_domain) != id_:
        raise CertificateError("names another identity")
    if facts.dns_names or facts.extended_key_usage != _BOTH_SIDES:
        raise CertificateError("says more or less than an identity should")


def check_server(
    leaf: x509.Certificate,
    root: x509.Certificate,
    dns_names: tuple[str, ...],
    addresses: tuple[str, ...],
    bounds: Bounds,
) -> None:
    """Check a web server's leaf. Raises CertificateError."""
    facts = _leaf(leaf, root, bounds)
    if facts.uris or facts.dns_names != dns_names or facts.extended_key_usage != _SERVER_ONLY:
        raise CertificateError("names other hosts or usages")
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if tuple(str(address) for address in names.get_values_for_type(x509.IPAddress)) != addresses:
        raise CertificateError("names other addresses")


def check_authority(certificate: x509.Certificate, spki: str, now: int) -> None:
    """Check a root of ours: self-signed, a CA of leaves only, in its time. Raises CertificateError."""
    facts = leaf_facts(certificate.public_bytes(Encoding.DER))
    _check_issued(certificate, certificate)
    _check_curve(certificate)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    if not (constraints.critical and constraints.value.ca and constraints.value.path_length == 0):
        raise CertificateError("is not a CA of leaves only")
    if facts.key_usage != _ROOT_USAGE or not facts.key_usage_critical:
        raise CertificateError("its key usage is not that of a CA")
    if facts.spki != spki:
        raise CertificateError("holds another key than ours")
    if not facts.not_before <= now < facts.not_after:
        raise CertificateError("is not valid at this time")


def _leaf(leaf: x509.Certificate, root: x509.Certificate, bounds: Bounds) -> LeafFacts:
    facts = leaf_facts(leaf.public_bytes(Encoding.DER))
    _check_issued(leaf, root)
    _check_curve(leaf)
    if facts.is_ca or facts.key_usage != _LEAF_USAGE or not facts.key_usage_critical:
        raise CertificateError("is no leaf that only signs")
    if facts.spki != bounds.spki:
        raise CertificateError("holds another key than was asked for")
    if {extension.oid for extension in leaf.extensions} - _EXTENSIONS:
        raise CertificateError("has an extension that nobody asked for")
    _check_time(facts, root, bounds)
    return facts


def _check_time(facts: LeafFacts, root: x509.Certificate, bounds: Bounds) -> None:
    begins, ends = facts.not_before, facts.not_after
    if not bounds.now - _SLACK <= begins <= bounds.now < ends <= bounds.now + bounds.lifetime:
        raise CertificateError("its time is not the one asked for")
    if ends > int(root.not_valid_after_utc.timestamp()) * 1000:
        raise CertificateError("outlives its authority")


def _check_issued(leaf: x509.Certificate, root: x509.Certificate) -> None:
    if not 0 < leaf.serial_number < 1 << 159:
        raise CertificateError("its serial number is out of range")
    try:
        leaf.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise CertificateError("is not signed by its authority") from error


def _check_curve(certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise CertificateError("its key is not on P-256")
