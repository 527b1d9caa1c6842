"""The circumstances of a request as a Cedar record: what policies read under `context`.

One per policy set, called for every request, so each value is checked once and cheaply, and only what is
going to be read is put into the record. All of it is checked: what Cedar can not hold is refused, whoever
would have read it. The time is the request's clock value; nothing here looks at a clock.
"""

import datetime as calendar
from typing import Final
from zoneinfo import ZoneInfo

from ztproxy.model.request import Context
from ztproxy.policy.entities import MAX_TEXT, instant, text
from ztproxy.policy.literals import ip
from ztproxy.policy.needs import ALL, FEED_AGE, HOST, IP, LOCAL, METHOD, NOW, PATH, PROTOCOL, SOURCES
from ztproxy.policy.values import LONG_MAX, Datetime, Ip, Record, Value, fail

_MINUTE: Final = 60_000
_NOTHING: Final[Record] = {}
#: Addresses that are kept as Cedar's; beyond it all are read anew.
KEPT: Final = 16_384


class Circumstances:
    """Makes `context` records; keeps the local time of the running minute."""

    __slots__ = ("_addresses", "_begins", "_ends", "_instant", "_local", "_now", "_zone")

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._begins = self._ends = 0  # the minute whose local time is known (ms); none yet
        self._local: Record = {}
        self._addresses: dict[str, Ip] = {}
        self._now = 0
        self._instant = Datetime(0)

    def record(
        self,
        context: Context,
        method: str,
        now: int,
        feed_age: int,
        sources: Record,
        reads: int = ALL,
    ) -> Record:
        """Return the record of what is read (`needs.bits`). Raises EvalError for what Cedar can not hold."""
        if not self._begins <= now < self._ends:
            self._turn(now)
        host, path = context.host, context.path
        if not (host.isascii() and path.isascii() and len(host) + len(path) <= MAX_TEXT):
            text(host), text(path)
        if feed_age and not 0 <= feed_age <= LONG_MAX:
            fail("not an age")
        address = self._addresses.get(context.ip)
        if address is None:
            address = self._read(context.ip)
        if not reads:
            return _NOTHING
        record: dict[str, Value] = {}
        if reads & NOW:
            if now != self._now:  # many requests share a millisecond
                self._now, self._instant = now, Datetime(now)
            record["now"] = self._instant
        if reads & LOCAL:
            record["local"] = self._local
        if reads & IP:
            record["ip"] = address
        if reads & HOST:
            record["host"] = host
        if reads & PATH:
            record["path"] = path
        if reads & METHOD:
            record["method"] = method
        if reads & PROTOCOL:
            record["protocol"] = context.protocol
        if reads & FEED_AGE:
            record["feed_age"] = feed_age
        if reads & SOURCES:
            record["sources"] = sources
        return record

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
        self._local = {"hour": local.hour, "minute": local.minute, "weekday": local.isoweekday()}
        self._begins, self._ends = minute * _MINUTE, (minute + 1) * _MINUTE
