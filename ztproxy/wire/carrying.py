"""What a gateway and a connector say to each other on a connection before it carries: a few small frames. And
what one worker says to another when it borrows such a connection.

Read and written by `gateway.carrier`, `gateway.lending` and `connector.links`. A frame is one byte that tells
its kind, two of its length (big endian) and that many bytes of JSON. After `Opened` bytes are passed on as
they are and no frame follows in either direction. Pure and strict: what is not exactly one of these frames,
said by the right side, ends the connection. It must never hold more than one frame.
"""

from functools import cache
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

#: The protocol that a connector asks to switch to, and where (RFC 9110 section 7.8).
PROTOCOL: Final = "ztproxy-carry"

#: Bytes of a frame's content.
LONGEST: Final = 1024
_HEAD: Final = 3

Reason = Literal["not-allowed", "unreachable", "draining", "busy"]
Scheme = Literal["http", "https", "unix"]
Number = Annotated[int, Meta(ge=0, le=1 << 20)]


class Status(Struct, frozen=True, forbid_unknown_fields=True):
    """How a connector is: the first it says on a connection, then again as a beat while that is ready."""

    version: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z.+-]+\Z")]
    carrying: Number = 0  # connections that carry, through all proxies
    draining: bool = False  # it takes nothing new


class Wanted(Struct, frozen=True, forbid_unknown_fields=True):
    """How many ready connections this worker wants: the first a gateway says, and whenever that changes."""

    node: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z._:-]+\Z")]
    worker: Annotated[int, Meta(ge=0, lt=256)]
    workers: Annotated[int, Meta(ge=1, le=256)]
    ready: Annotated[int, Meta(ge=0, le=64)]


class Open(Struct, frozen=True, forbid_unknown_fields=True):
    """Carry to this upstream: the only question of a gateway."""

    scheme: Scheme
    host: Annotated[str, Meta(min_length=1, max_length=255)]  # a name, an address, or the path of a socket
    port: Annotated[int, Meta(ge=0, le=65535)]


class Opened(Struct, frozen=True, forbid_unknown_fields=True):
    """It stands: from the next byte on everything is the application's."""


class Refused(Struct, frozen=True, forbid_unknown_fields=True):
    """It does not stand, and why. The connection stays ready unless the connector closes it."""

    reason: Reason


class Borrow(Struct, frozen=True, forbid_unknown_fields=True):
    """Lend me a ready connection of this connector: the only word of a worker to another one of its node."""

    name: Annotated[str, Meta(min_length=1, max_length=63)]


class Lent(Struct, frozen=True, forbid_unknown_fields=True):
    """Here it is: from the next byte on whoever borrowed it speaks with that instance of the connector."""

    instance: Annotated[str, Meta(min_length=1, max_length=64)]


Frame = Status | Wanted | Open | Opened | Refused | Borrow | Lent

_KINDS: Final[dict[int, type[Frame]]] = {
    1: Status,
    2: Wanted,
    3: Open,
    4: Opened,
    5: Refused,
    6: Borrow,
    7: Lent,
}
_NUMBERS: Final = {kind: number for number, kind in _KINDS.items()}
_ENCODER: Final = msgspec.json.Encoder()

#: Which frames each side may say.
OF_CONNECTOR: Final = (Status, Opened, Refused)
OF_GATEWAY: Final = (Wanted, Open)
OF_BORROWER: Final = (Borrow,)
OF_LENDER: Final = (Lent,)


class BadFrame(Exception):
    """These bytes are no frame that may come here."""


def written(frame: Frame) -> bytes:
    """Return the bytes of a frame. Raises ValueError when it says too much."""
    content = _ENCODER.encode(frame)
    if len(content) > LONGEST:
        raise ValueError("a frame is too long")
    return bytes((_NUMBERS[type(frame)],)) + len(content).to_bytes(2, "big") + content


@cache
def _decoders(said: tuple[type[Frame], ...]) -> dict[int, msgspec.json.Decoder[Frame]]:
    """Return what reads the frames of a side: the same for all connections, of which many wait for long."""
    return {_NUMBERS[kind]: msgspec.json.Decoder(kind) for kind in said}


class FrameReader:
    """Reads the frames of one side, `OF_CONNECTOR` or `OF_GATEWAY`."""

    __slots__ = ("_decoders", "_have")

    def __init__(self, said: tuple[type[Frame], ...]) -> None:
        self._decoders = _decoders(said)
        self._have = b""

    @property
    def left(self) -> bytes:
        """What has come of a frame that is not complete."""
        return self._have

    def feed(self, data: bytes) -> tuple[Frame, bytes] | None:
        """Take bytes; return the next frame and the bytes behind it, None while it is incomplete.

        Raises BadFrame. With the first bytes of a frame it is known whether it may come and how long it is,
        so nobody can make us wait for what we would not take.
        """
        data = self._have + data
        if data and data[0] not in self._decoders:
            raise BadFrame("not a kind of frame that may come here")
        if len(data) < _HEAD:
            self._have = data
            return None
        length = data[1] << 8 | data[2]
        if length > LONGEST:
            raise BadFrame("too long")
        end = _HEAD + length
        if len(data) < end:
            self._have = data
            return None
        self._have = b""
        try:
            frame = self._decoders[data[0]].decode(data[_HEAD:end])
        except (msgspec.MsgspecError, UnicodeDecodeError) as wrong:
            raise BadFrame("not its content") from wrong
        return frame, data[end:]
