"""One entry of the routing table. Built by `config`, read by everyone; a request reads it a dozen times."""

from typing import ClassVar, Final, Literal, final

from ztproxy.model.changes import Changes
from ztproxy.model.frozen import Frozen
from ztproxy.model.native import mypyc_attr
from ztproxy.model.quota import Quota
from ztproxy.model.resource import Targets, Upstream

ClientCertificateMode = Literal["off", "optional", "required"]

_WEBSOCKET: Final = frozenset({"websocket"})


@final
@mypyc_attr(acyclic=True)
class Route(Frozen):
    """What a host and the beginning of a path lead to: the resource `Route::"name"` of policies."""

    __slots__ = (
        "app", "carries", "changes", "client_certificate", "connect_timeout", "description", "host",
        "host_header", "idle_timeout", "labels", "max_body", "name", "origins", "portal", "prefix", "quotas",
        "response_timeout", "retries", "targets", "title", "upgrades", "upstream",
    )  # fmt: skip

    FIELDS: ClassVar[tuple[str, ...]] = (
        "name", "app", "host", "prefix", "upstream", "title", "description", "labels",
        "client_certificate", "upgrades", "connect_timeout", "response_timeout", "idle_timeout",
        "max_body", "portal", "carries", "changes", "targets", "retries", "quotas", "origins",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        app: str,
        host: str,
        prefix: str,
        upstream: Upstream,
        title: str = "",
        description: str = "",
        labels: frozenset[str] = frozenset(),
        client_certificate: ClientCertificateMode = "optional",
        upgrades: frozenset[str] = _WEBSOCKET,
        connect_timeout: float = 5.0,
        response_timeout: float = 60.0,
        idle_timeout: float = 300.0,
        max_body: int = 1 << 30,
        portal: bool = False,
        carries: bool = False,
        changes: Changes | None = None,
        targets: Targets | None = None,
        retries: int = 1,
        quotas: tuple[Quota, ...] = (),
        origins: frozenset[str] = frozenset(),
    ) -> None:
        self.name: Final = name
        self.app: Final = app  # parent entity App::"app"; defaults to the name
        self.host: Final = host  # lower-case host this route answers on, without port
        self.prefix: Final = prefix  # path prefix, "/" or "/x/" (matches whole segments)
        self.upstream: Final = upstream  # the only one, or the first of `targets`
        self.host_header: Final = (
            None if upstream.host_header is None else upstream.host_header.encode("ascii")
        )
        self.title: Final = title  # shown to people
        self.description: Final = description
        self.labels: Final = labels
        self.client_certificate: Final = client_certificate
        self.upgrades: Final = upgrades  # protocols, in lower case
        self.connect_timeout: Final = (
            connect_timeout  # seconds until a connection to the upstream stands, TLS included
        )
        self.response_timeout: Final = response_timeout  # seconds until the upstream's response head
        self.idle_timeout: Final = idle_timeout  # seconds without a byte in either direction of a stream
        self.max_body: Final = max_body  # bytes of request body
        self.portal: Final = portal  # ours: the portal and its endpoints under /.ztproxy/
        self.carries: Final = carries  # ours: where connectors dial in to carry
        self.changes: Final = changes  # of messages, when there are any
        self.targets: Final = targets  # when there is something to choose or to watch
        self.retries: Final = (
            retries  # how often what was not answered at all is sent again, if that does no harm
        )
        self.quotas: Final = quotas
        self.origins: Final = origins  # exact origins allowed to open WebSockets ("https://host[:port]")

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        """Everywhere its requests may go."""
        if self.targets is None:
            return (self.upstream,)
        return tuple([one.upstream for one in self.targets.all])
