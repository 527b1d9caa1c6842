"""The keys of the control process: the authority of devices, and the key that vouches for people.

Loaded once at start by the service; nothing here leaves the control process. Workers hold no private key.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from msgspec import Struct

from ztproxy.crypto import issue, template
from ztproxy.crypto.ids import Entropy
from ztproxy.crypto.jose import SigningKey, sign, signing_key
from ztproxy.crypto.signing import Issuer
from ztproxy.crypto.spiffe import parse_trust_domain
from ztproxy.net import keyfiles
from ztproxy.net.clock import Clock

DEVICE_KEY: Final = Path("keys/device-ca.pem")
DEVICE_CERTIFICATE: Final = Path("ca/devices.pem")
ASSERTION_KEY: Final = Path("keys/assertion.pem")
PREVIOUS_KEY: Final = Path("keys/assertion-previous.pem")

_AUTHORITY_LIFE: Final = 10 * 365 * 86_400_000  # ms


class IssuedCertificate(Struct, frozen=True):
    """A device's new certificate."""

    pem: str  # leaf, then the authority
    not_after: int  # ms


class DeviceAuthority:
    """Issues device certificates: `spiffe://TRUST-DOMAIN/device/ID`."""

    def __init__(
        self, issuer: Issuer, *, trust_domain: str, lifetime: int, clock: Clock, entropy: Entropy
    ) -> None:
        self._issuer = issuer
        self._trust_domain = parse_trust_domain(trust_domain)
        self._lifetime = lifetime
        self._clock = clock
        self._entropy = entropy

    def issue(self, key: EllipticCurvePublicKey, device_id: str) -> IssuedCertificate:
        """Return a certificate for a device's key. Raises CertificateError."""
        term = template.term(self._clock.now(), self._lifetime, self._entropy)
        leaf = issue.issue_device(self._issuer, self._trust_domain, device_id, key, term)
        return IssuedCertificate(
            pem=issue.pem(leaf, self._issuer.certificate),
            not_after=int(leaf.not_valid_after_utc.timestamp()) * 1000,
        )


class Assertions:
    """Vouches for callers to upstreams: ES256 tokens, and the keys to check them with.

    A previous key stays published, so that tokens signed just before a rotation are still believed.
    """

    def __init__(self, current: SigningKey, previous: SigningKey | None = None) -> None:
        self._current = current
        self._previous = previous

    def sign(self, claims: dict[str, Any]) -> str:
        """Return a JWT of claims."""
        return sign(claims, self._current, "JWT")

    def published(self) -> Sequence[dict[str, str]]:
        """Return the public keys as JWK, the current one first."""
        keys = [self._current] if self._previous is None else [self._current, self._previous]
        return [dict(key.jwk) for key in keys]


def load_device_authority(
    state: Path, *, trust_domain: str, lifetime: int, clock: Clock, entropy: Entropy
) -> DeviceAuthority:
    """Return the authority kept in the state directory, made on the first start. `lifetime` of leaves in ms.

    Raises KeyFileError, CertificateError. A key that is lost while its certificate is there is not replaced
    behind the operator's back: every enrolled device would be locked out.
    """
    _folders(state)
    path = state / DEVICE_CERTIFICATE
    if path.exists():
        key = keyfiles.load_key(state / DEVICE_KEY)
    else:
        key = keyfiles.load_or_create_key(state / DEVICE_KEY)
        term = template.term(clock.now(), _AUTHORITY_LIFE, entropy)
        made = issue.create_authority(f"ztproxy devices of {trust_domain}"[:64], key, term)
        keyfiles.write(path, issue.pem(made.certificate).encode("ascii"), 0o644)
    issuer = issue.load_authority(key, keyfiles.read(path), clock.now())
    return DeviceAuthority(issuer, trust_domain=trust_domain, lifetime=lifetime, clock=clock, entropy=entropy)


def load_assertions(state: Path) -> Assertions:
    """Return the assertion keys kept in the state directory, made where there is none. Raises KeyFileError.

    To rotate, the operator moves the key to the place of the previous one and starts again.
    """
    _folders(state)
    current = signing_key(keyfiles.load_or_create_key(state / ASSERTION_KEY))
    path = state / PREVIOUS_KEY
    previous = signing_key(keyfiles.load_key(path)) if path.exists() else None
    return Assertions(current, previous)


def _folders(state: Path) -> None:
    keyfiles.private_folder(state / DEVICE_KEY.parent)
    keyfiles.private_folder(state / DEVICE_CERTIFICATE.parent)
