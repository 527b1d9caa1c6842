"""The Date of responses that come without one, or are our own (RFC 9110 section 6.6.1).

Called by `gateway.connection`. Made once a second.
"""

from email.utils import formatdate
from functools import lru_cache


def date(now: int) -> str:
    """Return the time (ms since the epoch) as an IMF-fixdate."""
    return _date(now // 1000)


def line(now: int) -> bytes:
    """Return the header line, ended by CRLF."""
    return b"Date: %b\r\n" % _date(now // 1000).encode("ascii")


@lru_cache(2)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
