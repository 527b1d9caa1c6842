"""Everything the portal's pages work with, put together once by `portal.app.make`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from ztproxy.administrator.sessions import Sessions
from ztproxy.model.subject import Session
from ztproxy.net.clock import Clock
from ztproxy.portal.allowance import Allowance
from ztproxy.portal.pages import Pages
from ztproxy.portal.pending import Pending
from ztproxy.portal.ports import Apps, Devices
from ztproxy.portal.site import Site, own
from ztproxy.portal.visitor import Visitor, visitor_of
from ztproxy.trust.identity.oidc import OpenIdClient


@dataclass(frozen=True, slots=True)
class Desk:
    """The portal's tools; nothing here belongs to one request."""

    site: Site
    pages: Pages
    sessions: Sessions
    clients: Mapping[str, OpenIdClient]
    devices: Devices
    apps: Apps
    pending: Pending
    clock: Clock
    entropy: Callable[[int], bytes]
    sign_ins: Allowance  # per network
    handoffs: Allowance  # per session
    checks: Allowance  # per session

    async def session_of(self, visitor: Visitor) -> Session | None:
        """Return the live session of this browser on the host it asked."""
        return await self.sessions.find(visitor.handle, visitor.host) if visitor.handle else None


DESK = web.AppKey("desk", Desk)


def enter(request: web.Request) -> tuple[Desk, Visitor]:
    """Return the tools and who asks. Raises HTTPBadRequest."""
    desk = request.app[DESK]
    return desk, visitor_of(request, desk.site)


def go(address: object) -> web.Response:
    """Return a 303: the browser asks for that address with GET."""
    return web.Response(status=303, headers={"Location": str(address)})


def at_portal(desk: Desk, visitor: Visitor, name: str, **query: str) -> web.Response | None:
    """Return the way to the portal's own host when the visitor is not there, else None."""
    return None if visitor.host == desk.site.host else go(own(desk.site.origin, name, **query))
