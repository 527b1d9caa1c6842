"""The administrator's JSON API on `run/admin.sock`: what the command line asks the running node.

Reachable only by who may enter the state directory (mode 0700); it listens on no network. Every change made
here is witnessed like any other.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec
from aiohttp import web

from ztproxy.administrator.audit import AuditUnavailable
from ztproxy.model.subject import Device, Session
from ztproxy.store.interface import StoreUnavailable

_encode = msgspec.json.Encoder().encode
_MOST: Final = 1000  # sessions in one answer


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


def make(
    sessions: SessionsAdmin, devices: DevicesAdmin, more: Iterable[web.AbstractRouteDef] = ()
) -> web.Application:
    """Return the application to serve on the admin socket, with `more` routes (api.node)."""
    routes = web.RouteTableDef()

    @routes.get("/v1/sessions")
    async def _(request: web.Request) -> web.Response:
        ended = request.query.get("ended", "") in ("1", "true")
        after = request.query.get("after", "")
        return _json({"sessions": await sessions.list(after=after, limit=_limit(request), ended=ended)})

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

    application = web.Application(client_max_size=64 << 10, middlewares=[_told])
    application.add_routes(routes)
    application.add_routes(more)
    return application


@web.middleware
async def _told(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Say what is in the way. What is cut is cut before it is witnessed, so then it is done all the same."""
    try:
        return await handler(request)
    except StoreUnavailable as error:
        return _json({"code": "facts-unavailable", "detail": str(error)}, status=503)
    except AuditUnavailable as error:
        return _json({"code": "audit-unavailable", "detail": f"done, but not recorded: {error}"}, status=503)


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", str(_MOST))
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise _bad_request("limit is not a number")
    return min(int(text), _MOST)


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=_encode(value), status=status, content_type="application/json")


def _missing(what: str, name: str) -> web.Response:
    return _json({"code": "not-found", "detail": f"there is no {what} {name[:80]!r}"}, status=404)


def _decode(body: bytes, into: type[msgspec.Struct]):  # type: ignore[no-untyped-def]
    try:
        return msgspec.json.decode(body, type=into)
    except msgspec.DecodeError as bad:
        raise _bad_request(str(bad)) from bad


def _bad_request(detail: str) -> web.HTTPBadRequest:
    problem = _encode({"code": "bad-request", "detail": detail}).decode()
    return web.HTTPBadRequest(text=problem, content_type="application/json")
