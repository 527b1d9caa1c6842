"""The node itself, on the administrator's socket: what is in force, and reloads and upgrades on demand.

Mounted by `service` beside `api.admin`. An answer that something can not be done is an answer, with reasons.
"""

from typing import Any, Protocol

import msgspec
from aiohttp import web
from msgspec import Struct


class Outcome(Struct, frozen=True):
    """What came of a wish. A problem has file, line, column, where, message and remedy."""

    done: bool
    text: str
    problems: tuple[Any, ...] = ()


class Event(Struct, frozen=True):
    """Something that happened to configuration or program."""

    at: int  # ms
    event: str  # "start", "reload", "upgrade"
    outcome: str  # "applied", "unchanged", "refused"
    by: str = ""
    detail: str = ""


class Status(Struct, frozen=True):
    """What runs and what is in force."""

    version: str
    pid: int  # of the control process
    workers: int  # that are ready
    configuration: str  # digest, hex
    policies: str  # digest, hex
    routes: int
    since: int  # ms
    last: Event | None = None
    upgraded: Event | None = None  # the last upgrade, whatever came after it


class Held(Struct, frozen=True):
    """What somebody holds at a version of the feed: who holds the same has the same digest (hex)."""

    of: str  # "store", "worker 0"
    version: int
    records: int
    digest: str


class State(Struct, frozen=True):
    """What the store and the workers hold; no `store` when it was written to while it was read."""

    store: Held | None
    workers: tuple[Held, ...]


class Node(Protocol):
    """The running node (service.control)."""

    def status(self) -> Status:
        """Return what runs."""

    async def state(self) -> State:
        """Return what store and workers hold. Raises StoreUnavailable."""

    async def want(self, what: str, by: str) -> Outcome:
        """Have a "reload" or an "upgrade" done; return what came of it."""


class _By(Struct, forbid_unknown_fields=True):
    by: str = "administrator"


def routes(node: Node) -> list[web.RouteDef]:
    """Return the routes of the node."""

    async def show(_: web.Request) -> web.Response:
        return _json(node.status())

    async def hold(_: web.Request) -> web.Response:
        return _json(await node.state())

    def wish(what: str) -> web.RouteDef:
        async def answer(request: web.Request) -> web.Response:
            try:
                by = msgspec.json.decode(await request.read() or b"{}", type=_By).by
            except msgspec.DecodeError as bad:
                return _json({"code": "bad-request", "detail": str(bad)}, 400)
            return _json(await node.want(what, by[:200]))

        return web.post(f"/v1/node/{what}", answer)

    return [web.get("/v1/node", show), web.get("/v1/node/state", hold), wish("reload"), wish("upgrade")]


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
