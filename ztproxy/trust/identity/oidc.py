"""OpenID Connect sign-in: the authorization code flow with PKCE, state and nonce, at one provider.

Called by the portal, and by `administrator.rechecks` to ask again later. What it can ask again with is a
Granted, which is for `administrator.vault` alone; no other token leaves this module.
"""

import asyncio
import base64
from collections.abc import Mapping
from hmac import compare_digest
from typing import Any, Final, Literal
from urllib.parse import quote_plus, urlencode

import aiohttp
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from msgspec import Struct
from msgspec.structs import replace

from ztproxy.crypto import jose
from ztproxy.model.subject import Principal
from ztproxy.net.clock import Clock
from ztproxy.trust.identity import logout, tokens
from ztproxy.trust.identity.fetch import Answer, ask, check_url
from ztproxy.trust.identity.keys import Keys
from ztproxy.trust.identity.logout import Logout
from ztproxy.trust.identity.provider import (
    CannotAsk,
    Confirmed,
    Granted,
    GrantEnded,
    Provider,
    SignIn,
    SignInRefused,
    TemporaryProviderError,
)

_METADATA_LIMIT: Final = 128 * 1024
_KEYS_LIMIT: Final = 256 * 1024
_ANSWER_LIMIT: Final = 256 * 1024
_METADATA_FRESH: Final = 3600.0  # seconds
_AFTER_FAILURE: Final = 5.0  # seconds before discovery is tried again
_MOST_GROUPS: Final = 1000
_LONGEST_TEXT: Final = 256
_LONGEST_ACCESS: Final = 30 * 24 * 3600  # seconds
_TEMPORARY: Final = frozenset({"temporarily_unavailable", "server_error"})


class Attempt(Struct, frozen=True):
    """One sign-in under way. The portal makes and keeps it; each value is fresh randomness."""

    state: str
    nonce: str
    verifier: str  # PKCE, RFC 7636: 43 to 128 characters
    redirect_uri: str
    fresh: bool = False  # the person must prove again who they are
    silent: bool = False  # the provider must not show the person anything
    started_at: int = 0  # ms


class Metadata(Struct, frozen=True):
    """The part of a provider's discovery document we use."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str
    end_session_endpoint: str
    revocation_endpoint: str  # RFC 7009
    client_auth: str  # "client_secret_basic", "client_secret_post", "none"
    iss_in_answer: bool  # RFC 9207


class OpenIdClient:
    """Sign-in at one provider. `http` comes from `fetch.http_session` and is closed by its owner."""

    def __init__(self, provider: Provider, http: aiohttp.ClientSession, clock: Clock) -> None:
        self.provider = provider
        self._http = http
        self._clock = clock
        self._lock = asyncio.Lock()
        self._metadata: Metadata | None = None
        self._asked_at = -_METADATA_FRESH
        self._failed_at = -_METADATA_FRESH
        self._keys = Keys(self._fetch_keys, provider.algorithms, clock)

    async def authorization_url(self, attempt: Attempt) -> str:
        """Return where to send the browser. Raises TemporaryProviderError, SignInRefused."""
        metadata = await self._discover()
        return str(
            prepare_grant_uri(
                metadata.authorization_endpoint,
                self.provider.client_id,
                "code",
                attempt.redirect_uri,
                " ".join(self.provider.scopes),
                attempt.state,
                nonce=attempt.nonce,
                code_challenge=create_s256_code_challenge(attempt.verifier),
                code_challenge_method="S256",
                prompt="login" if attempt.fresh else "none" if attempt.silent else None,
            )
        )

    async def sign_in(self, answer: Mapping[str, str], attempt: Attempt) -> SignIn:
        """Turn the browser's answer into a sign-in.

        `answer` holds the query of the redirect. Raises TemporaryProviderError, SignInRefused.
        """
        asked_at = self._clock.now()
        metadata = await self._discover()
        code = self._code_of(answer, attempt, metadata)
        granted = await self._redeem(code, attempt, metadata)
        access_token = _text(granted.get("access_token"), 16 * 1024)
        answered = tokens.Answered(attempt.nonce, access_token, self._clock.now())
        claims = await tokens.verify(granted.get("id_token"), self.provider, self._keys, answered)
        complete = await self._complete(claims, access_token, metadata)
        held = self._grant(granted, Granted(nonce=attempt.nonce, groups_from=self._teller(claims, complete)))
        return replace(
            self._signed_in(complete, attempt), granted=held, began=attempt.started_at, asked_at=asked_at
        )

    # asking again

    async def renew(self, held: Granted) -> tuple[Granted, Mapping[str, Any]]:
        """Have a grant renewed. Return what replaces `held` from now on, and the answer for `confirm`.

        Raises TemporaryProviderError, SignInRefused, GrantEnded, CannotAsk.
        """
        if not held.refresh_token:
            if self._clock.now() >= held.access_until:
                raise CannotAsk
            return held, {"access_token": held.access_token}
        metadata = await self._discover()
        headers, parameters = self._authenticate(metadata)
        body = prepare_token_request("refresh_token", refresh_token=held.refresh_token, **parameters)
        answer = await ask(
            self._http, "POST", metadata.token_endpoint, limit=_ANSWER_LIMIT, data=body, headers=headers
        )
        if answer.status != 200 and answer.body.get("error") == "invalid_grant":
            raise GrantEnded("the refresh token is not valid any more")
        granted = _granted(answer)
        return self._grant(granted, held), granted

    async def confirm(self, held: Granted, subject: str, answer: Mapping[str, Any]) -> Confirmed:
        """Return what the provider says now of the person who is `subject` there.

        Raises TemporaryProviderError, SignInRefused, GrantEnded, CannotAsk.
        """
        metadata = await self._discover()
        access_token = _text(answer.get("access_token"), 16 * 1024)
        claims: Mapping[str, Any] = {}
        if answer.get("id_token") is not None:
            answered = tokens.Answered(held.nonce, access_token, self._clock.now(), renewed=True)
            claims = await tokens.verify(answer["id_token"], self.provider, self._keys, answered)
        told = await self._userinfo(access_token, metadata, renewed=bool(held.refresh_token))
        for said in (claims, told):
            if said and said.get("sub") != subject:
                raise GrantEnded("the provider answered about somebody else")
        if held.groups_from == "id_token" and not claims and self.provider.groups_claim not in told:
            raise CannotAsk  # nobody said anything of the groups: the browser brings an ID token
        return self._confirmed(claims, told)

    async def revoke(self, held: Granted) -> None:
        """Give a grant back, RFC 7009, where the provider takes it. Raises TemporaryProviderError,
        SignInRefused."""
        metadata = await self._discover()
        if not held.refresh_token or not metadata.revocation_endpoint:
            return
        headers, parameters = self._authenticate(metadata)
        form = {"token": held.refresh_token, "token_type_hint": "refresh_token", **parameters}
        url, data = metadata.revocation_endpoint, urlencode(form)
        await ask(self._http, "POST", url, limit=_ANSWER_LIMIT, data=data, headers=headers, bare=True)

    def _grant(self, granted: Mapping[str, Any], before: Granted) -> Granted:
        """Return what to keep of a token answer: the new refresh token (rotation), else the one before."""
        refresh = _text(granted.get("refresh_token"), 16 * 1024) or before.refresh_token
        if refresh:
            return replace(before, refresh_token=refresh, access_token="", access_until=0)
        lifetime = granted.get("expires_in")
        if isinstance(lifetime, bool) or not isinstance(lifetime, int) or not 0 < lifetime <= _LONGEST_ACCESS:
            return before
        return replace(
            before,
            access_token=_text(granted.get("access_token"), 16 * 1024),
            access_until=self._clock.now() + lifetime * 1000,
        )

    def _teller(
        self, claims: Mapping[str, Any], complete: Mapping[str, Any]
    ) -> Literal["", "id_token", "userinfo"]:
        """Return who told of the groups."""
        if self.provider.groups_claim in claims:
            return "id_token"
        return "userinfo" if self.provider.groups_claim in complete else ""

    async def _userinfo(self, access_token: str, metadata: Metadata, *, renewed: bool) -> Mapping[str, Any]:
        if not metadata.userinfo_endpoint or not access_token:
            return {}
        fields = {"Authorization": f"Bearer {access_token}"}
        url = metadata.userinfo_endpoint
        answer = await ask(self._http, "GET", url, limit=_ANSWER_LIMIT, headers=fields, bare=True)
        if answer.status == 200 and answer.body:
            return answer.body
        if not renewed and answer.status in (400, 401, 403):
            raise CannotAsk  # the access token is worth nothing any more
        raise TemporaryProviderError(f"userinfo answered {answer.status}")

    def _confirmed(self, claims: Mapping[str, Any], told: Mapping[str, Any]) -> Confirmed:
        """Userinfo is the newer word: a renewed ID token may repeat what was true at the sign-in."""
        if not claims and not told:
            return Confirmed()
        taken = ("email", "email_verified", "name", "preferred_username", self.provider.groups_claim)
        newest = {
            **claims,
            **{name: told[name] for name in taken if name in told},
            "sub": (claims or told)["sub"],
        }
        stated = claims.get("auth_time")
        if isinstance(stated, bool) or not isinstance(stated, int | float | None):
            raise SignInRefused("token-invalid", "auth_time is not a time")
        return Confirmed(
            principal=_principal(newest, self.provider),
            amr=_texts(claims["amr"], 16) if "amr" in claims else None,
            acr=_text(claims["acr"], _LONGEST_TEXT) if "acr" in claims else None,
            auth_time=None if stated is None else int(max(stated, 0) * 1000),
        )

    async def sign_out_url(self, return_to: str) -> str:
        """Return the provider's own sign-out page (RP-initiated logout), "" when it has none or is away."""
        try:
            endpoint = (await self._discover()).end_session_endpoint
        except (TemporaryProviderError, SignInRefused):
            return ""
        if not endpoint:
            return ""
        query = urlencode({"client_id": self.provider.client_id, "post_logout_redirect_uri": return_to})
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    async def logged_out(self, token: str) -> Logout:
        """Return what a logout token of this provider says. Raises TemporaryProviderError, SignInRefused."""
        now = self._clock.now()
        try:
            keys = await self._keys.naming(jose.kid_of(token, logout.MAX_TOKEN))
            return logout.read(token, keys, self.provider.issuer, self.provider.client_id, now)
        except jose.JoseError as error:
            raise SignInRefused("token-invalid", str(error)) from error

    # discovery

    async def _discover(self) -> Metadata:
        """Return the metadata, asked for once for everybody who waits and again every hour."""
        async with self._lock:
            now = self._clock.monotonic()
            if self._metadata is not None and now - self._asked_at < _METADATA_FRESH:
                return self._metadata
            if now - self._failed_at < _AFTER_FAILURE:
                raise TemporaryProviderError("discovery failed a moment ago")
            try:
                self._metadata = await self._ask_metadata()
            except (TemporaryProviderError, SignInRefused):
                self._failed_at = now
                raise
            self._asked_at = now
            return self._metadata

    async def _ask_metadata(self) -> Metadata:
        issuer = check_url(self.provider.issuer, "issuer")
        url = issuer.rstrip("/") + "/.well-known/openid-configuration"
        answer = await ask(self._http, "GET", url, limit=_METADATA_LIMIT)
        if answer.status != 200 or answer.body.get("issuer") != issuer:
            raise SignInRefused("provider-invalid", "discovery names another issuer")
        return _metadata(answer.body, has_secret=bool(self.provider.client_secret))

    async def _fetch_keys(self) -> bytes:
        metadata = await self._discover()
        answer = await ask(self._http, "GET", metadata.jwks_uri, limit=_KEYS_LIMIT)
        if answer.status != 200:
            raise SignInRefused("provider-invalid", f"the keys answered {answer.status}")
        return answer.content

    # the code

    def _code_of(self, answer: Mapping[str, str], attempt: Attempt, metadata: Metadata) -> str:
        """Check that the answer is to this attempt and from this provider, and take the code out of it."""
        if not compare_digest(answer.get("state", "").encode(), attempt.state.encode()):
            raise SignInRefused("attempt-unknown", "state")
        issuer = answer.get("iss")
        if issuer != self.provider.issuer and (issuer is not None or metadata.iss_in_answer):
            raise SignInRefused("provider-mixed-up", "iss of the answer")  # RFC 9207
        error = answer.get("error")
        if error in _TEMPORARY:
            raise TemporaryProviderError("the provider answered that it is out of order")
        code = answer.get("code", "")
        if error is not None or not 0 < len(code) <= 4096:
            raise SignInRefused("provider-refused", "no code")
        return code

    async def _redeem(self, code: str, attempt: Attempt, metadata: Metadata) -> Mapping[str, Any]:
        headers, parameters = self._authenticate(metadata)
        body = prepare_token_request(
            "authorization_code",
            redirect_uri=attempt.redirect_uri,
            code=code,
            code_verifier=attempt.verifier,
            **parameters,
        )
        answer = await ask(
            self._http, "POST", metadata.token_endpoint, limit=_ANSWER_LIMIT, data=body, headers=headers
        )
        return _granted(answer)

    def _authenticate(self, metadata: Metadata) -> tuple[dict[str, str], dict[str, str]]:
        """Return header fields and form parameters that say who we are, RFC 6749 section 2.3.1."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        us, secret = self.provider.client_id, self.provider.client_secret
        if metadata.client_auth == "client_secret_basic":
            return {**form, "Authorization": self._basic()}, {}
        if metadata.client_auth == "client_secret_post":
            return form, {"client_id": us, "client_secret": secret}
        return form, {"client_id": us}

    def _basic(self) -> str:
        """RFC 6749 section 2.3.1: both parts form-encoded before they are joined."""
        pair = f"{quote_plus(self.provider.client_id)}:{quote_plus(self.provider.client_secret)}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    # the person

    async def _complete(
        self, claims: Mapping[str, Any], access_token: str, metadata: Metadata
    ) -> Mapping[str, Any]:
        """Add e-mail and groups from the userinfo endpoint when the ID token lacks them."""
        wanted = {name for name in ("email", self.provider.groups_claim) if name and name not in claims}
        if not wanted or not metadata.userinfo_endpoint or not access_token:
            return claims
        answer = await ask(
            self._http,
            "GET",
            metadata.userinfo_endpoint,
            limit=_ANSWER_LIMIT,
            headers={"Authorization": f"Bearer {access_token}"},
        )
        if answer.status != 200 or answer.body.get("sub") != claims.get("sub"):
            raise SignInRefused("provider-invalid", "userinfo is about somebody else")  # Core section 5.3.2
        taken = wanted | {"name", "preferred_username", "email_verified"}
        return {**{name: answer.body[name] for name in taken if name in answer.body}, **claims}

    def _signed_in(self, claims: Mapping[str, Any], attempt: Attempt) -> SignIn:
        now = self._clock.now()
        stated = claims.get("auth_time")
        if isinstance(stated, bool) or not isinstance(stated, int | float | None):
            raise SignInRefused("token-invalid", "auth_time is not a time")
        auth_time = now if stated is None else int(min(max(stated, 0) * 1000, now))
        if attempt.fresh and (stated is None or auth_time < attempt.started_at - tokens.LEEWAY * 1000):
            raise SignInRefused("not-fresh", "auth_time is absent or before this sign-in")
        return SignIn(
            principal=_principal(claims, self.provider),
            provider=self.provider.name,
            auth_time=auth_time,
            amr=_texts(claims.get("amr"), 16),
            acr=_text(claims.get("acr"), _LONGEST_TEXT),
            sid=_text(claims.get("sid"), _LONGEST_TEXT),
        )


def _metadata(body: Mapping[str, Any], *, has_secret: bool) -> Metadata:
    methods = body.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    return Metadata(
        authorization_endpoint=check_url(body.get("authorization_endpoint"), "authorization_endpoint"),
        token_endpoint=check_url(body.get("token_endpoint"), "token_endpoint"),
        jwks_uri=check_url(body.get("jwks_uri"), "jwks_uri"),
        userinfo_endpoint=_optional_url(body, "userinfo_endpoint"),
        end_session_endpoint=_optional_url(body, "end_session_endpoint"),
        revocation_endpoint=_optional_url(body, "revocation_endpoint"),
        client_auth=_client_auth(methods, has_secret=has_secret),
        iss_in_answer=body.get("authorization_response_iss_parameter_supported") is True,
    )


def _optional_url(body: Mapping[str, Any], name: str) -> str:
    return check_url(body[name], name) if body.get(name) is not None else ""


def _client_auth(methods: object, *, has_secret: bool) -> str:
    if not has_secret:
        return "none"
    for method in ("client_secret_basic", "client_secret_post"):
        if isinstance(methods, list) and method in methods:
            return method
    raise SignInRefused("provider-invalid", "no way to authenticate at the token endpoint")


def _granted(answer: Answer) -> Mapping[str, Any]:
    if answer.status != 200:
        if answer.body.get("error") in _TEMPORARY:
            raise TemporaryProviderError("the token endpoint is out of order")
        raise SignInRefused("provider-refused", f"the token endpoint answered {answer.status}")
    if str(answer.body.get("token_type", "")).lower() != "bearer":
        raise SignInRefused("provider-invalid", "not a bearer token")
    return answer.body


def _principal(claims: Mapping[str, Any], provider: Provider) -> Principal:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255 or not subject.isprintable():
        raise SignInRefused("token-invalid", "no usable subject")
    verified = claims.get("email_verified", True) in (True, "true")  # some providers say it as a text
    return Principal(
        kind="User",
        id=f"{provider.name}:{subject}",
        issuer=provider.issuer,
        name=_text(claims.get("name") or claims.get("preferred_username"), _LONGEST_TEXT) or subject,
        email=_text(claims.get("email"), _LONGEST_TEXT) if verified else "",
        groups=_groups(claims.get(provider.groups_claim)),
    )


def _groups(value: object) -> tuple[str, ...]:
    """Return the groups as they are or refuse: leaving some out could lift a rule that forbids."""
    listed = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    if value is not None and not isinstance(value, str | list):
        raise SignInRefused("token-invalid", "the groups are neither a list nor a string")
    if len(listed) > _MOST_GROUPS or not all(isinstance(g, str) and len(g) <= 512 for g in listed):
        raise SignInRefused("token-invalid", "too many or malformed groups")
    return tuple(dict.fromkeys(group for group in listed if group))


def _text(value: object, longest: int) -> str:
    return value if isinstance(value, str) and len(value) <= longest and value.isprintable() else ""


def _texts(value: object, most: int) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else []
    return tuple(text for text in (_text(item, 64) for item in listed[:most]) if text)
