"""What agents ask for: enrolment, taking a report, renewal. Mounted below /.ztproxy/ on the portal's host.

Mounted by the service into the control process's application, behind the gateway, whose Zt-* headers are
trusted. Everything else about a caller is proved by what it signed.
"""

from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from ztproxy.administrator.devices import Enrolled
from ztproxy.api.enrolling import Attempts, guarded, statement, wish
from ztproxy.api.problems import answer
from ztproxy.crypto.posture_document import MAX_SIZE
from ztproxy.model.endpoints import ENROL, POSTURE, RENEW
from ztproxy.model.subject import Posture
from ztproxy.net.clock import Clock


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
    attempts = Attempts(clock)

    async def enrol(request: web.Request) -> web.Response:
        attempts.count(request)
        wished = await wish(request, _Wish)
        enrolled = await devices.enrol(wished.code, wished.csr, wished.name)
        return answer({**_certificate(enrolled), "portal": devices.origin}, 201)

    async def posture(request: web.Request) -> web.Response:
        taken = await devices.accept_posture(await statement(request, MAX_SIZE))
        checks = {name: check.result for name, check in taken.checks.items()}
        return answer({"seq": taken.seq, "healthy": taken.healthy, "checks": checks})

    async def renew(request: web.Request) -> web.Response:
        return answer(_certificate(await devices.renew(await statement(request, MAX_SIZE))))

    handlers = {ENROL: enrol, POSTURE: posture, RENEW: renew}
    return [web.post(path, guarded(handler, host)) for path, handler in handlers.items()]


def _certificate(enrolled: Enrolled) -> dict[str, Any]:
    return {
        "device": {"id": enrolled.device.id, "name": enrolled.device.name},
        "certificate": enrolled.certificate.pem,
        "not_after": enrolled.certificate.not_after,
    }
