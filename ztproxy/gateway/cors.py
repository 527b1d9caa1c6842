"""Cross-origin requests, as far as a route allows them (Fetch standard, section 3.2).

Called by `gateway.http` for preflights, which carry no credentials and are answered here, and by
`gateway.rewriting` and `gateway.connection` for what pages of another origin may read. Pure. It permits
nothing: it only tells browsers which pages may read what policy permits.
"""

from typing import Final

from ztproxy.model.changes import Cors
from ztproxy.model.ports import Router
from ztproxy.model.route import Route
from ztproxy.wire import fields
from ztproxy.wire.http1 import RequestHead, ResponseHead

_VARY: Final = b"Vary: Origin\r\n"


def asked(head: RequestHead, route: Route | None) -> Cors | None:
    """Return the rules that a preflight is to be answered by, None when a request is no such thing."""
    if route is None or route.changes is None or route.changes.cors is None:
        return None
    preflight = fields.ORIGIN in head.notes and fields.CORS_METHOD in head.notes
    return route.changes.cors if preflight else None


def may_read(rules: Cors, head: RequestHead) -> bool:
    """Tell whether pages of the request's origin may read answers."""
    origin = head.notes.get(fields.ORIGIN)
    return origin is not None and (not rules.origins or origin.decode("latin-1") in rules.origins)


def lines(rules: Cors, head: RequestHead) -> bytes:
    """Return the header lines of an answer, each ended by CRLF."""
    if not rules.origins:
        return b"Access-Control-Allow-Origin: *\r\n" + rules.actual
    return _named(head) + rules.actual + _VARY if may_read(rules, head) else _VARY


def refusal_lines(head: RequestHead | None, routes: Router) -> str:
    """Return the same for a refusal: a page that may read answers may read why there is none."""
    if head is None or head.problem or fields.ORIGIN not in head.notes:
        return ""
    route = routes.match(head.host, head.path).route
    if route is None or route.changes is None or route.changes.cors is None:
        return ""
    return lines(route.changes.cors, head).decode("latin-1")


def answer(rules: Cors, head: RequestHead) -> ResponseHead:
    """Return the answer to a preflight from an origin that may read."""
    origin = _named(head) if rules.origins else b"Access-Control-Allow-Origin: *\r\n"
    return ResponseHead(
        status=204,
        line=b"HTTP/1.1 204 No Content\r\n",
        keep_alive=True,
        fields=origin + rules.preflight + (_VARY if rules.origins else b""),
        body=0,
        length=b"",
        upgrade="",
        bound=False,
        trailer=b"",
        options=frozenset(),
        notes={},
    )


def _named(head: RequestHead) -> bytes:
    return b"Access-Control-Allow-Origin: %b\r\n" % head.notes[fields.ORIGIN]
