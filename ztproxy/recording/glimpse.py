"""What the catalogue needs of a record, and whether bytes are a record at all: one look for both.

Called by `recording.sealer` for what comes from journals, and by `recording.catalog` for what is in the log.
A look costs half of reading the whole record. Never says yes to bytes that could break a line of the log:
whoever writes a journal may have been taken over.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from ztproxy.model.record import (
    ConfigurationRecord,
    FloodRecord,
    SessionRecord,
    SignalRecord,
    StandingRecord,
)
from ztproxy.recording.line import GapRecord, Malformed


class Decided(Struct, frozen=True, tag="decision", tag_field="kind", gc=False):
    """Of a `model.record.DecisionRecord`."""

    id: str
    at: int
    allow: bool
    decided: str
    principal: str
    name: str = ""
    session: str = ""
    device: str = ""
    ip: str = ""


class Finished(Struct, frozen=True, tag="outcome", tag_field="kind", gc=False):
    """Of a `model.record.OutcomeRecord`."""

    id: str
    at: int
    session: str = ""
    received: int = 0
    sent: int = 0


Glimpse = (
    Decided
    | Finished
    | SessionRecord
    | FloodRecord
    | ConfigurationRecord
    | StandingRecord
    | SignalRecord
    | GapRecord
)

_decode: Final = msgspec.json.Decoder(Glimpse).decode


def glimpse(record: bytes | msgspec.Raw) -> Glimpse:
    """Look at a record of the log. Raises Malformed."""
    try:
        seen: Glimpse = _decode(record)
    except (msgspec.MsgspecError, UnicodeError):
        raise Malformed("not a record") from None
    return seen


def glimpses(records: Sequence[bytes]) -> list[Glimpse]:
    """Look at records that are to become lines. Raises Malformed unless each is one, in text, on one line."""
    together = b"".join(records)
    if b"\n" in together or b"\r" in together:
        raise Malformed("more than one line")
    try:
        if not together.isascii():  # records begin and end in ASCII: together valid is each valid
            together.decode()
        return list(map(_decode, records))
    except (msgspec.MsgspecError, UnicodeError):
        raise Malformed("not a record") from None
