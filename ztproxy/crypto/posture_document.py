"""The posture document: what a device says about its state, as claims of a `device-posture+jwt`.

The agent builds it, `trust.posture` judges it; the names and the grammar live here. Results have three
values, and only the word "pass" is a pass: anything else, missing times included, is read as not known.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from ztproxy.model.subject import CheckResult

TYPE: Final = "device-posture+jwt"
LIFE: Final = 300  # seconds the agent gives a document
LONGEST_LIFE: Final = 900  # seconds we accept
MAX_SIZE: Final = 16 * 1024  # characters of the signed document
MAX_CHECKS: Final = 64

_CHECK_ID: Final = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_LAST: Final = 1 << 53  # integers beyond it are not exact in every JSON reader
_LAST_TIME: Final = 1 << 43


class PostureMalformed(ValueError):
    """Claims that are no posture document; the message says why."""


class Observation(Struct, frozen=True):
    """One check as reported. `observed_at` in seconds since the epoch, None when it is not said."""

    result: CheckResult
    observed_at: int | None


class PostureDocument(Struct, frozen=True):
    """What a device reports."""

    seq: int
    source: str
    os: str
    checks: dict[str, Observation]


def build(document: PostureDocument, device_id: str, audience: str, now: int, jti: str) -> dict[str, Any]:
    """Return the claims of a document made at `now` (ms) for the portal's origin."""
    seconds = now // 1000
    return {
        "iss": device_id,
        "sub": device_id,
        "aud": audience,
        "iat": seconds,
        "exp": seconds + LIFE,
        "jti": jti,
        "seq": document.seq,
        "source": document.source,
        "os": document.os,
        "checks": [
            {"id": name, "result": check.result, "observed_at": check.observed_at}
            for name, check in sorted(document.checks.items())
        ],
    }


def parse(claims: Mapping[str, Any]) -> PostureDocument:
    """Return the document in verified claims. Raises PostureMalformed."""
    seq = claims.get("seq")
    if not isinstance(seq, int) or isinstance(seq, bool) or not 0 < seq < _LAST:
        raise PostureMalformed("seq is no counter")
    if claims.get("sub") != claims.get("iss"):
        raise PostureMalformed("a device speaks for itself only")
    return PostureDocument(
        seq=seq,
        source=_text(claims, "source", 64),
        os=_text(claims, "os", 128),
        checks=_checks(claims.get("checks")),
    )


def is_check_id(name: str) -> bool:
    """Tell whether a check may be called that."""
    return _CHECK_ID.fullmatch(name) is not None


def _checks(entries: object) -> dict[str, Observation]:
    if not isinstance(entries, list) or len(entries) > MAX_CHECKS:
        raise PostureMalformed("checks is no list of reasonable length")
    found: dict[str, Observation] = {}
    for entry in entries:
        name = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not is_check_id(name) or name in found:
            raise PostureMalformed("a check has no name of its own")
        found[name] = Observation(_result(entry.get("result")), _time(entry.get("observed_at")))
    return found


def _result(value: object) -> CheckResult:
    return "pass" if value == "pass" else "fail" if value == "fail" else "unknown"


def _time(value: object) -> int | None:
    """Seconds; None for everything that is no time (null, text, a boolean, an absurd number)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LAST_TIME:
        return None
    return int(value)


def _text(claims: Mapping[str, Any], name: str, longest: int) -> str:
    value = claims.get(name, "")
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise PostureMalformed(f"{name} is no short text")
    return value
