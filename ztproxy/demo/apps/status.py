"""The deployment API that the pipeline (a workload) talks to: JSON in, JSON out."""

from datetime import UTC, datetime
from typing import Final

from aiohttp import web
from msgspec import DecodeError, Struct, json

from ztproxy.demo.apps.identity import CALLER, Assertions
from ztproxy.demo.apps.pages import application

DEPLOYMENTS: Final = 100


class Service(Struct, frozen=True):
    """What runs."""

    name: str
    version: str
    state: str = "running"


class Order(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked to run."""

    service: str
    version: str


class Deployment(Struct, frozen=True):
    """Who asked for what, when."""

    id: int
    service: str
    version: str
    by: str
    at: str


class Fleet:
    """The services and the deployments that made them what they are."""

    def __init__(self) -> None:
        self.services = {name: Service(name, "1.4.0") for name in ("orders", "invoices", "warehouse")}
        self.deployments: list[Deployment] = []
        self._next = 1

    def deploy(self, order: Order, by: str) -> Deployment:
        """Put another version of a known service in place."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        done = Deployment(self._next, order.service, order.version, by, at)
        self._next += 1
        self.services[order.service] = Service(order.service, order.version)
        self.deployments = [*self.deployments, done][-DEPLOYMENTS:]
        return done


FLEET: Final = web.AppKey("fleet", Fleet)


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=json.encode(value), status=status, content_type="application/json")


async def status(request: web.Request) -> web.Response:
    """Everything at a glance, and as whom we know the caller."""
    services = list(request.app[FLEET].services.values())
    return _json({"caller": request[CALLER].id, "services": services})


async def deployments(request: web.Request) -> web.Response:
    """The deployments so far."""
    return _json(request.app[FLEET].deployments)


async def deploy(request: web.Request) -> web.Response:
    """Deploy a version of a service."""
    fleet = request.app[FLEET]
    try:
        order = json.decode(await request.read(), type=Order)
    except DecodeError as problem:
        return _json({"error": str(problem)}, 400)
    if order.service not in fleet.services or not 0 < len(order.version) <= 40:
        return _json({"error": "unknown service or no version"}, 422)
    return _json(fleet.deploy(order, request[CALLER].id), 201)


def make(assertions: Assertions) -> web.Application:
    """The deployment API as an application."""
    app = application(assertions)
    app[FLEET] = Fleet()
    app.add_routes(
        [
            web.get("/", status),
            web.get("/status", status),
            web.get("/deployments", deployments),
            web.post("/deployments", deploy),
        ]
    )
    return app
