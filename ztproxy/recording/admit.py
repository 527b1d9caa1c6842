"""What may become lines of the log: bytes that are one record each, in text, on one line.

Called by `recording.sealer` for all that comes from journals. Never says yes to bytes that could break a line
of the log: whoever writes a journal may have been taken over. Every Python operation here is paid for by each
record.
"""

from collections.abc import Sequence

import msgspec

from ztproxy.recording.glimpse import Glimpse, look
from ztproxy.recording.line import Malformed


def admit(records: Sequence[bytes]) -> list[Glimpse]:
    """Return what the catalogue needs of these records. Raises Malformed unless each is one."""
    together = b"".join(records)
    if b"\n" in together or b"\r" in together:
        raise Malformed("more than one line")
    decode = look
    try:
        if not together.isascii():  # records begin and end in ASCII: together valid is each valid
            together.decode()
        return [decode(record) for record in records]
    except (msgspec.MsgspecError, UnicodeError):
        raise Malformed("not a record") from None
