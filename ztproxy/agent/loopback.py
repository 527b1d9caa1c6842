"""Proves this device to its own browser: one POST on 127.0.0.1, for pages of the portal only.

A web page can reach every port of loopback, so everything about a request is checked before anything is
signed: the Host it was sent to (DNS rebinding), the Origin it came from, its type, and that what it wants
signed is for that very origin. Others learn nothing, not even by CORS headers.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from ztproxy.agent.state import Identity
from ztproxy.crypto import statements
from ztproxy.crypto.encoding import EncodingError, read_object
from ztproxy.crypto.jose import SigningKey, sign
from ztproxy.model.quota import Rate
from ztproxy.net.clock import Clock
from ztproxy.net.rate import Bucket

PROVE: Final = "/v1/prove"

_MAX_BODY: Final = 2048
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{16,256}", re.ASCII)
_RATE: Final = Rate(per_second=1.0, burst=10)

#: What a browser asks before it lets a public page reach loopback, and our answer (Private Network Access,
#: Local Network Access).
_NETWORK_QUESTIONS: Final = {
    "Access-Control-Request-Private-Network": "Access-Control-Allow-Private-Network",
    "Access-Control-Request-Local-Network": "Access-Control-Allow-Local-Network",
}


class _Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def application(identity: Identity, signer: SigningKey, clock: Clock, port: int) -> web.Application:
    """Return the application to serve on 127.0.0.1:`port`."""
    desk = _Desk(identity, signer, clock, port)
    made = web.Application(client_max_size=_MAX_BODY, middlewares=[desk.guard])
    made.router.add_post(PROVE, desk.prove)
    made.router.add_route("OPTIONS", PROVE, desk.preflight)
    return made


class _Desk:
    """The checks and the two handlers."""

    def __init__(self, identity: Identity, signer: SigningKey, clock: Clock, port: int) -> None:
        self._identity = identity
        self._signer = signer
        self._clock = clock
        self._hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        self._attempts = Bucket(_RATE, clock.monotonic())

    @web.middleware
    async def guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Let only pages of the portal pass, and say who may read the answer."""
        if request.path != PROVE or request.method not in ("POST", "OPTIONS"):
            return _empty(404)
        origin = self._believed(request)
        if origin is None:
            return _empty(403)
        try:
            response = await handler(request)
        except _Refused as refused:
            response = _json({"error": refused.status}, refused.status)  # a page may tell it from silence
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Vary"] = "Origin"
        return response

    def _believed(self, request: web.Request) -> str | None:
        origins, hosts = request.headers.getall("Origin", []), request.headers.getall("Host", [])
        if len(origins) != 1 or len(hosts) != 1 or hosts[0] not in self._hosts:
            return None
        return origins[0] if origins[0] in self._identity.origins else None

    async def preflight(self, request: web.Request) -> web.Response:
        """Answer what a browser asks first."""
        if request.headers.get("Access-Control-Request-Method") != "POST":
            raise _Refused(403)
        response = _empty(204)
        response.headers["Access-Control-Allow-Methods"] = "POST"
        response.headers["Access-Control-Allow-Headers"] = "content-type"
        response.headers["Access-Control-Max-Age"] = "60"
        for question, permission in _NETWORK_QUESTIONS.items():
            if request.headers.get(question) == "true":
                response.headers[permission] = "true"
        return response

    async def prove(self, request: web.Request) -> web.Response:
        """Sign the nonce for the origin that asks, and for no other."""
        if self._attempts.take(self._clock.monotonic()):
            raise _Refused(429)
        wish = await _wish(request)
        nonce, audience = wish.get("nonce"), wish.get("audience")
        if wish.keys() != {"nonce", "audience"} or not isinstance(nonce, str) or not _NONCE.fullmatch(nonce):
            raise _Refused(400)
        if audience != request.headers["Origin"]:
            raise _Refused(403)
        claims = statements.proof(self._identity.id, audience, nonce, self._clock.now())
        proof = sign(claims, self._signer, statements.PROOF)
        return _json({"proof": proof}, 200)


_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def _empty(status: int) -> web.Response:
    return web.Response(status=status, headers=_HEADERS)


def _json(value: dict[str, Any], status: int) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, content_type="application/json", headers=_HEADERS)


async def _wish(request: web.Request) -> dict[str, Any]:
    if request.content_type != "application/json":
        raise _Refused(415)  # a form would come without a preflight
    body = b""
    async for chunk in request.content.iter_chunked(1024):
        body += chunk
        if len(body) > _MAX_BODY:
            raise _Refused(413)
    try:
        return read_object(body)
    except EncodingError as error:
        raise _Refused(400) from error
