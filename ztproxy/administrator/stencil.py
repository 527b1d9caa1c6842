"""Records of requests at the speed of the warm path: what repeats is written once, and the rest filled in.

Called by `administrator.access` for permits: a filled stencil says what `evidence.decision_record` says of
the same permit, in another order. Called by `administrator.audit` when an exchange has ended well: it writes
what `OutcomeRecord` would. Whatever a stencil is not made for (`TooOdd`) is encoded the ordinary way. Pure,
but that it remembers texts: of paths, of sessions' names and of the last time.
"""

from typing import Any, Final, final

import msgspec

from ztproxy.administrator.evidence import posture_of, sources_of, standing_of
from ztproxy.model.decision import Decision
from ztproxy.model.passage import Passage
from ztproxy.model.record import MAX_RECORD, MAX_TEXT
from ztproxy.model.request import AccessRequest, Context
from ztproxy.model.subject import Device, Facts
from ztproxy.policy.engine import PolicySet
from ztproxy.trust.caller import Caller

_encode: Final = msgspec.json.Encoder().encode
#: Room for what is filled in: a path, an address and numbers.
_ROOM: Final = 6 * MAX_TEXT + 1024
#: Paths, and names of sessions, of which the text is remembered; beyond it all are written anew. None that is
#: longer than so many characters.
_TEXTS: Final = 4096
_LONGEST: Final = 512


class TooOdd(Exception):
    """These values need the care of `administrator.audit`: too long, or not text that JSON can carry."""


@final
class Written:
    """What records say of a decision about an action on a resource."""

    __slots__ = ("decision", "host", "passage", "policies", "protocol")

    def __init__(self, context: Context, decision: Decision, policies: PolicySet, passage: Passage) -> None:
        self.host: Final = context.host
        self.protocol: Final = context.protocol
        self.decision: Final = decision
        self.policies: Final = policies
        self.passage: Final = passage

    def says(self, context: Context, decision: Decision, policies: PolicySet) -> bool:
        """Tell whether it is about this request, too."""
        return (
            self.decision is decision
            and self.policies is policies
            and self.host == context.host
            and self.protocol == context.protocol
        )


def of_caller(facts: Facts) -> Passage:
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


def of_permit(request: AccessRequest, decision: Decision, policy_set: str) -> Passage:
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


def beginning(request: AccessRequest, caller: Caller, now: int) -> bytes:
    """Return how the record of one permit begins; `now` in ms since the epoch. Raises TooOdd."""
    context, certificate = request.context, request.subject.certificate
    if certificate is not None or caller.proved_at < 0 or caller.reported_at < 0:
        shown = f'"certificate":"{certificate.fingerprint}",' if certificate is not None else ""
        said = f"{_ages(caller, now)}{shown}"
        text = (
            f'{{"kind":"decision","id":"{context.request_id}","at":{_time(now)},{said}"ip":"{context.ip}",'
            f'"path":{_quoted(context.path)}'
        )
        return text.encode("ascii")
    # The same of most callers of most days, in fewer parts: each costs.
    text = (
        f'{{"kind":"decision","id":"{context.request_id}","at":{_time(now)},'
        f'"device_proof_age":{now - caller.proved_at},"posture_age":{now - caller.reported_at},'
        f'"ip":"{context.ip}","path":{_quoted(context.path)}'
    )
    return text.encode("ascii")


def completed(
    request_id: str,
    now: int,
    session: str,
    status: int,
    received: int,
    sent: int,
    duration: int,
    first_byte: int,
) -> bytes:
    """Return the record of an exchange that is complete, with nothing more to say of it: what `OutcomeRecord`
    takes, `now` for `at`. Raises TooOdd."""
    whose = f',"session":{_quoted(session)}' if session else ""
    said = _STATUS[status] if 0 <= status < len(_STATUS) else f',"status":{status}'
    came = f',"received":{received}' if received else ""
    went = f',"sent":{sent}' if sent else ""
    took = _DURATION[duration] if 0 <= duration < len(_DURATION) else f',"duration":{duration}'
    began = _FIRST_BYTE[first_byte] if 0 <= first_byte < len(_FIRST_BYTE) else _late(first_byte)
    head = f'{{"kind":"outcome","id":"{request_id}","at":{_time(now)}'
    return f"{head}{whose}{said}{came}{went}{took}{began}}}".encode("ascii")


def _late(first_byte: int) -> str:
    return f',"first_byte":{first_byte}' if first_byte != -1 else ""


#: What most numbers come to: as many as there are statuses, and a quarter of a second in ms. What is as it is
#: unless something else is said, is not said.
_STATUS: Final = ["", *(f',"status":{status}' for status in range(1, 600))]
_DURATION: Final = ["", *(f',"duration":{ms}' for ms in range(1, 256))]
_FIRST_BYTE: Final = [f',"first_byte":{ms}' for ms in range(256)]


def _ages(caller: Caller, now: int) -> str:
    """Return how old the proof of the device and its report are, as far as there are any."""
    proof = f'"device_proof_age":{now - caller.proved_at},' if caller.proved_at >= 0 else ""
    return f'{proof}"posture_age":{now - caller.reported_at},' if caller.reported_at >= 0 else proof


@final
class _Moment:
    """A time (ms) as text."""

    __slots__ = ("at", "text")

    def __init__(self) -> None:
        self.at = 0
        self.text = "0"


_moment: Final = _Moment()


def _time(now: int) -> str:
    """Return a time (ms) as text, made once for all records of a millisecond."""
    if now != _moment.at:
        _moment.at, _moment.text = now, str(now)
    return _moment.text


_texts: Final[dict[str, str]] = {}


def _quoted(text: str) -> str:
    """Return a text as a JSON string, made once while it is remembered. Raises TooOdd."""
    known = _texts.get(text)
    if known is None:
        if not text.isascii() or len(text) > MAX_TEXT or "?" in text or not text.isprintable():
            raise TooOdd  # queries are never written down
        known = _encode(text).decode()
        if len(text) <= _LONGEST:
            if len(_texts) >= _TEXTS:
                _texts.clear()
            _texts[text] = known
    return known


def _fields(**values: Any) -> Passage:
    """Return the values that say something."""
    try:
        text = _encode({name: value for name, value in values.items() if value})
    except UnicodeEncodeError:  # half a surrogate pair
        raise TooOdd from None
    if len(text) * 2 + _ROOM > MAX_RECORD:
        raise TooOdd
    return Passage(text[1:-1])
