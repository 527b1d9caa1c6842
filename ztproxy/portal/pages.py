"""Pages as responses: templates rendered with escaping, strict headers, errors that people can read.

Nothing is loaded from elsewhere and no page runs a script but the device check, which is a file of ours.
"""

import hashlib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any, Final

import msgspec
from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined

from ztproxy.model.endpoints import OWN
from ztproxy.model.remedies import remedies
from ztproxy.portal.site import Site

_STATIC: Final = {
    "portal.css": "text/css",
    "device.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, our own forms would come with "Origin: null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: Where a page may connect to, when it says nothing else: nowhere.
NOWHERE: Final = "'none'"


class Pages:
    """Renders templates for one site."""

    def __init__(self, site: Site) -> None:
        self._assets = {
            name: files("ztproxy.portal").joinpath("static", name).read_bytes() for name in _STATIC
        }
        self._environment = Environment(
            loader=PackageLoader("ztproxy.portal"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(site=site, asset=self._asset_url, remedies=remedies)
        self._environment.filters.update(span=span, words=words)

    def page(self, name: str, *, status: int = 200, connect: str = NOWHERE, **values: Any) -> web.Response:
        """Return a page. `connect` is the CSP source list its script may connect to."""
        text = self._environment.get_template(name).render(values)
        response = web.Response(text=text, status=status, content_type="text/html")
        response.headers["Content-Security-Policy"] = _policy(connect)
        return response

    def message(self, title: str, text: str, *, status: int = 200, **values: Any) -> web.Response:
        """Return a page with a title, a sentence, and ways on (`links`: (address, label) pairs)."""
        values = {"links": (), "reference": "", "kind": "info" if status < 400 else "stop"} | values
        return self.page("message.html", status=status, title=title, text=text, **values)

    def static_routes(self) -> Iterable[web.RouteDef]:
        """Return the routes of the style sheet, the icon and the script."""
        for name, kind in _STATIC.items():
            yield web.get(f"{OWN}static/{name}", _static(self._assets[name], kind))

    def _asset_url(self, name: str) -> str:
        """The content's hash in the address lets browsers keep it and still see every change."""
        return f"{OWN}static/{name}?v={hashlib.sha256(self._assets[name]).hexdigest()[:16]}"


def _static(content: bytes, kind: str) -> Any:
    async def serve(request: web.Request) -> web.Response:
        kept = "public, max-age=604800, immutable" if "v" in request.query else "no-cache"
        return web.Response(body=content, content_type=kind, charset="utf-8", headers={"Cache-Control": kept})

    return serve


def _policy(connect: str) -> str:
    script = "'none'" if connect == NOWHERE else "'self'"
    return (
        f"default-src 'none'; style-src 'self'; img-src 'self'; script-src {script}; connect-src {connect}; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def secure(response: web.StreamResponse) -> None:
    """Add the header fields that every response of ours carries, unless it says otherwise."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)


def problem(code: str, title: str, status: int, **members: object) -> web.Response:
    """Return RFC 9457 problem details for our scripts and programs."""
    body: Mapping[str, object] = {
        "type": "urn:ztproxy:problem:" + code,
        "title": title,
        "status": status,
        "code": code,
        **members,
    }
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/problem+json"
    )


def span(ms: int) -> str:
    """Return a duration as people say it: "just now" is "moments", then minutes, hours, days."""
    seconds = max(ms, 0) // 1000
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {name}{'' if count == 1 else 's'}"
    return "moments" if seconds < 10 else f"{seconds} seconds"


def words(name: str) -> str:
    """Return the name of a check as people read it: "os_supported" is "OS supported"."""
    text = name.replace("_", " ").capitalize()
    return "OS" + text[2:] if text == "Os" or text.startswith("Os ") else text
