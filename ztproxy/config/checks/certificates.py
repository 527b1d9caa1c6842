"""Server certificates: usable with their keys, and made out for every host we answer on."""

from collections.abc import Iterator
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from ztproxy.config.checks.files import read_certificates
from ztproxy.config.places import Places
from ztproxy.config.problems import Problem
from ztproxy.config.secrets import Secret
from ztproxy.config.settings import Settings

LEAST_RSA_BITS = 2048


def usable(settings: Settings, places: Places) -> Iterator[Problem]:
    """Certificates that are there, in date, named, strong enough and belong to their keys."""
    for index, entry in enumerate(settings.tls.certificates):
        found = read_certificates(settings, entry.cert)
        at = ("tls", "certificates", index, "cert")
        if isinstance(found, str):
            yield places.problem(found, f"put the certificate (PEM) into {entry.cert}", *at)
            continue
        for message, remedy in _faults(found[0]):
            yield places.problem(message, remedy, *at)
        if not names_of(found[0]):
            message = "the certificate names no host (subjectAltName DNS)"
            yield places.problem(message, "issue it with the hosts as SANs", *at)
        if fault := _key_fault(entry.key, found[0]):
            yield places.problem(*fault, "tls", "certificates", index, "key")


def shown(settings: Settings, places: Places) -> Iterator[Problem]:
    """Certificates that we show to upstreams: usable as those of clients, with their keys."""
    for index, route in enumerate(settings.route_settings):
        if route.tls is None or route.tls.certificate is None or route.tls.key is None:
            continue
        at = ("routes", index, "tls", "certificate")
        found = read_certificates(settings, route.tls.certificate)
        if isinstance(found, str):
            yield places.problem(found, f"put the certificate (PEM) into {route.tls.certificate}", *at)
            continue
        for message, remedy in (*_faults(found[0]), *_client_faults(found[0])):
            yield places.problem(message, remedy, *at)
        if fault := _key_fault(route.tls.key, found[0]):
            yield places.problem(*fault, "routes", index, "tls", "key")


def _client_faults(leaf: x509.Certificate) -> Iterator[tuple[str, str]]:
    try:
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return
    if ExtendedKeyUsageOID.CLIENT_AUTH not in uses:
        yield "the certificate is not for clients (extendedKeyUsage)", "issue one for clientAuth"


def _faults(leaf: x509.Certificate) -> Iterator[tuple[str, str]]:
    now = datetime.now(UTC)
    if leaf.not_valid_after_utc <= now:
        yield f"the certificate expired on {leaf.not_valid_after_utc:%Y-%m-%d}", "renew it"
    if leaf.not_valid_before_utc > now:
        yield (
            f"the certificate begins only on {leaf.not_valid_before_utc:%Y-%m-%d}",
            "check the clock, or wait",
        )
    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < LEAST_RSA_BITS:
        yield f"an RSA key of {key.key_size} bits is weak", "use EC P-256, or RSA of 2048 bits or more"


def _key_fault(secret: Secret, leaf: x509.Certificate) -> tuple[str, str] | None:
    if not secret.reveal():
        return None  # could not be read, which is said already
    try:
        key = load_pem_private_key(secret.reveal().encode(), password=None)
    except TypeError:
        return f"the key {secret.path} has a passphrase", "store it without one, mode 0600"
    except ValueError:
        return f"{secret.path} holds no private key that can be read", "name the PEM file of the key"
    if not isinstance(
        key,
        rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey,
    ):
        return "this kind of key can not serve TLS", "use EC P-256, or RSA of 2048 bits or more"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        return "the key does not belong to the certificate", "name the key the certificate was issued for"
    return None


def coverage(settings: Settings, places: Places) -> Iterator[Problem]:
    """Hosts that no certificate is made out for: browsers would be refused without a word."""
    names: set[str] = set()
    for entry in settings.tls.certificates:
        found = read_certificates(settings, entry.cert)
        if isinstance(found, str):
            return
        names |= names_of(found[0])
    remedy = "issue a certificate with this host as a SAN and add it to `tls.certificates`"
    if not covers(names, settings.portal.host):
        yield places.problem("no certificate covers this host", remedy, "portal", "host")
    if settings.connectors is not None and not covers(names, settings.connectors.host):
        yield places.problem("no certificate covers this host", remedy, "connectors", "host")
    for index, route in enumerate(settings.route_settings):
        if not covers(names, route.from_.host):
            yield places.problem(f"no certificate covers {route.from_.host}", remedy, "routes", index, "from")


def names_of(leaf: x509.Certificate) -> set[str]:
    """Return the DNS names a certificate is made out for, in lower case."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return set()
    return {name.lower() for name in names.get_values_for_type(x509.DNSName)}


def covers(names: set[str], host: str) -> bool:
    """Tell whether one of the names is the host, or its wildcard of one label (RFC 9525 section 6.3)."""
    _, dot, rest = host.partition(".")
    return host in names or (bool(dot) and f"*.{rest}" in names)
