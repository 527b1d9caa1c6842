"""Posture told by somebody else: a JSON file that an MDM hook or a demo writes and the agent reports.

    {"checks": {"disk_encrypted": "pass", "firewall": {"result": "fail", "observed_at": 1800000000}}}

It replaces the agent's own checks. A file that is missing, malformed or writable for everybody makes the
device's state unknown; it never leaves the last good one standing.
"""

import stat
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from ztproxy.crypto.encoding import EncodingError, read_object
from ztproxy.crypto.posture_document import MAX_CHECKS, Observation, is_check_id
from ztproxy.model.subject import CheckResult

SOURCE: Final = "posture-file"

#: What is reported of a file that can not be used.
UNUSABLE: Final = "posture_file"

_MAX_FILE: Final = 64 * 1024


class Seen(Struct, frozen=True):
    """Tells one state of the file from another. All zero when there is none."""

    modified: int = 0  # ns
    size: int = 0
    inode: int = 0


def look(path: Path) -> Seen:
    """Return which state the file is in."""
    try:
        found = path.stat()
    except OSError:
        return Seen()
    return Seen(modified=found.st_mtime_ns, size=found.st_size, inode=found.st_ino)


def read(path: Path, now: int) -> dict[str, Observation]:
    """Return the checks in the file; those without a time of their own were observed `now` (ms)."""
    try:
        return _checks(_content(path), now // 1000)
    except (OSError, EncodingError, ValueError):
        return {UNUSABLE: Observation("unknown", now // 1000)}


def _content(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE or path.stat().st_mode & stat.S_IWOTH:
        raise ValueError("too large, or anybody may write it")
    return read_object(data)


def _checks(content: dict[str, Any], seconds: int) -> dict[str, Observation]:
    checks = content.get("checks")
    if not isinstance(checks, dict) or not 0 < len(checks) <= MAX_CHECKS:
        raise ValueError("no checks")
    if not all(is_check_id(name) for name in checks):
        raise ValueError("a check has a name that can not be")
    return {name: _observation(value, seconds) for name, value in checks.items()}


def _observation(value: object, seconds: int) -> Observation:
    if isinstance(value, dict):
        at = value.get("observed_at", seconds)
        known = isinstance(at, int) and not isinstance(at, bool)
        return Observation(_result(value.get("result")), at if known else None)
    return Observation(_result(value), seconds)


def _result(value: object) -> CheckResult:
    return "pass" if value == "pass" else "fail" if value == "fail" else "unknown"
