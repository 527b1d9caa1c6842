"""Renders the applications' pages: one template environment, strict headers, nothing from elsewhere."""

from pathlib import Path
from typing import Final

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ztproxy.demo.apps.counting import ARRIVALS, Arrivals, count
from ztproxy.demo.apps.identity import CALLER, Assertions, Next, signed_in

HERE: Final = Path(__file__).parent
_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_SOURCES: Final = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"
_HEADERS: Final = {
    "Content-Security-Policy": _SOURCES,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def page(request: web.Request, template: str, *, status: int = 200, **values: object) -> web.Response:
    """One page as a response, with the caller at hand for the template."""
    text = _TEMPLATES.get_template(template).render(caller=request[CALLER], **values)
    return web.Response(text=text, content_type="text/html", status=status, headers=_HEADERS)


@web.middleware
async def same_site(request: web.Request, handler: Next) -> web.StreamResponse:
    """Changes come from our own pages only: a browser says where a form was filled in."""
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return web.Response(status=403, text="This form was sent from another site.\n")
    return await handler(request)


def application(assertions: Assertions) -> web.Application:
    """An application that counts, then asks who it is, and has the common static files."""
    app = web.Application(middlewares=[count, signed_in(assertions), same_site], client_max_size=64 * 1024)
    app[ARRIVALS] = Arrivals()
    app.router.add_static("/static", HERE / "static")
    return app
