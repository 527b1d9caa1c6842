"""A small OpenID provider that is honest until a test bends it. Loaded by the conftests that need one."""

import base64
import hashlib
import hmac
import itertools
import json
import secrets
from urllib.parse import parse_qs, urlencode, urlsplit

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jws
from joserfc.jwk import RSAKey

NOW = 1_800_000_000  # FixedClock's start, in seconds


def _keys():
    made = []
    while len(made) < 16:  # more than a test has providers: no two of one test have the same key
        made.append(rsa.generate_private_key(65537, 2048))
        yield made[-1]
    yield from itertools.cycle(made)


_KEYS = _keys()  # a key takes a tenth of a second, and every test of a portal wants two


def new_rsa(kid="k1"):
    return RSAKey.import_key(next(_KEYS), {"kid": kid})


def half_hash(text):
    digest = hashlib.sha256(text.encode()).digest()[:16]
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class OpenIdProvider:
    """`claims`, `header`, `answers` and `bend_*` are what tests change."""

    def __init__(self):
        self.key = new_rsa()
        self.public = [self.public_of(self.key)]
        self.claims = {}  # changes to the ID token; None removes a claim
        self.header = {}
        self.userinfo = {}
        self.metadata = {}
        self.token = {}  # changes to the token answer
        self.sign = self.sign_honestly
        self.answers = {}  # path -> handler that answers instead
        self.person = {"sub": "carol", "name": "Carol", "email": "carol@example.com", "groups": ["staff"]}
        self.codes = {}
        self.refresh = {}  # refresh tokens that are good -> what they were granted for; used ones are gone
        self.revoked = []
        self.asked = []
        self.forms = []
        self.fields = []
        self.issuer = ""

    @staticmethod
    def public_of(key, **members):
        return {**key.as_dict(private=False), "use": "sig", "alg": "RS256", **members}

    def app(self):
        @web.middleware
        async def bent(request, handler):
            self.asked.append(request.path)
            return await self.answers.get(request.path, handler)(request)

        app = web.Application(middlewares=[bent])
        app.router.add_get("/.well-known/openid-configuration", self.on_discovery)
        app.router.add_get("/jwks", self.on_keys)
        app.router.add_get("/authorize", self.on_authorize)
        app.router.add_post("/token", self.on_token)
        app.router.add_get("/userinfo", self.on_userinfo)
        app.router.add_post("/revoke", self.on_revoke)
        return app

    async def on_discovery(self, request):
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": self.issuer + "/authorize",
            "token_endpoint": self.issuer + "/token",
            "jwks_uri": self.issuer + "/jwks",
            "userinfo_endpoint": self.issuer + "/userinfo",
            "end_session_endpoint": self.issuer + "/bye",
            "revocation_endpoint": self.issuer + "/revoke",
            "authorization_response_iss_parameter_supported": True,
        } | self.metadata
        return web.json_response({name: value for name, value in document.items() if value is not None})

    async def on_keys(self, request):
        return web.json_response({"keys": self.public})

    async def on_authorize(self, request):
        """Sign the person in at once and go back with a code."""
        return web.HTTPFound(self.authorize(str(request.rel_url)))

    def authorize(self, url):
        """What a browser gets for this authorization URL: the address to go to."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        return (
            asked["redirect_uri"]
            + "?"
            + urlencode({"code": code, "state": asked["state"], "iss": self.issuer})
        )

    async def on_token(self, request):
        form = dict(await request.post())
        self.forms.append(form)
        self.fields.append(dict(request.headers))
        if form.get("grant_type") == "refresh_token":
            return await self.on_refresh(form)
        asked = self.codes.pop(form.get("code"), None)
        challenge = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        expected = base64.urlsafe_b64encode(challenge).rstrip(b"=").decode()
        if asked is None or asked["code_challenge"] != expected:
            return web.json_response({"error": "invalid_grant"}, status=400)
        answer = {
            "access_token": "access",
            "token_type": "Bearer",
            "id_token": self.sign(self.id_claims(asked["nonce"], asked["client_id"])),
        } | self.token
        if "offline_access" in asked["scope"]:
            answer["refresh_token"] = self.new_refresh(asked)
        return web.json_response(answer)

    def new_refresh(self, asked):
        token = "refresh-" + secrets.token_urlsafe(16)
        self.refresh[token] = asked
        return token

    async def on_refresh(self, form):
        """Rotation: a refresh token is good once; whoever comes with a used one loses all of them."""
        asked = self.refresh.pop(form["refresh_token"], None)
        if asked is None:
            self.refresh.clear()
            return web.json_response({"error": "invalid_grant"}, status=400)
        answer = {
            "access_token": "access",
            "token_type": "Bearer",
            "refresh_token": self.new_refresh(asked),
            "id_token": self.sign(self.id_claims(None, asked["client_id"])),
        } | self.token
        return web.json_response({name: value for name, value in answer.items() if value is not None})

    async def on_revoke(self, request):
        form = dict(await request.post())
        self.revoked.append(form["token"])
        self.refresh.pop(form["token"], None)
        return web.Response()

    def id_claims(self, nonce, client_id):
        claims = {
            "iss": self.issuer,
            "aud": client_id,
            "iat": NOW,
            "exp": NOW + 300,
            "auth_time": NOW,
            "nonce": nonce,
            "at_hash": half_hash("access"),
            "amr": ["pwd", "otp"],
            "acr": "urn:mfa",
            **self.person,
        } | self.claims
        return {name: value for name, value in claims.items() if value is not None}

    def sign_honestly(self, claims):
        header = {"alg": "RS256", "kid": "k1", "typ": "JWT"} | self.header
        return jws.serialize_compact(
            {name: value for name, value in header.items() if value is not None},
            json.dumps(claims),
            self.key,
            registry=jws.JWSRegistry(algorithms=[header["alg"]], strict_check_header=False),
        )

    def sign_with_public_key(self, claims):
        """The old confusion: HMAC keyed with the public key's PEM."""
        head, body = (
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
            for part in ({"alg": "HS256", "kid": "k1"}, claims)
        )
        signature = hmac.digest(self.key.as_pem(private=False), head + b"." + body, "sha256")
        return b".".join((head, body, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()

    async def on_userinfo(self, request):
        return web.json_response({"sub": self.person["sub"]} | self.userinfo)
