"""Asking a provider over HTTP: exact addresses, no redirects, bounded size and time, strict JSON.

Called by `trust.identity.oidc`. The URLs come from configuration or from discovery; either way it must never
reach link-local or cloud metadata addresses with them.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from msgspec import Struct

from ztproxy.crypto.encoding import EncodingError, read_object
from ztproxy.trust.identity.provider import SignInRefused, TemporaryProviderError

_LONGEST_URL: Final = 2048
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10, connect=5)
_JSON: Final = ("application/json", "application/jwk-set+json")
_URL: Final = re.compile(r"https?://[!-~]+")
#: Metadata services that are not in a link-local range (AWS over IPv6, Alibaba, Azure's wire server).
_METADATA: Final = frozenset(map(ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16")))


class Answer(Struct, frozen=True):
    """A provider's JSON answer with a status below 500."""

    status: int
    content: bytes  # as received
    body: dict[str, Any]


def check_url(url: object, what: str) -> str:
    """Return `url` when it may be asked: https, or http on loopback; no user, fragment, forbidden address.

    Raises SignInRefused.
    """
    if not isinstance(url, str) or len(url) > _LONGEST_URL or not _URL.fullmatch(url):
        raise SignInRefused("provider-invalid", f"{what} is not a URL")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise SignInRefused("provider-invalid", f"{what} is not a URL") from error
    if not host or "@" in parts.netloc or "#" in url or "\\" in url:
        raise SignInRefused("provider-invalid", f"{what} has a user, a fragment or no host")
    if parts.scheme == "http" and not is_loopback(host):
        raise SignInRefused("provider-invalid", f"{what} is not https")
    if _forbidden(host):
        raise SignInRefused("provider-invalid", f"{what} points to a forbidden address")
    return url


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_loopback(host: str) -> bool:
    """Tell whether a host as URLs name it is this machine."""
    address = _address(host)
    return address.is_loopback if address else host == "localhost"


def _forbidden(host: str) -> bool:
    address = _address(host)
    if address is None:
        return False
    return address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA


class GuardedResolver(AbstractResolver):
    """A resolver that will not name forbidden addresses, whatever DNS says (rebinding)."""

    def __init__(self, inner: AbstractResolver | None = None) -> None:
        self._inner = inner or DefaultResolver()

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        """Return the permitted addresses of a name. Raises OSError when none is left."""
        found = await self._inner.resolve(host, port, family)
        good = [result for result in found if not _forbidden(result["host"])]
        if host == "localhost":
            good = [result for result in good if is_loopback(result["host"])]
        if not good:
            raise OSError(f"{host} has no permitted address")
        return good

    async def close(self) -> None:
        """Close the resolver underneath."""
        await self._inner.close()


def http_session(tls: Any = True) -> aiohttp.ClientSession:
    """Return a client session fit for providers; the caller closes it. `tls` is an SSLContext (`net.tls`)
    or True for the system's trust. No cookies, no environment proxies, no transparent decompression."""
    connector = aiohttp.TCPConnector(ssl=tls, resolver=GuardedResolver(), limit=32)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=_TIMEOUT,
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "ztproxy"},
    )


async def ask(
    http: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    limit: int,
    data: str | None = None,
    headers: Mapping[str, str] | None = None,
    bare: bool = False,
    patience: float = 0.0,
) -> Answer:
    """Ask and read at most `limit` bytes of JSON. Raises TemporaryProviderError, SignInRefused.

    `bare`: an answer without JSON is its status alone. `patience`: seconds for one that is held back on
    purpose.
    """
    timeout = aiohttp.ClientTimeout(total=patience, connect=5) if patience else _TIMEOUT
    try:
        async with http.request(
            method, url, data=data, headers=headers, allow_redirects=False, timeout=timeout
        ) as response:
            if bare and response.content_type not in _JSON and not 300 <= response.status < 400:
                _check_order(response)
                return Answer(status=response.status, content=b"", body={})
            _check_response(response)
            body = await response.content.read(limit + 1)
            while len(body) <= limit and not response.content.at_eof():
                body += await response.content.read(limit + 1 - len(body))
            status = response.status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise TemporaryProviderError(f"{urlsplit(url).netloc}: {type(error).__name__}") from error
    if len(body) > limit:
        raise SignInRefused("provider-invalid", "an answer is too large")
    try:
        return Answer(status=status, content=body, body=read_object(body))
    except EncodingError as error:
        raise SignInRefused("provider-invalid", f"an answer: {error}") from error


def _check_order(response: aiohttp.ClientResponse) -> None:
    if response.status >= 500 or response.status in (408, 425, 429):
        raise TemporaryProviderError(f"{response.url.host} answered {response.status}")


def _check_response(response: aiohttp.ClientResponse) -> None:
    _check_order(response)
    status = response.status
    if 300 <= status < 400:
        raise SignInRefused("provider-invalid", "an answer is a redirect")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise SignInRefused("provider-invalid", "an answer is compressed")
    if response.content_type not in _JSON:
        raise SignInRefused("provider-invalid", f"an answer is not JSON (status {status})")
