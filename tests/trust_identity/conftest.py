"""A sign-in at a provider of our own, on loopback."""

import importlib.util
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiohttp.test_utils import TestServer

from ztproxy.net.clock import FixedClock
from ztproxy.trust.identity.fetch import http_session
from ztproxy.trust.identity.oidc import Attempt, OpenIdClient
from ztproxy.trust.identity.provider import Provider

_spec = importlib.util.spec_from_file_location(
    "openid_provider", Path(__file__).with_name("openid_provider.py")
)
openid = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(openid)

REDIRECT = "https://portal.example:8443/.ztproxy/callback"


class Place:
    def __init__(self, provider, http, clock):
        self.provider, self.http, self.clock = provider, http, clock
        self.restart()

    def restart(self, **changes):
        settings = {
            "name": "corp",
            "title": "Corp",
            "issuer": self.provider.issuer,
            "client_id": "zt",
            "client_secret": "s3cret:/&",
        } | changes
        self.client = OpenIdClient(Provider(**settings), self.http, self.clock)
        return self

    def attempt(self, **changes):
        values = {
            "state": "S" * 43,
            "nonce": "N" * 43,
            "verifier": "V" * 43,
            "redirect_uri": REDIRECT,
            "started_at": self.clock.now(),
        }
        return Attempt(**values | changes)

    async def answer(self, attempt):
        """Go to the provider and come back, as a browser does; return the query it brings."""
        url = self.provider.authorize(await self.client.authorization_url(attempt))
        return dict(parse_qsl(urlsplit(url).query))

    async def sign_in(self, **changes):
        attempt = self.attempt(**changes)
        return await self.client.sign_in(await self.answer(attempt), attempt)


@pytest.fixture
async def place():
    provider = openid.OpenIdProvider()
    server = TestServer(provider.app())
    await server.start_server()
    provider.issuer = str(server.make_url("")).rstrip("/")
    async with http_session() as http:
        yield Place(provider, http, FixedClock())
    await server.close()
