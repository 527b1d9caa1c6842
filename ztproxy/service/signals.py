"""Signals, put together for one configuration: who tells us, what is done about it, and what keeps streams
alive.

Called by `service.office`. Background work begins when the office opens and ends before it closes.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from ztproxy.administrator.audit import Audit
from ztproxy.administrator.devices import Devices
from ztproxy.administrator.locks import Locks
from ztproxy.administrator.sessions import Sessions
from ztproxy.administrator.signals.intake import Intake, Tools
from ztproxy.administrator.signals.keeper import Keeper
from ztproxy.administrator.signals.lease import RENEW, Lease
from ztproxy.administrator.signals.logouts import Logouts
from ztproxy.administrator.signals.places import Places
from ztproxy.administrator.signals.receiver import Receiver
from ztproxy.administrator.signals.sources import Sources
from ztproxy.administrator.standing import Standings
from ztproxy.administrator.whose import Whose
from ztproxy.api import logout as logout_api
from ztproxy.api import signals as signals_api
from ztproxy.config.settings import Settings
from ztproxy.net.clock import Clock, entropy
from ztproxy.net.tls import client_context
from ztproxy.service.repeat import Repeat
from ztproxy.store.interface import Records
from ztproxy.telemetry.metrics import Counters
from ztproxy.trust.identity.fetch import http_session
from ztproxy.trust.identity.oidc import OpenIdClient
from ztproxy.trust.signals.remote import Remote
from ztproxy.trust.signals.transmitter import Transmitter

LOOK: Final = 5.0  # seconds between looks at how fresh sources are, for metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What signals are connected to."""

    records: Records
    clock: Clock
    audit: Audit
    counters: Counters
    sessions: Sessions
    devices: Devices
    locks: Locks
    standings: Standings
    clients: Mapping[str, OpenIdClient]


class Signals:
    """The receiver's end of one configuration."""

    def __init__(self, settings: Settings, parts: Parts, receivers: list[Receiver], sources: Sources) -> None:
        self._settings = settings
        self._parts = parts
        self._receivers = receivers
        self._sources = sources
        self._lease = Lease(parts.records, parts.clock, "signals", entropy(16).hex())
        self._running = AsyncExitStack()

    def routes(self) -> list[web.RouteDef]:
        """Return what is served on the portal's host."""
        parts, host = self._parts, self._settings.portal.host
        ending = Logouts(parts.records, parts.clock, Whose(parts.records), parts.sessions, parts.standings)
        return [
            *signals_api.routes(self._receivers, host),
            *logout_api.routes(parts.clients, ending, host),
        ]

    async def start(self) -> None:
        """Begin to keep streams. Raises StoreUnavailable."""
        if not self._receivers:
            return
        for receiver in self._receivers:
            await self._sources.begin(receiver.transmitter.name)
        await self._lease.renew()
        self._running.push_async_callback(self._lease.release)
        self._running.enter_context(Repeat(RENEW, self._lease.renew))
        self._running.enter_context(Repeat(LOOK, self._look))
        for receiver in self._receivers:
            if receiver.transmitter.managed:
                keeper = Keeper(receiver, self._sources, self._lease, self._parts.clock, entropy)
                task = asyncio.create_task(keeper.run())
                self._running.push_async_callback(_ended, task)

    async def stop(self) -> None:
        """End the background work and let another node take over."""
        await self._running.aclose()

    async def _look(self) -> None:
        found = {}
        for receiver in self._receivers:
            source = await self._sources.get(receiver.transmitter.name)
            if source is not None:
                found[source.name] = (source.state == "ok", source.heard_at / 1000)
        self._parts.counters.sources = found


async def make(settings: Settings, parts: Parts, stack: AsyncExitStack) -> Signals:
    """Put it together; connections are closed with the `stack`. Raises OSError."""
    sources = Sources(parts.records, parts.clock)
    intake = Intake(_tools(settings, parts, sources))
    receivers = []
    for transmitter in settings.transmitters():
        remote = await _remote(settings, transmitter, parts.clock, stack)
        receivers.append(Receiver(remote, intake, parts.counters.signalled))
    signals = Signals(settings, parts, receivers, sources)
    stack.push_async_callback(signals.stop)
    return signals


def _tools(settings: Settings, parts: Parts, sources: Sources) -> Tools:
    whose = Whose(parts.records)
    issuers = {provider.issuer: provider.name for provider in settings.providers()}
    return Tools(
        records=parts.records,
        clock=parts.clock,
        places=Places(whose, parts.sessions, parts.devices, issuers, settings.trust_domain),
        locks=parts.locks,
        standings=parts.standings,
        sessions=parts.sessions,
        sources=sources,
        whose=whose,
        witness=parts.audit.signal,
        count=parts.counters.signalled,
    )


async def _remote(
    settings: Settings, transmitter: Transmitter, clock: Clock, stack: AsyncExitStack
) -> Remote:
    with settings.files.laid_out() as at:
        tls = client_context(str(at(transmitter.ca))) if transmitter.ca else True
    return Remote(transmitter, await stack.enter_async_context(http_session(tls)), clock)


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait({task})
