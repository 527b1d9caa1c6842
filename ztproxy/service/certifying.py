"""Certifies the keys of this node's workers, so that other nodes know them for that.

Made by `service.office`; asked over the links by workers and by nobody else. The authority's key stays in the
control process.
"""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ztproxy.administrator.issue import NODES, LeafAuthority, load_authority
from ztproxy.config.settings import Settings
from ztproxy.model.messages import CertificateIssued, CertificateWanted
from ztproxy.net.clock import Clock, entropy
from ztproxy.service.membership import LIFETIME
from ztproxy.service.state import StateDirectory


class Certifier:
    """By one configuration. `node` is this node's name, "" where there are no others."""

    def __init__(self, authority: LeafAuthority, node: str) -> None:
        self._authority = authority
        self._node = node

    async def certify(self, wanted: CertificateWanted) -> CertificateIssued:
        """Return a certificate for a worker's key. Raises ValueError."""
        if not self._node:
            raise ValueError("there are no other nodes")
        try:
            key = load_der_public_key(wanted.key)
        except UnsupportedAlgorithm as unknown:
            raise ValueError("not a P-256 key") from unknown
        if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
            raise ValueError("not a P-256 key")
        issued = self._authority.issue(key, self._node)
        return CertificateIssued(ask=wanted.ask, pem=issued.pem, not_after=issued.not_after)


def certifier(settings: Settings, state: StateDirectory, clock: Clock) -> Certifier:
    """Return the one of a configuration. The authority is there before anybody needs it: workers read it."""
    authority = load_authority(
        state.root,
        NODES,
        trust_domain=settings.trust_domain,
        lifetime=LIFETIME,
        clock=clock,
        entropy=entropy,
    )
    return Certifier(authority, settings.node_name if settings.node_address else "")
