"""`python -m ztproxy.demo.apps`: serves the three applications where it is told. Started by `demo.run`."""

import argparse
import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aiohttp import web

from ztproxy.demo import wire
from ztproxy.demo.apart import counts_of
from ztproxy.demo.apps import status, support, wiki
from ztproxy.demo.apps.counting import ARRIVALS, told
from ztproxy.demo.apps.identity import Assertions, PublishedKeys

APPS: Final[dict[str, Callable[[Assertions], web.Application]]] = {
    "support": support.make,
    "wiki": wiki.make,
    "status": status.make,
}


def arguments() -> argparse.Namespace:
    """What the demo says on the command line."""
    parser = argparse.ArgumentParser(prog="python -m ztproxy.demo.apps")
    parser.add_argument("--issuer", required=True, help="who signs the assertions: the portal's address")
    parser.add_argument("--keys", required=True, help="where the portal publishes its keys")
    parser.add_argument("--ca", required=True, help="PEM file to verify the portal with")
    parser.add_argument("--counts", type=Path, required=True, help="folder of sockets that tell the counts")
    parser.add_argument("--wire", default="", help="HERE=THERE: the way to the portal, if it needs one")
    parser.add_argument("apps", nargs="+", help="NAME=ADDRESS=AUDIENCE; an address is HOST:PORT or unix:PATH")
    return parser.parse_args()


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    keys = PublishedKeys(options.keys, options.ca)
    if options.wire:
        here, _, there = options.wire.partition("=")
        await wire.listen(here, there)
    runners = []
    for app in options.apps:
        name, address, audience = app.split("=", 2)
        served = APPS[name](Assertions(options.issuer, audience, keys))
        runners.append(await _serve(served, address))
        runners.append(await _serve(told(served[ARRIVALS]), f"unix:{counts_of(options.counts / name)}"))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    for runner in runners:
        await runner.cleanup()


async def _serve(app: web.Application, address: str) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    if address.startswith("unix:"):
        await web.UnixSite(runner, address.removeprefix("unix:"), shutdown_timeout=1).start()
    else:
        host, _, port = address.rpartition(":")
        await web.TCPSite(runner, host, int(port), shutdown_timeout=1).start()
    return runner


if __name__ == "__main__":
    asyncio.run(serve(arguments()))
