"""The private listener: /metrics for Prometheus, /healthz and /readyz for whoever starts and restarts us.

Made by `service` in the control process. It has no authentication and says nothing about people, policies
or hosts beyond the names of routes; it belongs on loopback or a private network.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import msgspec
from aiohttp import web

from ztproxy.telemetry.exposition import CONTENT_TYPE, exposition
from ztproxy.telemetry.health import Health
from ztproxy.telemetry.snapshot import Snapshot

HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

Snapshots = Callable[[], Iterable[Snapshot]]


def make(snapshots: Snapshots, health: Callable[[], Health]) -> web.Application:
    """Return the application of the private listener."""
    app = web.Application(client_max_size=1024)
    app.add_routes(
        [
            web.get("/metrics", _metrics(snapshots)),
            web.get("/healthz", _live),
            web.get("/readyz", _ready(health)),
        ]
    )
    return app


def _metrics(snapshots: Snapshots) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        body = await asyncio.to_thread(exposition, tuple(snapshots()))
        return web.Response(body=body, headers={**HEADERS, "Content-Type": CONTENT_TYPE})

    return answer


async def _live(_: web.Request) -> web.Response:
    """Answering at all is the answer."""
    return web.Response(text="alive\n", headers=HEADERS)


def _ready(health: Callable[[], Health]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        found = health()
        return web.Response(
            status=200 if found.ready else 503,
            body=msgspec.json.encode(found),
            headers={**HEADERS, "Content-Type": "application/json"},
        )

    return answer
