"""Where identity providers say that somebody signed out there (OpenID Connect Back-Channel Logout 1.0).

Mounted by the service on the portal's host, one address for each provider. Whoever asks here is a stranger
until the logout token is verified with that provider's keys.
"""

import logging
from collections.abc import Mapping
from typing import Final, Protocol

from aiohttp import web

from ztproxy.api.problems import answer, render
from ztproxy.api.signals import asked_host
from ztproxy.model.endpoints import LOGOUT
from ztproxy.trust.identity.logout import MAX_TOKEN, Logout
from ztproxy.trust.identity.provider import SignInRefused, TemporaryProviderError

log = logging.getLogger("ztproxy.signals")

_LARGEST: Final = MAX_TOKEN + 1024


class Provider(Protocol):
    """Verifies logout tokens (trust.identity.oidc.OpenIdClient)."""

    async def logged_out(self, token: str) -> Logout:
        """Return what a genuine one says. Raises TemporaryProviderError, SignInRefused."""


class LoggedOut(Protocol):
    """Ends sessions (administrator.signals.logouts)."""

    async def end(self, provider: str, logout: Logout) -> bool:
        """End those that are meant; False when this very token was used before."""


def routes(providers: Mapping[str, Provider], ending: LoggedOut, host: str) -> list[web.RouteDef]:
    """Return the route, on the portal's `host` only."""

    async def logout(request: web.Request) -> web.Response:
        name = request.match_info["provider"]
        provider = providers.get(name)
        if provider is None or asked_host(request) != host:
            return render("not-found")
        token = await _token(request)
        if not token:
            return _refusal("expected a form with one logout_token")
        try:
            said = await provider.logged_out(token)
        except SignInRefused as refused:
            log.warning("a logout was refused", extra={"source": name, "reason": str(refused)})
            return _refusal("the logout token is not valid")
        except TemporaryProviderError:
            return render("facts-unavailable")
        if not await ending.end(name, said):
            return _refusal("the logout token was used before")
        return web.Response(headers={"Cache-Control": "no-store"})

    return [web.post(LOGOUT + "{provider}", logout)]


async def _token(request: web.Request) -> str:
    length = request.content_length
    if request.content_type != "application/x-www-form-urlencoded" or length is None or length > _LARGEST:
        return ""
    if "Content-Encoding" in request.headers:
        return ""
    found = (await request.post()).getall("logout_token", [])
    return found[0] if len(found) == 1 and isinstance(found[0], str) else ""


def _refusal(why: str) -> web.Response:
    """Section 2.8."""
    return answer({"error": "invalid_request", "error_description": why}, 400)
