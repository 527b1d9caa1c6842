"""Locks, and the end of all sessions of somebody, on the administrator's socket.

Mounted by `service` beside `api.admin`. No lock is ever on this socket: who may enter the state directory can
always take one away.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web

from ztproxy.administrator.audit import AuditUnavailable
from ztproxy.administrator.locks import LockRefused
from ztproxy.model.standing import Lock, Standing

#: Locks of an hour are set in haste, locks of ten years by mistake (ms).
LONGEST: Final = 10 * 366 * 24 * 3600 * 1000


class LocksAdmin(Protocol):
    """What is done with locks (administrator.locks)."""

    async def add(self, target: str, value: str, reason: str, by: str, expires_at: int = 0) -> Lock:
        """Lock it. Raises LockRefused."""

    async def remove(self, id: str, by: str) -> bool:
        """Take a lock away; False when there is none of this id."""

    async def list(self) -> Sequence[Lock]:
        """Return all locks in force."""


class StandingsAdmin(Protocol):
    """What is done with standings (administrator.standing)."""

    async def end_sessions(self, target: str, value: str, by: str) -> Standing:
        """End every session that began up to now."""


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    target: str
    value: str
    reason: str
    by: str = "administrator"
    lasts: int = 0  # ms; 0 = until it is removed


class _By(msgspec.Struct, forbid_unknown_fields=True):
    by: str = "administrator"


def routes(
    locks: LocksAdmin,
    standings: StandingsAdmin,
    known: Callable[[str, str], Awaitable[bool]],
    now: Callable[[], int],
) -> list[web.RouteDef]:
    """Return the routes. `known` tells whether a target is somebody or something that there is here."""

    async def show(_: web.Request) -> web.Response:
        return _json({"locks": await locks.list()})

    async def add(request: web.Request) -> web.Response:
        try:
            wanted = msgspec.json.decode(await request.read(), type=_Wanted)
            if not 0 <= wanted.lasts <= LONGEST:
                raise LockRefused("a lock lasts ten years at most, or until it is removed")
            if not wanted.reason.strip():
                raise LockRefused("a lock needs a reason; whoever finds it has to know why it is there")
            expires_at = now() + wanted.lasts if wanted.lasts else 0
            lock = await locks.add(wanted.target, wanted.value, wanted.reason, wanted.by, expires_at)
        except msgspec.DecodeError as bad:
            return _json({"code": "bad-request", "detail": str(bad)}, 400)
        except LockRefused as refused:
            return _json({"code": "lock-refused", "detail": str(refused)}, 400)
        return _json({"lock": lock, "known": await known(lock.target, lock.value)})

    async def remove(request: web.Request) -> web.Response:
        name = request.match_info["id"]
        try:
            by = msgspec.json.decode(await request.read() or b"{}", type=_By).by
            removed = await locks.remove(name, by)
        except msgspec.DecodeError as bad:
            return _json({"code": "bad-request", "detail": str(bad)}, 400)
        except AuditUnavailable as error:
            return _json({"code": "audit-unavailable", "detail": f"not recorded, so not done: {error}"}, 503)
        if not removed:
            return _json({"code": "not-found", "detail": f"there is no lock {name[:80]!r}"}, 404)
        return _json({"removed": True})

    async def end(request: web.Request) -> web.Response:
        user = request.match_info["id"]
        try:
            by = msgspec.json.decode(await request.read() or b"{}", type=_By).by
            standing = await standings.end_sessions("user", user, f"cut by {by}"[:200])
        except (msgspec.DecodeError, ValueError) as bad:
            return _json({"code": "bad-request", "detail": str(bad)}, 400)
        return _json({"ended_before": standing.ended_before, "known": await known("user", user)})

    return [
        web.get("/v1/locks", show),
        web.post("/v1/locks", add),
        web.post("/v1/locks/{id}/remove", remove),
        web.post("/v1/users/{id}/end", end),
    ]


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
