"""One line of the sealed log: a record with its number, its source and the hash of the line before.

Written by `recording.log`, read by everyone in this room. The hash of a line is over its bytes without
the line break, so a log can be checked with nothing but sha256sum.
"""

import hashlib
from typing import Final

import msgspec
from msgspec import Struct

from ztproxy.model.record import Record


class GapRecord(Struct, frozen=True, tag="gap", tag_field="kind", omit_defaults=True, gc=False):
    """Evidence that is missing, in its place: what was lost is said, never passed over."""

    at: int
    reason: str
    journal: str
    first: int  # number of the first journal entry concerned
    last: int  # and of the last


Entry = Record | GapRecord


class Line(Struct, frozen=True, forbid_unknown_fields=True):
    """A line as read. `source` is "JOURNAL:ENTRY", of a gap "JOURNAL:FIRST-LAST"."""

    n: int
    prev: str  # lower-case hex
    src: str
    record: msgspec.Raw


class Malformed(Exception):
    """These bytes are not a line of a log."""


encode_record: Final = msgspec.json.Encoder().encode
_decode_line: Final = msgspec.json.Decoder(Line).decode
_decode_entry: Final = msgspec.json.Decoder(Entry).decode


def digest(line: bytes) -> bytes:
    """Return the hash of a line without its line break."""
    return hashlib.sha256(line).digest()


def render(n: int, previous: bytes, source: str, record: bytes) -> bytes:
    """Return the line of an encoded record."""
    return b'{"n":%d,"prev":"%s","src":"%s","record":%s}' % (
        n,
        previous.hex().encode(),
        source.encode(),
        record,
    )


def parse(line: bytes) -> Line:
    """Read a line's envelope. Raises Malformed."""
    try:
        return _decode_line(line)
    except (msgspec.MsgspecError, UnicodeError):
        raise Malformed("not a line of a log") from None


def parse_record(record: bytes | msgspec.Raw) -> Entry:
    """Read a record. Raises Malformed."""
    try:
        entry: Entry = _decode_entry(record)
    except (msgspec.MsgspecError, UnicodeError):
        raise Malformed("not a record") from None
    return entry


def parse_source(source: str) -> tuple[str, int, int]:
    """Return journal, first and last entry. Raises Malformed."""
    journal, _, entries = source.rpartition(":")
    first, _, last = entries.partition("-")
    if not journal or not first.isascii() or not first.isdigit() or (last and not last.isdigit()):
        raise Malformed("not a source")
    return journal, int(first), int(last or first)
