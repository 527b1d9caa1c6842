"""Places in journals, and what lies there: the values of `recording.journal`."""

from msgspec import Struct

from ztproxy.recording.entry import Entry


class Position(Struct, frozen=True):
    """The next place to read: a segment, a byte offset in it, and the number of the entry there."""

    segment: int = 1
    offset: int = 0  # 0: at its first entry
    entry: int = 1


class Batch(Struct, frozen=True):
    """What `read` found. Entries are numbered from 1 within their journal, without holes."""

    entries: list[Entry]  # the first has the number of the position asked for
    position: Position
    more: bool = False  # the limit was reached
    torn: bool = False  # an entry is there but can not be read (yet)
