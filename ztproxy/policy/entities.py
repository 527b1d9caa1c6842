"""Facts about a caller as Cedar entities. Made once per change of session, device or posture, then reused.

Called by `engine.PolicySet.subject` and by `cases`. Absent facts are absent attributes, unknown facts stay
UNKNOWN. A value Cedar can not hold makes a subject that is denied everything: see `Subject.fault`.
"""

from collections.abc import Iterable
from typing import Final

from ztproxy.model.route import Route
from ztproxy.model.subject import UNKNOWN, Device, Facts, Posture, Principal, Session, Unknown
from ztproxy.policy.literals import DATETIME_MAX
from ztproxy.policy.schema import CHECKS
from ztproxy.policy.subject import Subject
from ztproxy.policy.values import CedarSet, Datetime, Entity, Record, Uid, Value, fail

#: Characters of a text a policy may see.
MAX_TEXT: Final = 64 * 1024


def subject(facts: Facts) -> Subject:
    """Return the subject of these facts. Never raises: what can not be expressed is denied."""
    principal = facts.principal
    uid = Uid(principal.kind, principal.id)
    uncertain = isinstance(facts.device, Unknown) or isinstance(facts.posture, Unknown)
    try:
        text(principal.id)
        groups = frozenset([Uid("Group", text(name)) for name in principal.groups])
        entity = Entity(uid, _ATTRIBUTES[principal.kind](facts), groups if _has_groups(principal) else _NONE)
        sources: Record = {one.name: {"age": one.age, "state": one.state} for one in facts.sources}
    except Exception as error:  # noqa: BLE001 - facts no policy can be asked about are denied everything
        return Subject(Entity(uid, {}), uncertain, facts.feed_age, {}, f"facts of the caller: {error}"[:300])
    return Subject(entity, uncertain, facts.feed_age, sources)


_NONE: Final[frozenset[Uid]] = frozenset()


def _has_groups(principal: Principal) -> bool:
    return principal.kind != "Anonymous"


def _user(facts: Facts) -> Record:
    principal = facts.principal
    attributes = _named(principal)
    if principal.email:
        attributes["email"] = text(principal.email)
    if facts.session is not None:
        attributes["session"] = _session(facts.session, facts)
    _add_risk(attributes, facts)
    return _with_device(attributes, facts)


def _workload(facts: Facts) -> Record:
    principal = facts.principal
    attributes = _named(principal)
    if principal.id.startswith("spiffe://"):
        attributes["spiffe_id"] = principal.id
    attributes["credential_expires"] = instant(facts.certificate_expires_at)
    _add_risk(attributes, facts)
    return _with_device(attributes, facts)


def _anonymous(facts: Facts) -> Record:
    return {}


_ATTRIBUTES: Final = {"User": _user, "Workload": _workload, "Anonymous": _anonymous}


def _named(principal: Principal) -> dict[str, Value]:
    return {"issuer": text(principal.issuer), "name": text(principal.name)}


def _add_risk(attributes: dict[str, Value], facts: Facts) -> None:
    attributes["risk"] = text(facts.said.risk)
    if facts.said.risk_at:
        attributes["risk_at"] = instant(facts.said.risk_at)


def _session(session: Session, facts: Facts) -> Record:
    return {
        "id": text(session.id),
        "created_at": instant(session.created_at),
        "auth_time": instant(session.auth_time),
        "amr": texts(session.amr),
        "acr": text(session.acr),
        "provider": text(session.provider),
        "risk": text(facts.said.session_risk),
    }


def _with_device(attributes: dict[str, Value], facts: Facts) -> Record:
    if facts.device is UNKNOWN:
        attributes["device"] = UNKNOWN
    elif isinstance(facts.device, Device):
        attributes["device"] = _device(facts.device, facts)
    return attributes


def _device(device: Device, facts: Facts) -> Record:
    record: dict[str, Value] = {
        "id": text(device.id),
        "name": text(device.name),
        "owner": text(device.owner),
        "proof": text(facts.device_proof),
        "risk": text(facts.said.device_risk),
        "compliance": text(facts.said.compliance),
    }
    if facts.said.compliance_at:
        record["compliance_at"] = instant(facts.said.compliance_at)
    if facts.device_proof:
        record["proved_at"] = instant(facts.device_proved_at)
    if facts.posture is UNKNOWN:
        record["posture"] = UNKNOWN
    elif isinstance(facts.posture, Posture):
        record["posture"] = _posture(facts.posture)
    return record


def _posture(posture: Posture) -> Record:
    checks = {
        name: {"result": text(check.result), "observed_at": instant(check.observed_at)}
        for name, check in posture.checks.items()
        if name in CHECKS  # other checks count for `healthy` only
    }
    return {
        "reported_at": instant(posture.reported_at),
        "healthy": flag(posture.healthy),
        "level": text(posture.level),
        "source": text(posture.source),
        "os": text(posture.os),
        "checks": checks,
    }


def route_entities(route: Route) -> tuple[Entity, Entity]:
    """Return a route and the app it belongs to."""
    app = Uid("App", text(route.app))
    attributes = {"host": text(route.host), "labels": texts(sorted(route.labels))}
    return Entity(Uid("Route", text(route.name)), attributes, frozenset((app,))), Entity(app, {})


# ------------------------------------------------------------------ values, checked at the boundary


def text(value: object) -> str:
    """Return a text Cedar can hold: bounded, and valid Unicode. Raises EvalError."""
    if type(value) is not str or len(value) > MAX_TEXT:
        fail("not a text, or too long")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            fail("not valid Unicode")
    return value


def texts(values: Iterable[str]) -> CedarSet:
    """Return a set of texts."""
    return CedarSet([text(value) for value in values])


def instant(ms: object) -> Datetime:
    """Return an instant between 1970 and 9999. Raises EvalError."""
    if type(ms) is not int or not 0 <= ms <= DATETIME_MAX:
        fail("not a time")
    return Datetime(ms)


def flag(value: object) -> bool:
    """Return a bool. Raises EvalError."""
    return value if type(value) is bool else fail("not a bool")
