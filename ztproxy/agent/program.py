"""The agent's verbs: enrol this device, run, tell how it is. Called by the command line and by the demo.

The agent is a small program of its own: it shares formats with ztproxy, and neither its stores nor its
policies. Everything it knows is in one folder.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from msgspec import Struct

from ztproxy.agent import loopback
from ztproxy.agent.portal import Portal
from ztproxy.agent.reporting import Reporter
from ztproxy.agent.state import DEFAULT_PORT, AgentError, Folder, Identity, Status
from ztproxy.crypto.csr import make_request
from ztproxy.net import keyfiles
from ztproxy.net.clock import SystemClock, entropy
from ztproxy.net.portal import Credentials, PortalRefused, PortalUnreachable, origin_of

__all__ = ["DEFAULT_PORT", "AgentError", "Identity", "Overview", "Status", "enrol", "run", "serve", "status"]

_log = logging.getLogger(__name__)


class Overview(Struct, frozen=True):
    """Who this device is and how its last report went."""

    identity: Identity
    status: Status


async def enrol(
    portal: str,
    code: str,
    directory: Path,
    *,
    ca: Path | None = None,
    name: str = "",
    port: int = DEFAULT_PORT,
    replace: bool = False,
) -> Identity:
    """Enrol this device with a one-time code and write its folder.

    `portal` is the portal's address, `ca` a PEM file of authorities trusted for it (default: the system's).
    A new key is made here and never leaves. Raises AgentError, also when a device is here already and
    `replace` does not say that it may go.
    """
    folder = Folder(directory)
    try:
        origin = origin_of(portal)
    except ValueError as error:
        raise AgentError(str(error)) from error
    if folder.enrolled and not replace:
        raise AgentError(f"{directory}: {folder.identity().name!r} is enrolled here already")
    key = keyfiles.new_key()
    called = name or socket.gethostname()
    try:
        authorities = None if ca is None else keyfiles.read(ca)
        issued = await Portal(origin).enrol(Credentials(ca=ca), code, make_request(key, called), called)
    except (PortalRefused, PortalUnreachable, keyfiles.KeyFileError) as error:
        raise AgentError(str(error)) from error
    if issued.portal != origin:
        raise AgentError(f"the portal calls itself {issued.portal[:200]!r}: enrol with that address")
    identity = Identity(
        id=issued.device["id"],
        name=issued.device.get("name", called),
        portal=origin,
        origins=(origin,),
        port=port,
    )
    folder.create(identity, key, issued.certificate, authorities)
    return identity


async def run(
    directory: Path,
    *,
    posture_file: Path | None = None,
    interval: float = 30.0,
    port: int | None = None,
) -> None:
    """Serve and report until SIGTERM or SIGINT. Raises AgentError."""
    async with serve(directory, posture_file=posture_file, interval=interval, port=port) as rounds:
        await _told_to_stop(rounds)
    _log.info("stopped")


@asynccontextmanager
async def serve(
    directory: Path,
    *,
    posture_file: Path | None = None,
    interval: float = 30.0,
    port: int | None = None,
) -> AsyncIterator[asyncio.Task[None]]:
    """Serve and report as long as the block runs; yields the reporting. `interval` in seconds.

    Raises AgentError when the folder holds no device or the port is taken.
    """
    folder = Folder(directory)
    identity, signer = folder.identity(), folder.signer()
    clock = SystemClock()
    reporter = Reporter(
        folder,
        identity,
        signer,
        clock=clock,
        entropy=entropy,
        interval=interval,
        file=posture_file,
    )
    on = identity.port if port is None else port
    async with _listening(loopback.application(identity, signer, clock, on), on):
        _log.info("device %s reports to %s", identity.id, identity.portal)
        rounds = asyncio.create_task(reporter.run(), name="agent-reports")
        try:
            yield rounds
        finally:
            rounds.cancel()
            await asyncio.wait([rounds])
        if not rounds.cancelled():
            rounds.result()


def status(directory: Path) -> Overview:
    """Return who this device is and how its last report went. Raises AgentError."""
    folder = Folder(directory)
    return Overview(identity=folder.identity(), status=folder.status())


@asynccontextmanager
async def _listening(application: web.Application, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    try:
        await _bind(runner, port)
        yield
    finally:
        await runner.cleanup()


async def _bind(runner: web.AppRunner, port: int) -> None:
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
    except OSError as error:
        raise AgentError(f"127.0.0.1:{port}: {error.strerror or error}") from error


async def _told_to_stop(rounds: asyncio.Task[None]) -> None:
    """Wait for a signal; a reporting that ended by itself is a bug, and ends the waiting too."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    rounds.add_done_callback(lambda _: stop.set())
    try:
        await stop.wait()
    finally:
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(name)
