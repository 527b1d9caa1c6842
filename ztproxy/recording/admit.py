"""What may become lines of the log: bytes that are one record each, in text, on one line.

Called by `recording.sealer` for all that comes from journals. Never says yes to bytes that could break a line
of the log: whoever writes a journal may have been taken over. Every Python operation here is paid for by each
record.
"""

from collections.abc import Sequence

import msgspec

from ztproxy.recording.entry import Ending, Entry, Joined, Said
from ztproxy.recording.glimpse import (
    DecidedValues,
    Seen,
    look,
    look_at_beginning,
    look_at_caller,
    look_at_decision,
)
from ztproxy.recording.line import Malformed


def admit(entries: Sequence[Entry]) -> list[Seen]:
    """Return what the catalogue needs of records. Raises Malformed unless each entry is one."""
    decode = look
    try:
        _demand_text([entry if isinstance(entry, bytes) else entry.beginning for entry in entries])
        return [decode(entry) if isinstance(entry, bytes) else _decided(entry) for entry in entries]
    except (msgspec.MsgspecError, UnicodeError):
        raise Malformed("not a record") from None


def _demand_text(texts: list[bytes]) -> None:
    """Raise Malformed, UnicodeError unless each is text on one line, if it begins and ends in ASCII."""
    together = b"".join(texts)
    if b"\n" in together or b"\r" in together:
        raise Malformed("more than one line")
    if not together.isascii():  # together valid is each valid
        together.decode()


def _decided(entry: Joined) -> DecidedValues:
    """Look at a record of a decision that is put together.

    Each part is looked at as an object of its own: closed by a brace the beginning is one, in braces each
    passage is. So with commas between they are one object. No part has a field of another's.
    """
    beginning = look_at_beginning(entry.beginning + b"}")
    allow, decided, principal, name, session, device = entry.ending.said or _said(entry.ending)
    return (beginning.id, beginning.at, allow, decided, principal, name, session, device, beginning.ip)


def _said(ending: Ending) -> Said:
    _demand_text([ending.caller, ending.decision])
    caller, decision = look_at_caller(b"{%b}" % ending.caller), look_at_decision(b"{%b}" % ending.decision)
    ending.said = said = (
        *(decision.allow, decision.decided),
        *(caller.principal, caller.name, caller.session, caller.device),
    )
    return said
