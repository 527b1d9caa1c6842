"""What our certificates are to say, before anybody signs them: one function per kind.

Called by `crypto.issue`. `crypto.signing` makes certificates of templates, and `crypto.checker` looks at the
result without believing either. It must never take more from a requester than a public key.
"""

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from msgspec import Struct

from ztproxy.crypto.certificates import CLIENT_AUTH, SERVER_AUTH
from ztproxy.crypto.ids import Entropy
from ztproxy.crypto.spiffe import SpiffeId, make_id

#: Leaves begin this long (ms) ago, for machines whose clock is a little behind.
BACKDATE: Final = 60_000


class Term(Struct, frozen=True):
    """When a certificate is made, how long it lives (both ms), and its serial number."""

    now: int
    lifetime: int
    serial: int


class Template(Struct, frozen=True):
    """The content of a certificate. Usages are named as in cryptography, extended ones are dotted OIDs."""

    common_name: str
    public_key: EllipticCurvePublicKey
    serial: int
    not_before: int  # ms
    not_after: int  # ms
    uris: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    is_ca: bool = False
    key_usage: frozenset[str] = frozenset({"digital_signature"})
    extended_key_usage: tuple[str, ...] = ()


def term(now: int, lifetime: int, entropy: Entropy) -> Term:
    """Return a term with a fresh serial number of 159 random bits (RFC 5280 section 4.1.2.2)."""
    serial = int.from_bytes(entropy(20), "big") >> 1
    return Term(now=now, lifetime=lifetime, serial=serial or 1)


def authority(name: str, key: EllipticCurvePublicKey, term: Term) -> Template:
    """Return a root that signs leaves and nothing below them."""
    return Template(
        common_name=name,
        public_key=key,
        serial=term.serial,
        not_before=term.now - BACKDATE,
        not_after=term.now + term.lifetime,
        is_ca=True,
        key_usage=frozenset({"key_cert_sign", "crl_sign"}),
    )


def device_id(trust_domain: str, device: str) -> SpiffeId:
    """Return the SPIFFE ID of a device."""
    return make_id(trust_domain, "device", device)


def identity(id_: SpiffeId, key: EllipticCurvePublicKey, term: Term) -> Template:
    """Return an X509-SVID: a device's or a workload's leaf."""
    return Template(
        common_name=id_.path.rpartition("/")[2][:64],
        public_key=key,
        serial=term.serial,
        not_before=term.now - BACKDATE,
        not_after=term.now + term.lifetime,
        uris=(str(id_),),
        extended_key_usage=(CLIENT_AUTH, SERVER_AUTH),
    )


def server(
    dns_names: tuple[str, ...], addresses: tuple[str, ...], key: EllipticCurvePublicKey, term: Term
) -> Template:
    """Return the leaf of a web server. `addresses` are IP addresses."""
    return Template(
        common_name=(dns_names or addresses)[0][:64],
        public_key=key,
        serial=term.serial,
        not_before=term.now - BACKDATE,
        not_after=term.now + term.lifetime,
        dns_names=dns_names,
        addresses=addresses,
        extended_key_usage=(SERVER_AUTH,),
    )
