"""A transmitter written from the examples of SSF 1.0, CAEP 1.0 and RISC 1.0, honest until a test bends it.

It shares no code with the product: joserfc signs, aiohttp serves. Loaded by the conftests that need one.
"""

import asyncio
import base64
import hmac
import json
import secrets
import time

import aiohttp
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
SSF = "https://schemas.openid.net/secevent/ssf/event-type/"

#: Every event, with the members of the standards' examples. `{...}` of subjects is left to the test.
EXAMPLES = {
    CAEP + "session-revoked": {
        "initiating_entity": "policy",
        "reason_admin": {"en": "Landspeed Policy Violation: C076E82F"},
        "reason_user": {"en": "Access attempt from multiple regions."},
        "event_timestamp": 1615304991,
    },
    CAEP + "token-claims-change": {"event_timestamp": 1615304991, "claims": {"role": "ro-admin"}},
    CAEP + "credential-change": {
        "credential_type": "fido2-roaming",
        "change_type": "revoke",
        "fido2_aaguid": "accced6a-63f5-490a-9eea-e59bc1896cfc",
        "friendly_name": "Jane's USB authenticator",
        "initiating_entity": "user",
        "reason_admin": {"en": "User self-enrollment"},
        "event_timestamp": 1615304991,
    },
    CAEP + "assurance-level-change": {
        "namespace": "NIST-AAL",
        "current_level": "nist-aal1",
        "previous_level": "nist-aal2",
        "change_direction": "decrease",
        "initiating_entity": "user",
        "event_timestamp": 1615304991,
    },
    CAEP + "device-compliance-change": {
        "current_status": "not-compliant",
        "previous_status": "compliant",
        "initiating_entity": "policy",
        "reason_admin": {"en": "Location Policy Violation: C076E8A3"},
        "event_timestamp": 1615304991,
    },
    CAEP + "session-established": {
        "fp_ua": "abb0b6e7da81a42233f8f2b1a8ddb1b9a4c81611",
        "acr": "AAL2",
        "amr": ["otp"],
        "event_timestamp": 1615304991,
    },
    CAEP + "session-presented": {
        "fp_ua": "abb0b6e7da81a42233f8f2b1a8ddb1b9a4c81611",
        "ext_id": "12345",
        "event_timestamp": 1615304991,
    },
    CAEP + "risk-level-change": {
        "current_level": "HIGH",
        "previous_level": "LOW",
        "risk_reason": "PASSWORD_FOUND_IN_DATA_BREACH",
        "principal": "USER",
        "event_timestamp": 1615304991,
    },
    RISC + "account-credential-change-required": {},
    RISC + "account-purged": {},
    RISC + "account-disabled": {"reason": "hijacking"},
    RISC + "account-enabled": {},
    RISC + "identifier-changed": {"new-value": "john.roe@example.com"},
    RISC + "identifier-recycled": {},
    RISC + "credential-compromise": {"credential_type": "password"},
    RISC + "opt-in": {},
    RISC + "opt-out-initiated": {},
    RISC + "opt-out-cancelled": {},
    RISC + "opt-out-effective": {},
    RISC + "recovery-activated": {},
    RISC + "recovery-information-changed": {},
    RISC + "sessions-revoked": {},
}


def new_rsa(bits=2048, kid="t1"):
    return RSAKey.import_key(rsa.generate_private_key(65537, bits), {"kid": kid})


_KEY = new_rsa()


class Signer:
    """Makes SETs. `header` and `claims` of a call override what is honest; None removes."""

    def __init__(self, issuer="https://tx.example", audience="https://portal.example"):
        self.issuer = issuer
        self.audience = audience
        self.key = _KEY
        self.now = lambda: int(time.time())

    @property
    def jwks(self):
        public = self.key.as_dict(private=False)
        alg = "RS256" if public["kty"] == "RSA" else "ES256"
        return {"keys": [{**public, "use": "sig", "alg": alg}]}

    def claims(self, uri, members, subject, **changes):
        honest = {
            "iss": self.issuer,
            "aud": self.audience,
            "iat": self.now(),
            "jti": secrets.token_hex(16),
            "sub_id": subject,
            "events": {uri: members},
        } | changes
        return {name: value for name, value in honest.items() if value is not None}

    def sign(self, claims, header=None, key=None, raw=None):
        key = key or self.key
        alg = "ES256" if isinstance(key, ECKey) else "RS256"
        fields = {"alg": alg, "kid": "t1", "typ": "secevent+jwt"} | (header or {})
        return jws.serialize_compact(
            {name: value for name, value in fields.items() if value is not None},
            raw if raw is not None else json.dumps(claims),
            key,
            registry=jws.JWSRegistry(algorithms=["RS256", "RS384", "ES256"], strict_check_header=False),
        )

    def make(self, uri, subject, members=None, **changes):
        """A genuine SET of an event."""
        members = EXAMPLES.get(uri, {}) if members is None else members
        return self.sign(self.claims(uri, members, subject, **changes))

    def unsigned(self, claims):
        return b".".join((_b64({"alg": "none", "typ": "secevent+jwt"}), _b64(claims), b"")).decode()

    def hmac_with_public_key(self, claims):
        """The old confusion."""
        head, body = _b64({"alg": "HS256", "kid": "t1", "typ": "secevent+jwt"}), _b64(claims)
        signature = hmac.digest(self.key.as_pem(private=False), head + b"." + body, "sha256")
        return b".".join((head, body, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()


def _b64(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


class Transmitter(Signer):
    """The same with everything around it: discovery, keys, tokens, one stream, polls and pushes."""

    def __init__(self):
        super().__init__()
        self.metadata = {}  # changes to the discovery document
        self.stream = None
        self.state = {"status": "enabled"}
        self.queue = {}  # jti -> SET, of polls
        self.arrived = asyncio.Event()  # something is in the queue
        self.acked, self.errors = [], {}
        self.asked, self.verifications, self.bearers = [], [], []
        self.answers = {}  # path -> handler that answers instead
        self.silent = False  # verification events are not sent
        self.extra = {}  # further members of the stream
        self.bearer = "management-token"
        self.trust = None  # TLS for pushes
        self.resolver = None  # of names below localhost

    def app(self):
        @web.middleware
        async def bent(request, handler):
            self.asked.append((request.method, request.path))
            if request.path in self.answers:
                return await self.answers[request.path](request)
            if request.path in ("/streams", "/status", "/verify", "/poll"):
                self.bearers.append(request.headers.get("Authorization", ""))
                if self.bearers[-1] != f"Bearer {self.bearer}":
                    return web.Response(status=401)
            return await handler(request)

        app = web.Application(middlewares=[bent])
        app.router.add_get("/.well-known/ssf-configuration", self.on_discovery)
        app.router.add_get("/jwks", self.on_keys)
        app.router.add_post("/token", self.on_token)
        app.router.add_route("*", "/streams", self.on_stream)
        app.router.add_route("*", "/status", self.on_status)
        app.router.add_post("/verify", self.on_verify)
        app.router.add_post("/poll", self.on_poll)
        return app

    async def on_discovery(self, request):
        document = {
            "spec_version": "1_0",
            "issuer": self.issuer,
            "jwks_uri": self.issuer + "/jwks",
            "delivery_methods_supported": ["urn:ietf:rfc:8935", "urn:ietf:rfc:8936"],
            "configuration_endpoint": self.issuer + "/streams",
            "status_endpoint": self.issuer + "/status",
            "verification_endpoint": self.issuer + "/verify",
            "critical_subject_members": ["tenant"],
            "authorization_schemes": [{"spec_urn": "urn:ietf:rfc:6749"}],
            "default_subjects": "ALL",
        } | self.metadata
        return web.json_response({name: value for name, value in document.items() if value is not None})

    async def on_keys(self, request):
        return web.json_response(self.jwks)

    async def on_token(self, request):
        form = await request.post()
        pair = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        if form["grant_type"] != "client_credentials" or pair != "us:s3%3Acret":
            return web.json_response({"error": "invalid_client"}, status=401)
        return web.json_response(
            {"access_token": self.bearer, "token_type": "Bearer", "expires_in": 3600, "scope": form["scope"]}
        )

    async def on_stream(self, request):
        if request.method == "POST":
            if self.stream is not None:
                return web.json_response({"err": "conflict"}, status=409)
            self.stream = self._described(await request.json(), "f67e39a0a4d34d56b3aa1bc4cff0069f")
            return web.json_response(self.stream, status=201)
        if self.stream is None:
            return web.Response(status=404)
        if request.method == "PATCH":
            changed = await request.json()
            self.stream = self._described({**self.stream, **changed}, self.stream["stream_id"])
        elif request.method == "DELETE":
            self.stream = None
            return web.Response(status=204)
        elif "stream_id" not in request.query:
            return web.json_response([self.stream])
        elif request.query["stream_id"] != self.stream["stream_id"]:
            return web.Response(status=404)
        return web.json_response(self.stream)

    def _described(self, wanted, stream_id):
        delivery = dict(wanted.get("delivery") or {"method": "urn:ietf:rfc:8936"})
        if delivery["method"].endswith("8936"):
            delivery["endpoint_url"] = self.issuer + "/poll"
        return {
            "stream_id": stream_id,
            "iss": self.issuer,
            "aud": self.audience,
            "delivery": delivery,
            "events_supported": list(EXAMPLES),
            "events_requested": wanted["events_requested"],
            "events_delivered": wanted["events_requested"],
            "min_verification_interval": 1,
            **self.extra,
        }

    async def on_status(self, request):
        if request.method == "POST":
            wanted = await request.json()
            if self.state.get("locked"):
                return web.json_response({"err": "no"}, status=403)
            self.state = {"status": wanted["status"]}
        return web.json_response({"stream_id": self.stream["stream_id"], **self.state})

    async def on_verify(self, request):
        wanted = await request.json()
        self.verifications.append(wanted)
        if not self.silent:
            members = {"state": wanted["state"]} if wanted.get("state") else {}
            await self.deliver(SSF + "verification", self.stream_subject, members)
        return web.Response(status=204)

    @property
    def stream_subject(self):
        return {"format": "opaque", "id": self.stream["stream_id"]}

    async def on_poll(self, request):
        asked = await request.json()
        for jti in asked.get("ack", []):
            self.queue.pop(jti, None)
            self.acked.append(jti)
        for jti, error in asked.get("setErrs", {}).items():
            self.queue.pop(jti, None)
            self.errors[jti] = error
        if not self.queue and not asked.get("returnImmediately"):
            self.arrived.clear()
            try:
                async with asyncio.timeout(20):
                    await self.arrived.wait()
            except TimeoutError:
                pass
        most = asked.get("maxEvents", 100)
        sets = dict(list(self.queue.items())[:most])
        return web.json_response({"sets": sets, "moreAvailable": len(self.queue) > most})

    async def deliver(self, uri, subject, members=None, **changes):
        """Deliver an event as the stream says; return (jti, answer of a push)."""
        members = EXAMPLES.get(uri, {}) if members is None else members
        claims = self.claims(uri, members, subject, **changes)
        return claims["jti"], await self.deliver_token(self.sign(claims), claims["jti"])

    async def deliver_token(self, token, jti):
        delivery = self.stream["delivery"]
        if delivery["method"].endswith("8936"):
            self.queue[jti] = token
            self.arrived.set()
            return None
        return await self.push(token, delivery["endpoint_url"], delivery.get("authorization_header"))

    def _connector(self):
        return aiohttp.TCPConnector(resolver=self.resolver() if self.resolver else None)

    async def push(self, token, url, authorization=None, **headers):
        fields = {"Content-Type": "application/secevent+jwt", "Accept": "application/json"}
        if authorization:
            fields["Authorization"] = authorization
        async with (
            aiohttp.ClientSession(connector=self._connector()) as http,
            http.post(url, data=token, headers=fields | headers, ssl=self.trust or True) as response,
        ):
            body = await response.read()
            return response.status, json.loads(body) if body else None
