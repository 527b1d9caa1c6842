"""A wire between two places that can not reach each other: what comes in at one end goes out at the other.

Used by `demo.apart` on this side and by `demo.apps` on the other. An end is `HOST:PORT` or `unix:PATH`; a
path is the same place in every network namespace, which is what makes this a wire. It never looks into what
passes.
"""

import asyncio
from contextlib import suppress

_CHUNK = 65536

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def listen(here: str, there: str) -> asyncio.Server:
    """Listen at one end, and connect whoever comes to the other. Raises OSError."""

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):  # we stop; Python 3.11 would log that as an error
            await _join((reader, writer), there)

    if here.startswith("unix:"):
        return await asyncio.start_unix_server(join, here.removeprefix("unix:"))
    host, _, port = here.rpartition(":")
    return await asyncio.start_server(join, host, int(port))


async def _join(come: _Streams, there: str) -> None:
    reader, writer = come
    try:
        far_reader, far_writer = await _dial(there)
    except OSError:  # nobody is there: so is nobody here
        writer.close()
        return
    await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))


async def _dial(there: str) -> _Streams:
    if there.startswith("unix:"):
        return await asyncio.open_unix_connection(there.removeprefix("unix:"))
    host, _, port = there.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # either end is gone
    finally:
        writer.close()
