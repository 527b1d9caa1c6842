"""Makes the circumstances of a request what Cedar can hold: what policies read under `context`.

One per policy set, called for every request, so each value is checked once and cheaply. All of it is checked:
what Cedar can not hold is refused, whoever would have read it. The time is the request's clock value; nothing
here looks at a clock.
"""

import datetime as calendar
from typing import Final
from zoneinfo import ZoneInfo

from ztproxy.model.request import Context
from ztproxy.policy.around import Around, Local
from ztproxy.policy.entities import MAX_TEXT, instant, text
from ztproxy.policy.literals import ip
from ztproxy.policy.values import LONG_MAX, Datetime, Ip, Record, fail

_MINUTE: Final = 60_000
#: The function itself: a method of a text is looked up by name, for more than it costs.
_is_ascii: Final = str.isascii
#: Texts up to here need no second look.
LONGEST: Final = MAX_TEXT // 2
#: Addresses that are kept as Cedar's; beyond it all are read anew.
KEPT: Final = 16_384


class Circumstances:
    """Makes `Around`; keeps the local time of the running minute."""

    __slots__ = ("_addresses", "_begins", "_ends", "_host", "_instant", "_local", "_now", "_zone")

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._begins = self._ends = 0  # the minute whose local time is known (ms); none yet
        self._local = Local(0, 0, 0)
        self._addresses: dict[str, Ip] = {}
        self._now = 0
        self._instant = Datetime(0)
        self._host = ""  # the last one that was looked at, and is fine

    def of(self, context: Context, method: str, now: int, feed_age: int, sources: Record) -> Around:
        """Return those of a request. Raises EvalError for what Cedar can not hold."""
        if not self._begins <= now < self._ends:
            self._turn(now)
        host, path = context.host, context.path
        if not ((host is self._host or self._is_plain(host)) and _is_ascii(path) and len(path) <= LONGEST):
            text(host), text(path)
        if feed_age and not 0 <= feed_age <= LONG_MAX:
            fail("not an age")
        address = self._addresses.get(context.ip)
        if address is None:
            address = self._read(context.ip)
        if now != self._now:  # many requests share a millisecond
            self._now, self._instant = now, Datetime(now)
        return Around(
            self._instant,
            self._local,
            address,
            host,
            path,
            method,
            context.protocol,
            feed_age,
            sources,
        )

    def _is_plain(self, host: str) -> bool:
        """Tell whether nothing has to be looked at twice, and remember a host of which that is so."""
        if not (_is_ascii(host) and len(host) <= LONGEST):
            return False
        self._host = host
        return True

    def _read(self, text: str) -> Ip:
        """Read an address, and keep it: the same callers come again and again. Raises EvalError."""
        address = ip(text)
        if len(self._addresses) >= KEPT:
            self._addresses.clear()
        self._addresses[text] = address
        return address

    def _turn(self, now: int) -> None:
        """Work out the local time of a minute (offsets from UTC are whole minutes). Raises EvalError."""
        minute = instant(now).ms // _MINUTE
        try:
            local = calendar.datetime.fromtimestamp(minute * 60, self._zone)
        except (OverflowError, OSError, ValueError):
            fail("not a time")
        self._local = Local(local.hour, local.minute, local.isoweekday())
        self._begins, self._ends = minute * _MINUTE, (minute + 1) * _MINUTE
