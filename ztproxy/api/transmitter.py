"""Where receivers of our own signals learn about us, keep their stream and poll: SSF 1.0, RFC 8936.

Mounted by the service on the portal's host. Whoever asks proves to be a configured receiver, by a token of
our token endpoint (client credentials) or by its secret; each sees its own stream and nothing else.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Final
from urllib.parse import unquote_plus, urlsplit

from aiohttp import web
from msgspec.structs import replace

from ztproxy.administrator.signals.streams import Status, Stream, Streams, Told
from ztproxy.administrator.signals.telling import TOLD
from ztproxy.api.problems import answer
from ztproxy.api.signals import asked_host
from ztproxy.crypto.encoding import EncodingError, read_object
from ztproxy.crypto.ids import new_token
from ztproxy.model.endpoints import SIGNALS, SSF_DISCOVERY
from ztproxy.net.clock import Clock
from ztproxy.trust.identity.fetch import check_url, is_loopback
from ztproxy.trust.identity.provider import SignInRefused
from ztproxy.trust.signals.events import URIS
from ztproxy.trust.signals.transmitter import POLL, PUSH

Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]

LIFETIME: Final = 3600  # seconds of a token
READ, MANAGE = "ssf.read", "ssf.manage"
MIN_VERIFICATION: Final = 10  # seconds
_CODES: Final = {401: "authentication_failed", 403: "access_denied", 404: "not_found"}
_LARGEST: Final = 64 * 1024
_MOST: Final = 100  # tokens in one answer to a poll
_HELD_BACK: Final = 30.0  # seconds a poll waits for something to tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the endpoints work with. `sign` and `read` make and check access tokens."""

    streams: Streams
    told: Mapping[str, Told]
    issuer: str
    host: str
    clock: Clock
    entropy: Callable[[int], bytes]
    sign: Callable[[dict[str, Any]], str]
    read: Callable[[str], dict[str, Any] | None]  # claims of a token of ours, None for any other
    keys: Callable[[], Sequence[dict[str, str]]]
    wait: Callable[[float], Any]  # until something may have been queued


def routes(desk: Desk) -> list[web.RouteDef]:
    """Return the routes; none of them exists where nobody is told."""
    if not desk.told:
        return []
    here = _Endpoints(desk)
    found = [
        web.get(SSF_DISCOVERY, here.discovery),
        web.get(SIGNALS + "jwks.json", here.jwks),
        web.post(SIGNALS + "token", here.token),
        web.post(SIGNALS + "stream", here.create),
        web.get(SIGNALS + "stream", here.show),
        web.patch(SIGNALS + "stream", here.update),
        web.put(SIGNALS + "stream", here.update),
        web.delete(SIGNALS + "stream", here.delete),
        web.get(SIGNALS + "status", here.status),
        web.post(SIGNALS + "status", here.set_status),
        web.post(SIGNALS + "verify", here.verify),
        web.post(SIGNALS + "poll", here.poll),
    ]
    return [web.route(one.method, one.path, _plain(one.handler)) for one in found]


def _plain(endpoint: Endpoint) -> Endpoint:
    """Errors for programs: what is wrong, as JSON, and how to prove who asks."""

    async def asked(request: web.Request) -> web.StreamResponse:
        try:
            return await endpoint(request)
        except web.HTTPException as error:
            code = _CODES.get(error.status, "invalid_request")
            response = answer({"err": code, "description": error.text or error.reason}, error.status)
            if error.status == 401:
                response.headers["WWW-Authenticate"] = 'Bearer realm="signals"'
            return response

    return asked


class _Endpoints:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._verified: dict[str, float] = {}  # receiver -> monotonic second of its last verification

    async def discovery(self, request: web.Request) -> web.Response:
        """SSF 1.0 section 7.1."""
        self._at_home(request)
        base = self._desk.issuer + SIGNALS
        return answer(
            {
                "spec_version": "1_0",
                "issuer": self._desk.issuer,
                "jwks_uri": base + "jwks.json",
                "delivery_methods_supported": [PUSH, POLL],
                "configuration_endpoint": base + "stream",
                "status_endpoint": base + "status",
                "verification_endpoint": base + "verify",
                "authorization_schemes": [
                    {"spec_urn": "urn:ietf:rfc:6749"},
                    {"spec_urn": "urn:ietf:rfc:6750"},
                ],
                "default_subjects": "ALL",
            }
        )

    async def jwks(self, request: web.Request) -> web.Response:
        """The keys of our tokens."""
        self._at_home(request)
        return answer({"keys": self._desk.keys()}, content_type="application/jwk-set+json")

    async def token(self, request: web.Request) -> web.Response:
        """RFC 6749 section 4.4."""
        self._at_home(request)
        form = await request.post() if (request.content_length or 0) <= _LARGEST else {}
        name, secret = _credentials(request, form)
        told = self._desk.told.get(name)
        if told is None or not compare_digest(secret.encode(), told.secret.encode()):
            return answer({"error": "invalid_client"}, 401)
        asked = str(form.get("scope", f"{MANAGE} {READ}")).split()
        scope = " ".join(one for one in (MANAGE, READ) if one in asked)
        if form.get("grant_type") != "client_credentials" or not scope:
            return answer({"error": "invalid_scope" if not scope else "unsupported_grant_type"}, 400)
        now, issuer = self._desk.clock.now() // 1000, self._desk.issuer
        claims = {"iss": issuer, "aud": issuer, "sub": name, "client_id": name, "iat": now}
        signed = self._desk.sign({**claims, "exp": now + LIFETIME, "scope": scope})
        return answer(
            {"access_token": signed, "token_type": "Bearer", "expires_in": LIFETIME, "scope": scope}
        )

    # ------------------------------------------------------------------ the stream

    async def create(self, request: web.Request) -> web.Response:
        """Make the receiver's stream."""
        told = self._who(request, MANAGE)
        fresh = Stream(id=new_token(self._desk.entropy)[:32], method=POLL)
        stream = _wanted(fresh, await _json(request), self._desk.issuer)
        if not await self._desk.streams.create(told.name, stream):
            return answer({"err": "conflict", "description": "there is a stream already"}, 409)
        return answer(self._shown(told, stream), 201)

    async def show(self, request: web.Request) -> web.Response:
        """Show it; without an id, in a list."""
        told = self._who(request, READ)
        if "stream_id" in request.query:
            return answer(self._shown(told, await self._stream(told, request.query["stream_id"])))
        stream = await self._desk.streams.get(told.name)
        return answer([self._shown(told, stream)] if stream else [])

    async def update(self, request: web.Request) -> web.Response:
        """PATCH changes what it names, PUT replaces."""
        told, body = self._who(request, MANAGE), await _json(request)
        stream = await self._stream(told, body.get("stream_id"))
        begun = stream if request.method == "PATCH" else Stream(stream.id, POLL, status=stream.status)
        changed = _wanted(begun, body, self._desk.issuer)
        await self._desk.streams.change(told.name, changed)
        return answer(self._shown(told, changed))

    async def delete(self, request: web.Request) -> web.Response:
        """Give it up."""
        told = self._who(request, MANAGE)
        await self._stream(told, request.query.get("stream_id"))
        await self._desk.streams.delete(told.name)
        return web.Response(status=204)

    async def status(self, request: web.Request) -> web.Response:
        """Show its status."""
        told = self._who(request, READ)
        return answer(_status(await self._stream(told, request.query.get("stream_id"))))

    async def set_status(self, request: web.Request) -> web.Response:
        """Enable, pause or disable it."""
        told, body = self._who(request, MANAGE), await _json(request)
        stream = await self._stream(told, body.get("stream_id"))
        status, reason = body.get("status"), body.get("reason")
        if status not in ("enabled", "paused", "disabled"):
            raise _bad("status is enabled, paused or disabled")
        chosen: Status = status
        why = reason[:200] if isinstance(reason, str) and reason.isprintable() else ""
        await self._desk.streams.set_status(told, stream, chosen, why)
        return answer(_status(replace(stream, status=chosen, reason=why)))

    async def verify(self, request: web.Request) -> web.Response:
        """Queue a verification event."""
        told, body = self._who(request, MANAGE), await _json(request)
        stream, state = await self._stream(told, body.get("stream_id")), body.get("state", "")
        if not isinstance(state, str) or len(state) > 1024:
            raise _bad("state is a text of at most 1024 characters")
        now = self._desk.clock.monotonic()
        if now - self._verified.get(told.name, -1e9) < MIN_VERIFICATION:
            return answer({"err": "too_many", "description": "wait min_verification_interval"}, 429)
        self._verified[told.name] = now
        await self._desk.streams.verify(told, stream, state)
        return web.Response(status=204)

    async def poll(self, request: web.Request) -> web.Response:
        """RFC 8936."""
        told, body = self._who(request, READ), await _json(request)
        stream = await self._desk.streams.get(told.name)
        if stream is None or stream.method != POLL:
            raise _missing()
        await self._desk.streams.acknowledged(told.name, _taken(body))
        most = body.get("maxEvents", _MOST)
        if isinstance(most, bool) or not isinstance(most, int) or most < 0:
            raise _bad("maxEvents is a number")
        found = await self._waiting(stream, told, min(most, _MOST) + 1)
        deadline = self._desk.clock.monotonic() + _HELD_BACK
        while not found and most and body.get("returnImmediately") is not True:
            left = deadline - self._desk.clock.monotonic()
            if left <= 0:
                break
            await self._desk.wait(left)
            found = await self._waiting(stream, told, min(most, _MOST) + 1)
        shown = found[: min(most, _MOST)]
        return answer({"sets": dict(shown), "moreAvailable": len(found) > len(shown)})

    # ------------------------------------------------------------------ inside

    async def _waiting(self, stream: Stream, told: Told, limit: int) -> list[tuple[str, str]]:
        if stream.status == "paused":
            return []
        return [(one.jti, one.token) for _, one in await self._desk.streams.waiting(told.name, limit)]

    def _at_home(self, request: web.Request) -> None:
        if asked_host(request) != self._desk.host:
            raise _missing()

    def _who(self, request: web.Request, scope: str) -> Told:
        """Who asks. Raises HTTPUnauthorized, HTTPForbidden."""
        self._at_home(request)
        kind, _, bearer = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer" and bearer:
            for told in self._desk.told.values():
                if compare_digest(bearer.encode("utf-8", "surrogateescape"), told.secret.encode()):
                    return told
            claims = self._desk.read(bearer) or {}
            found = self._desk.told.get(str(claims.get("client_id", "")))
            if found is not None:
                if scope not in str(claims.get("scope", "")).split():
                    raise web.HTTPForbidden
                return found
        raise web.HTTPUnauthorized

    async def _stream(self, told: Told, stream_id: object) -> Stream:
        stream = await self._desk.streams.get(told.name)
        if stream is None or stream_id != stream.id:
            raise _missing()
        return stream

    def _shown(self, told: Told, stream: Stream) -> dict[str, Any]:
        delivered = [uri for uri in stream.requested if uri in {URIS[name] for name in told.events}]
        endpoint = stream.endpoint if stream.method == PUSH else f"{self._desk.issuer}{SIGNALS}poll"
        return {
            "stream_id": stream.id,
            "iss": self._desk.issuer,
            "aud": told.audience,
            "delivery": {"method": stream.method, "endpoint_url": endpoint},
            "events_supported": [URIS[name] for name in TOLD],
            "events_requested": list(stream.requested),
            "events_delivered": delivered,
            "min_verification_interval": MIN_VERIFICATION,
            "description": stream.description,
        }


def _wanted(stream: Stream, body: Mapping[str, Any], issuer: str) -> Stream:
    """The stream of `issuer` as a receiver wants it. Raises HTTPBadRequest."""
    if (delivery := body.get("delivery")) is not None:
        stream = _delivered(stream, delivery, issuer)
    requested = body.get("events_requested", list(stream.requested))
    if not isinstance(requested, list) or len(requested) > 100:
        raise _bad("events_requested is a list")
    if not all(isinstance(uri, str) and len(uri) <= 512 for uri in requested):
        raise _bad("events_requested is a list of URIs")
    description = body.get("description", stream.description)
    text = description[:200] if isinstance(description, str) and description.isprintable() else ""
    return replace(stream, requested=tuple(requested), description=text)


def _is_here(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")


def _delivered(stream: Stream, delivery: object, issuer: str) -> Stream:
    if not isinstance(delivery, dict) or delivery.get("method") not in (PUSH, POLL):
        raise _bad("delivery has a method of RFC 8935 or RFC 8936")
    if delivery["method"] == POLL:
        return replace(stream, method=POLL, endpoint="", authorization="")
    authorization = delivery.get("authorization_header", "")
    if not isinstance(authorization, str) or len(authorization) > 4096 or not authorization.isascii():
        raise _bad("authorization_header is the value of a field")
    if authorization and not authorization.isprintable():
        raise _bad("authorization_header is the value of a field")
    try:
        endpoint = check_url(delivery.get("endpoint_url"), "endpoint_url")
        if _is_here(endpoint) and not _is_here(issuer):  # what listens on this machine is no receiver's
            raise SignInRefused("provider-invalid", "endpoint_url is on this machine")
    except SignInRefused:
        raise _bad("endpoint_url is an https URL that may be asked") from None
    return replace(stream, method=PUSH, endpoint=endpoint, authorization=authorization)


def _taken(body: Mapping[str, Any]) -> set[str]:
    """What a poll acknowledges, and what it complains about: neither is sent again."""
    acknowledged, errors = body.get("ack", []), body.get("setErrs", {})
    if not isinstance(acknowledged, list) or not isinstance(errors, dict):
        raise _bad("ack is a list and setErrs an object")
    return {jti for jti in (*acknowledged, *errors) if isinstance(jti, str)}


def _status(stream: Stream) -> dict[str, str]:
    shown = {"stream_id": stream.id, "status": stream.status}
    return {**shown, "reason": stream.reason} if stream.reason else shown


def _credentials(request: web.Request, form: Mapping[str, Any]) -> tuple[str, str]:
    """RFC 6749 section 2.3.1: Basic, or in the form."""
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "basic":
        return str(form.get("client_id", "")), str(form.get("client_secret", ""))
    try:
        name, _, secret = base64.b64decode(given, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return unquote_plus(name), unquote_plus(secret)


async def _json(request: web.Request) -> dict[str, Any]:
    body = await request.content.read(_LARGEST + 1)
    while len(body) <= _LARGEST and (more := await request.content.read(_LARGEST)):
        body += more
    try:
        if len(body) > _LARGEST:
            raise EncodingError("too large")
        return read_object(body)
    except EncodingError:
        raise _bad("expected a JSON object") from None


def _bad(why: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(reason=None, text=why)


def _missing() -> web.HTTPNotFound:
    return web.HTTPNotFound()
