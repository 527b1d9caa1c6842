"""How segments of journals look: the format that is written, and the one before, which is only read. Pure.

Nobody but `recording.journal` reads or writes segments, and nothing else knows their formats. A segment is a
header followed by entries, each aligned to four bytes:

    XXH3 u64 | length u32 | payload        `CURRENT`; header: `HEADER`, then the last entry sealed u64
    length u32 | crc32 u32 | payload       `BEFORE`; header: `HEADER`

The length is stored last, and 0 means "not there yet". The sum is over the payload; that its length was
altered shows, too, because then it is over something else. It has 64 bits because XXH3, unlike crc32, does
not promise to find a few altered bits: of any damage, one in 2**64 passes.

A segment is never written twice: what a loss of power leaves of one is then empty, not an entry of before,
whose sum would be right.

Each format has a suffix of its own. A version of the program that does not know a format leaves it alone; it
could not tell it from damage, and would remove it.
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple
from zlib import crc32

from xxhash import xxh3_64_intdigest

#: Head of a segment: magic, number of the first entry, byte order, crc32 of these.
HEADER: Final = struct.Struct("=8sQII")
#: After the header of `CURRENT`, and not in its sum: how far the sealer is, 0 before it was there.
SEALED: Final = struct.Struct("=Q")
#: Before a payload of `CURRENT`: sum, length. Stored in this order, each at once.
HEAD: Final = struct.Struct("=QI")

_BEFORE_HEAD: Final = struct.Struct("=II")


class Format(NamedTuple):
    """What tells one format from another."""

    suffix: str
    magic: bytes
    start: int  # bytes before the first entry
    head: int  # bytes before a payload
    head_at: Callable[[bytes, int], tuple[int, int]]  # -> sum, length
    sum_of: Callable[[bytes], int]


def _before_head(data: bytes, offset: int) -> tuple[int, int]:
    length, check = _BEFORE_HEAD.unpack_from(data, offset)
    return check, length


CURRENT: Final = Format(
    "journal2", b"ZTJRNL2\n", HEADER.size + SEALED.size, HEAD.size, HEAD.unpack_from, xxh3_64_intdigest
)
BEFORE: Final = Format("journal", b"ZTJRNL1\n", HEADER.size, _BEFORE_HEAD.size, _before_head, crc32)
FORMATS: Final = (CURRENT, BEFORE)
