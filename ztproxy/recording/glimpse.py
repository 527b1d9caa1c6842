"""What the catalogue needs of a record, and whether bytes are a record at all: one look for both.

Called by `recording.admit` for what comes from journals, and by `recording.catalog` for what is in the log.
A look costs a third of reading the whole record. Pure.
"""

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

#: The same as `glimpse`, but raises what msgspec and codecs raise.
look: Final = msgspec.json.Decoder(Glimpse).decode


def glimpse(record: bytes | msgspec.Raw) -> Glimpse:
    """Look at a record of the log. Raises Malformed."""
    try:
        seen: Glimpse = look(record)
    except (msgspec.MsgspecError, UnicodeError):
        raise Malformed("not a record") from None
    return seen
