"""The keys of the control process: the authorities of devices, of connectors and of nodes, and the key that
vouches for people.

Loaded once at start by the service; nothing here leaves the control process. Workers hold no key that
vouches for anybody.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec import Struct

from ztproxy.crypto import issue, template
from ztproxy.crypto.ids import Entropy
from ztproxy.crypto.jose import SigningKey, sign, signing_key
from ztproxy.crypto.signing import Issuer
from ztproxy.crypto.spiffe import make_id, parse_trust_domain
from ztproxy.model import connector, node
from ztproxy.net import keyfiles
from ztproxy.net.clock import Clock


class Kept(NamedTuple):
    """Where an authority is kept in the state directory, and the kind of those it vouches for."""

    kind: str  # the first segment of their SPIFFE IDs
    who: str  # in plural, for its name
    key: Path
    certificate: Path


DEVICES: Final = Kept("device", "devices", Path("keys/device-ca.pem"), Path("ca/devices.pem"))
CONNECTORS: Final = Kept(
    connector.KIND, connector.BUNDLE, Path("keys/connector-ca.pem"), Path("ca/connectors.pem")
)
NODES: Final = Kept(node.KIND, node.BUNDLE, Path("keys/node-ca.pem"), Path("ca/nodes.pem"))
ASSERTION_KEY: Final = Path("keys/assertion.pem")
PREVIOUS_KEY: Final = Path("keys/assertion-previous.pem")

_AUTHORITY_LIFE: Final = 10 * 365 * 86_400_000  # ms


class IssuedCertificate(Struct, frozen=True):
    """A new certificate of a device or a connector."""

    pem: str  # leaf, then the authority
    not_after: int  # ms
    fingerprint: str  # lower-case hex SHA-256 of the leaf


class LeafAuthority:
    """Issues the certificates of one kind of holders: `spiffe://TRUST-DOMAIN/KIND/…`."""

    def __init__(
        self, issuer: Issuer, *, kind: str, trust_domain: str, lifetime: int, clock: Clock, entropy: Entropy
    ) -> None:
        self._issuer = issuer
        self._kind = kind
        self._trust_domain = parse_trust_domain(trust_domain)
        self._lifetime = lifetime
        self._clock = clock
        self._entropy = entropy

    def name(self, *path: str) -> str:
        """Return the SPIFFE ID of a holder. Raises SpiffeError."""
        return str(make_id(self._trust_domain, self._kind, *path))

    def issue(self, key: EllipticCurvePublicKey, *path: str) -> IssuedCertificate:
        """Return a certificate for a holder's key. Raises CertificateError, SpiffeError."""
        term = template.term(self._clock.now(), self._lifetime, self._entropy)
        leaf = issue.issue_identity(self._issuer, make_id(self._trust_domain, self._kind, *path), key, term)
        return IssuedCertificate(
            pem=issue.pem(leaf, self._issuer.certificate),
            not_after=int(leaf.not_valid_after_utc.timestamp()) * 1000,
            fingerprint=leaf.fingerprint(SHA256()).hex(),
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


def load_authority(
    state: Path, kept: Kept, *, trust_domain: str, lifetime: int, clock: Clock, entropy: Entropy
) -> LeafAuthority:
    """Return an authority kept in the state directory, made on the first start. `lifetime` of leaves in ms.

    Raises KeyFileError, CertificateError. A key that is lost while its certificate is there is not replaced
    behind the operator's back: everybody it vouched for would be locked out.
    """
    _folders(state)
    path = state / kept.certificate
    if path.exists():
        key = keyfiles.load_key(state / kept.key)
    else:
        key = keyfiles.load_or_create_key(state / kept.key)
        term = template.term(clock.now(), _AUTHORITY_LIFE, entropy)
        made = issue.create_authority(f"ztproxy {kept.who} of {trust_domain}"[:64], key, term)
        keyfiles.write(path, issue.pem(made.certificate).encode("ascii"), 0o644)
    issuer = issue.load_authority(key, keyfiles.read(path), clock.now())
    return LeafAuthority(
        issuer,
        kind=kept.kind,
        trust_domain=trust_domain,
        lifetime=lifetime,
        clock=clock,
        entropy=entropy,
    )


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
    keyfiles.private_folder(state / DEVICES.key.parent)
    keyfiles.private_folder(state / DEVICES.certificate.parent)
