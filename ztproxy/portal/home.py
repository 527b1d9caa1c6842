"""The portal's first page, and signing out."""

import hashlib
from hmac import compare_digest
from typing import Final

from aiohttp import web
from msgspec import Struct

from ztproxy.model.remedies import remedies
from ztproxy.model.subject import Session
from ztproxy.portal.content import form
from ztproxy.portal.desk import Desk, at_portal, enter, go
from ztproxy.portal.holdings import holding_of
from ztproxy.portal.ports import App
from ztproxy.portal.site import Site, own
from ztproxy.portal.visitor import Visitor, same_origin, take_cookies

#: Signing out empties what the portal keeps in the browser. Not "cookies": that would take those of every
#: other host of the domain with them, other people's applications included.
_CLEAR: Final = '"cache", "storage"'


class Tile(Struct, frozen=True):
    """An application as shown."""

    title: str
    description: str
    address: str
    host: str
    allowed: bool
    reason: str
    ways: tuple[str, ...]


async def home(request: web.Request) -> web.Response:
    """What this person can reach, from which device, and for how long."""
    desk, visitor = enter(request)
    if elsewhere := at_portal(desk, visitor, "home"):
        return elsewhere
    session = await desk.session_of(visitor)
    if session is None:
        return go(own(desk.site.origin, "start"))
    client = desk.clients.get(session.provider)
    return desk.pages.page(
        "home.html",
        session=session,
        provider=client.provider.title if client else session.provider,
        tiles=[_tile(desk.site, app) for app in await desk.apps.visible(session)],
        holding=await holding_of(desk.devices, session.device_id),
        now=desk.clock.now(),
        token=_token(visitor.handle),
    )


def _tile(site: Site, app: App) -> Tile:
    route, allowed, reason, words = app
    return Tile(
        title=route.title or route.name,
        description=route.description,
        address=site.external(route.host) + route.prefix,
        host=route.host,
        allowed=allowed,
        reason=reason,
        ways=tuple(remedy.sentence for remedy in remedies(words)),
    )


async def to_home(request: web.Request) -> web.Response:
    """From any host to the portal."""
    desk, _ = enter(request)
    return go(desk.site.home)


async def ask_sign_out(request: web.Request) -> web.Response:
    """Ask before signing out: a link alone, which any site can have followed, must not do it."""
    desk, visitor = enter(request)
    if elsewhere := at_portal(desk, visitor, "sign-out"):
        return elsewhere
    if await desk.session_of(visitor) is None:
        return go(own(desk.site.origin, "signed-out"))
    return desk.pages.page("sign_out.html", token=_token(visitor.handle))


async def sign_out(request: web.Request) -> web.Response:
    """End the session on every host."""
    desk, visitor = enter(request)
    if visitor.host != desk.site.host or not await _meant(request, desk, visitor):
        raise web.HTTPForbidden
    session = await desk.session_of(visitor)
    if session is not None:
        await desk.sessions.end(session.id, "sign-out")
    response = go(own(desk.site.origin, "signed-out", provider=_provider(session)))
    take_cookies(response)
    response.headers["Clear-Site-Data"] = _CLEAR
    return response


async def _meant(request: web.Request, desk: Desk, visitor: Visitor) -> bool:
    """Whether the form came from our own page in this browser (CSRF)."""
    if not same_origin(request, desk.site.origin):
        return False
    given, expected = (await form(request)).get("token", ""), _token(visitor.handle)
    return compare_digest(given.encode(), expected.encode())


def _provider(session: Session | None) -> str:
    return session.provider if session is not None else ""


async def signed_out(request: web.Request) -> web.Response:
    """Say so, and offer to leave the provider too, which would sign the person in again unasked."""
    desk, visitor = enter(request)
    if elsewhere := at_portal(desk, visitor, "signed-out"):
        return elsewhere
    links = [(own(desk.site.origin, "start"), "Sign in again")]
    client = desk.clients.get(request.query.get("provider", ""))
    if client is not None:
        url = await client.sign_out_url(str(desk.site.home))
        if url:
            links.append((url, f"Sign out of {client.provider.title} too"))
    return desk.pages.message(
        "You are signed out", "Your session has ended on every application.", links=links
    )


def _token(handle: str) -> str:
    """Return the form token of a browser: follows from its cookie, and does not give it away."""
    return hashlib.sha256(b"sign-out:" + handle.encode()).hexdigest()
