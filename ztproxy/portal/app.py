"""The portal as an aiohttp application: served by the control process on a unix socket behind the gateway.

Called by `service`. It trusts the Zt-* fields of the gateway and nothing else that a client sends.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from aiohttp import web

from ztproxy.administrator.audit import AuditUnavailable
from ztproxy.administrator.sessions import Sessions
from ztproxy.model.endpoints import OWN
from ztproxy.net.clock import Clock
from ztproxy.portal import device, home, sign_in
from ztproxy.portal.allowance import Allowance
from ztproxy.portal.desk import DESK, Desk
from ztproxy.portal.pages import Pages, problem, secure
from ztproxy.portal.pending import Pending
from ztproxy.portal.ports import Apps, Devices
from ztproxy.portal.site import Site
from ztproxy.store.interface import Records, StoreUnavailable
from ztproxy.trust.identity.oidc import OpenIdClient

log = logging.getLogger("ztproxy.portal")

_LARGEST_BODY: Final = 256 * 1024
_WINDOW: Final = 600.0  # seconds
#: Seconds for a whole request, its body included. Whoever sends a byte now and then would otherwise keep a
#: connection of this process for ever, without having signed in. A provider may be asked four times.
_LONGEST: Final = 60.0
_TEXTS: Final = {
    400: ("bad-request", "The request is not valid", "Go back and try again."),
    401: ("login-required", "You are not signed in", "Sign in to continue."),
    403: ("access-denied", "This was not allowed", "The request did not come from a page of the portal."),
    404: ("not-found", "There is nothing here", "The address may be mistyped, or what was here is gone."),
    405: ("method-not-supported", "This is not how it works", "Go back and try again."),
    408: ("request-timeout", "That took too long", "Try again."),
    413: ("body-too-large", "That was too much", "The request is too large."),
    500: (
        "internal-error",
        "Something went wrong",
        "It is our fault. Quote the reference when you ask for help.",
    ),
    503: ("facts-unavailable", "Not available at the moment", "Try again in a moment."),
}


def make(
    *,
    site: Site,
    sessions: Sessions,
    clients: Mapping[str, OpenIdClient],
    devices: Devices,
    apps: Apps,
    records: Records,
    clock: Clock,
    entropy: Callable[[int], bytes],
    routes: Iterable[web.AbstractRouteDef] = (),
) -> web.Application:
    """Return the application. `clients` by provider name, in the order shown; `routes` are those of `api`."""
    desk = Desk(
        site=site,
        pages=Pages(site),
        sessions=sessions,
        clients=clients,
        devices=devices,
        apps=apps,
        pending=Pending(records, clock, entropy),
        clock=clock,
        entropy=entropy,
        sign_ins=Allowance(clock, most=600, all_keys=50_000, seconds=_WINDOW),
        handoffs=Allowance(clock, most=300, all_keys=500_000, seconds=_WINDOW),
        checks=Allowance(clock, most=120, all_keys=500_000, seconds=_WINDOW),
    )
    app = web.Application(middlewares=[_edge], client_max_size=_LARGEST_BODY)
    app[DESK] = desk
    app.on_response_prepare.append(_unnamed)
    app.add_routes(_routes(desk.pages))
    app.add_routes(routes)
    return app


async def _unnamed(_: web.Request, response: web.StreamResponse) -> None:
    """Say nothing of what we are made of."""
    response.headers.pop("Server", None)


def _routes(pages: Pages) -> Iterable[web.RouteDef]:
    yield web.get("/", home.home)
    yield web.get(OWN, home.to_home)
    yield web.get(OWN + "home", home.to_home)
    yield web.get(OWN + "login", sign_in.login)
    yield web.get(OWN + "start", sign_in.start)
    yield web.get(OWN + sign_in.CALLBACK, sign_in.callback)
    yield web.get(OWN + "accept", sign_in.accept)
    yield web.get(OWN + "done", sign_in.done)
    yield web.get(OWN + "device", device.page)
    yield web.post(OWN + "device/nonce", device.nonce)
    yield web.post(OWN + "device/proof", device.proof)
    yield web.get(OWN + "sign-out", home.ask_sign_out)
    yield web.post(OWN + "sign-out", home.sign_out)
    yield web.get(OWN + "signed-out", home.signed_out)
    yield from pages.static_routes()


@web.middleware
async def _edge(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every response gets strict headers; every error becomes a page for people, a problem for programs."""
    try:
        async with asyncio.timeout(_LONGEST):
            response = await handler(request)
    except web.HTTPException as error:
        response = _error(request, error.status)
        if error.status == 405:
            response.headers["Allow"] = error.headers.get("Allow", "")
    except (StoreUnavailable, AuditUnavailable) as error:
        log.error("%s: %s (request %s)", type(error).__name__, error, _reference(request))
        response = _error(request, 503)
    except TimeoutError:
        response = _error(request, 408)
    except Exception:  # the edge: a bug in one request reveals nothing and ends nothing
        log.exception("a request failed (request %s)", _reference(request))
        response = _error(request, 500)
    secure(response)
    return response


def _error(request: web.Request, status: int) -> web.Response:
    code, title, text = _TEXTS.get(status, _TEXTS[500 if status >= 500 else 400])
    if "text/html" not in request.headers.get("Accept", ""):
        response = problem(code, title, status, decision=_reference(request))
    else:
        response = request.app[DESK].pages.message(
            title,
            text,
            status=status,
            reference=_reference(request),
            links=((OWN + "home", "Go to the portal"),),
        )
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Ztproxy-Session realm="ztproxy"'
    return response


def _reference(request: web.Request) -> str:
    """The gateway's request id, cut to what one looks like."""
    found = request.headers.get("Zt-Request-Id", "")
    return found if len(found) == 32 and found.isalnum() else ""
