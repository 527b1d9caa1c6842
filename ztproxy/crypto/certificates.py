"""Facts of a leaf certificate, and the X509-SVID rules it has to keep.

Called by `net.certificates` with the leaf of a chain that TLS has already verified. Only ever the leaf:
identity is never taken from another certificate of a chain. It must never decide whom to trust.
"""

import hashlib
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from ztproxy.crypto.spiffe import SpiffeError, SpiffeId, parse_id

#: Bytes of DER read at most; real leaves have one or two thousand.
MAX_CERTIFICATE: Final = 32 * 1024

CLIENT_AUTH: Final = ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string
SERVER_AUTH: Final = ExtendedKeyUsageOID.SERVER_AUTH.dotted_string

_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)

_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class CertificateError(ValueError):
    """A certificate that can not be read or breaks a rule; the message says which."""


class LeafFacts(Struct, frozen=True):
    """What a leaf certificate says about itself. Digests and serial are lower-case hex, times ms."""

    spiffe_id: str | None  # the only URI SAN when that is a SPIFFE ID, else None
    common_name: str  # "" without one, or with several
    uris: tuple[str, ...]
    dns_names: tuple[str, ...]
    is_ca: bool
    key_usage: frozenset[str] | None  # names as in cryptography ("digital_signature"); None = absent
    key_usage_critical: bool
    extended_key_usage: frozenset[str] | None  # dotted OIDs; None = absent
    not_before: int
    not_after: int
    serial: str
    fingerprint: str  # SHA-256 of the DER
    spki: str  # SHA-256 of the SubjectPublicKeyInfo


def leaf_facts(der: bytes) -> LeafFacts:
    """Return the facts of a certificate in DER. Raises CertificateError."""
    if len(der) > MAX_CERTIFICATE:
        raise CertificateError(f"longer than {MAX_CERTIFICATE} bytes")
    try:
        return _facts(x509.load_der_x509_certificate(der), der)
    except _UNREADABLE as error:
        raise CertificateError("not a readable X.509 certificate") from error


def check_svid(facts: LeafFacts, trust_domain: str) -> SpiffeId:
    """Return the identity of an X509-SVID leaf of a trust domain.

    X509-SVID sections 2 to 5. Raises CertificateError.
    """
    identity = _identity(facts)
    if identity.trust_domain != trust_domain:
        raise CertificateError("its trust domain is another one")
    if facts.is_ca:
        raise CertificateError("a leaf must not be a CA")
    _check_key_usage(facts)
    extended = facts.extended_key_usage
    if extended is not None and not extended >= {CLIENT_AUTH, SERVER_AUTH}:
        raise CertificateError("extended key usage lacks clientAuth or serverAuth")
    return identity


def spki_digest(certificate: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """Return the lower-case hex SHA-256 of the SubjectPublicKeyInfo."""
    key = certificate.public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _identity(facts: LeafFacts) -> SpiffeId:
    if len(facts.uris) != 1:
        raise CertificateError(f"has {len(facts.uris)} URI names instead of one")
    try:
        identity = parse_id(facts.uris[0])
    except SpiffeError as error:
        raise CertificateError(f"its URI name is no SPIFFE ID: {error}") from error
    if not identity.path:
        raise CertificateError("its SPIFFE ID has no path")
    return identity


def _check_key_usage(facts: LeafFacts) -> None:
    usage = facts.key_usage
    if usage is None or not facts.key_usage_critical:
        raise CertificateError("key usage is missing or not critical")
    if "digital_signature" not in usage:
        raise CertificateError("key usage lacks digitalSignature")
    if usage & {"key_cert_sign", "crl_sign"}:
        raise CertificateError("key usage has keyCertSign or cRLSign")


def _facts(certificate: x509.Certificate, der: bytes) -> LeafFacts:
    extensions = certificate.extensions
    uris, dns_names = _names(extensions)
    usage, critical = _key_usage(extensions)
    return LeafFacts(
        spiffe_id=_spiffe_id(uris),
        common_name=_common_name(certificate.subject),
        uris=uris,
        dns_names=dns_names,
        is_ca=_is_ca(extensions),
        key_usage=usage,
        key_usage_critical=critical,
        extended_key_usage=_extended(extensions),
        not_before=int(certificate.not_valid_before_utc.timestamp()) * 1000,
        not_after=int(certificate.not_valid_after_utc.timestamp()) * 1000,
        serial=f"{certificate.serial_number:x}",
        fingerprint=hashlib.sha256(der).hexdigest(),
        spki=spki_digest(certificate),
    )


def _spiffe_id(uris: tuple[str, ...]) -> str | None:
    if len(uris) != 1:
        return None
    try:
        return str(parse_id(uris[0]))
    except SpiffeError:
        return None


def _common_name(name: x509.Name) -> str:
    values = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(values[0].value) if len(values) == 1 else ""


def _names(extensions: x509.Extensions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return tuple(uris), tuple(names.get_values_for_type(x509.DNSName))


def _is_ca(extensions: x509.Extensions) -> bool:
    try:
        return extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _key_usage(extensions: x509.Extensions) -> tuple[frozenset[str] | None, bool]:
    try:
        found = extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound:
        return None, False
    return frozenset(name for name in _USAGES if getattr(found.value, name)), found.critical


def _extended(extensions: x509.Extensions) -> frozenset[str] | None:
    try:
        found = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    return frozenset(usage.dotted_string for usage in found)
