"""Places in journals, and what lies there: the values of `recording.journal`."""

import struct
from typing import Final

from msgspec import Struct

#: Head of a segment: magic, number of the first entry, byte order, crc32 of these.
HEADER: Final = struct.Struct("=8sQII")


class Position(Struct, frozen=True):
    """The next place to read: a segment, a byte offset in it, and the number of the entry there."""

    segment: int = 1
    offset: int = HEADER.size
    entry: int = 1


class Batch(Struct, frozen=True):
    """What `read` found. Entries are numbered from 1 within their journal, without holes."""

    entries: list[bytes]  # the first has the number of the position asked for
    position: Position
    more: bool = False  # the limit was reached
    torn: bool = False  # an entry is there but can not be read (yet)
