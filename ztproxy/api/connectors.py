"""Connectors: what they ask for below /.ztproxy/ on the portal's host, and what administrators ask of them.

Mounted by the service into the applications of the control process. Where connectors ask, the gateway stands
in front and its Zt-* headers are trusted; everything else about them is proved by what they signed.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from msgspec import Struct

from ztproxy.administrator.connectors import Enrolled
from ztproxy.administrator.enrolment import Refused
from ztproxy.api.enrolling import Attempts, guarded, statement, wish
from ztproxy.api.problems import answer, render
from ztproxy.crypto.statements import MAX_SIZE
from ztproxy.model.connector import Connector
from ztproxy.model.endpoints import ENROL_CONNECTOR, RENEW_CONNECTOR
from ztproxy.model.node import Load
from ztproxy.net.clock import Clock

_MOST_BY: Final = 200  # characters of who does something


class Connectors(Protocol):
    """What is asked of administrator.connectors. All raise Refused, StoreUnavailable."""

    origin: str

    async def create_code(self, name: str, by: str) -> str:
        """Return a one-time code for an instance of this name."""

    async def enrol(self, code: str, csr: str, name: str = "") -> Enrolled:
        """Turn a code into a connector."""

    async def renew(self, token: str) -> Enrolled:
        """Issue a new certificate."""

    async def list(self, name: str = "", *, revoked: bool = True) -> Sequence[Connector]:
        """Return the instances of a name, or all."""

    async def revoke(self, name: str, instance: str, by: str) -> Sequence[str]:
        """Revoke an instance, or all of a name; return which."""


class Place(Struct, frozen=True):
    """Where connectors dial in: what they are told when they enrol, and whenever they renew."""

    host: str
    proxies: tuple[str, ...]


class _Wish(Struct, frozen=True, forbid_unknown_fields=True):
    code: str
    csr: str
    name: str = ""


class _By(Struct, frozen=True, forbid_unknown_fields=True):
    by: str = "administrator"


def routes(connectors: Connectors, place: Place | None, clock: Clock) -> list[web.RouteDef]:
    """Return the routes for connectors; without a place for them nobody is enrolled."""
    host = urlsplit(connectors.origin).hostname or ""
    attempts = Attempts(clock)

    async def enrol(request: web.Request) -> web.Response:
        attempts.count(request)
        wished = await wish(request, _Wish)
        if place is None:
            return render("connectors-not-configured")
        enrolled = await connectors.enrol(wished.code, wished.csr, wished.name)
        return answer({**_issued(enrolled, place), "portal": connectors.origin}, 201)

    async def renew(request: web.Request) -> web.Response:
        if place is None:
            return render("connectors-not-configured")
        return answer(_issued(await connectors.renew(await statement(request, MAX_SIZE)), place))

    return [
        web.post(ENROL_CONNECTOR, guarded(enrol, host)),
        web.post(RENEW_CONNECTOR, guarded(renew, host)),
    ]


def _issued(enrolled: Enrolled, place: Place) -> dict[str, Any]:
    return {
        "connector": {"name": enrolled.connector.name, "instance": enrolled.connector.instance},
        "certificate": enrolled.certificate.pem,
        "not_after": enrolled.certificate.not_after,
        "host": place.host,
        "proxies": place.proxies,
    }


# ---------------------------------------------------------------------- administrators


class Heard(Struct, frozen=True):
    """What is known of a node's load."""

    load: Load
    here: bool  # it is the one that is asked
    silent: bool  # it has said nothing for some seconds: it is dead, or can not reach the store


def admin_routes(
    connectors: Connectors,
    place: Place | None,
    named: Sequence[str],
    loads: Callable[[], Awaitable[Sequence[Heard]]],
) -> list[web.RouteDef]:
    """Return the routes on the administrator's socket. `named` are the connectors that routes speak of,
    `loads` what each node has of those that are connected to it."""

    async def list_(_: web.Request) -> web.Response:
        found, heard = await connectors.list(), await loads()
        missing = sorted(set(named) - {one.name for one in found})
        shown = [_shown(one, heard) for one in found]
        return answer({"connectors": shown, "nodes": list(map(_summed, heard)), "never_enrolled": missing})

    async def add(request: web.Request) -> web.Response:
        if place is None:
            return render("connectors-not-configured")
        code = await connectors.create_code(request.match_info["name"], await _by(request))
        return answer({"code": code, "portal": connectors.origin, "host": place.host})

    async def revoke(request: web.Request) -> web.Response:
        name, instance = request.match_info["name"], request.match_info.get("instance", "")
        return answer({"revoked": await connectors.revoke(name, instance, await _by(request))})

    return [
        web.get("/v1/connectors", list_),
        web.post("/v1/connectors/{name}/codes", _told(add)),
        web.post("/v1/connectors/{name}/revoke", _told(revoke)),
        web.post("/v1/connectors/{name}/{instance}/revoke", _told(revoke)),
    ]


class _Live(Struct, frozen=True, omit_defaults=True):
    """A connector at all nodes that speak, together."""

    version: str
    ready: int
    carrying: int
    draining: bool = False


def _shown(connector: Connector, heard: Sequence[Heard]) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(connector)
    del shown["jwk"], shown["certificates"]
    shown["certificate_ends"] = max(connector.certificates.values(), default=0)
    places = [(node, one) for node in heard for one in node.load.connectors if one.key == connector.key]
    shown["nodes"] = [
        {
            **_whose(node),
            "version": one.version,
            "ready": one.ready,
            "carrying": one.carrying,
            "draining": one.draining,
        }
        for node, one in places
    ]
    if found := [one for node, one in places if not node.silent]:
        shown["live"] = _Live(
            next((one.version for one in found if one.version), ""),
            sum(one.ready for one in found),
            sum(one.carrying for one in found),
            all(one.draining for one in found),
        )
    return shown


def _summed(heard: Heard) -> dict[str, Any]:
    carried = heard.load.connectors
    return {
        **_whose(heard),
        "connectors": len(carried) + heard.load.left_out,
        "ready": sum(one.ready for one in carried),
        "carrying": sum(one.carrying for one in carried),
        "left_out": heard.load.left_out,
    }


def _whose(heard: Heard) -> dict[str, Any]:
    return {
        "node": heard.load.address,
        "here": heard.here,
        "silent": heard.silent,
        "at": heard.load.at,
    }


def _told(
    handler: Callable[[web.Request], Awaitable[web.Response]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def told(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except Refused as refused:
            return render(refused.code, str(refused))

    return told


async def _by(request: web.Request) -> str:
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=_By).by[:_MOST_BY]
    except msgspec.DecodeError as error:
        raise web.HTTPBadRequest(text='{"code":"bad-request"}', content_type="application/json") from error
