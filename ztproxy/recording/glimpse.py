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


class Head(
    Struct, frozen=True, tag="decision", tag_field="kind", gc=False, forbid_unknown_fields=True, kw_only=True
):
    """Of what a stencil of `administrator.stencil` is filled in with, and of nothing else."""

    at: int
    id: str
    device_proof_age: int = -1
    posture_age: int = -1
    ip: str = ""
    path: str = ""
    certificate: str = ""


class End(Struct, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    """Of what follows, which comes again: who was permitted what. Nothing of a `Head` has a place in it."""

    principal: str
    name: str = ""
    groups: msgspec.Raw = msgspec.Raw()
    session: str = ""
    device: str = ""
    device_proof: str = ""
    posture: str = ""
    feed_age: int = 0
    standing: msgspec.Raw = msgspec.Raw()
    sources: msgspec.Raw = msgspec.Raw()
    allow: bool
    decided: str
    resource: str = ""
    action: str = ""
    protocol: str = ""
    host: str = ""
    policies: msgspec.Raw = msgspec.Raw()
    policy_set: str = ""


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
#: For what nearly all records are: to know which kind to expect saves a third. They refuse any other kind.
DECISION: Final = b'{"kind":"decision",'
FILLED: Final = (
    b'{"kind":"decision","at":'  # as `administrator.stencil` begins, and the ordinary encoding does not
)
OUTCOME: Final = b'{"kind":"outcome",'
decided: Final = msgspec.json.Decoder(Decided).decode
finished: Final = msgspec.json.Decoder(Finished).decode
head: Final = msgspec.json.Decoder(Head).decode
end: Final = msgspec.json.Decoder(End).decode


def glimpse(record: bytes | msgspec.Raw) -> Glimpse:
    """Look at a record of the log. Raises Malformed."""
    try:
        seen: Glimpse = _decode(record)
    except (msgspec.MsgspecError, UnicodeError):
        raise Malformed("not a record") from None
    return seen
