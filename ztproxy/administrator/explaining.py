"""From "policy said no" to what the caller is told: a stable code, a sentence and remedies.

The policies' own words (@reason, @remedy) go out; conditions, values and policy names stay in the record
(they reveal policy). Pure; called by `administrator.access` only.
"""

from typing import Final

from ztproxy.model.codes import CODES
from ztproxy.model.decision import Decision, Explanation, Refusal
from ztproxy.model.request import AccessRequest
from ztproxy.model.subject import Device, Facts, Posture

#: Remedies that speak of the device: the code then says what about it.
DEVICE_REMEDIES: Final = frozenset({"enrol-device", "recheck-device", "fix-device", "start-agent"})
#: What helps where policy was not asked.
REMEDIES_OF: Final = {
    "session-ended": ("sign-in",),
    "device-mismatch": ("use-own-device",),
    "certificate-expired": ("renew-certificate",),
    "certificate-unsuitable": ("present-certificate",),
    "connector-not-enrolled": ("contact-administrator",),
    "facts-unavailable": ("retry-later",),
    "recheck-required": ("confirm-sign-in",),
    "audit-unavailable": ("retry-later",),
    "locked": ("contact-administrator",),
}


def refusal_of(decision: Decision, explanation: Explanation, facts: Facts, decision_id: str) -> Refusal:
    """Return what to tell the caller whom `decision` refused."""
    code = _code(decision, explanation, facts)
    status, sentence = CODES[code]
    reason = explanation.reasons[0] if explanation.reasons else sentence
    remedies = explanation.remedies
    if code == "facts-unavailable":
        reason, remedies = sentence, ("retry-later",)
    elif code == "login-required":
        reason, remedies = sentence, ("sign-in",)
    elif code.startswith("device-"):
        remedies = _DEVICE_REMEDY.get(code, ()) or remedies
    elif not remedies:
        remedies = ("contact-administrator",)  # nothing the caller can do, and nothing to learn from it
    return Refusal(code=code, status=status, decision_id=decision_id, remedies=remedies, reason=reason)


def _code(decision: Decision, explanation: Explanation, facts: Facts) -> str:
    if decision.kind == "error":
        return "facts-unavailable"
    if facts.principal.kind == "Anonymous":
        return "login-required"
    if DEVICE_REMEDIES.isdisjoint(explanation.remedies):
        return "access-denied"
    return _device_code(explanation, facts)


def _device_code(explanation: Explanation, facts: Facts) -> str:
    """Missing, stale and failing are different facts and get different codes (unknown is an error above)."""
    if not isinstance(facts.device, Device):
        return "device-required"
    failed = " ".join(text for miss in explanation.near_misses if miss.remedy for text in miss.failed)
    if not facts.device_proof or ("proved_at" in failed and "posture" not in failed):
        return "device-check-required"
    if not isinstance(facts.posture, Posture):
        return "device-posture-missing"
    if not facts.posture.healthy:
        return "device-posture-unhealthy"
    if "reported_at" in failed or "start-agent" in explanation.remedies:
        return "device-posture-stale"
    return "device-check-required" if "proved_at" in failed else "access-denied"


_DEVICE_REMEDY: Final = {
    "device-required": ("enrol-device", "recheck-device"),
    "device-check-required": ("recheck-device",),
    "device-posture-missing": ("start-agent",),
    "device-posture-stale": ("start-agent",),
    "device-posture-unhealthy": ("fix-device",),
}


def simple(code: str, request: AccessRequest) -> Refusal:
    """Return a refusal that its code says all about."""
    status, reason = CODES[code]
    remedies = REMEDIES_OF.get(code, ())
    return Refusal(
        code=code, status=status, decision_id=request.context.request_id, remedies=remedies, reason=reason
    )
