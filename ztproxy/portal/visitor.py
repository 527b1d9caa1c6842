"""Who is at the door of the portal, as the gateway says: its Zt-* header fields and our cookies.

The portal listens on a unix socket of which the gateway is the only client, and the gateway strips these
fields from what clients send. A request without them did not come through the gateway and is refused.
"""

import base64
import hashlib
import re
from ipaddress import ip_address
from typing import Final

import msgspec
from aiohttp import web
from msgspec import Struct

from ztproxy.model.request import ClientCertificate
from ztproxy.net.rate import source_of
from ztproxy.portal.site import Site

SESSION_COOKIE: Final = "__Host-ztproxy"
FLOW_COOKIE: Final = "__Host-ztproxy-flow"
_FLOW_LIFETIME: Final = 600  # seconds
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_REQUEST_ID: Final = re.compile(r"[0-9a-f]{32}")
_decode_certificate = msgspec.json.Decoder(ClientCertificate).decode


class Visitor(Struct, frozen=True):
    """One request's circumstances. Cookie values are "" when absent or not of our form."""

    request_id: str
    ip: str
    host: str  # as requested, lower-case, without port
    handle: str
    flow: str
    user_agent: str
    certificate: ClientCertificate | None = None

    @property
    def network(self) -> str:
        """What is counted as one source: an IPv4 address or an IPv6 /64."""
        return source_of(self.ip)

    @property
    def flow_digest(self) -> str:
        """What other hosts may know of the flow cookie."""
        return digest_of(self.flow)


def digest_of(flow: str) -> str:
    """Return the digest of a flow cookie's value, "" of none."""
    return hashlib.sha256(flow.encode()).hexdigest() if flow else ""


def visitor_of(request: web.Request, site: Site) -> Visitor:
    """Read who asks. Raises HTTPBadRequest for what the gateway would never send."""
    headers = request.headers
    host = headers.get("Zt-Host", "").lower().partition(":")[0]
    request_id, ip = headers.get("Zt-Request-Id", ""), headers.get("Zt-Client-Ip", "")
    if host not in site.hosts or not _REQUEST_ID.fullmatch(request_id):
        raise web.HTTPBadRequest
    try:
        ip_address(ip)
        certificate = _certificate(headers.get("Zt-Certificate", ""))
    except ValueError as error:
        raise web.HTTPBadRequest from error
    return Visitor(
        request_id=request_id,
        ip=ip,
        host=host,
        handle=_cookie(request, SESSION_COOKIE),
        flow=_cookie(request, FLOW_COOKIE),
        user_agent=_shown(headers.get("User-Agent", "")[:256]),
        certificate=certificate,
    )


def _cookie(request: web.Request, name: str) -> str:
    value = request.cookies.get(name, "")
    return value if _TOKEN.fullmatch(value) else ""


def _shown(text: str) -> str:
    """Return text that can be stored and shown: bytes that are no UTF-8 come as halves of surrogate pairs."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _certificate(text: str) -> ClientCertificate | None:
    if not text:
        return None
    return _decode_certificate(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def same_origin(request: web.Request, origin: str) -> bool:
    """Whether a state-changing request comes from a page of ours: browsers say so in at least one way."""
    site, sender = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is None and sender is None:
        return False
    return site in (None, "same-origin") and sender in (None, origin)


def give_handle(response: web.StreamResponse, value: str) -> None:
    """Set the session cookie: this host only, no script, no cross-site requests but navigations."""
    response.set_cookie(SESSION_COOKIE, value, path="/", secure=True, httponly=True, samesite="Lax")


def give_flow(response: web.StreamResponse, value: str) -> None:
    """Set or prolong the cookie that binds a sign-in under way to this browser."""
    response.set_cookie(
        FLOW_COOKIE, value, path="/", secure=True, httponly=True, samesite="Lax", max_age=_FLOW_LIFETIME
    )


def take_cookies(response: web.StreamResponse) -> None:
    """Delete our cookies on this host."""
    for name in (SESSION_COOKIE, FLOW_COOKIE):
        response.del_cookie(name, path="/", secure=True, httponly=True, samesite="Lax")
