"""A request for access, in the one shape that every protocol reduces to.

`gateway.facts` builds these; `administrator.access.authorize` answers them.
All times are wall clock milliseconds since the epoch unless a name says otherwise.
"""

from typing import Literal

from msgspec import Struct

from ztproxy.model.resource import Resource

#: "http", or the protocol a request upgrades its connection to, in lower case: "websocket", "tcp"
Protocol = str


class ClientCertificate(Struct, frozen=True, gc=False):
    """What a verified client certificate says. Taken from the leaf only, chain checked by TLS and by the
    trust bundle of its kind (`net.certificates`)."""

    kind: Literal["device", "workload"]
    bundle: str  # name of the configured trust bundle whose root ended the verified chain
    subject: str  # SPIFFE ID of the single URI SAN; else "x509:" + subject common name
    fingerprint: str  # lower-case hex SHA-256 of the leaf's DER
    spki: str  # lower-case hex SHA-256 of the leaf's SubjectPublicKeyInfo
    not_before: int  # ms
    not_after: int  # ms
    serial: str  # lower-case hex


class TlsFacts(Struct, frozen=True, gc=False):
    """Facts of the TLS connection a request came over."""

    version: str  # "TLSv1.3"
    sni: str  # lower-case, "" when the client sent none
    certificate: ClientCertificate | None = None


class Peer(Struct, frozen=True, gc=False):
    """The other end of a connection."""

    ip: str
    port: int
    tls: TlsFacts


class Evidence(Struct, frozen=True, gc=False):
    """What the caller offers as proof of who it is; nothing here is believed yet."""

    handle: str | None = None  # hex SHA-256 of our session cookie's value
    certificate: ClientCertificate | None = None


class Context(Struct, frozen=True, gc=False):
    """Circumstances of one request, as policies see them under `context`."""

    request_id: str  # 32 hex digits; also the decision's id
    ip: str
    host: str  # lower-case, without port
    path: str  # as received, without query; raw and normalised are known to agree
    protocol: Protocol = "http"


class AccessRequest(Struct, frozen=True, gc=False):
    """May `subject` do `action` to `resource` in this `context`? (The PARC of Cedar.)"""

    subject: Evidence
    resource: Resource
    action: str  # Cedar action id: the HTTP method, "GET"
    context: Context
