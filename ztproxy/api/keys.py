"""The public keys of our identity assertions (RFC 7517), for upstreams that check them.

Mounted by the service on the portal's host. Public by nature; never a private member.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from aiohttp import web

from ztproxy.model.endpoints import JWKS

#: Upstreams may keep the keys this long (s). The previous key stays published, so a rotation is never missed.
_MAX_AGE: Final = 300


class PublishedKeys(Protocol):
    """Who knows the keys (administrator.issue.Assertions)."""

    def published(self) -> Sequence[dict[str, str]]:
        """Return public keys as JWK."""


def routes(keys: PublishedKeys) -> list[web.RouteDef]:
    """Return the route of the key set."""

    async def jwks(_: web.Request) -> web.Response:
        return web.Response(
            body=msgspec.json.encode({"keys": keys.published()}),
            content_type="application/jwk-set+json",
            headers={"Cache-Control": f"public, max-age={_MAX_AGE}", "X-Content-Type-Options": "nosniff"},
        )

    return [web.get(JWKS, jwks)]
