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


#: A `Decided` as values: of records that are put together nothing else is made.
DecidedValues = tuple[str, int, bool, str, str, str, str, str, str]


class Beginning(Struct, frozen=True, tag="decision", tag_field="kind", forbid_unknown_fields=True, gc=False):
    """What only one record of a decision says. These three have all of its
    fields, each once."""

    id: str
    at: int
    device_proof_age: int = -1
    posture_age: int = -1
    ip: str = ""
    certificate: str = ""
    path: str = ""


class OfCaller(Struct, frozen=True, forbid_unknown_fields=True):
    """What records of decisions say of who asks, but for ages."""

    principal: str
    name: str = ""
    groups: tuple[str, ...] = ()
    session: str = ""
    device: str = ""
    device_proof: str = ""
    posture: str = ""
    feed_age: int = 0
    standing: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


class OfDecision(Struct, frozen=True, forbid_unknown_fields=True):
    """What they say of the decision, and of what it is about."""

    allow: bool
    decided: str
    resource: str = ""
    action: str = ""
    protocol: str = ""
    host: str = ""
    policies: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    policy_set: str = ""
    code: str = ""
    remedies: tuple[str, ...] = ()
    near_misses: tuple[str, ...] = ()
    detail: str = ""


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
Seen = Glimpse | DecidedValues

#: The same as `glimpse`, but raises what msgspec and codecs raise.
look: Final = msgspec.json.Decoder(Glimpse).decode
look_at_beginning: Final = msgspec.json.Decoder(Beginning).decode
look_at_caller: Final = msgspec.json.Decoder(OfCaller).decode
look_at_decision: Final = msgspec.json.Decoder(OfDecision).decode


def glimpse(record: bytes | msgspec.Raw) -> Glimpse:
    """Look at a record of the log. Raises Malformed."""
    try:
        seen: Glimpse = look(record)
    except (msgspec.MsgspecError, UnicodeError):
        raise Malformed("not a record") from None
    return seen
