"""Decisions as records: the values as they were at the time, with the ages of the inputs.

Pure; called by `administrator.access` only.
"""

from ztproxy.model.decision import Decision, Explanation, Refusal
from ztproxy.model.record import DecisionRecord
from ztproxy.model.request import AccessRequest, Peer
from ztproxy.model.subject import Device, Facts, Posture
from ztproxy.trust.gather import Caller


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
    principal = facts.principal
    device = facts.device if isinstance(facts.device, Device) else None
    certificate = request.subject.certificate
    context = request.context
    return DecisionRecord(
        id=context.request_id,
        at=now,
        allow=refusal is None,
        decided=decision.kind,
        principal=principal.kind + "::" + principal.id,
        name=principal.name,
        groups=principal.groups,
        session=facts.session.id if facts.session else "",
        device=device.id if device else "",
        device_proof=facts.device_proof,
        device_proof_age=now - facts.device_proved_at if facts.device_proof else -1,
        posture=posture_word(facts) if device else "",
        posture_age=now - facts.posture.reported_at if isinstance(facts.posture, Posture) else -1,
        feed_age=facts.feed_age,
        ip=context.ip,
        certificate=certificate.fingerprint if certificate else "",
        resource=request.resource.type + "::" + request.resource.id,
        action=request.action,
        protocol=context.protocol,
        host=context.host,
        path=context.path,
        policies=decision.policies,
        errors=decision.errors,
        policy_set=policy_set,
        code=refusal.code if refusal else "",
        remedies=refusal.remedies if refusal else (),
        near_misses=_near_misses(explanation),
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
    )


def posture_word(facts: Facts) -> str:
    """Return "healthy", "unhealthy", "missing" or "unknown"."""
    if isinstance(facts.posture, Posture):
        return "healthy" if facts.posture.healthy else "unhealthy"
    return "missing" if facts.posture is None else "unknown"


def _near_misses(explanation: Explanation | None) -> tuple[str, ...]:
    if explanation is None:
        return ()
    return tuple(f"{miss.policy}: {' and '.join(miss.failed)}"[:500] for miss in explanation.near_misses[:8])
