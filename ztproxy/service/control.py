"""The control process: portal and API, keys, the store's only writer, the feed, the sealed log, metrics.

One per node, started by the supervisor: `python -m ztproxy.service.control`. Read `serve` from top to bottom:
everything is built in order and handed on explicitly; nothing is looked up.
"""

import argparse
import asyncio
import base64
import logging
import os
from collections.abc import Collection
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from aiohttp import web

from ztproxy.administrator.apps import Apps
from ztproxy.administrator.audit import Audit
from ztproxy.administrator.devices import Devices
from ztproxy.administrator.issue import load_assertions, load_device_authority
from ztproxy.administrator.sessions import Limits, Sessions
from ztproxy.api import admin
from ztproxy.api import devices as devices_api
from ztproxy.api import keys as keys_api
from ztproxy.config.load import load
from ztproxy.config.policies import load_policies
from ztproxy.config.settings import Settings
from ztproxy.net.clock import SystemClock, entropy
from ztproxy.net.tls import client_context
from ztproxy.portal import app as portal
from ztproxy.portal.site import Site
from ztproxy.recording import journal as journals
from ztproxy.recording.journal import JournalWriter
from ztproxy.recording.sealer import Sealer
from ztproxy.service.hub import Hub
from ztproxy.service.process import die_with_parent, journal_alive, journal_name, run, stop_event
from ztproxy.service.repeat import Repeat
from ztproxy.service.state import StateDirectory
from ztproxy.service.vouching import Voucher
from ztproxy.store.interface import Conflict, Records
from ztproxy.store.sqlite import SqliteStore
from ztproxy.telemetry import http as telemetry
from ztproxy.telemetry.health import Readiness
from ztproxy.telemetry.log import configure
from ztproxy.telemetry.metrics import Counters, Snapshot, unpack
from ztproxy.trust.identity.fetch import http_session
from ztproxy.trust.identity.oidc import OpenIdClient

log = logging.getLogger("ztproxy.control")

SEAL_EVERY: Final = 0.1  # seconds
EXPIRE_EVERY: Final = 15.0


async def serve(settings: Settings, workers: int) -> None:
    """Serve until SIGTERM."""
    stop = stop_event()
    clock = SystemClock()
    state = StateDirectory(settings.state_dir)
    state.prepare()
    policies = load_policies(settings)
    routes = settings.routes()
    async with AsyncExitStack() as stack:
        journal = JournalWriter(state.journals, journal_name("control"))
        stack.callback(journal.close)
        audit = Audit(journal)
        store = await SqliteStore.open(state.database, clock.now)
        stack.push_async_callback(store.close)

        authority = load_device_authority(
            state.root,
            trust_domain=settings.trust_domain,
            lifetime=settings.devices.certificate_lifetime,
            clock=clock,
            entropy=entropy,
        )
        assertions = load_assertions(state.root)
        limits = Limits(idle=settings.sessions.idle, absolute=settings.sessions.absolute)
        sessions = Sessions(store, clock, entropy, audit.session, limits)
        origin = settings.portal_origin
        devices = Devices(store, clock, entropy, authority, audit.session, origin=origin)
        voucher = Voucher(assertions, sessions, issuer=origin, now=clock.now)
        application = portal.make(
            site=Site(
                host=settings.portal.host,
                port=settings.public_port,
                title=settings.portal.title,
                hosts=settings.hosts(),
                agent_ports=settings.devices.agent_ports,
                posture_max_age=settings.devices.posture_max_age,
            ),
            sessions=sessions,
            clients=await _providers(settings, clock, stack),
            devices=devices,
            apps=Apps(lambda: policies, routes, store, clock.now),
            records=store,
            clock=clock,
            entropy=entropy,
            routes=[*devices_api.routes(devices, clock), *keys_api.routes(assertions)],
        )
        counters, snapshots = Counters("control"), dict[int, Snapshot]()
        hub = Hub(
            store,
            store,
            boot=await _boot(store),
            sign=voucher.sign,
            touched=sessions.touch,
            counted=lambda worker, snapshot: snapshots.update({worker: unpack(snapshot)}),
        )

        sealer = await asyncio.to_thread(_sealer, settings, state, clock, hub)
        stack.callback(sealer.close)

        await _unix_site(stack, application, state.portal)
        await _unix_site(stack, admin.make(sessions, devices), state.admin)
        await _hub_server(stack, hub, state.control)
        ready = Readiness({"workers": lambda: _unready(hub, workers)})
        private = telemetry.make(lambda: (*snapshots.values(), counters.snapshot()), ready)
        await _tcp_site(stack, private, settings.telemetry.listen.host, settings.telemetry.listen.port)
        log.info("control is up", extra={"portal": origin})

        async def seal() -> None:
            counters.sealed_records += await asyncio.to_thread(sealer.step)

        sealing = stack.enter_context(Repeat(SEAL_EVERY, seal))
        stack.enter_context(Repeat(EXPIRE_EVERY, sessions.end_expired))
        await stop.wait()
        await sealing.finish()


def _sealer(settings: Settings, state: StateDirectory, clock: SystemClock, hub: Hub) -> Sealer:
    def alive() -> Collection[str]:
        """Journals of living processes: those that lie there, and those that should."""
        named = {*journals.names(state.journals), *list(hub.journals.values())}
        return [name for name in named if journal_alive(name)]

    return Sealer(
        state.recordings,
        state.journals,
        state.keys / "log.pem",
        origin=f"{settings.portal.host}/log",
        now=clock.now,
        alive=alive,
    )


async def _providers(
    settings: Settings, clock: SystemClock, stack: AsyncExitStack
) -> dict[str, OpenIdClient]:
    clients: dict[str, OpenIdClient] = {}
    for provider in settings.providers():
        tls = client_context(provider.ca) if provider.ca else True
        http = await stack.enter_async_context(http_session(tls))
        clients[provider.name] = OpenIdClient(provider, http, clock)
    return clients


async def _boot(records: Records) -> str:
    """Return the name of this store's feed: workers that know another one start anew."""
    found = await records.get("meta", "feed")
    if found is not None:
        return found.value.decode("ascii")
    name = base64.b32encode(entropy(10)).decode("ascii")
    try:
        await records.put("meta", "feed", name.encode("ascii"), if_version=0)
    except Conflict:
        return await _boot(records)
    return name


def _unready(hub: Hub, workers: int) -> str:
    missing = workers - len(hub.workers)
    return f"{missing} of {workers} are not linked" if missing > 0 else ""


async def _unix_site(stack: AsyncExitStack, application: web.Application, path: Path) -> None:
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.UnixSite(runner, str(path)).start()


async def _tcp_site(stack: AsyncExitStack, application: web.Application, host: str, port: int) -> None:
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, host, port).start()


async def _hub_server(stack: AsyncExitStack, hub: Hub, path: Path) -> None:
    server = await asyncio.start_unix_server(hub.serve, path)
    stack.callback(server.close)


def main() -> None:
    """Entry of the process."""
    parser = argparse.ArgumentParser(prog="ztproxy control")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    arguments = parser.parse_args()
    os.umask(0o077)
    die_with_parent(arguments.parent)
    settings = load(arguments.config)
    configure(settings.log.level, settings.log.format)
    run(serve(settings, arguments.workers))


if __name__ == "__main__":
    main()
