"""What may become lines of the log: bytes that are one record each, in text, on one line.

Called by `recording.sealer` for all that comes from journals. Never says yes to bytes that could break a line
of the log: whoever writes a journal may have been taken over. Every Python operation here is paid for by each
record.
"""

from collections.abc import Sequence

import msgspec

from ztproxy.recording.glimpse import DECISION, OUTCOME, Glimpse, decided, finished, glimpse
from ztproxy.recording.line import Malformed


def admit(records: Sequence[bytes]) -> list[Glimpse]:
    """Return what the catalogue needs of these records. Raises Malformed unless each is one."""
    together = b"".join(records)
    if b"\n" in together or b"\r" in together:
        raise Malformed("more than one line")
    seen: list[Glimpse] = []
    look_at_decision, look_at_outcome = decided, finished
    decision, outcome = len(DECISION), len(OUTCOME)
    try:
        if not together.isascii():  # records begin and end in ASCII: together valid is each valid
            together.decode()
        for record in records:
            if record[:decision] == DECISION:
                seen.append(look_at_decision(record))
            elif record[:outcome] == OUTCOME:
                seen.append(look_at_outcome(record))
            else:
                seen.append(glimpse(record))
    except (msgspec.MsgspecError, UnicodeError):
        raise Malformed("not a record") from None
    return seen
