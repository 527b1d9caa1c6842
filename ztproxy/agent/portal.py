"""Speaks to the portal over HTTPS: enrols, reports, renews.

Called by `agent.program` and `agent.reporting`. A connection per request: there are two a minute, and each
one uses the newest certificate. Follows no redirect, reads a bounded answer, never logs what it sends.
"""

import ssl
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from ztproxy.agent.state import AgentError
from ztproxy.crypto.encoding import EncodingError, read_object
from ztproxy.model.endpoints import ENROL, POSTURE, RENEW
from ztproxy.net.names import Resolver

T = TypeVar("T")

_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)
_MAX_ANSWER: Final = 64 * 1024


class PortalRefused(Exception):
    """The portal said no. `code` is its stable code, "" when it did not say one."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail or code or f"HTTP {status}")
        self.status = status
        self.code = code


class PortalUnreachable(Exception):
    """No answer, or none that the portal can have given."""


class Issued(Struct, frozen=True):
    """A certificate as the portal hands it out."""

    device: dict[str, str]
    certificate: str
    not_after: int
    portal: str = ""


class Taken(Struct, frozen=True):
    """What the portal made of a report."""

    seq: int
    healthy: bool
    checks: dict[str, str] = {}


class Credentials(Struct, frozen=True):
    """Files for the TLS connection. `certificate` and `key` are None to show no certificate."""

    ca: Path | None
    certificate: Path | None = None
    key: Path | None = None


def origin_of(url: str) -> str:
    """Return the origin of the portal's address as browsers spell it. Raises AgentError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise AgentError(f"{url!r} is not an address") from error
    if parts.scheme != "https" or not host or parts.username or parts.query or parts.fragment:
        raise AgentError("the portal's address looks like https://portal.example")
    if parts.path not in ("", "/"):
        raise AgentError("the portal's address has no path")
    name = f"[{host}]" if ":" in host else host
    return f"https://{name}" if port in (None, 443) else f"https://{name}:{port}"


class Portal:
    """The portal at an origin."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    async def enrol(self, credentials: Credentials, code: str, csr: str, name: str) -> Issued:
        """Turn a code into a device. Raises PortalRefused, PortalUnreachable."""
        body = msgspec.json.encode({"code": code, "csr": csr, "name": name})
        return await self._post(ENROL, body, "application/json", credentials, Issued)

    async def report(self, credentials: Credentials, statement: str) -> Taken:
        """Send a signed posture document. Raises PortalRefused, PortalUnreachable."""
        return await self._post(POSTURE, statement.encode(), "application/jose", credentials, Taken)

    async def renew(self, credentials: Credentials, statement: str) -> Issued:
        """Ask for a new certificate. Raises PortalRefused, PortalUnreachable."""
        return await self._post(RENEW, statement.encode(), "application/jose", credentials, Issued)

    async def _post(
        self, path: str, body: bytes, content_type: str, credentials: Credentials, into: type[T]
    ) -> T:
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        try:
            connector = aiohttp.TCPConnector(ssl=_tls(credentials), resolver=Resolver())
            async with (
                aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session,
                session.post(
                    self._origin + path, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                return _read(response.status, await _bounded(response), into)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise PortalUnreachable(f"{self._origin}: {_reason(error)}") from error


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


def _read(status: int, data: bytes, into: type[T]) -> T:
    try:
        answer = read_object(data)
        if status in (200, 201):
            return msgspec.convert(answer, into)
    except (EncodingError, msgspec.ValidationError) as error:
        raise PortalUnreachable(f"HTTP {status}, but not as the portal answers") from error
    detail = answer.get("detail") or answer.get("title")
    raise PortalRefused(status, str(answer.get("code", ""))[:64], str(detail or "")[:200])


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
