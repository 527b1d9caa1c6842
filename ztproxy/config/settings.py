"""The configuration file as one frozen value.

Made by `config.load` only, read by `service` and `cli`. It answers in values of the model (`routes()`,
`portal_routes()`, `external()`), so that nobody else reads the file's own shapes twice. All durations are
milliseconds, all sizes are bytes, all paths are absolute.
"""

import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field, PrivateAttr

from ztproxy.administrator.signals.streams import Told
from ztproxy.config import translate
from ztproxy.config.connector_sections import Connectors
from ztproxy.config.files import Files
from ztproxy.config.section import Section
from ztproxy.config.sections import (
    ClientCertificates,
    Devices,
    Identity,
    Limits,
    Log,
    Policy,
    Port,
    Portal,
    Route,
    Sessions,
    Telemetry,
    Tls,
    Workload,
)
from ztproxy.config.signal_sections import Signals
from ztproxy.config.store_sections import Store
from ztproxy.config.values import DrainTime, FilePath, Listen, TrustDomain
from ztproxy.model import route
from ztproxy.model.node import name_of
from ztproxy.trust.identity.provider import Provider
from ztproxy.trust.signals.transmitter import Transmitter

#: Routes of one file: bounded by the size of the file, too.
MAX_ROUTES: Final = 10_000


class Settings(Section):
    """Configuration of ztproxy."""

    model_config = ConfigDict(title="ztproxy configuration")

    listen: Listen
    """Address of the data plane (TLS)."""
    workers: int = Field(default=2, ge=1, le=256)
    """Worker processes."""
    trust_domain: TrustDomain
    """SPIFFE trust domain of the built-in authorities for devices and connectors."""
    reload: Literal["signal", "watch"] = "signal"
    """When changed files are taken up: `signal` on SIGHUP or `ztproxy reload`; `watch` by itself, too, soon
    after this file or one that it names has changed: policies, certificates, keys, secrets."""
    drain: DrainTime = 30_000
    """Time that exchanges and WebSockets under way get to end when a node stops or is upgraded."""
    state_dir: FilePath = Field(default=Path("/var/lib/ztproxy"), alias="state")
    """Directory of everything that is kept: database, keys, recordings, sockets. Private to ztproxy."""
    store: Store = Store()
    """Where sessions, devices and locks are kept."""
    tls: Tls
    """Server certificates."""
    portal: Portal
    """The portal."""
    external_port: Port | None = None
    """Port that people see in addresses, when something in front maps it; default: the port of `listen`."""
    telemetry: Telemetry = Telemetry()
    """Metrics and health."""
    log: Log = Log()
    """The log."""
    identity: Identity = Identity()
    """Identity providers."""
    client_certificates: tuple[ClientCertificates, ...] = ()
    """Trust bundles for client certificates."""
    workloads: tuple[Workload, ...] = ()
    """Groups of workloads."""
    sessions: Sessions = Sessions()
    """Limits of sessions."""
    devices: Devices = Devices()
    """Devices and their agent."""
    connectors: Connectors | None = None
    """Connectors."""
    signals: Signals = Signals()
    """Shared signals."""
    policy: Policy = Policy()
    """Policies."""
    limits: Limits = Limits()
    """Bounds."""
    route_settings: tuple[Route, ...] = Field(default=(), alias="routes", max_length=MAX_ROUTES)
    """Applications."""

    _file: Path = PrivateAttr(default=Path("ztproxy.yaml"))
    _files: Files = PrivateAttr(default_factory=Files)

    def model_post_init(self, context: Any, /) -> None:
        """Remember the file the settings came from, and what was read for them."""
        if context is not None:
            self._file = Path(context["file"])
            self._files = context["files"]

    @property
    def file(self) -> Path:
        """The file these settings came from."""
        return self._file

    @property
    def files(self) -> Files:
        """Every file these settings are made of, as it was read."""
        return self._files

    @property
    def public_port(self) -> int:
        """The port that people see."""
        return self.external_port or self.listen.port

    @property
    def portal_origin(self) -> str:
        """The portal's origin, "https://portal.example:8443"."""
        return self.external(self.portal.host)

    @property
    def node_address(self) -> str:
        """HOST:PORT at which other nodes reach this one; "" where there are none that could want to."""
        if self.connectors is None or self.store.redis is None:
            return ""
        if self.connectors.node is not None:
            return self.connectors.node
        host = socket.gethostname() if ip_address(self.listen.host).is_unspecified else self.listen.host
        return f"[{host}]:{self.listen.port}" if ":" in host else f"{host}:{self.listen.port}"

    @property
    def node_name(self) -> str:
        """What this node is called."""
        return name_of(self.node_address) if self.node_address else "node"

    def external(self, host: str) -> str:
        """Return the origin of one of our hosts as people see it."""
        return translate.origin(host, self.public_port)

    def routes(self) -> tuple[route.Route, ...]:
        """Return every route in the order of the file, then the built-in ones."""
        built_in = (*translate.portal_routes(self), *translate.connector_routes(self))
        return (*translate.routes(self), *built_in)

    def providers(self) -> tuple[Provider, ...]:
        """Return our registrations at identity providers; they hold the client secrets."""
        return translate.providers(self)

    def transmitters(self) -> tuple[Transmitter, ...]:
        """Return who tells us; they hold secrets."""
        return translate.transmitters(self)

    def told(self) -> tuple[Told, ...]:
        """Return whom we tell; they hold secrets."""
        return translate.told(self)

    def sources(self) -> tuple[str, ...]:
        """Return the names of the sources of facts that policies may ask the age of."""
        providers = {provider.name for provider in self.identity.providers}
        return tuple(sorted(providers.union(one.name for one in self.transmitters())))

    def hosts(self) -> frozenset[str]:
        """Return every host on which callers are answered; connectors have one of their own."""
        return frozenset({self.portal.host, *(route.from_.host for route in self.route_settings)})

    def known_groups(self) -> frozenset[str] | None:
        """Return the groups that exist, None when the file does not say."""
        if self.identity.groups is None:
            return None
        return frozenset(self.identity.groups).union(*self.workload_groups().values())

    def workload_groups(self) -> dict[str, tuple[str, ...]]:
        """Return the groups of workloads by their id."""
        return {workload.id: workload.groups for workload in self.workloads}
