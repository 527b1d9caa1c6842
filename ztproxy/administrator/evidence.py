"""Decisions as records: the values as they were at the time, with the ages of the inputs.

Pure; called by `administrator.access` only.
"""

from ztproxy.model.decision import Decision, Explanation, Refusal
from ztproxy.model.record import PREFLIGHT, DecisionRecord
from ztproxy.model.request import AccessRequest, Peer
from ztproxy.model.standing import UNSAID
from ztproxy.model.subject import Device, Facts, Posture
from ztproxy.trust.caller import Caller


def decision_record(
    request: AccessRequest,
    caller: Caller,
    decision: Decision,
    policy_set: str,
    now: int,
    refusal: Refusal | None,
    explanation: Explanation | None,
) -> DecisionRecord:
    """Return the record of one decision. Ages in ms; -1 where there is nothing to have an age."""
    facts = caller.facts
    principal, session, device = facts.principal, facts.session, facts.device
    subject, resource, context = request.subject, request.resource, request.context
    certificate = subject.certificate
    posture, posture_age = posture_of(facts, now)
    return DecisionRecord(  # by position: so many keywords cost ten times as much
        context.request_id,
        now,
        refusal is None,
        decision.kind,
        principal.kind + "::" + principal.id,
        principal.name,
        principal.groups,
        session.id if session is not None else "",
        device.id if isinstance(device, Device) else "",
        facts.device_proof,
        now - facts.device_proved_at if facts.device_proof else -1,
        posture,
        posture_age,
        facts.feed_age,
        context.ip,
        certificate.fingerprint if certificate is not None else "",
        resource.type + "::" + resource.id,
        request.action,
        context.protocol,
        context.host,
        context.path,
        decision.policies,
        decision.errors,
        policy_set,
        refusal.code if refusal is not None else "",
        refusal.remedies if refusal is not None else (),
        _near_misses(explanation) if explanation is not None else (),
        refusal.detail if refusal is not None else "",
        standing_of(facts) if facts.said is not UNSAID else (),
        sources_of(facts) if facts.sources else (),
    )


def refused_record(request: AccessRequest | None, peer: Peer, refusal: Refusal, now: int) -> DecisionRecord:
    """Return the record of a request that was refused before policy was asked."""
    certificate = peer.tls.certificate
    return DecisionRecord(
        id=refusal.decision_id,
        at=now,
        allow=False,
        decided="refused",
        principal="Anonymous::anonymous",
        ip=peer.ip,
        certificate=certificate.fingerprint if certificate else "",
        resource=f"{request.resource.type}::{request.resource.id}" if request else "",
        action=request.action if request else "",
        protocol=request.context.protocol if request else "http",
        host=request.context.host if request else "",
        path=request.context.path if request else "",
        code=refusal.code,
        remedies=refusal.remedies,
        detail=refusal.detail,
    )


def preflight_record(request: AccessRequest, peer: Peer, now: int) -> DecisionRecord:
    """Return the record of a preflight: nobody was let in, and nobody who wanted in was refused."""
    context = request.context
    return DecisionRecord(
        id=context.request_id,
        at=now,
        allow=False,
        decided=PREFLIGHT,
        principal="Anonymous::anonymous",
        ip=peer.ip,
        resource=f"{request.resource.type}::{request.resource.id}",
        action=request.action,
        host=context.host,
        path=context.path,
        code=PREFLIGHT,
    )


def posture_of(facts: Facts, now: int) -> tuple[str, int]:
    """Return "healthy", "unhealthy", "missing" or "unknown", and the age; "" without a device."""
    posture = facts.posture
    if isinstance(posture, Posture):
        return "healthy" if posture.healthy else "unhealthy", now - posture.reported_at
    if not isinstance(facts.device, Device):
        return "", -1
    return "missing" if posture is None else "unknown", -1


def standing_of(facts: Facts) -> tuple[str, ...]:
    """Return what signals said that policy could weigh, as "name=word"."""
    said = facts.said
    words = {
        "risk": said.risk,
        "session.risk": said.session_risk,
        "device.risk": said.device_risk,
        "device.compliance": said.compliance,
    }
    return tuple(f"{name}={word}" for name, word in words.items() if word)


def sources_of(facts: Facts) -> tuple[str, ...]:
    """Return how fresh sources were, as "NAME STATE AGE"."""
    return tuple([f"{one.name} {one.state} {one.age}" for one in facts.sources])


def _near_misses(explanation: Explanation) -> tuple[str, ...]:
    return tuple(f"{miss.policy}: {' and '.join(miss.failed)}"[:500] for miss in explanation.near_misses[:8])
