"""The circumstances of a request as a Cedar record: what policies read under `context`.

One per policy set, called for every request, so each value is checked once and cheaply. The time is the
request's clock value; nothing here looks at a clock.
"""

import datetime as calendar
from zoneinfo import ZoneInfo

from ztproxy.model.request import Context
from ztproxy.policy.entities import MAX_TEXT, instant, text
from ztproxy.policy.literals import ip
from ztproxy.policy.values import LONG_MAX, Datetime, Record, fail

_MINUTE = 60_000


class Circumstances:
    """Makes `context` records; keeps the local time of the running minute."""

    __slots__ = ("_instant", "_local", "_minute", "_now", "_zone")

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._minute: int | None = None
        self._local: Record = {}
        self._now = 0
        self._instant = Datetime(0)

    def record(self, context: Context, method: str, now: int, feed_age: int, sources: Record) -> Record:
        """Return the record. Raises EvalError for what Cedar can not hold."""
        if now // _MINUTE != self._minute:
            self._turn(now)
        if now != self._now:  # many requests share a millisecond
            self._now, self._instant = now, Datetime(now)
        host, path = context.host, context.path
        if not (host.isascii() and path.isascii() and len(host) + len(path) <= MAX_TEXT):
            text(host), text(path)
        if feed_age and not 0 <= feed_age <= LONG_MAX:
            fail("not an age")
        return {
            "now": self._instant,
            "local": self._local,
            "ip": ip(context.ip),
            "host": host,
            "path": path,
            "method": method,
            "protocol": context.protocol,
            "feed_age": feed_age,
            "sources": sources,
        }

    def _turn(self, now: int) -> None:
        """Work out the local time of a minute (offsets from UTC are whole minutes). Raises EvalError."""
        minute = instant(now).ms // _MINUTE
        try:
            local = calendar.datetime.fromtimestamp(minute * 60, self._zone)
        except (OverflowError, OSError, ValueError):
            fail("not a time")
        self._local = {"hour": local.hour, "minute": local.minute, "weekday": local.isoweekday()}
        self._minute = minute
