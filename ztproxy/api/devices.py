"""What agents ask for: enrolment, taking a report, renewal. Mounted below /.ztproxy/ on the portal's host.

Mounted by the service into the control process's application, behind the gateway, whose Zt-* headers are
trusted. Everything else about a caller is proved by what it signed. Nothing here reads a cookie, so nothing
here can be done with somebody else's browser.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from ztproxy.administrator.audit import AuditUnavailable
from ztproxy.administrator.devices import Enrolled
from ztproxy.administrator.enrolment import Refused
from ztproxy.api.problems import Problem, answer, render
from ztproxy.crypto.csr import MAX_REQUEST
from ztproxy.crypto.encoding import EncodingError, read_object
from ztproxy.crypto.posture_document import MAX_SIZE
from ztproxy.model.endpoints import ENROL, POSTURE, RENEW
from ztproxy.model.quota import Rate
from ztproxy.model.subject import Posture
from ztproxy.net.clock import Clock
from ztproxy.net.rate import Buckets, source_of
from ztproxy.store.interface import StoreUnavailable

#: Attempts to enrol, from one source: five at once, then one each ten seconds.
_RATE: Final = Rate(per_second=0.1, burst=5)

Handler = Callable[[web.Request], Awaitable[web.Response]]


class Devices(Protocol):
    """What is asked of administrator.devices. All raise Refused, StoreUnavailable."""

    origin: str

    async def enrol(self, code: str, csr: str, name: str = "") -> Enrolled:
        """Turn a code into a device."""

    async def accept_posture(self, token: str) -> Posture:
        """Take a signed report."""

    async def renew(self, token: str) -> Enrolled:
        """Issue a new certificate."""


class _Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    code: str
    csr: str
    name: str = ""


def routes(devices: Devices, clock: Clock) -> list[web.RouteDef]:
    """Return the routes for agents."""
    host = urlsplit(devices.origin).hostname or ""
    attempts = Buckets(_RATE)

    async def enrol(request: web.Request) -> web.Response:
        if not attempts.take(source_of(request.headers.get("Zt-Client-Ip", "")), clock.monotonic()):
            raise Problem("too-many-requests")
        wish = await _wish(request)
        enrolled = await devices.enrol(wish.code, wish.csr, wish.name)
        return answer({**_certificate(enrolled), "portal": devices.origin}, 201)

    async def posture(request: web.Request) -> web.Response:
        taken = await devices.accept_posture(await _statement(request))
        checks = {name: check.result for name, check in taken.checks.items()}
        return answer({"seq": taken.seq, "healthy": taken.healthy, "checks": checks})

    async def renew(request: web.Request) -> web.Response:
        return answer(_certificate(await devices.renew(await _statement(request))))

    handlers = {ENROL: enrol, POSTURE: posture, RENEW: renew}
    return [web.post(path, _guarded(handler, host)) for path, handler in handlers.items()]


def _guarded(handler: Handler, host: str) -> Handler:
    """Only on the portal's host, and every expected failure is a problem with a stable code."""

    async def guarded(request: web.Request) -> web.Response:
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

    return guarded


def _host(request: web.Request) -> str:
    asked = request.headers.get("Zt-Host", "").lower()
    name, colon, port = asked.rpartition(":")
    return name if colon and port.isdigit() else asked


def _certificate(enrolled: Enrolled) -> dict[str, Any]:
    return {
        "device": {"id": enrolled.device.id, "name": enrolled.device.name},
        "certificate": enrolled.certificate.pem,
        "not_after": enrolled.certificate.not_after,
    }


async def _wish(request: web.Request) -> _Wish:
    body = await _body(request, "application/json", MAX_REQUEST + 1024)
    try:
        return msgspec.convert(read_object(body), _Wish)
    except (EncodingError, msgspec.ValidationError) as error:
        raise Problem("bad-request") from error


async def _statement(request: web.Request) -> str:
    body = await _body(request, "application/jose", MAX_SIZE)
    if not body.isascii():
        raise Problem("bad-request")
    return body.decode("ascii").strip()


async def _body(request: web.Request, content_type: str, longest: int) -> bytes:
    if request.content_type != content_type:
        raise Problem("media-type-not-supported", f"expected {content_type}")
    body = b""
    async for chunk in request.content.iter_chunked(4096):
        body += chunk
        if len(body) > longest:
            raise Problem("body-too-large")
    return body
