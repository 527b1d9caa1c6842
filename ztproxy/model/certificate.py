"""A client certificate, as far as anybody here is interested in it."""

from typing import Literal

from msgspec import Struct


class ClientCertificate(Struct, frozen=True, gc=False):
    """What a verified client certificate says. Taken from the leaf only, chain checked by TLS and by the
    trust bundle of its kind (`net.certificates`)."""

    kind: Literal["device", "workload", "connector", "node"]
    bundle: str  # name of the configured trust bundle whose root ended the verified chain
    subject: str  # SPIFFE ID of the single URI SAN; else "x509:" + subject common name
    fingerprint: str  # lower-case hex SHA-256 of the leaf's DER
    spki: str  # lower-case hex SHA-256 of the leaf's SubjectPublicKeyInfo
    not_before: int  # ms
    not_after: int  # ms
    serial: str  # lower-case hex
