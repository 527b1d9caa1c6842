"""Asking the portal as a program does: one POST over HTTPS, one bounded answer, no redirect followed.

Used by the device agent and the connector. A connection per request: there are a few a minute at most, and
each one uses the newest certificate. It never logs what it sends.
"""

import ssl
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from ztproxy.crypto.encoding import EncodingError, read_object
from ztproxy.net.names import Resolver

T = TypeVar("T")

JSON: Final = "application/json"
JOSE: Final = "application/jose"

_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)
_MAX_ANSWER: Final = 64 * 1024


class PortalRefused(Exception):
    """The portal said no. `code` is its stable code, "" when it did not say one; `date` is its time (ms), 0
    when it did not say that."""

    def __init__(self, status: int, code: str, detail: str, date: int = 0) -> None:
        super().__init__(detail or code or f"HTTP {status}")
        self.status = status
        self.code = code
        self.date = date


class PortalUnreachable(Exception):
    """No answer, or none that the portal can have given."""


class Credentials(Struct, frozen=True):
    """Files for the TLS connection. `certificate` and `key` are None to show no certificate."""

    ca: Path | None
    certificate: Path | None = None
    key: Path | None = None


def origin_of(url: str) -> str:
    """Return the origin of the portal's address as browsers spell it. Raises ValueError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is not an address") from error
    if parts.scheme != "https" or not host or parts.username or parts.query or parts.fragment:
        raise ValueError("the portal's address looks like https://portal.example")
    if parts.path not in ("", "/"):
        raise ValueError("the portal's address has no path")
    name = f"[{host}]" if ":" in host else host
    return f"https://{name}" if port in (None, 443) else f"https://{name}:{port}"


async def post(url: str, body: bytes, content_type: str, credentials: Credentials, into: type[T]) -> T:
    """Return what the portal answers. Raises PortalRefused, PortalUnreachable."""
    headers = {"Content-Type": content_type, "Accept": JSON}
    try:
        connector = aiohttp.TCPConnector(ssl=_tls(credentials), resolver=Resolver())
        async with (
            aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            date = _date(response.headers.get("Date", ""))
            return read(response.status, await _bounded(response), into, date)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise PortalUnreachable(f"{url}: {str(error) or type(error).__name__}") from error


def read(status: int, data: bytes, into: type[T], date: int = 0) -> T:
    """Return what an answer says. Raises PortalRefused, PortalUnreachable."""
    try:
        answer = read_object(data)
        if status in (200, 201):
            return msgspec.convert(answer, into)
    except (EncodingError, msgspec.ValidationError) as error:
        raise PortalUnreachable(f"HTTP {status}, but not as the portal answers") from error
    detail = answer.get("detail") or answer.get("title")
    raise PortalRefused(status, str(answer.get("code", ""))[:64], str(detail or "")[:200], date)


def _tls(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=credentials.ca)
    if credentials.certificate is not None and credentials.key is not None:
        context.load_cert_chain(credentials.certificate, credentials.key)
    return context


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    data = b""
    async for chunk in response.content.iter_chunked(8192):
        data += chunk
        if len(data) > _MAX_ANSWER:
            raise PortalUnreachable("the answer is too long to be the portal's")
    return data


def _date(text: str) -> int:
    """Return a Date field in ms, 0 when it is none (RFC 9110 section 6.6.1)."""
    try:
        return int(parsedate_to_datetime(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return 0
