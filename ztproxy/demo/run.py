"""The demo's story: prepare a folder, start the programs, enrol the device, say so, and stop it all again.

Called by `cli.demo`. Everything it starts is an ordinary program that could be started by hand.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import aiohttp
from rich.console import Console

from ztproxy.demo import announce, configuration, people, pki, ports
from ztproxy.demo.apart import Apart
from ztproxy.demo.children import Children
from ztproxy.demo.configuration import Ports
from ztproxy.demo.connector import Connector
from ztproxy.demo.device import Device
from ztproxy.demo.errors import DemoProblem
from ztproxy.demo.layout import APPS, Layout
from ztproxy.demo.provider import Provider
from ztproxy.model.endpoints import JWKS

ZTPROXY: Final = [sys.executable, "-m", "ztproxy"]
START: Final = 60.0  # seconds that a program may take to become ready
STEP: Final = 0.1  # seconds between two looks
SOCKET_ROOM: Final = 107 - len("/state/run/control.sock")  # what a unix socket's path leaves for the folder


async def run(layout: Layout, console: Console) -> None:
    """Run the demo until SIGINT or SIGTERM. Raises DemoProblem."""
    with _held(layout):
        layout.ready.unlink(missing_ok=True)  # of a demo that was killed: nobody shall take it for this one
        stop = _stop_signals()
        children = Children(
            lambda name: layout.path("logs", f"{name}.log"),
            lambda name: console.print(f"{name} is started again", style="yellow"),
        )
        try:
            await _until(stop, _play(layout, console, children))
        finally:
            layout.ready.unlink(missing_ok=True)
            await children.stop()


async def _play(layout: Layout, console: Console, children: Children) -> None:
    ports.claim_front(layout.port)
    chosen = ports.prepare(layout)
    apart = Apart(layout, chosen)
    try:
        await _run(layout, console, children, chosen, apart)
    finally:
        apart.close()


async def _run(layout: Layout, console: Console, children: Children, chosen: Ports, apart: Apart) -> None:
    with console.status("Preparing keys, people and configuration"):
        pki.prepare(layout)
        cast = people.prepare(layout)
        provider = Provider(layout, chosen.provider)
        provider.configure()
        configuration.prepare(layout, chosen, provider, apart.target)
        connector = Connector(layout, apart)
        connector.configure()
        await _checked(layout)
        await asyncio.to_thread(provider.seed, cast, layout.path("logs", "provider.log"))
    with console.status("Starting the provider, the applications and the proxy"):
        await _start(layout, chosen, provider, children, apart)
    with console.status("Enrolling connector and device, and waiting for the device's first report"):
        device = Device(layout, chosen.agent)
        await asyncio.gather(device.enrol(), connector.start(children))
        await device.start(children)
        await connector.connected(f"http://127.0.0.1:{chosen.metrics}/metrics")
    announce.tell_programs(layout, chosen, cast, device)
    announce.tell_people(console, layout, chosen, cast, apart.why)
    await children.watch()


async def _start(layout: Layout, chosen: Ports, provider: Provider, children: Children, apart: Apart) -> None:
    folder = layout.path("provider", "canaille.toml").parent
    await children.start("provider", provider.command, env=provider.environment, cwd=folder)
    await apart.open()
    apps = [f"{app}={apart.address(app)}={layout.url(app)}" for app in APPS]
    keys = f"{layout.portal}{JWKS}"
    trust = ["--issuer", layout.portal, "--keys", keys, "--ca", str(layout.path("tls", "ca.pem"))]
    serve = [sys.executable, "-m", "ztproxy.demo.apps", *apart.options, *trust, *apps]
    await children.start("apps", [*apart.enter, *serve])
    await _answers(f"{provider.issuer}/.well-known/openid-configuration", "provider", layout)
    await children.start("ztproxy", [*ZTPROXY, "run", "--config", str(layout.config)])
    await _answers(f"http://127.0.0.1:{chosen.metrics}/readyz", "ztproxy", layout)
    for app in APPS:
        await _answers(f"http://127.0.0.1:{getattr(chosen, app)}/__requests", "apps", layout)


async def _answers(url: str, name: str, layout: Layout) -> None:
    """Wait until a program answers 200 here."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:

        async def asked() -> bool:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(url) as answer:
                    return answer.status == 200
            return False

        await patiently(asked, f"{name} did not become ready.", f"see {layout.path('logs', name + '.log')}")


async def patiently(fact: Callable[[], Awaitable[bool]], problem: str, remedy: str) -> None:
    """Wait until something is the case; DemoProblem when it does not come to be."""
    for _ in range(int(START / STEP)):
        if await fact():
            return
        await asyncio.sleep(STEP)
    raise DemoProblem(problem, remedy)


async def _checked(layout: Layout) -> None:
    """The configuration, as `ztproxy check` sees it: the policies may have been edited."""
    command = [*ZTPROXY, "check", "--config", str(layout.config)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DemoProblem(
            f"The configuration in {layout.root} is not valid:\n{done.stdout}{done.stderr}".rstrip(),
            f"correct it, or remove {layout.root / 'policies'} to have the demo's own policies again",
        )


def _stop_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _until(stop: asyncio.Event, play: Awaitable[None]) -> None:
    """Play until told to stop, or until the play fails."""
    playing, stopping = asyncio.create_task(_of(play)), asyncio.create_task(stop.wait())
    await asyncio.wait((playing, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    playing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await playing


async def _of(play: Awaitable[None]) -> None:
    await play


@contextlib.contextmanager
def _held(layout: Layout) -> Iterator[None]:
    """The folder for this demo alone, for the owner's eyes only."""
    if len(os.fsencode(layout.root)) > SOCKET_ROOM:
        raise DemoProblem(f"{layout.root} is too long a path for sockets.", "choose a shorter --dir")
    try:
        layout.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(layout.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as problem:
        raise DemoProblem(
            f"{layout.root} can not be used: {problem.strerror}.", "choose another --dir"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoProblem(
                f"A demo is running in {layout.root}.", "stop it, or choose another --dir"
            ) from None
        yield
    finally:
        os.close(descriptor)
