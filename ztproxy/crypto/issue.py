"""Issuing: template, sign, check, in this order and in one call each.

Called by `administrator.issue` (devices) and by `ztproxy init` (an authority and servers to start with).
Nothing leaves here that `crypto.checker` has not read.
"""

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from ztproxy.crypto import checker, signing, template
from ztproxy.crypto.certificates import CertificateError
from ztproxy.crypto.jwk import spki_digest
from ztproxy.crypto.signing import Issuer
from ztproxy.crypto.spiffe import SpiffeId
from ztproxy.crypto.template import Term

#: Browsers refuse server certificates that live longer than this (ms).
LONGEST_SERVER: Final = 397 * 86_400_000


def create_authority(name: str, key: EllipticCurvePrivateKey, term: Term) -> Issuer:
    """Return a new self-signed authority. Raises CertificateError."""
    certificate = signing.self_sign(template.authority(name, key.public_key(), term), key)
    checker.check_authority(certificate, spki_digest(key), term.now)
    return Issuer(key=key, certificate=certificate)


def load_authority(key: EllipticCurvePrivateKey, certificate_pem: bytes, now: int) -> Issuer:
    """Return a stored authority if it is still one. Raises CertificateError."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        checker.check_authority(certificate, spki_digest(key), now)
    except (x509.ExtensionNotFound, ValueError) as error:
        reason = str(error) if isinstance(error, CertificateError) else "is not readable"
        raise CertificateError(f"the authority's certificate {reason}") from error
    return Issuer(key=key, certificate=certificate)


def issue_identity(
    issuer: Issuer, id_: SpiffeId, key: EllipticCurvePublicKey, term: Term
) -> x509.Certificate:
    """Return an X509-SVID for a device or a workload. Raises CertificateError."""
    bound = _within(issuer, term)
    leaf = signing.sign(template.identity(id_, key, bound), issuer)
    checker.check_identity(leaf, issuer.certificate, id_, _bounds(key, bound))
    return leaf


def issue_device(
    issuer: Issuer, trust_domain: str, device: str, key: EllipticCurvePublicKey, term: Term
) -> x509.Certificate:
    """Return the leaf `spiffe://TRUST-DOMAIN/device/ID`. Raises CertificateError."""
    return issue_identity(issuer, template.device_id(trust_domain, device), key, term)


def issue_server(
    issuer: Issuer,
    key: EllipticCurvePublicKey,
    term: Term,
    *,
    dns_names: tuple[str, ...],
    addresses: tuple[str, ...] = (),
) -> x509.Certificate:
    """Return a web server's leaf. Raises CertificateError."""
    bound = _within(issuer, term)
    if bound.lifetime > LONGEST_SERVER:
        raise CertificateError("a server certificate may not live that long")
    leaf = signing.sign(template.server(dns_names, addresses, key, bound), issuer)
    checker.check_server(leaf, issuer.certificate, dns_names, addresses, _bounds(key, bound))
    return leaf


def pem(*certificates: x509.Certificate) -> str:
    """Return certificates as PEM, in the order given."""
    return "".join(certificate.public_bytes(Encoding.PEM).decode("ascii") for certificate in certificates)


def _within(issuer: Issuer, term: Term) -> Term:
    """No leaf outlives its authority."""
    left = int(issuer.certificate.not_valid_after_utc.timestamp()) * 1000 - term.now
    return Term(now=term.now, lifetime=min(term.lifetime, left), serial=term.serial)


def _bounds(key: EllipticCurvePublicKey, term: Term) -> checker.Bounds:
    return checker.Bounds(spki=spki_digest(key), now=term.now, lifetime=term.lifetime)
