"""Which header fields may pass, decided by name alone.

`wire.http1` asks for every header line. Pure look-ups: no state besides a bounded memo of names.
A name that only *looks* like one of ours (`Zt_Principal`, `zt.principal`) is treated like it, because CGI
and WSGI map every such spelling to the same variable (HTTP_ZT_PRINCIPAL).
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

# What to do with a line. Everything above COOKIE is noted, everything above KEPT is noted and passes too.
PASS: Final = 0
DROP: Final = 1
REFUSE: Final = 2
COOKIE: Final = 3  # requests: Cookie; responses: Set-Cookie
CONNECTION: Final = 10
CONTENT_LENGTH: Final = 11
TRANSFER_ENCODING: Final = 12
HOST: Final = 13
UPGRADE: Final = 14
EXPECT: Final = 15
TE: Final = 16
TRAILER: Final = 17
MAX_FORWARDS: Final = 18
KEPT: Final = 20
ORIGIN: Final = 21
ACCEPT: Final = 22
FETCH_MODE: Final = 23
AUTHORIZATION: Final = 24
WEBSOCKET_KEY: Final = 25
WEBSOCKET_VERSION: Final = 26
WEBSOCKET_ACCEPT: Final = 27
AUTHENTICATE: Final = 28
CORS_METHOD: Final = 29
DATE: Final = 30

#: Noted fields that may come on several lines; the values are joined as RFC 9110 section 5.3 says.
REPEATABLE: Final = frozenset(
    {CONNECTION, TRANSFER_ENCODING, UPGRADE, TE, TRAILER, ACCEPT, AUTHENTICATE, CORS_METHOD, DATE}
)

# RFC 9110 section 7.6.1, and what older senders treat the same way.
_HOP_BY_HOP: Final = dict.fromkeys(
    (
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"http2-settings",
    ),
    DROP,
)

_REQUEST: Final[dict[bytes, int]] = {
    **_HOP_BY_HOP,
    b"connection": CONNECTION,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"host": HOST,
    b"upgrade": UPGRADE,
    b"expect": EXPECT,
    b"te": TE,
    b"trailer": TRAILER,
    b"max-forwards": MAX_FORWARDS,
    b"cookie": COOKIE,
    b"origin": ORIGIN,
    b"access-control-request-method": CORS_METHOD,
    b"accept": ACCEPT,
    b"sec-fetch-mode": FETCH_MODE,
    b"authorization": AUTHORIZATION,
    b"sec-websocket-key": WEBSOCKET_KEY,
    b"sec-websocket-version": WEBSOCKET_VERSION,
    # They make an application do another method than the one that was authorized.
    b"x-http-method": REFUSE,
    b"x-http-method-override": REFUSE,
    b"x-method-override": REFUSE,
    # Exact names by which applications let a proxy in front say who or where from.
    b"forwarded": DROP,
    b"x-real-ip": DROP,
    b"x-client-ip": DROP,
    b"x-cluster-client-ip": DROP,
    b"true-client-ip": DROP,
    b"client-ip": DROP,
    b"client-cert": DROP,
    b"client-cert-chain": DROP,
    b"txn-token": DROP,
    b"x-rewrite-url": DROP,
    b"x-host": DROP,
    b"x-http-host-override": DROP,
    b"x-forward-for": DROP,
    b"x-arr-clientcert": DROP,
    # CGI calls it HTTP_PROXY, and programs send what they fetch through that (CVE-2016-5385).
    b"proxy": DROP,
    b"x-proxyuser-ip": DROP,
    b"proxy-client-ip": DROP,
    b"x-originating-ip": DROP,
    b"x-azure-clientip": DROP,
    b"x-azure-socketip": DROP,
    b"fly-client-ip": DROP,
    b"x-userinfo": DROP,
    b"x-jwt-assertion": DROP,
}

#: Identity namespaces: ours, and those of other proxies that applications are often told to believe.
_IDENTITY: Final = (
    b"zt-",
    b"x-forwarded",
    b"x-original-",
    b"x-client-cert",
    b"x-ssl-",
    b"ssl-client",
    b"remote-",
    b"x-remote-",
    b"x-auth-request-",
    b"x-auth-user",
    b"x-auth-email",
    b"x-auth-group",
    b"x-auth-role",
    b"x-authenticated-",
    b"x-consumer-",
    b"x-credential-",
    b"x-webauth-",
    b"x-vouch-",
    b"oidc-claim-",
    b"x-envoy-",
    b"x-tls-client-",
    b"x-client-dn",
    b"x-client-verify",
    b"x-amzn-mtls-",
    b"x-appengine-",
    b"x-authentik-",
    b"x-pomerium-",
    b"x-goog-authenticated-user",
    b"x-goog-iap-",
    b"x-amzn-oidc-",
    b"x-ms-client-principal",
    b"x-ms-token-",
    b"tailscale-user-",
    b"cf-access-",
    b"cf-connecting-ip",
    b"fastly-client-",
    b"cloudfront-viewer-",
    b"x-endpoint-api-",
    b"x-apigateway-api-",
    # of single sign-on before there were tokens: WebLogic, WebSEAL, SiteMinder, Shibboleth, Oracle's
    b"wl-proxy-",
    b"iv-user",
    b"iv-groups",
    b"iv-creds",
    b"iv-remote-",
    b"sm-user",
    b"sm-universalid",
    b"shib-",
    b"oam-",
)

_RESPONSE: Final[dict[bytes, int]] = {
    **_HOP_BY_HOP,
    b"connection": CONNECTION,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"upgrade": UPGRADE,
    b"te": DROP,
    b"trailer": TRAILER,
    b"set-cookie": COOKIE,
    b"www-authenticate": AUTHENTICATE,
    b"date": DATE,
    b"sec-websocket-accept": WEBSOCKET_ACCEPT,
    # It would lead browsers, with our cookie, around us (RFC 7838).
    b"alt-svc": DROP,
}

_ODD = re.compile(rb"[^a-z0-9]")

# Fields whose meaning has to be known before the body: routing, conditions, credentials, how to handle the
# response, what the content is (RFC 9110 section 6.5.1). After it they would only fool somebody.
_NEVER_LAST: Final = frozenset(
    (
        b"age",
        b"alt-used",
        b"authentication-info",
        b"authority",
        b"cache-control",
        b"clear-site-data",
        b"date",
        b"early-data",
        b"expires",
        b"from",
        b"link",
        b"location",
        b"max-forwards",
        b"pragma",
        b"prefer",
        b"range",
        b"referer",
        b"refresh",
        b"retry-after",
        b"set-cookie",
        b"strict-transport-security",
        b"user-agent",
        b"vary",
        b"warning",
        b"x-csrf-token",
        b"x-frame-options",
        b"x-requested-with",
    )
)
_NEVER_LAST_PREFIXES: Final = (
    *_IDENTITY,
    b"accept",
    b"access-control-",
    b"content-",
    b"cross-origin-",
    b"if-",
    b"origin",
    b"proxy-",
    b"sec-",
    b"x-auth",
    b"x-content-",
    b"x-host",
    b"x-http-",
)


# What Connection nearly always says.
_USUAL: Final = {
    value: frozenset({value.lower()})
    for value in (b"close", b"keep-alive", b"Close", b"Keep-Alive", b"Upgrade")
}


@lru_cache(4096)
def of_request(name: bytes) -> int:
    """Return what to do with a request header line of this name (at most 128 bytes, any case)."""
    lower = name.lower()
    kind = _REQUEST.get(lower)
    if kind is not None:
        return kind
    plain = _ODD.sub(b"-", lower)
    if plain.startswith(_IDENTITY):
        return DROP
    # A spelling variant of a special name means nothing to us and may mean much to an upstream.
    return PASS if plain == lower or plain not in _REQUEST else DROP


@lru_cache(4096)
def of_response(name: bytes) -> int:
    """Return what to do with a response header line of this name (at most 128 bytes, any case)."""
    lower = name.lower()
    kind = _RESPONSE.get(lower)
    if kind is not None:
        return kind
    return DROP if _ODD.sub(b"-", lower).startswith(b"zt-") else PASS


def may_trail(kind_of: Callable[[bytes], int], options: frozenset[bytes], name: bytes) -> bool:
    """Tell whether a field may pass after the body (RFC 9110 section 6.5).

    `kind_of`: of_request or of_response; `options`: what Connection nominates.
    """
    if kind_of(name) != PASS:
        return False
    lower = name.lower()
    plain = _ODD.sub(b"-", lower)
    # Here even a spelling variant of a special name is one too many, in either direction.
    return not (
        lower in options
        or plain in _NEVER_LAST
        or plain in _REQUEST
        or plain in _RESPONSE
        or plain.startswith(_NEVER_LAST_PREFIXES)
    )


def names_of(connection: bytes) -> frozenset[bytes]:
    """Return the lower-case names that a Connection value nominates."""
    return _USUAL.get(connection) or frozenset(name.strip(b" \t").lower() for name in connection.split(b","))


#: Request fields that only we write: who is asked for, where a message ends, what belongs to a connection,
#: who asks from where. Plain names.
OURS_IN_REQUESTS: Final = frozenset(
    {
        *_HOP_BY_HOP,
        *(name for name, kind in _REQUEST.items() if kind == REFUSE or COOKIE <= kind < KEPT),
        b"sec-websocket-key",
        b"sec-websocket-version",
        b"sec-websocket-accept",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"forwarded",
    }
)

#: The same for responses.
OURS_IN_RESPONSES: Final = frozenset(
    {*_HOP_BY_HOP, *(name for name, kind in _RESPONSE.items() if COOKIE < kind < KEPT)}
    | {b"te", b"alt-svc", b"sec-websocket-accept"}
)


@lru_cache(4096)
def plain(name: bytes) -> bytes:
    """Return what all spellings have in common that CGI makes one variable of: "X_User" is "x-user"."""
    return _ODD.sub(b"-", name.lower())
