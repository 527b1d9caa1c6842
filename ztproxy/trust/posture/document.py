"""Judges a posture document: what of it counts, now, for this device.

Called by `administrator.devices` after the signature was checked. Pure. It must never make more of a check
than the document says: late, undated and unknown observations do not pass, an empty report is not healthy.
"""

from typing import Final

from ztproxy.crypto.posture_document import Observation, PostureDocument
from ztproxy.model.subject import Check, Posture

#: An observation older than this (ms) says nothing about now. Also the longest life of a document.
OBSERVATION_AGE: Final = 15 * 60_000
#: A device's clock may be ahead of ours by this much (ms).
CLOCK_SKEW: Final = 60_000


class PostureRefused(Exception):
    """A document that does not count. `code` is "posture-replayed" or "posture-from-the-future"."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def judge(
    document: PostureDocument, *, device_id: str, digest: str, last: Posture | None, now: int
) -> Posture:
    """Return the posture a document amounts to. `now` in ms, `last` is the one in force.

    Raises PostureRefused when it is not newer than the last one, or observed what has not happened yet.
    """
    if last is not None and document.seq <= last.seq:
        raise PostureRefused("posture-replayed", "a newer report is known already")
    checks = {name: _check(observed, now) for name, observed in document.checks.items()}
    return Posture(
        device_id=device_id,
        reported_at=now,
        seq=document.seq,
        source=document.source,
        level="self",
        healthy=bool(checks) and all(check.result == "pass" for check in checks.values()),
        checks=checks,
        os=document.os,
        document=digest,
    )


def _check(observed: Observation, now: int) -> Check:
    if observed.observed_at is None:
        return Check(result="unknown", observed_at=0)
    at = observed.observed_at * 1000
    if at > now + CLOCK_SKEW:
        raise PostureRefused("posture-from-the-future", "a check was observed in the future")
    if now - at > OBSERVATION_AGE and observed.result == "pass":
        return Check(result="unknown", observed_at=at)
    return Check(result=observed.result, observed_at=min(at, now))
