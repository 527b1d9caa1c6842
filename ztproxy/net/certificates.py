"""From a chain that TLS has verified to the ClientCertificate of the request model.

`net.listener` calls it once per connection. Only the leaf speaks, and only one configured bundle may stand
behind it; the rest of the chain is never looked into. Validity times are checked per request by the door.
"""

import ssl
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, Protocol, cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct

from ztproxy.crypto.certificates import CertificateError, LeafFacts, check_svid, leaf_facts
from ztproxy.model.request import ClientCertificate

_DER: Final = 2  # _ssl.ENCODING_DER


Kind = Literal["device", "workload", "connector", "node"]


class Bundle(Struct, frozen=True):
    """Authorities whose leaf certificates mean the same."""

    name: str
    kind: Kind
    anchors: frozenset[bytes]  # DER of each authority
    trust_domain: str = ""  # with it, leaves have to be X509-SVIDs of that domain


def read_bundle(name: str, kind: Kind, pem: Path, trust_domain: str = "") -> Bundle:
    """Read a bundle from a PEM file. Raises OSError, and ValueError when no certificate is in it."""
    authorities = x509.load_pem_x509_certificates(pem.read_bytes())
    anchors = frozenset(authority.public_bytes(Encoding.DER) for authority in authorities)
    return Bundle(name=name, kind=kind, anchors=anchors, trust_domain=trust_domain)


def classify(chain: Sequence[bytes], bundles: Iterable[Bundle]) -> ClientCertificate | None:
    """Return what a verified chain (leaf first, DER) says, or None when it is nobody's we know."""
    if not chain:
        return None
    behind = [bundle for bundle in bundles if chain[-1] in bundle.anchors]
    return _read(chain[0], behind[0]) if len(behind) == 1 else None


@lru_cache(4096)
def _read(der: bytes, bundle: Bundle) -> ClientCertificate | None:
    """Read a leaf. Pure, and asked for chains that TLS has verified only: programs come back with the same
    certificate for every connection."""
    try:
        return _certificate(leaf_facts(der), bundle)
    except CertificateError:
        return None


def _certificate(leaf: LeafFacts, bundle: Bundle) -> ClientCertificate:
    return ClientCertificate(
        kind=bundle.kind,
        bundle=bundle.name,
        subject=_subject(leaf, bundle),
        fingerprint=leaf.fingerprint,
        spki=leaf.spki,
        not_before=leaf.not_before,
        not_after=leaf.not_after,
        serial=leaf.serial,
    )


def _subject(leaf: LeafFacts, bundle: Bundle) -> str:
    if bundle.trust_domain:
        return str(check_svid(leaf, bundle.trust_domain))
    if leaf.is_ca:
        raise CertificateError("a leaf must not be a CA")
    if leaf.spiffe_id is not None:
        return leaf.spiffe_id
    if leaf.uris or not leaf.common_name:
        raise CertificateError("no single name")
    return "x509:" + leaf.common_name


class _Sealed(Protocol):
    def public_bytes(self, encoding: int) -> bytes: ...


def verified_chain(tls: ssl.SSLObject) -> list[bytes]:
    """Return the chain that TLS verified, leaf first; empty without a client certificate."""
    if hasattr(tls, "get_verified_chain"):  # Python 3.13
        return cast("list[bytes]", list(tls.get_verified_chain()))
    inner = tls._sslobj  # type: ignore[attr-defined]  # the public method came with 3.13
    chain = cast("list[_Sealed] | None", inner.get_verified_chain())
    return [certificate.public_bytes(_DER) for certificate in chain or ()]
