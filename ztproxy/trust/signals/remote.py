"""One transmitter over HTTP: its discovery document, its keys, its management API, its poll endpoint.

Called by `administrator.signals` and the push endpoint. Addresses come from configuration or discovery and go
through `trust.identity.fetch`: exact, bounded, no redirects, never to metadata services. Bodies it is
handed hold secrets; no error of this module quotes one.
"""

import asyncio
import base64
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
from msgspec import Struct

from ztproxy.crypto.encoding import write_object
from ztproxy.net.clock import Clock
from ztproxy.trust.identity.fetch import Answer, ask, check_url
from ztproxy.trust.identity.keys import Keys
from ztproxy.trust.identity.provider import SignInRefused, TemporaryProviderError
from ztproxy.trust.signals import token
from ztproxy.trust.signals.transmitter import (
    POLL,
    PUSH,
    Metadata,
    Transmitter,
    discovery_url,
    read_metadata,
)

MAX_EVENTS: Final = 24  # of one poll
#: Seconds a poll may be held back by the transmitter, and that we wait for it.
HELD_BACK: Final = 60.0

_LIMIT: Final = 256 * 1024
_POLL_LIMIT: Final = 1024 * 1024
_FRESH: Final = 3600.0  # seconds of a discovery document
_AFTER_FAILURE: Final = 5.0
_TOKEN_LONGEST: Final = 3600.0  # seconds; CAEP interoperability profile section 2.8.1
_ENABLED: Final = "enabled"


class RemoteRefused(Exception):
    """The transmitter answered that it will not, or in a way that makes no sense; trying again changes
    little.
    """

    def __init__(self, what: str, status: int = 0) -> None:
        super().__init__(f"{what}: answered {status}" if status else what)
        self.status = status


class Stream(Struct, frozen=True):
    """A stream as its transmitter describes it. Times in ms, 0 = not said."""

    id: str
    endpoint: str = ""  # of polls
    min_verification: int = 0
    inactivity: int = 0


class Polled(Struct, frozen=True):
    """What a poll brought: tokens by jti."""

    sets: dict[str, str]
    more: bool


class Remote:
    """A transmitter. `http` comes from `fetch.http_session` and is closed by its owner.

    Methods raise TemporaryProviderError when trying again may help, RemoteRefused and SignInRefused when not.
    """

    def __init__(self, transmitter: Transmitter, http: aiohttp.ClientSession, clock: Clock) -> None:
        self.transmitter = transmitter
        self._http = http
        self._clock = clock
        self._lock = asyncio.Lock()
        self._metadata: Metadata | None = None
        self._asked_at = self._failed_at = -_FRESH
        self._keys = Keys(self._fetch_keys, token.ALGORITHMS, clock)
        self._bearer = ""
        self._bearer_until = 0.0

    async def verify(self, text: str) -> token.SecurityEvent:
        """Return the event of a token of this transmitter. Raises SetRefused, too."""
        keys = await self._keys.naming(token.kid_of(text))
        expected = token.Expected(
            self.transmitter.issuer, self.transmitter.audiences, self.transmitter.max_age
        )
        return token.read(text, keys, expected, self._clock.now())

    async def metadata(self) -> Metadata:
        """Return what discovery says, asked for once for everybody who waits and again every hour.

        What it said before is good while it can not be asked: no event is turned away because of that.
        """
        async with self._lock:
            now = self._clock.monotonic()
            if self._metadata is not None and now - self._asked_at < _FRESH:
                return self._metadata
            if now - self._failed_at < _AFTER_FAILURE:
                if self._metadata is not None:
                    return self._metadata
                raise TemporaryProviderError("discovery failed a moment ago")
            try:
                self._metadata = await self._discover()
            except (TemporaryProviderError, SignInRefused, RemoteRefused):
                self._failed_at = now
                if self._metadata is not None:
                    return self._metadata
                raise
            self._asked_at = now
            return self._metadata

    # the management API of SSF 1.0 section 8.1

    async def keep_stream(self, known: str) -> Stream:
        """Return our stream as we want it: the `known` one, or one that is there already, or a new one."""
        endpoint = await self._endpoint("configuration_endpoint")
        wanted = await self._wanted()
        found = await self._manage("GET", _with(endpoint, known)) if known else None
        if found is None or found.status == 404:
            found = await self._manage("POST", endpoint, wanted)
            if found.status == 409:  # there can be only one, and it is there
                known = await self._only(endpoint)
                found = await self._manage("PATCH", endpoint, {"stream_id": known, **wanted})
        elif found.status == 200 and _differs(found.body, wanted):
            found = await self._manage("PATCH", endpoint, {"stream_id": known, **wanted})
        if found.status not in (200, 201):
            raise RemoteRefused("stream", found.status)
        return self._stream(found.body)

    async def delete_stream(self, stream_id: str) -> None:
        """Give the stream up."""
        found = await self._manage("DELETE", _with(await self._endpoint("configuration_endpoint"), stream_id))
        if found.status not in (200, 204, 404):
            raise RemoteRefused("stream", found.status)

    async def status(self, stream_id: str) -> tuple[str, str]:
        """Return the stream's status ("enabled", "paused", "disabled") and the reason given."""
        found = await self._manage("GET", _with(await self._endpoint("status_endpoint"), stream_id))
        status, reason = found.body.get("status"), found.body.get("reason")
        if found.status != 200 or status not in (_ENABLED, "paused", "disabled"):
            raise RemoteRefused("status", found.status)
        return str(status), reason if isinstance(reason, str) and reason.isprintable() else ""

    async def enable(self, stream_id: str) -> bool:
        """Ask for the stream to flow again; False when the transmitter will not have it."""
        body = {"stream_id": stream_id, "status": _ENABLED}
        found = await self._manage("POST", await self._endpoint("status_endpoint"), body)
        return found.status in (200, 201, 204)

    async def ask_for_verification(self, stream_id: str, state: str) -> None:
        """Have a verification event sent over the stream."""
        body = {"stream_id": stream_id, "state": state}
        found = await self._manage("POST", await self._endpoint("verification_endpoint"), body)
        if found.status not in (200, 202, 204):
            raise RemoteRefused("verification", found.status)

    async def poll(
        self, endpoint: str, ack: list[str], errors: Mapping[str, Mapping[str, str]], *, wait: bool
    ) -> Polled:
        """Acknowledge and ask for more, RFC 8936. With `wait` the transmitter may hold its answer back."""
        body: dict[str, Any] = {"maxEvents": MAX_EVENTS, "returnImmediately": not wait, "ack": ack}
        if errors:
            body["setErrs"] = errors
        found = await self._manage("POST", endpoint, body, patience=HELD_BACK + 15, limit=_POLL_LIMIT)
        sets = found.body.get("sets", {})
        if found.status != 200 or not isinstance(sets, dict):
            raise RemoteRefused("poll", found.status)
        good = {jti: text for jti, text in sets.items() if isinstance(text, str) and 0 < len(jti) <= 255}
        return Polled(sets=good, more=found.body.get("moreAvailable") is True)

    # inside

    async def _discover(self) -> Metadata:
        issuer = self.transmitter.issuer
        answer = await ask(self._http, "GET", discovery_url(issuer), limit=_LIMIT, bare=True)
        if answer.status == 404:  # RISC transmitters of before
            legacy = discovery_url(issuer, "risc-configuration")
            answer = await ask(self._http, "GET", legacy, limit=_LIMIT, bare=True)
        if answer.status != 200:
            raise RemoteRefused("discovery", answer.status)
        return read_metadata(answer.body, issuer)

    async def _fetch_keys(self) -> bytes:
        answer = await ask(self._http, "GET", (await self.metadata()).jwks_uri, limit=_LIMIT)
        if answer.status != 200:
            raise SignInRefused("provider-invalid", f"the keys answered {answer.status}")
        return answer.content

    async def _endpoint(self, name: str) -> str:
        found: str = getattr(await self.metadata(), name)
        if not found:
            raise RemoteRefused(f"has no {name}")
        return found

    async def _wanted(self) -> dict[str, Any]:
        transmitter = self.transmitter
        delivery = {"method": POLL if transmitter.delivery == "poll" else PUSH}
        methods = (await self.metadata()).methods
        if methods and delivery["method"] not in methods:
            raise RemoteRefused(f"does not deliver by {transmitter.delivery}")
        if transmitter.delivery == "push":
            delivery["endpoint_url"] = transmitter.endpoint
            if transmitter.authorization:
                delivery["authorization_header"] = transmitter.authorization
        return {"delivery": delivery, "events_requested": list(transmitter.events), "description": "ztproxy"}

    async def _only(self, endpoint: str) -> str:
        found = await self._manage("GET", endpoint)
        listed = found.body.get("streams", found.body)
        first = listed[0] if isinstance(listed, list) and listed else listed
        stream_id = first.get("stream_id") if isinstance(first, dict) else None
        if not isinstance(stream_id, str) or not 0 < len(stream_id) <= 255:
            raise RemoteRefused("names no stream of ours", found.status)
        return stream_id

    def _stream(self, body: Mapping[str, Any]) -> Stream:
        stream_id, delivery = body.get("stream_id"), body.get("delivery")
        if not isinstance(stream_id, str) or not 0 < len(stream_id) <= 255:
            raise RemoteRefused("its stream has no id")
        if body.get("iss") != self.transmitter.issuer:
            raise RemoteRefused("its stream is of another issuer")
        endpoint = delivery.get("endpoint_url") if isinstance(delivery, dict) else None
        polls = self.transmitter.delivery == "poll"
        return Stream(
            id=stream_id,
            endpoint=check_url(endpoint, "the poll endpoint") if polls else "",
            min_verification=_seconds(body.get("min_verification_interval")),
            inactivity=_seconds(body.get("inactivity_timeout")),
        )

    async def _manage(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None = None,
        *,
        patience: float = 0.0,
        limit: int = _LIMIT,
    ) -> Answer:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if bearer := await self._token():
            headers["Authorization"] = f"Bearer {bearer}"
        data = None if body is None else write_object(dict(body)).decode()
        answer = await ask(
            self._http, method, url, limit=limit, data=data, headers=headers, bare=True, patience=patience
        )
        if answer.status == 401:
            self._bearer = ""  # the next one is asked for anew
            raise TemporaryProviderError("the management API does not take our token")
        return answer

    async def _token(self) -> str:
        oauth, now = self.transmitter.oauth, self._clock.monotonic()
        if oauth is None:
            return self.transmitter.token
        if self._bearer and now < self._bearer_until:
            return self._bearer
        form = {"grant_type": "client_credentials", "scope": " ".join(oauth.scopes)}
        pair = f"{quote(oauth.client_id, safe='')}:{quote(oauth.client_secret, safe='')}"
        basic = "Basic " + base64.b64encode(pair.encode()).decode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": basic}
        answer = await ask(
            self._http, "POST", oauth.token_endpoint, limit=_LIMIT, data=urlencode(form), headers=headers
        )
        bearer, lives = answer.body.get("access_token"), answer.body.get("expires_in")
        if answer.status != 200 or not isinstance(bearer, str) or not 0 < len(bearer) <= 16 * 1024:
            raise RemoteRefused("token endpoint", answer.status)
        if not bearer.isascii() or not bearer.isprintable():
            raise RemoteRefused("token endpoint: the token is malformed")
        usable = lives if isinstance(lives, int) and not isinstance(lives, bool) else 300
        self._bearer, self._bearer_until = bearer, now + min(max(usable * 0.8, 1.0), _TOKEN_LONGEST)
        return bearer


def _with(endpoint: str, stream_id: str) -> str:
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode({'stream_id': stream_id})}"


def _differs(body: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether the stream is not as we want it. Transmitters need not show the Authorization they were
    given.
    """
    delivery, ours = body.get("delivery"), wanted["delivery"]
    if not isinstance(delivery, dict) or delivery.get("method") != ours["method"]:
        return True
    if "endpoint_url" in ours and delivery.get("endpoint_url") != ours["endpoint_url"]:
        return True
    requested = body.get("events_requested")
    listed = [one for one in requested if isinstance(one, str)] if isinstance(requested, list) else []
    return set(listed) != set(wanted["events_requested"])


def _seconds(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        return 0
    return int(value * 1000)
