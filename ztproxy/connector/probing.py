"""Finding out whether a connector could carry: are the proxies and the applications there, as seen from here?

Called by `cli.connector`. It dials as the connector would, says nothing to anybody, and closes.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Final, NamedTuple

from ztproxy.connector.allowed import Place, place
from ztproxy.connector.links import Proxy

PATIENCE: Final = 5.0  # seconds for each


class Finding(NamedTuple):
    """What came of one dial; `why` is "" when it stands."""

    what: str
    why: str


async def findings(
    proxies: Sequence[Proxy], context: ssl.SSLContext, allowed: Sequence[str]
) -> AsyncIterator[Finding]:
    """Yield what comes of dialling every proxy and every application, one after the other."""
    for proxy in proxies:
        yield Finding(f"proxy {proxy.host}:{proxy.port}", await _why(_proxy(proxy, context)))
    for text in allowed:
        yield Finding(text, await _why(_application(place(text))))


async def _why(dial: Awaitable[asyncio.StreamWriter]) -> str:
    try:
        async with asyncio.timeout(PATIENCE):
            writer = await dial
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not believed: {error.verify_message}"
    except TimeoutError:
        return f"does not answer within {PATIENCE:.0f} s"
    except (ssl.SSLError, socket.gaierror) as error:
        return (error.strerror or str(error)).lower()
    except (OSError, EOFError) as error:
        number = getattr(error, "errno", None)
        return os.strerror(number).lower() if number else str(error) or "closes the connection"
    writer.transport.abort()
    return ""


async def _proxy(proxy: Proxy, context: ssl.SSLContext) -> asyncio.StreamWriter:
    """Shake hands, and wait a moment: TLS 1.3 lets a server refuse our certificate after we are done."""
    reader, writer = await asyncio.open_connection(
        proxy.host, proxy.port, ssl=context, server_hostname=proxy.name
    )
    try:
        async with asyncio.timeout(0.5):
            if not await reader.read(1):
                raise OSError("closes the connection")
    except TimeoutError:
        pass
    return writer


async def _application(wanted: Place) -> asyncio.StreamWriter:
    if wanted.scheme == "unix":
        return (await asyncio.open_unix_connection(wanted.host))[1]
    return (await asyncio.open_connection(wanted.host, wanted.port, family=socket.AF_UNSPEC))[1]
