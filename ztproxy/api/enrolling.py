"""What the endpoints of devices and connectors have in common: whom they answer, and how they read.

Used by `api.devices` and `api.connectors`. Nothing here reads a cookie, so nothing here can be done with
somebody else's browser; whatever is read is bounded before it is looked at.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from ztproxy.administrator.audit import AuditUnavailable
from ztproxy.administrator.enrolment import Refused
from ztproxy.api.problems import Problem, render
from ztproxy.crypto.csr import MAX_REQUEST
from ztproxy.crypto.encoding import EncodingError, read_object
from ztproxy.model.quota import Rate
from ztproxy.net.clock import Clock
from ztproxy.net.rate import Buckets, source_of
from ztproxy.store.interface import StoreUnavailable

#: Attempts to enrol, from one source: five at once, then one each ten seconds.
RATE: Final = Rate(per_second=0.1, burst=5)

Handler = Callable[[web.Request], Awaitable[web.Response]]
W = TypeVar("W", bound=msgspec.Struct)


class Attempts:
    """Attempts to enrol, by source."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets = Buckets(RATE)

    def count(self, request: web.Request) -> None:
        """Count one more. Raises Problem: too many."""
        source = source_of(request.headers.get("Zt-Client-Ip", ""))
        if not self._buckets.take(source, self._clock.monotonic()):
            raise Problem("too-many-requests")


def guarded(handler: Handler, host: str) -> Handler:
    """Only on the portal's host, and every expected failure is a problem with a stable code."""

    async def answered(request: web.Request) -> web.Response:
        try:
            if _host(request) != host:
                raise Problem("not-found")
            return await handler(request)
        except Problem as problem:
            return render(problem.code, problem.detail)
        except Refused as refused:
            return render(refused.code, str(refused))
        except StoreUnavailable:
            return render("facts-unavailable")
        except AuditUnavailable:
            return render("audit-unavailable")

    return answered


async def wish(request: web.Request, kind: type[W]) -> W:
    """Return what is wished for by somebody with a code. Raises Problem."""
    body = await _body(request, "application/json", MAX_REQUEST + 1024)
    try:
        return msgspec.convert(read_object(body), kind)
    except (EncodingError, msgspec.ValidationError) as error:
        raise Problem("bad-request") from error


async def statement(request: web.Request, longest: int) -> str:
    """Return a signed statement, unread. Raises Problem."""
    body = await _body(request, "application/jose", longest)
    if not body.isascii():
        raise Problem("bad-request")
    return body.decode("ascii").strip()


def _host(request: web.Request) -> str:
    asked = request.headers.get("Zt-Host", "").lower()
    name, colon, port = asked.rpartition(":")
    return name if colon and port.isdigit() else asked


async def _body(request: web.Request, content_type: str, longest: int) -> bytes:
    if request.content_type != content_type:
        raise Problem("media-type-not-supported", f"expected {content_type}")
    body = b""
    async for chunk in request.content.iter_chunked(4096):
        body += chunk
        if len(body) > longest:
            raise Problem("body-too-large")
    return body
