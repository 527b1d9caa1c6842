"""Framed messages over a unix socket: four bytes of length (big endian), then MessagePack.

Both ends of the link between control process and workers use it (`service.link`, `service.hub`). A frame
that is too large or does not decode breaks the channel; the worker then dials anew and asks for a snapshot.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

LIMIT = 4 << 20  # bytes of one frame

In = TypeVar("In")


class ChannelBroken(Exception):
    """The other end is gone or does not keep to the format."""


class Channel(Generic[In]):
    """One end. `received` is the type of messages that come in (a tagged union)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, received: Any) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder: msgspec.msgpack.Decoder[In] = msgspec.msgpack.Decoder(received)
        self._encode = msgspec.msgpack.Encoder().encode

    def send(self, message: msgspec.Struct) -> None:
        """Queue a message; pair with `drain` where many follow each other."""
        body = self._encode(message)
        if len(body) > LIMIT:
            raise ChannelBroken(f"message of {len(body)} bytes is over the limit of {LIMIT}")
        self._writer.write(len(body).to_bytes(4, "big") + body)

    async def drain(self) -> None:
        """Wait until the other end has taken enough of what was sent. Raises ChannelBroken."""
        try:
            await self._writer.drain()
        except ConnectionError as gone:
            raise ChannelBroken(str(gone)) from gone

    async def messages(self) -> AsyncIterator[In]:
        """Yield messages until the other end closes cleanly. Raises ChannelBroken otherwise."""
        while True:
            try:
                size = int.from_bytes(await self._reader.readexactly(4), "big")
                if size > LIMIT:
                    raise ChannelBroken(f"frame of {size} bytes is over the limit of {LIMIT}")
                body = await self._reader.readexactly(size)
            except asyncio.IncompleteReadError as end:
                if end.partial:
                    raise ChannelBroken("the other end closed inside a frame") from end
                return
            except ConnectionError as gone:
                raise ChannelBroken(str(gone)) from gone
            try:
                message = self._decoder.decode(body)
            except msgspec.DecodeError as bad:
                raise ChannelBroken(f"undecodable message: {bad}") from bad
            yield message

    def close(self) -> None:
        """Close at once."""
        self._writer.close()


async def dial(path: Path, received: Any) -> Channel[Any]:
    """Connect to the socket at `path`. Raises OSError."""
    reader, writer = await asyncio.open_unix_connection(path)
    return Channel(reader, writer, received)
