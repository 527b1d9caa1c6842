"""Records of permits at the speed of the warm path: what repeats is written once, and the rest filled in.

Called by `administrator.access` only. A filled stencil says what `evidence.decision_record` says of the same
permit, in another order; whatever a stencil is not made for (`TooOdd`) is encoded the ordinary way. Pure.
"""

from typing import Any, Final

import msgspec

from ztproxy.administrator.audit import MAX_RECORD, MAX_TEXT
from ztproxy.administrator.evidence import posture_of, sources_of, standing_of
from ztproxy.model.decision import Decision
from ztproxy.model.request import AccessRequest
from ztproxy.model.subject import Device, Facts
from ztproxy.trust.caller import Caller

_encode: Final = msgspec.json.Encoder().encode
#: What stands in a JSON string as it is, without the mark of a query, which is never written down.
_PLAIN: Final = bytes(set(range(0x20, 0x7F)) - set(b'"\\?'))
#: Room for what is filled in: a path, an address and numbers.
_ROOM: Final = 6 * MAX_TEXT + 1024


class TooOdd(Exception):
    """These values need the care of `administrator.audit`: too long, or not text that JSON can carry."""


def of_caller(facts: Facts) -> bytes:
    """Return what records say of a caller, but for ages. Raises TooOdd."""
    principal, session, device = facts.principal, facts.session, facts.device
    return _fields(
        principal=f"{principal.kind}::{principal.id}",
        name=principal.name,
        groups=principal.groups,
        session=session.id if session is not None else "",
        device=device.id if isinstance(device, Device) else "",
        device_proof=facts.device_proof,
        posture=posture_of(facts, 0)[0],
        feed_age=facts.feed_age,
        standing=standing_of(facts),
        sources=sources_of(facts),
    )


def of_permit(request: AccessRequest, decision: Decision, policy_set: str) -> bytes:
    """Return what records say of a decision about a resource on a host. Raises TooOdd."""
    context, resource = request.context, request.resource
    return _fields(
        allow=decision.allow,
        decided=decision.kind,
        resource=f"{resource.type}::{resource.id}",
        action=request.action,
        protocol=context.protocol,
        host=context.host,
        policies=decision.policies,
        policy_set=policy_set,
    )


def filled(who: bytes, permit: bytes, request: AccessRequest, caller: Caller, now: int) -> bytes:
    """Return the record of one permit; `now` in ms since the epoch. Raises TooOdd."""
    context, certificate = request.context, request.subject.certificate
    return b'{"kind":"decision","id":"%b","at":%d,%b"ip":"%b","path":"%b",%b%b,%b}' % (
        context.request_id.encode("ascii"),
        now,
        _ages(caller, now),
        context.ip.encode("ascii"),
        _quoted(context.path),
        b'"certificate":"%b",' % certificate.fingerprint.encode() if certificate is not None else b"",
        who,
        permit,
    )


def _ages(caller: Caller, now: int) -> bytes:
    """Return how old the proof of the device and its report are, as far as there are any."""
    if caller.proved_at >= 0 and caller.reported_at >= 0:
        return b'"device_proof_age":%d,"posture_age":%d,' % (now - caller.proved_at, now - caller.reported_at)
    if caller.proved_at >= 0:
        return b'"device_proof_age":%d,' % (now - caller.proved_at)
    return b'"posture_age":%d,' % (now - caller.reported_at) if caller.reported_at >= 0 else b""


def _quoted(path: str) -> bytes:
    """Return a path as the inside of a JSON string. Raises TooOdd."""
    try:
        text = path.encode("ascii")
    except UnicodeEncodeError:
        raise TooOdd from None
    if len(text) > MAX_TEXT:
        raise TooOdd
    if not text.translate(None, _PLAIN):
        return text
    if not path.isprintable() or "?" in path:
        raise TooOdd
    quoted = _encode(path)
    return quoted[1:-1]


def _fields(**values: Any) -> bytes:
    """Return the values that say something as the inside of a JSON object, ended by what follows them."""
    try:
        text = _encode({name: value for name, value in values.items() if value})
    except UnicodeEncodeError:  # half a surrogate pair
        raise TooOdd from None
    if len(text) * 2 + _ROOM > MAX_RECORD:
        raise TooOdd
    return text[1:-1]
