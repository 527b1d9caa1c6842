"""How segments of journals look: the format that is written, and those before, which are only read. Pure.

Nobody but `recording.journal` reads or writes segments, and nothing else knows their formats. A segment is a
header followed by entries, each aligned to four bytes:

    XXH3 u64 | kind 2 bits, length 30 bits | payload    `CURRENT`; header: `HEADER`, then `SEALED`
    XXH3 u64 | length u32 | payload                     `SECOND`; header: `HEADER`, then `SEALED`
    length u32 | crc32 u32 | payload                    `FIRST`; header: `HEADER`

The kinds of `CURRENT` are

    0  a record
    1  a passage: what records say that come after it in this segment. It has no number in the journal
    2  a record as `JOINED`, then its beginning. It goes on with two passages, and ends with a brace:
       the beginning, a comma, the first passage, a comma, the second one, "}"

Most of what a record of a decision says is who asks and what is decided about it, over and over: the same
callers at the same routes. So it is written once in each segment, and a record is a fifth as long.

A length of 0 means "not there yet". The sum is over the payload; that its length was altered shows, too,
because then it is over something else. It has 64 bits because XXH3, unlike crc32, does not promise to find a
few altered bits: of any damage, one in 2**64 passes.

Files of `CURRENT` are written over when all in them is sealed, as a segment of another number. So each entry
is stored with a length of 0 behind it. What a loss of power leaves of such a file may be new in one page and
old in the next: therefore the segment's number, times four, and the kind are the seed of each sum, and the
header's sum goes on from the number. What is of before has wrong sums, and so has what was not stored to its
end. Files of the formats before were not written over; in these, what follows the last entry and is not 0 was
begun and not finished.

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
#: After the header, and not in its sum: the last entry that is sealed, 0 before one was.
SEALED: Final = struct.Struct("=Q")
#: Before a payload: sum, kind and length. Stored in this order, each at once.
HEAD: Final = struct.Struct("=QI")
#: Where in this segment the two passages lie that a record goes on with.
JOINED: Final = struct.Struct("=II")

#: Bytes of the three parts of a record, with what lies before them, at the most: what is longer is written
#: whole. So nobody makes a small entry of a journal a large line of the log, and that over and over.
LONGEST: Final = 8192

#: Kinds of `CURRENT`.
RECORD: Final = 0
PASSAGE: Final = 1 << 30
JOIN: Final = 2 << 30


class Format(NamedTuple):
    """What tells one format from another."""

    suffix: str
    magic: bytes
    start: int  # bytes before the first entry
    head: struct.Struct  # before a payload
    head_at: Callable[[bytes, int], tuple[int, int]]  # -> sum, kind and length
    sum_of: Callable[[bytes, int], int]  # of a payload and its kind
    sealed: bool = True  # says itself how far it is sealed
    kinds: int = 0  # which bits of a length are the kind


_FIRST: Final = struct.Struct("=II")


def _first_head(data: bytes, offset: int) -> tuple[int, int]:
    length, check = _FIRST.unpack_from(data, offset)
    return check, length


CURRENT: Final = Format(
    *("journal3", b"ZTJRNL3\n", HEADER.size + SEALED.size, HEAD, HEAD.unpack_from, xxh3_64_intdigest),
    kinds=PASSAGE | JOIN,
)
SECOND: Final = Format(
    "journal2", b"ZTJRNL2\n", HEADER.size + SEALED.size, HEAD, HEAD.unpack_from, xxh3_64_intdigest
)
FIRST: Final = Format("journal", b"ZTJRNL1\n", HEADER.size, _FIRST, _first_head, crc32, sealed=False)
FORMATS: Final = (CURRENT, SECOND, FIRST)
