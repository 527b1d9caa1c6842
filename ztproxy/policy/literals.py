"""Cedar's extension values from text and back: ip, decimal, datetime, duration.

Called by `compile` for constants, by `entities` for facts and by `reference`, which hands values to Cedar's
own engine as JSON. Grammar and limits are Cedar's: what it rejects is rejected here (EvalError).
"""

import datetime as calendar
import ipaddress
import re
from collections.abc import Callable
from typing import Final

from ztproxy.model.subject import UNKNOWN
from ztproxy.policy.values import (
    LONG_MAX,
    LONG_MIN,
    CedarSet,
    Datetime,
    Decimal,
    Duration,
    Ip,
    Record,
    Uid,
    Value,
    fail,
)

#: The last instant that can be written down, 9999-12-31T23:59:59.999Z.
DATETIME_MAX: Final = 253_402_300_799_999

_DAY: Final = 86_400_000
_EPOCH: Final = calendar.date(1970, 1, 1).toordinal()
_CYCLE: Final = 146_097  # days of 400 Gregorian years

_DECIMAL = re.compile(r"(-?)([0-9]+)\.([0-9]{1,4})\Z")
_DURATION = re.compile(r"(-?)(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m(?!s))?(?:([0-9]+)s)?(?:([0-9]+)ms)?\Z")
_DATETIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{3}))?(?:Z|([+-])([0-9]{2})([0-9]{2})))?\Z"
)
_IP = re.compile(r"[0-9a-fA-F:.]+(?:/[0-9]{1,3})?\Z")


def long(value: int) -> int:
    """Return `value` if it fits into 64 bits. Raises EvalError."""
    return value if LONG_MIN <= value <= LONG_MAX else fail("overflow")


def decimal(text: Value) -> Decimal:
    """Return decimal("12.34")."""
    match = _DECIMAL.match(_text(text)) or fail("not a decimal")
    units = int(match[2]) * 10_000 + int(match[3].ljust(4, "0"))
    return Decimal(long(-units if match[1] else units))


def duration(text: Value) -> Duration:
    """Return duration("1d2h3m4s5ms")."""
    match = _DURATION.match(_text(text))
    if match is None or text in ("", "-"):
        fail("not a duration")
    units = zip(match.groups()[1:], (_DAY, 3_600_000, 60_000, 1000, 1), strict=True)
    ms = sum(int(number) * unit for number, unit in units if number)
    return Duration(long(-ms if match[1] else ms))


def datetime(text: Value) -> Datetime:
    """Return datetime("2026-01-31") or datetime("2026-01-31T10:00:00.000+0100")."""
    match = _DATETIME.match(_text(text)) or fail("not a datetime")
    year, month, day = int(match[1]), int(match[2]), int(match[3])
    hour, minute, second, ms = (int(part or 0) for part in match.group(4, 5, 6, 7))
    if hour > 23 or minute > 59 or second > 59:
        fail("not a time of day")
    instant = _days(year, month, day) * _DAY + hour * 3_600_000 + minute * 60_000 + second * 1000 + ms
    if match[8]:
        hours, minutes = int(match[9]), int(match[10])
        if hours > 23 or minutes > 59:
            fail("not an offset from UTC")
        offset = hours * 3_600_000 + minutes * 60_000
        instant += -offset if match[8] == "+" else offset
    return Datetime(instant)


def _days(year: int, month: int, day: int) -> int:
    try:
        if year == 0:  # Cedar knows the year 0, Python's calendar begins with 1
            return calendar.date(400, month, day).toordinal() - _CYCLE - _EPOCH
        return calendar.date(year, month, day).toordinal() - _EPOCH
    except ValueError:
        fail("not a date")


def ip(text: Value) -> Ip:
    """Return ip("10.0.0.0/8")."""
    if not _IP.match(_text(text)):
        fail("not an ip address")
    address, _, prefix = text.partition("/")
    if ":" in address and "." in address:  # Cedar refuses IPv4 inside IPv6
        fail("not an ip address")
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        fail("not an ip address")
    if not prefix:
        return Ip(parsed.version, int(parsed), parsed.max_prefixlen)
    if (len(prefix) > 1 and prefix[0] == "0") or int(prefix) > parsed.max_prefixlen:
        fail("not an ip prefix")
    return Ip(parsed.version, int(parsed), int(prefix))


def _text(value: Value) -> str:
    return value if type(value) is str else fail()


def written(value: Value) -> str:
    """Return an extension value as the text its constructor takes."""
    kind = type(value)
    if kind is Datetime:
        days, rest = divmod(value.ms, _DAY)
        shift = days < calendar.date(1, 1, 1).toordinal() - _EPOCH
        day = calendar.date.fromordinal(days + _EPOCH + (_CYCLE if shift else 0))
        year = day.year - (400 if shift else 0)
        seconds, ms = divmod(rest, 1000)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{ms:03}"
        return f"{year:04}-{day.month:02}-{day.day:02}T{clock}Z"
    if kind is Duration:
        return f"{value.ms}ms"
    if kind is Decimal:
        sign, units = ("-" if value.units < 0 else ""), abs(value.units)
        return f"{sign}{units // 10_000}.{units % 10_000:04}"
    address = ipaddress.IPv4Address if value.version == 4 else ipaddress.IPv6Address
    return f"{address(value.number)}/{value.prefix}"


_CONSTRUCTORS: Final[dict[str, Callable[[Value], Value]]] = {
    "ip": ip,
    "decimal": decimal,
    "datetime": datetime,
    "duration": duration,
}
_NAMES: Final = {Ip: "ip", Decimal: "decimal", Datetime: "datetime", Duration: "duration"}


def to_json(value: Value) -> object:
    """Return a value in Cedar's JSON form. Unknown parts of records are left out."""
    kind = type(value)
    if kind is Uid:
        return {"__entity": {"type": value.type, "id": value.id}}
    if kind is CedarSet:
        return [to_json(element) for element in value.values]
    if kind in _NAMES:
        return {"__extn": {"fn": _NAMES[kind], "arg": written(value)}}
    if kind is dict:
        return record_to_json(value)
    return value


def record_to_json(record: Record) -> dict[str, object]:
    """Return a record in Cedar's JSON form, without its unknown parts."""
    return {name: to_json(value) for name, value in record.items() if value is not UNKNOWN}


def from_json(value: object) -> Value:
    """Return the value of Cedar's JSON form."""
    if isinstance(value, list):
        return CedarSet([from_json(element) for element in value])
    if not isinstance(value, dict):
        return value
    if "__entity" in value:
        return Uid(value["__entity"]["type"], value["__entity"]["id"])
    if "__extn" in value:
        return _CONSTRUCTORS[value["__extn"]["fn"]](value["__extn"]["arg"])
    return {name: from_json(inner) for name, inner in value.items()}
