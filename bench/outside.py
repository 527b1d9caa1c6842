"""The world outside: an identity provider that also transmits security events. Used by `bench.cut`.

It answers for its keys over HTTP and makes what it pushes: events of CAEP and RISC, logout tokens.
"""

import secrets
import time

from aiohttp import web

from ztproxy.crypto.jose import sign, signing_key
from ztproxy.net import keyfiles
from ztproxy.trust.signals.events import URIS

CLIENT = "ztproxy"
AUTHORIZATION = "Bearer agreed-on"
LOGOUT = "http://schemas.openid.net/event/backchannel-logout"

#: Lines for the configuration of a node. The names of provider and transmitter are `corp`.
CONFIG = """\
identity:
  providers:
    - {{name: corp, issuer: "{issuer}", client_id: ztproxy, client_secret: "file:../client.secret",
       algorithms: [ES256]}}
signals:
  transmitters:
    - {{name: corp, issuer: "{issuer}", audience: [ztproxy], authorization: "file:../push.secret"}}
"""


class Outside:
    """The provider. `await start()`, later `stop()`, as often as wanted: its key stays the same."""

    def __init__(self, port: int) -> None:
        self.port, self.issuer = port, f"http://127.0.0.1:{port}"
        self._key = signing_key(keyfiles.new_key())
        self.groups: dict[str, list[str]] = {}  # of people, if not the usual ones
        self.gone: set[str] = set()  # people whose grants are over

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/.well-known/ssf-configuration", self._streams)
        app.router.add_get("/jwks", self._keys)
        app.router.add_post("/token", self._token)
        app.router.add_get("/userinfo", self._userinfo)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        """Be gone."""
        await self._runner.cleanup()

    async def _discovery(self, _: web.Request) -> web.Response:
        endpoints = {
            f"{name}_endpoint": f"{self.issuer}/{name}" for name in ("authorization", "token", "userinfo")
        }
        return web.json_response({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks"} | endpoints)

    async def _token(self, request: web.Request) -> web.Response:
        """A refresh token is the name of its person, and so is the access token for it."""
        subject = str((await request.post()).get("refresh_token", ""))
        if not subject or subject in self.gone:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response({"access_token": subject, "token_type": "Bearer", "expires_in": 60})

    async def _userinfo(self, request: web.Request) -> web.Response:
        subject = request.headers["Authorization"].removeprefix("Bearer ")
        return web.json_response({"sub": subject, "groups": self.groups.get(subject, ["staff"])})

    async def _streams(self, _: web.Request) -> web.Response:
        return web.json_response({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks"})

    async def _keys(self, _: web.Request) -> web.Response:
        return web.json_response({"keys": [self._key.jwk]})

    def event(self, name: str, subject: dict[str, object], **members: object) -> str:
        """Return a security event token (RFC 8417) about a subject."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "iat": now,
            "jti": secrets.token_hex(16),
            "sub_id": subject,
            "events": {URIS[name]: {"event_timestamp": now, **members}},
        }
        return sign(claims, self._key, "secevent+jwt")

    def person(self, subject: str) -> dict[str, object]:
        """Return how a person is named in events."""
        return {"format": "iss_sub", "iss": self.issuer, "sub": subject}

    def logout(self, subject: str, sid: str) -> str:
        """Return a logout token of a session (OpenID Connect Back-Channel Logout 1.0)."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 120,
            "jti": secrets.token_hex(16),
            "sub": subject,
            "sid": sid,
            "events": {LOGOUT: {}},
        }
        return sign(claims, self._key, "logout+jwt")
