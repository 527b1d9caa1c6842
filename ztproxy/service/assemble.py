"""From settings to everything a worker serves requests with: the one list of its parts.

Called by `service.serving`, at start and for each reload, then beside the assembly in force. What a worker
learns while it runs is in `Lasting` and outlives any assembly; everything that follows from the configuration
is made here, anew and as a whole. Starts nothing.
"""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ztproxy.administrator.access import Access
from ztproxy.administrator.audit import Audit
from ztproxy.administrator.freshness import Rule
from ztproxy.administrator.paths import Paths
from ztproxy.administrator.rechecked import Freshness
from ztproxy.config.settings import Settings
from ztproxy.crypto.ids import RequestIds
from ztproxy.gateway.crowd import Crowd
from ztproxy.gateway.limits import Limits
from ztproxy.gateway.quotas import Mint, Quotas, Table, local
from ztproxy.gateway.shared_rates import SharedRates
from ztproxy.gateway.world import World
from ztproxy.model import connector, node
from ztproxy.model.quota import Quota
from ztproxy.model.resource import TlsFiles
from ztproxy.net.certificates import Bundle, read_bundle
from ztproxy.net.clock import Clock, entropy
from ztproxy.net.descriptors import descriptors
from ztproxy.net.dial import Dialler
from ztproxy.net.outbox import Outbox
from ztproxy.net.sources import Bounds, Sources
from ztproxy.net.tls import KeyPair, ServerContexts, client_contexts, dns_names, modes_of
from ztproxy.net.wheel import Wheel
from ztproxy.policy.engine import PolicySet
from ztproxy.policy.routes import RouteTable
from ztproxy.service.identities import LinkedIdentities
from ztproxy.service.link import Link
from ztproxy.service.rechecking import LinkedRechecks
from ztproxy.service.state import StateDirectory
from ztproxy.telemetry.metrics import Counters
from ztproxy.trust.gather import Gatherer
from ztproxy.trust.memory import Memory
from ztproxy.upstream.carriers import Carriers
from ztproxy.upstream.spread import Group
from ztproxy.upstream.upstreams import Upstreams


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """What a worker keeps as long as it lives: facts, evidence, live paths, counts and time."""

    state: StateDirectory
    clock: Clock
    wheel: Wheel
    counters: Counters
    memory: Memory
    link: Link
    audit: Audit
    paths: Paths
    groups: dict[str, Group]  # what was learned of the targets of routes
    tables: dict[Quota, Table]  # what was used of quotas
    rates: SharedRates
    sources: Sources
    crowd: Crowd
    carriers: Carriers
    outbox: Outbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """What one configuration comes to."""

    settings: Settings
    door: Access
    identities: LinkedIdentities
    world: World
    contexts: ServerContexts
    authorities: str  # PEM: whom we believe when another node says that it is one
    upstreams: Upstreams

    def start(self, lasting: Lasting) -> None:
        """Begin what runs beside requests; from now on this is what decides and what is learned from."""
        lasting.groups.clear()
        lasting.groups.update(self.upstreams.groups)
        lasting.tables.clear()
        lasting.tables.update(self.world.quotas.tables)
        lasting.sources.bind(bounds_of(self.settings), lasting.clock.monotonic())
        lasting.crowd.limits = self.world.limits
        lasting.carriers.node = self.settings.node_name
        lasting.paths.door = self.door
        self.upstreams.start()

    def retire(self) -> None:
        """Let go of what is idle; what is in use finishes."""
        self.upstreams.close()


class Contexts(NamedTuple):
    """Everything that is read from keys and certificates."""

    server: ServerContexts
    upstream: Mapping[TlsFiles, ssl.SSLContext]
    authorities: str  # PEM: whom we believe when another node says that it is one


def contexts_of(settings: Settings, state: StateDirectory) -> Contexts:
    """Read keys and certificates: takes a moment. Raises OSError, ValueError."""
    routes = settings.routes()
    with settings.files.laid_out() as at:
        server = ServerContexts(_key_pairs(settings, at), modes_of(routes), _bundles(settings, state, at))
        upstreams = client_contexts((one for route in routes for one in route.upstreams), at)
        return Contexts(server, upstreams, _authorities(settings, at))


def assemble(
    settings: Settings,
    policies: PolicySet,
    contexts: Contexts,
    lasting: Lasting,
    before: Assembly | None = None,
) -> Assembly:
    """Build it all, from what can be kept of the one `before`. Waits for nothing."""
    routes = settings.routes()
    table = RouteTable(routes, next(route for route in routes if route.portal))
    identities = _identities(settings, lasting, before)
    door = _door(settings, policies, lasting, identities, table)
    upstreams = Upstreams(
        Dialler(contexts.upstream, lasting.carriers),
        wheel=lasting.wheel,
        outbox=lasting.outbox,
        routes=routes,
        known=lasting.groups,
        retries=lasting.counters.retries,
    )
    world = World(
        door=door,
        paths=lasting.paths,
        ledger=lasting.audit,
        routes=table,
        quotas=Quotas(routes, lasting.tables, _buckets(settings, lasting)),
        upstreams=upstreams,
        counters=lasting.counters,
        clock=lasting.clock,
        wheel=lasting.wheel,
        outbox=lasting.outbox,
        crowd=lasting.crowd,
        carriers=lasting.carriers,
        limits=_limits(settings),
        ids=RequestIds(entropy),
    )
    return Assembly(
        settings=settings,
        door=door,
        identities=identities,
        world=world,
        contexts=contexts.server,
        authorities=contexts.authorities,
        upstreams=upstreams,
    )


def _identities(settings: Settings, lasting: Lasting, before: Assembly | None) -> LinkedIdentities:
    origins = {route.name: settings.external(route.host) for route in settings.routes()}
    return LinkedIdentities(lasting.link, origins, before.identities if before is not None else None)


def _door(
    settings: Settings,
    policies: PolicySet,
    lasting: Lasting,
    identities: LinkedIdentities,
    routes: RouteTable,
) -> Access:
    memory, link = lasting.memory, lasting.link
    return Access(
        policies=policies,
        gatherer=Gatherer(
            memory,
            groups=settings.workload_groups(),
            feed_limit=settings.policy.feed_limit,
            sources=settings.sources(),
            connectors=settings.connectors.host if settings.connectors is not None else None,
        ),
        recorder=lasting.audit,
        identities=identities,
        sync=link.sync,
        touched=link.touched,
        clock=lasting.clock,
        routes=routes,
        freshness=Freshness(
            LinkedRechecks(link, lasting.clock.now),
            _rule(settings),
        ),
    )


def _buckets(settings: Settings, lasting: Lasting) -> Mint:
    """A single worker of a single node shares with nobody. Neither changes without a restart."""
    workers = lasting.carriers.workers  # that run, whatever the configuration says
    if workers == 1 and settings.store.redis is None:
        return local
    lasting.rates.workers = workers
    return lasting.rates.bucket


def _rule(settings: Settings) -> Rule:
    sessions = settings.sessions
    return Rule(sessions.recheck or 0, sessions.recheck_grace, sessions.changed_grace)


def _limits(settings: Settings) -> Limits:
    limits = settings.limits
    return Limits(
        head=limits.head,
        head_timeout=limits.head_timeout / 1000,
        keepalive_timeout=limits.keepalive_timeout / 1000,
        connection_age=limits.connection_age / 1000,
        body_min_rate=limits.body_min_rate,
        body_grace=limits.body_grace / 1000,
        buffers=limits.buffers,
    )


def bounds_of(settings: Settings) -> Bounds:
    """Return what holds before TLS. Some descriptors stay free for the upstreams of those who are let in."""
    limits = settings.limits
    return Bounds(
        connections=min(limits.connections, max(descriptors() * 3 // 4, 1)),
        connections_per_source=limits.connections_per_source,
        handshakes=limits.handshakes,
        handshakes_per_source=limits.handshakes_per_source,
        handshaking=limits.handshaking,
        handshaking_per_source=limits.handshaking_per_source,
        requests_per_source=limits.requests_per_source,
    )


def _key_pairs(settings: Settings, at: Callable[[Path], Path]) -> list[KeyPair]:
    pairs = []
    for certificate in settings.tls.certificates:
        assert certificate.key.path is not None  # the configuration allows file: only
        pairs.append(KeyPair(certificate=at(certificate.cert), key=at(certificate.key.path)))
    return pairs


def _bundles(settings: Settings, state: StateDirectory, at: Callable[[Path], Path]) -> list[Bundle]:
    """The configured bundles and the built-in ones of devices, connectors and nodes."""
    domain = settings.trust_domain
    own = [read_bundle("devices", "device", state.ca / "devices.pem", domain)]
    if settings.connectors is not None:
        own.append(read_bundle(connector.BUNDLE, "connector", state.ca / "connectors.pem", domain))
        own.append(read_bundle(node.BUNDLE, "node", state.ca / "nodes.pem", domain))
    configured = [
        read_bundle(bundle.name, bundle.kind, at(bundle.ca), bundle.trust_domain or "")
        for bundle in settings.client_certificates
    ]
    return [*own, *configured]


def _authorities(settings: Settings, at: Callable[[Path], Path]) -> str:
    """Return what we show ourselves where nodes borrow, and whom the configuration names for it."""
    if settings.connectors is None:
        return ""
    host = settings.connectors.host
    names = {host, f"*.{host.partition('.')[2]}"}
    files = [
        pair.certificate
        for pair in _key_pairs(settings, at)
        if names.intersection(dns_names(pair.certificate))
    ]
    if settings.connectors.ca is not None:
        files.append(at(settings.connectors.ca))
    return "".join(map(_certificates, files))


def _certificates(file: Path) -> str:
    """Return the certificates of a PEM file and nothing that may lie beside them."""
    found = x509.load_pem_x509_certificates(file.read_bytes())
    return "".join(one.public_bytes(Encoding.PEM).decode("ascii") for one in found)
