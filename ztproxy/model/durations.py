"""Durations of one number and one unit, as configuration files and obligations write them: "30m"."""

import re
from typing import Final

#: Milliseconds of each unit.
UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

_DURATION: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")


def milliseconds(text: str) -> int:
    """Return the ms of "30m" and the like, 0 for what is no duration."""
    found = _DURATION.fullmatch(text)
    return int(found[1]) * UNITS[found[2]] if found else 0
