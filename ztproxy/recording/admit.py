"""What may become lines of the log: bytes that are one record each, in text, on one line.

Called by `recording.sealer` for all that comes from journals. Never says yes to bytes that could break a line
of the log: whoever writes a journal may have been taken over. Every Python operation here is paid for by each
record.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ztproxy.recording.glimpse import (
    DECISION,
    FILLED,
    OUTCOME,
    Decided,
    End,
    Glimpse,
    decided,
    end,
    finished,
    glimpse,
    head,
)
from ztproxy.recording.line import Malformed

_GAP: Final = b" "  # what a stencil puts behind the comma between head and end
_HEAD: Final = 96  # bytes: no head of ours is shorter
_KEPT: Final = 4096  # ends of decisions
_LONGEST: Final = 4096  # bytes of one


class _Known:
    """What an end says."""

    __slots__ = ("allow", "decided", "device", "name", "principal", "session")

    def __init__(self, end: End) -> None:
        self.allow: bool = end.allow
        self.decided: str = end.decided
        self.principal: str = end.principal
        self.name: str = end.name
        self.session: str = end.session
        self.device: str = end.device


class Admission:
    """Looks at records. Remembers the ends of decisions, which say who was permitted what, and come again."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: dict[bytes, _Known] = {}

    def admit(self, records: Sequence[bytes]) -> list[Glimpse]:
        """Return what the catalogue needs of these records. Raises Malformed unless each is one."""
        together = b"".join(records)
        if b"\n" in together or b"\r" in together or b"\0" in together:
            raise Malformed("more than one line, or less")
        seen: list[Glimpse] = []
        look_at_outcome, look_at_decision = finished, decided
        filled, decision, outcome = len(FILLED), len(DECISION), len(OUTCOME)
        try:
            if not together.isascii():  # records begin and end in ASCII: together valid is each valid
                together.decode()
            for record in records:
                if record[:filled] == FILLED:
                    seen.append(self._filled(record))
                elif record[:outcome] == OUTCOME:
                    seen.append(look_at_outcome(record))
                elif record[:decision] == DECISION:
                    seen.append(look_at_decision(record))
                else:
                    seen.append(glimpse(record))
        except (msgspec.MsgspecError, UnicodeError):
            raise Malformed("not a record") from None
        return seen

    def _filled(self, record: bytes) -> Decided:
        """Look at the record of a permit: at its head alone when its end is known. Raises MsgspecError.

        The head, closed by a brace, is an object; so is the end, begun by one. Neither has a member that the
        other may have, so put together they are the object of all these members, and no other.
        """
        at = record.find(_GAP, _HEAD) - 1
        if at < 0:
            return decided(record)
        rest = record[at:]
        known = self._ends.get(rest)
        if known is None:
            self._remember(rest)
            return decided(record)
        try:
            begun = head(record[:at] + b"}")
        except msgspec.MsgspecError:  # not as ours
            return decided(record)
        return Decided(
            begun.id,
            begun.at,
            known.allow,
            known.decided,
            known.principal,
            known.name,
            known.session,
            known.device,
            begun.ip,
        )

    def _remember(self, rest: bytes) -> None:
        if len(rest) > _LONGEST or rest[:1] != b",":
            return
        try:
            known = _Known(end(b"{" + rest[1:]))
        except msgspec.MsgspecError:  # of another kind than ours: looked at as a whole each time
            return
        if len(self._ends) >= _KEPT:
            self._ends.clear()
        self._ends[rest] = known
