"""The administrator's JSON API on `run/admin.sock`: what the command line asks the running node.

Reachable only by who may enter the state directory (mode 0700); it listens on no network. Every change made
here is witnessed like any other.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec
from aiohttp import web

from ztproxy.model.subject import Device, Session

_encode = msgspec.json.Encoder().encode


class SessionsAdmin(Protocol):
    """What is done with sessions (administrator.sessions)."""

    async def list(self, *, after: str = "", limit: int = 100, ended: bool = False) -> Sequence[Session]:
        """Return sessions in id order."""

    async def get(self, session_id: str) -> Session | None:
        """Return one session, ended or not."""

    async def end(self, session_id: str, by: str) -> bool:
        """End it; False when it is over already."""


class DevicesAdmin(Protocol):
    """What is done with devices (administrator.devices)."""

    async def list(self) -> Sequence[Device]:
        """Return all devices."""

    async def create_code(self, name: str, owner: str = "") -> str:
        """Return a one-time enrolment code."""

    async def revoke(self, device_id: str, by: str) -> bool:
        """Revoke it; False when it is revoked or unknown."""


class _End(msgspec.Struct, forbid_unknown_fields=True):
    by: str = "administrator"


class _Code(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    owner: str = ""


def make(sessions: SessionsAdmin, devices: DevicesAdmin) -> web.Application:
    """Return the application to serve on the admin socket."""
    routes = web.RouteTableDef()

    @routes.get("/v1/sessions")
    async def _(request: web.Request) -> web.Response:
        ended = request.query.get("ended", "") in ("1", "true")
        after = request.query.get("after", "")
        limit = min(int(request.query.get("limit", "1000")), 1000)
        return _json({"sessions": await sessions.list(after=after, limit=limit, ended=ended)})

    @routes.get("/v1/sessions/{id}")
    async def _(request: web.Request) -> web.Response:
        found = await sessions.get(request.match_info["id"])
        return _json(found) if found else _missing("session", request.match_info["id"])

    @routes.post("/v1/sessions/{id}/end")
    async def _(request: web.Request) -> web.Response:
        by = _decode(await request.read() or b"{}", _End).by
        session_id = request.match_info["id"]
        if await sessions.get(session_id) is None:
            return _missing("session", session_id)
        return _json({"ended": await sessions.end(session_id, f"cut by {by}"[:200])})

    @routes.get("/v1/devices")
    async def _(_: web.Request) -> web.Response:
        return _json({"devices": await devices.list()})

    @routes.post("/v1/devices/codes")
    async def _(request: web.Request) -> web.Response:
        wanted = _decode(await request.read(), _Code)
        return _json({"code": await devices.create_code(wanted.name, wanted.owner)})

    @routes.post("/v1/devices/{id}/revoke")
    async def _(request: web.Request) -> web.Response:
        by = _decode(await request.read() or b"{}", _End).by
        return _json({"revoked": await devices.revoke(request.match_info["id"], by)})

    application = web.Application(client_max_size=64 << 10)
    application.add_routes(routes)
    return application


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=_encode(value), status=status, content_type="application/json")


def _missing(what: str, name: str) -> web.Response:
    return _json({"code": "not-found", "detail": f"there is no {what} {name[:80]!r}"}, status=404)


def _decode(body: bytes, into: type[msgspec.Struct]):  # type: ignore[no-untyped-def]
    try:
        return msgspec.json.decode(body, type=into)
    except msgspec.DecodeError as bad:
        problem = _encode({"code": "bad-request", "detail": str(bad)})
        raise web.HTTPBadRequest(body=problem, content_type="application/json") from bad
