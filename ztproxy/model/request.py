"""A request for access, in the one shape that every protocol reduces to.

`gateway.facts` builds these; `administrator.access.authorize` answers them.
All times are wall clock milliseconds since the epoch unless a name says otherwise.
"""

from typing import ClassVar, Final, final

from ztproxy.model.certificate import ClientCertificate
from ztproxy.model.frozen import Frozen
from ztproxy.model.native import mypyc_attr
from ztproxy.model.route import Route

__all__ = [
    "NOWHERE", "AccessRequest", "ClientCertificate", "Context", "Evidence", "Peer", "Protocol", "Resource",
    "TlsFacts",
]  # fmt: skip

#: "http", or the protocol a request upgrades its connection to, in lower case: "websocket", "tcp"
Protocol = str


@final
@mypyc_attr(acyclic=True)
class TlsFacts(Frozen):
    """Facts of the TLS connection a request came over."""

    __slots__ = ("certificate", "sni", "version")

    FIELDS: ClassVar[tuple[str, ...]] = ("version", "sni", "certificate")

    def __init__(self, version: str, sni: str, certificate: ClientCertificate | None = None) -> None:
        self.version: Final = version  # "TLSv1.3"
        self.sni: Final = sni  # lower-case, "" when the client sent none
        self.certificate: Final = certificate


@final
@mypyc_attr(acyclic=True)
class Peer(Frozen):
    """The other end of a connection."""

    __slots__ = ("ip", "port", "tls")

    FIELDS: ClassVar[tuple[str, ...]] = ("ip", "port", "tls")

    def __init__(self, ip: str, port: int, tls: TlsFacts) -> None:
        self.ip: Final = ip
        self.port: Final = port
        self.tls: Final = tls


@final
@mypyc_attr(acyclic=True)
class Evidence(Frozen):
    """What the caller offers as proof of who it is; nothing here is believed yet."""

    __slots__ = ("certificate", "handle")

    FIELDS: ClassVar[tuple[str, ...]] = ("handle", "certificate")

    def __init__(self, handle: str | None = None, certificate: ClientCertificate | None = None) -> None:
        self.handle: Final = handle  # hex SHA-256 of our session cookie's value
        self.certificate: Final = certificate


@final
@mypyc_attr(acyclic=True)
class Resource(Frozen):
    """A resource as policies name it. `route` is None only for an unknown host or path."""

    __slots__ = ("id", "route", "type")

    FIELDS: ClassVar[tuple[str, ...]] = ("type", "id", "route")

    def __init__(self, type: str, id: str, route: Route | None = None) -> None:
        self.type: Final = type  # Cedar entity type: "Route"
        self.id: Final = id
        self.route: Final = route


#: What an unknown host or path resolves to: refused exactly like a forbidden one.
NOWHERE: Final = Resource(type="Route", id="")


@final
@mypyc_attr(acyclic=True)
class Context(Frozen):
    """Circumstances of one request, as policies see them under `context`."""

    __slots__ = ("host", "ip", "path", "protocol", "request_id")

    FIELDS: ClassVar[tuple[str, ...]] = ("request_id", "ip", "host", "path", "protocol")

    def __init__(self, request_id: str, ip: str, host: str, path: str, protocol: Protocol = "http") -> None:
        self.request_id: Final = request_id  # 32 hex digits; also the decision's id
        self.ip: Final = ip
        self.host: Final = host  # lower-case, without port
        self.path: Final = path  # as received, without query; raw and normalised are known to agree
        self.protocol: Final = protocol


@final
@mypyc_attr(acyclic=True)
class AccessRequest(Frozen):
    """May `subject` do `action` to `resource` in this `context`? (The PARC of Cedar.)"""

    __slots__ = ("action", "context", "resource", "subject")

    FIELDS: ClassVar[tuple[str, ...]] = ("subject", "resource", "action", "context")

    def __init__(self, subject: Evidence, resource: Resource, action: str, context: Context) -> None:
        self.subject: Final = subject
        self.resource: Final = resource
        self.action: Final = action  # Cedar action id: the HTTP method, "GET"
        self.context: Final = context
