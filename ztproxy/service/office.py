"""What the control process serves by one configuration: the portal, the administrator's API, assertions.

Made by `service.control` at start and for every reload, then beside the one in force. The tables of people
and devices are in the store and outlive it; nothing here is kept in memory that a caller would miss.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from socket import socket
from typing import Final

from aiohttp import web

from ztproxy.administrator.acquaintance import Acquaintance
from ztproxy.administrator.apps import Apps
from ztproxy.administrator.audit import Audit
from ztproxy.administrator.connectors import Connectors
from ztproxy.administrator.devices import Devices
from ztproxy.administrator.issue import CONNECTORS, DEVICES, Assertions, load_authority
from ztproxy.administrator.locks import Locks
from ztproxy.administrator.rechecks import Rechecks
from ztproxy.administrator.returns import ProviderSources, Returns
from ztproxy.administrator.sessions import Limits, Sessions
from ztproxy.administrator.standing import Standings
from ztproxy.administrator.vault import Vault
from ztproxy.api import admin
from ztproxy.api import connectors as connectors_api
from ztproxy.api import devices as devices_api
from ztproxy.api import keys as keys_api
from ztproxy.api import locks as locks_api
from ztproxy.api import node as node_api
from ztproxy.config.settings import Settings
from ztproxy.model.connector import BUNDLE
from ztproxy.net.clock import Clock, entropy
from ztproxy.net.tls import client_context
from ztproxy.policy.engine import PolicySet
from ztproxy.portal import app as portal
from ztproxy.portal.site import Site
from ztproxy.service import signals
from ztproxy.service.certifying import Certifier, certifier
from ztproxy.service.loads import Loads
from ztproxy.service.state import StateDirectory
from ztproxy.service.telling import Telling
from ztproxy.service.vouching import Voucher
from ztproxy.store.interface import Store
from ztproxy.telemetry.metrics import Counters
from ztproxy.telemetry.snapshot import Snapshot
from ztproxy.trust.identity.fetch import http_session
from ztproxy.trust.identity.oidc import OpenIdClient

#: How much longer than sessions live the end of sessions is kept (ms): until it is marked in all of them.
KEPT_LONGER: Final = 90 * 24 * 3600 * 1000
_DAY: Final = 24 * 3600 * 1000  # ms
FINISH: Final = 10.0  # seconds for requests under way when an office closes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What an office stands on, and what outlives it."""

    state: StateDirectory
    clock: Clock
    audit: Audit
    records: Store
    assertions: Assertions
    node: node_api.Node
    counters: Counters
    snapshots: Callable[[], Sequence[Snapshot]]  # what workers count
    loads: Loads


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """What one configuration comes to."""

    settings: Settings
    policies: PolicySet
    sessions: Sessions
    voucher: Voucher
    rechecks: Rechecks
    certifier: Certifier
    open: Callable[[socket, socket], Awaitable[None]]  # accept on the sockets of portal and administrator
    close: Callable[[], Awaitable[None]]  # accept no more, finish what is under way


async def furnish(settings: Settings, policies: PolicySet, ground: Ground) -> Office:
    """Build an office. It serves nobody before it is opened. Raises OSError, KeyFileError."""
    stack = AsyncExitStack()
    try:
        return await _furnish(settings, policies, ground, stack)
    except BaseException:
        await stack.aclose()
        raise


async def _furnish(settings: Settings, policies: PolicySet, ground: Ground, stack: AsyncExitStack) -> Office:
    clock, records, audit = ground.clock, ground.records, ground.audit
    clients = await _providers(settings, clock, stack)  # left last: requests under way may still need them
    returns = Returns(clients)
    stack.push_async_callback(returns.close)
    vault = Vault(records, returns.give_back)
    sessions = Sessions(records, clock, entropy, audit.session, _limits(settings), vault)
    heard, counted = ProviderSources(records, clock).heard, ground.counters.rechecked
    rechecks = Rechecks(sessions, vault, clients, clock, entropy, heard=heard, counted=counted)
    stack.push_async_callback(rechecks.close)
    devices = _devices(settings, ground)
    connectors, place = _connectors(settings, ground), _dialled(settings)
    locks, standings = _locks_and_standings(settings, ground)
    parts = signals.Parts(
        records=records,
        clock=clock,
        audit=audit,
        counters=ground.counters,
        sessions=sessions,
        devices=devices,
        locks=locks,
        standings=standings,
        clients=clients,
    )
    told = await signals.make(settings, parts, stack)
    telling = Telling(settings, ground.records, clock, ground.state)
    programs = [*told.routes(), *telling.routes(), *connectors_api.routes(connectors, place, clock)]
    people = await _runner(_portal(settings, policies, parts, ground, programs), stack)
    named = [one.connector for route in settings.routes() for one in route.upstreams if one.connector]
    more = [
        *node_api.routes(ground.node),
        *_locks_of(settings, ground, sessions, devices, locks, standings),
        *connectors_api.admin_routes(connectors, place, named, ground.loads.all),
    ]
    administrator = await _runner(admin.make(sessions, devices, more), stack)

    async def serve(portal_socket: socket, admin_socket: socket) -> None:
        await web.SockSite(people, portal_socket.dup()).start()
        await web.SockSite(administrator, admin_socket.dup()).start()
        await told.start()
        await telling.start()

    async def close() -> None:
        async with stack:  # whatever fails before: nobody is to be answered by what is not in force any more
            try:
                await told.stop()
            finally:
                await telling.stop()

    return Office(
        settings=settings,
        policies=policies,
        sessions=sessions,
        rechecks=rechecks,
        certifier=certifier(settings, ground.state, clock),
        voucher=Voucher(ground.assertions, sessions, issuer=settings.portal_origin, now=clock.now),
        open=serve,
        close=close,
    )


def _limits(settings: Settings) -> Limits:
    said = settings.sessions
    return Limits(idle=said.idle, absolute=said.absolute, risk=said.risk_kept)


def _devices(settings: Settings, ground: Ground) -> Devices:
    records, clock = ground.records, ground.clock
    authority = load_authority(
        ground.state.root,
        DEVICES,
        trust_domain=settings.trust_domain,
        lifetime=settings.devices.certificate_lifetime,
        clock=clock,
        entropy=entropy,
    )
    return Devices(records, clock, entropy, authority, ground.audit.session, origin=settings.portal_origin)


def _connectors(settings: Settings, ground: Ground) -> Connectors:
    """Their authority is there before anybody configures connectors: workers read it when they begin to."""
    records, clock, wanted = ground.records, ground.clock, settings.connectors
    authority = load_authority(
        ground.state.root,
        CONNECTORS,
        trust_domain=settings.trust_domain,
        lifetime=_DAY if wanted is None else wanted.certificate_lifetime,
        clock=clock,
        entropy=entropy,
    )
    return Connectors(records, clock, entropy, authority, ground.audit.session, origin=settings.portal_origin)


def _dialled(settings: Settings) -> connectors_api.Place | None:
    wanted = settings.connectors
    if wanted is None:
        return None
    return connectors_api.Place(wanted.host, wanted.proxies or (f"{wanted.host}:{settings.public_port}",))


def _portal(
    settings: Settings,
    policies: PolicySet,
    parts: signals.Parts,
    ground: Ground,
    routes: Sequence[web.RouteDef],
) -> web.Application:
    records, clock, devices = ground.records, ground.clock, parts.devices
    return portal.make(
        site=_site(settings),
        sessions=parts.sessions,
        clients=parts.clients,
        devices=devices,
        apps=Apps(lambda: policies, settings.routes(), records, clock),
        records=records,
        clock=clock,
        entropy=entropy,
        routes=[*devices_api.routes(devices, clock), *keys_api.routes(ground.assertions), *routes],
    )


def _locks_and_standings(settings: Settings, ground: Ground) -> tuple[Locks, Standings]:
    records, clock, witness = ground.records, ground.clock, ground.audit.standing
    locks = Locks(records, clock, entropy, witness, [route.name for route in settings.routes()])
    keep = settings.sessions.absolute + KEPT_LONGER
    return locks, Standings(records, clock, witness, keep, settings.sessions.risk_kept)


def _locks_of(
    settings: Settings,
    ground: Ground,
    sessions: Sessions,
    devices: Devices,
    locks: Locks,
    standings: Standings,
) -> list[web.RouteDef]:
    issuers = [provider.name for provider in settings.providers()]
    issuers += ["devices", BUNDLE, *(bundle.name for bundle in settings.client_certificates)]
    known = Acquaintance(sessions, devices, issuers).known
    return locks_api.routes(locks, standings, known, ground.clock.now)


def _site(settings: Settings) -> Site:
    return Site(
        host=settings.portal.host,
        port=settings.public_port,
        title=settings.portal.title,
        hosts=settings.hosts(),
        agent_ports=settings.devices.agent_ports,
        posture_max_age=settings.devices.posture_max_age,
    )


async def _providers(settings: Settings, clock: Clock, stack: AsyncExitStack) -> dict[str, OpenIdClient]:
    clients: dict[str, OpenIdClient] = {}
    with settings.files.laid_out() as at:
        for provider in settings.providers():
            tls = client_context(str(at(provider.ca))) if provider.ca else True
            http = await stack.enter_async_context(http_session(tls))
            clients[provider.name] = OpenIdClient(provider, http, clock)
    return clients


async def _runner(application: web.Application, stack: AsyncExitStack) -> web.AppRunner:
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=FINISH)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return runner
