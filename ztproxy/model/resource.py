"""What routes lead to: upstreams, and how one of several is chosen. Built by `config`, read by everyone."""

from typing import Literal

from msgspec import Struct

#: What a TLS context for upstreams is made of: PEM files of authorities, of a certificate, of its key.
TlsFiles = tuple[str | None, str | None, str | None]


class Upstream(Struct, frozen=True, gc=False, cache_hash=True):
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
    certificate: str | None = None  # TLS: PEM file of the certificate we show, leaf first
    key: str | None = None  # TLS: PEM file of its private key
    connector: str = ""  # name of the connectors that reach it, as they see it; "" = we do ourselves

    @property
    def tls_files(self) -> TlsFiles:
        """The files its TLS context is made of."""
        return self.ca, self.certificate, self.key

    @property
    def url(self) -> str:
        """The address as configurations write it."""
        if self.scheme == "unix":
            return f"unix:{self.host}"
        return f"{self.scheme}://{self.authority}"

    @property
    def place(self) -> str:
        """The address as records and metrics write it: the same one means another application elsewhere."""
        return f"{self.url} through {self.connector}" if self.connector else self.url

    @property
    def authority(self) -> str:
        """Host and port as URLs write them; "" for a unix socket."""
        if self.scheme == "unix":
            return ""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Target(Struct, frozen=True, gc=False):
    """One of several upstreams of a route."""

    upstream: Upstream
    weight: int = 1  # its share of the requests, against the weights of the others


class Ejection(Struct, frozen=True, gc=False):
    """When a target that fails requests is left out, and for how long."""

    failures: int = 5  # in a row
    least: float = 30.0  # seconds; twice as long each time it happens again, ...
    longest: float = 300.0  # ... up to this
    share: int = 50  # per cent of the targets that may be left out at once
    statuses: frozenset[int] = frozenset()  # answers that count as failures: some of 502, 503, 504


class HealthCheck(Struct, frozen=True, gc=False):
    """A question that each worker asks every target now and then, whether or not there are requests."""

    path: str
    host: str  # Host it asks for
    interval: float = 10.0  # seconds between questions
    patience: float = 2.0  # seconds for connection and answer together
    healthy_after: int = 2  # good answers in a row
    unhealthy_after: int = 3  # bad ones, or none, in a row
    statuses: frozenset[int] = frozenset({200, 204})  # good answers


class Targets(Struct, frozen=True, gc=False):
    """All upstreams of a route, and how one is chosen. Kept per worker in `upstream.balance`."""

    all: tuple[Target, ...]
    ejection: Ejection = Ejection()
    health: HealthCheck | None = None
