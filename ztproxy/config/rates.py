"""Rates as a file writes them: "100/s", "30/m burst 10", "unlimited".

Used by `sections` as a pydantic type, like those of `values`.
"""

import re
from typing import Annotated, Final

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from ztproxy.config.secrets import wrong
from ztproxy.model.quota import Rate

UNLIMITED: Final = "unlimited"
MOST: Final = 1_000_000
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}
_PATTERN: Final = r"^([0-9]{1,7}/[smh]( burst [0-9]{1,7})?|unlimited)$"


def rate(raw: object) -> Rate | None:
    """Read a rate; None for "unlimited". Without a burst as many at once as the number says."""
    if raw == UNLIMITED:
        return None
    found = (
        re.fullmatch(r"([0-9]{1,7})/([smh])(?: burst ([0-9]{1,7}))?", raw) if isinstance(raw, str) else None
    )
    if not found:
        raise wrong("not a rate", "write 100/s, 30/m burst 10 or unlimited (units: s, m, h)")
    number, burst = int(found[1]), int(found[3] or found[1])
    if not (1 <= number <= MOST and 1 <= burst <= MOST):
        raise wrong("a rate out of bounds", f"choose numbers from 1 to {MOST}")
    return Rate(number / _SECONDS[found[2]], burst)


def written(value: Rate | None) -> str:
    """Write a rate as `rate` reads it."""
    if value is None:
        return UNLIMITED
    unit, number = next(
        (unit, round(value.per_second * seconds))
        for unit, seconds in _SECONDS.items()
        if unit == "h" or abs(round(value.per_second * seconds) - value.per_second * seconds) < 1e-9
    )
    return f"{number}/{unit}" + (f" burst {value.burst}" if value.burst != number else "")


Pace = Annotated[
    Rate | None,
    PlainValidator(rate),
    PlainSerializer(written, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _PATTERN, "examples": ["100/s burst 200"]}),
]
