"""`python -m ztproxy.demo.apps`: serves the three applications on loopback. Started by `demo.run`."""

import argparse
import asyncio
import signal
from collections.abc import Callable
from typing import Final

from aiohttp import web

from ztproxy.demo.apps import status, support, wiki
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
    parser.add_argument("apps", nargs="+", help="NAME=PORT=AUDIENCE")
    return parser.parse_args()


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    keys = PublishedKeys(options.keys, options.ca)
    runners = []
    for app in options.apps:
        name, port, audience = app.split("=", 2)
        runner = web.AppRunner(APPS[name](Assertions(options.issuer, audience, keys)), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(port), shutdown_timeout=1).start()
        runners.append(runner)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    for runner in runners:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(arguments()))
