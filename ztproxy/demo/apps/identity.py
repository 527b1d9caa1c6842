"""Who is asking, as an application finds out: it verifies the assertion that came with the request.

Used by all three applications. Never believes a header that is not covered by the signature.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Middleware
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import extract_compact
from msgspec import Struct

from ztproxy.net.names import Resolver

HEADER: Final = "Zt-Assertion"
REFRESH_SECONDS: Final = 5.0  # an unknown key id asks for the keys again, but no faster than this


class Caller(Struct, frozen=True):
    """The verified person or program behind a request."""

    id: str
    name: str = ""
    email: str = ""
    groups: tuple[str, ...] = ()
    device: str = ""
    session: str = ""

    @property
    def label(self) -> str:
        """What to call this caller on a page."""
        return self.name or self.id.rsplit("/", 1)[-1]


class PublishedKeys:
    """The proxy's signing keys, fetched from where it publishes them and kept."""

    def __init__(self, url: str, ca: str) -> None:
        self._url = url
        self._tls = ssl.create_default_context(cafile=ca)
        self._keys: dict[str, KeySet] = {}
        self._fetched = -REFRESH_SECONDS
        self._lock = asyncio.Lock()

    async def find(self, kid: str) -> KeySet | None:
        """The key of this id, or None when the proxy publishes no such key."""
        if kid not in self._keys:
            async with self._lock:
                if kid not in self._keys and time.monotonic() - self._fetched >= REFRESH_SECONDS:
                    await self._fetch()
        return self._keys.get(kid)

    async def _fetch(self) -> None:
        connector = aiohttp.TCPConnector(ssl=self._tls, resolver=Resolver())
        timeout = aiohttp.ClientTimeout(total=5)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(self._url, allow_redirects=False) as answer,
        ):
            answer.raise_for_status()
            document = await answer.json(content_type=None)
        self._keys = {key["kid"]: KeySet.import_key_set({"keys": [key]}) for key in document["keys"]}
        self._fetched = time.monotonic()


class Assertions:
    """Reads the assertion of a request for one audience, which is the application's own address."""

    def __init__(self, issuer: str, audience: str, keys: PublishedKeys) -> None:
        self._keys = keys
        self._rules = jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            sub={"essential": True},
            exp={"essential": True},
        )

    async def caller(self, request: web.Request) -> Caller | None:
        """The caller, or None when there is no assertion that stands."""
        try:
            return await self._verified(request.headers[HEADER])
        except (KeyError, ValueError, JoseError, aiohttp.ClientError, TimeoutError):
            return None

    async def _verified(self, token: str) -> Caller | None:
        kid = extract_compact(token.encode()).headers().get("kid", "")
        keys = await self._keys.find(kid)
        if keys is None:
            return None
        claims = jwt.decode(token, keys, algorithms=["ES256"]).claims
        self._rules.validate(claims)
        return Caller(
            id=claims["sub"],
            name=claims.get("name", ""),
            email=claims.get("email", ""),
            groups=tuple(claims.get("groups", ())),
            device=claims.get("device") or "",
            session=claims.get("sid", ""),
        )


CALLER: Final = web.RequestKey("caller", Caller)
Next = Callable[[web.Request], Awaitable[web.StreamResponse]]


def signed_in(assertions: Assertions) -> Middleware:
    """A middleware that serves nobody without a verified assertion."""

    @web.middleware
    async def middleware(request: web.Request, handler: Next) -> web.StreamResponse:
        caller = await assertions.caller(request)
        if caller is None:
            return web.Response(status=401, text="This application serves its access proxy only.\n")
        request[CALLER] = caller
        return await handler(request)

    return middleware
