"""Certificate requests (PKCS #10): made by the agent, read by the authority.

Of a request only the public key is used, and only after the requester has proved to hold the private one:
names and extensions in it are wishes that nobody granted.
"""

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

#: Bytes of PEM read at most; ours have about 400.
MAX_REQUEST: Final = 4096


class RequestRefused(ValueError):
    """Not a certificate request we answer; the message says why."""


def make_request(key: EllipticCurvePrivateKey, name: str) -> str:
    """Return a request in PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64] or "device")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())
    return request.public_bytes(Encoding.PEM).decode("ascii")


def read_request(pem: str) -> EllipticCurvePublicKey:
    """Return the public key of a request that is signed by it. Raises RequestRefused."""
    if len(pem) > MAX_REQUEST:
        raise RequestRefused(f"longer than {MAX_REQUEST} characters")
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        key = request.public_key()
        genuine = isinstance(key, EllipticCurvePublicKey) and request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RequestRefused("not a certificate request") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise RequestRefused("its key is not on P-256")
    if not genuine:
        raise RequestRefused("is not signed by its own key")
    return key
