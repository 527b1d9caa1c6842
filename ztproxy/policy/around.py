"""The circumstances of one request as Cedar has them: what policies read under `context`.

Made by `circumstances`, which checks them; read by `shapes` one by one. All of them together are a record,
which is only put together for whoever asks for that: most policies read one or two of the nine.
"""

from collections.abc import Mapping
from typing import Final, final

from ztproxy.model.native import mypyc_attr
from ztproxy.policy.values import Datetime, Ip, Record, Value

#: By what number each is asked for.
NOW: Final = 1
LOCAL: Final = 2
IP: Final = 3
HOST: Final = 4
PATH: Final = 5
METHOD: Final = 6
PROTOCOL: Final = 7
FEED_AGE: Final = 8
SOURCES: Final = 9
NUMBERS: Final[Mapping[str, int]] = {
    "now": NOW,
    "local": LOCAL,
    "ip": IP,
    "host": HOST,
    "path": PATH,
    "method": METHOD,
    "protocol": PROTOCOL,
    "feed_age": FEED_AGE,
    "sources": SOURCES,
}


@final
@mypyc_attr(acyclic=True)
class Local:
    """The local time: its parts as numbers of C, for hours of work, and as a record."""

    __slots__ = ("hour", "minute", "record", "weekday")

    def __init__(self, hour: int, minute: int, weekday: int) -> None:
        self.hour: Final = hour
        self.minute: Final = minute
        self.weekday: Final = weekday  # 1 to 7, from Monday
        self.record: Final[Record] = {"hour": hour, "minute": minute, "weekday": weekday}


@final
@mypyc_attr(acyclic=True)
class Around:
    """All of them."""

    __slots__ = ("feed_age", "host", "ip", "local", "method", "now", "path", "protocol", "sources")

    def __init__(
        self,
        now: Datetime,
        local: Local,
        ip: Ip,
        host: str,
        path: str,
        method: str,
        protocol: str,
        feed_age: int,
        sources: Record,
    ) -> None:
        self.now: Final = now
        self.local: Final = local
        self.ip: Final = ip
        self.host: Final = host
        self.path: Final = path
        self.method: Final = method
        self.protocol: Final = protocol
        self.feed_age: Final = feed_age
        self.sources: Final = sources

    def read(self, number: int) -> Value:
        """Return the one with this number. Raises KeyError when there is none."""
        if number == NOW:
            return self.now
        if number == LOCAL:
            return self.local.record
        if number == PATH:
            return self.path
        if number == IP:
            return self.ip
        if number == METHOD:
            return self.method
        if number == PROTOCOL:
            return self.protocol
        if number == HOST:
            return self.host
        if number == FEED_AGE:
            return self.feed_age
        if number == SOURCES:
            return self.sources
        raise KeyError(number)

    def record(self) -> Record:
        """Return all of them as one value."""
        return {name: self.read(number) for name, number in NUMBERS.items()}
