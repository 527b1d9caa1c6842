"""What can be reached: routes and the upstreams behind them. Built by `config`, read by everyone."""

from typing import Literal

from msgspec import Struct

ClientCertificateMode = Literal["off", "optional", "required"]


class Upstream(Struct, frozen=True, gc=False):
    """Where a route's requests go: one origin over http, https or a unix socket.

    Connections are pooled by this value as a whole, so two routes share a connection only when
    address *and* TLS identity agree.
    """

    scheme: Literal["http", "https", "unix"]
    host: str  # host name or address; for unix: the socket's absolute path
    port: int  # 0 for unix
    server_name: str | None = None  # TLS: name verified in the upstream's certificate (default: host)
    ca: str | None = None  # TLS: PEM file trusted for this upstream (default: the system's)
    host_header: str | None = None  # Host sent upstream (default: the one the client asked for)


class Route(Struct, frozen=True, gc=False):
    """One entry of the routing table, and the resource `Route::"name"` of policies."""

    name: str
    app: str  # parent entity App::"app"; defaults to the name
    host: str  # lower-case host this route answers on, without port
    prefix: str  # path prefix, "/" or "/x/" (matches whole segments)
    upstream: Upstream
    title: str = ""  # shown to people
    description: str = ""
    labels: frozenset[str] = frozenset()
    client_certificate: ClientCertificateMode = "optional"
    websocket: bool = True
    response_timeout: float = 60.0  # seconds until the upstream's response head
    idle_timeout: float = 300.0  # seconds without a byte in either direction of a stream
    max_body: int = 1 << 30  # bytes of request body
    portal: bool = False  # ours: the portal and its endpoints under /.ztproxy/
    origins: frozenset[str] = frozenset()  # exact origins allowed to open WebSockets ("https://host[:port]")


class Resource(Struct, frozen=True, gc=False):
    """A resource as policies name it. `route` is None only for an unknown host or path."""

    type: str  # Cedar entity type: "Route"
    id: str
    route: Route | None = None


#: What an unknown host or path resolves to: refused exactly like a forbidden one.
NOWHERE = Resource(type="Route", id="")
