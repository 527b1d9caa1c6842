"""What can be said against a caller: where a lock may be on it, and whether its session has been ended.

Pure; used by `trust.gather` on what workers hold and by `administrator` on what is stored. Never decides
what is allowed: a lock and an end are not for policy to weigh.
"""

from collections.abc import Mapping

from ztproxy.model.request import ClientCertificate
from ztproxy.model.standing import UNSAID, Said, Standing, key_of
from ztproxy.model.subject import Session

#: Target and value of a lock.
Place = tuple[str, str]


def places_of_session(session: Session) -> tuple[Place, ...]:
    """Return where a lock closes the door for a session: its person, itself, who vouched, its device."""
    places = (
        ("user", session.principal.id),
        ("session", session.id),
        ("issuer", session.provider),
    )
    return (*places, ("device", session.device_id)) if session.device_id else places


def places_of_certificate(certificate: ClientCertificate) -> tuple[Place, ...]:
    """Return where a lock closes the door for whoever shows this certificate."""
    places = (("credential", certificate.fingerprint), ("issuer", certificate.bundle))
    if certificate.kind in ("workload", "node"):
        return (*places, ("workload", certificate.subject))
    if certificate.kind == "connector":  # the instance, or all of its name
        name = certificate.subject.rpartition("/")[0]
        return (*places, ("workload", certificate.subject), ("workload", name))
    return (*places, ("device", certificate.subject.rpartition("/")[2]))


def keys_of(session: Session) -> tuple[str, ...]:
    """Return the keys of what is said of a session, its person and the device it is bound to."""
    keys = (key_of("user", session.principal.id), key_of("session", session.id))
    return (*keys, key_of("device", session.device_id)) if session.device_id else keys


def ended_by(session: Session, device_id: str, standings: Mapping[str, Standing]) -> Standing | None:
    """Return what ended a session that began before, if anything. `device_id`: what it is used on now."""
    keys = keys_of(session)
    if device_id and device_id != session.device_id:
        keys = (*keys, key_of("device", device_id))
    for key in keys:
        standing = standings.get(key)
        if standing is not None and session.created_at < standing.ended_before:
            return standing
    return None


def said_of_person(session: Session, device_id: str, standings: Mapping[str, Standing]) -> Said:
    """Return what policy may weigh of a person, their session and the device they are on ("" = none)."""
    person = standings.get(key_of("user", session.principal.id), _NOTHING)
    itself = standings.get(key_of("session", session.id), _NOTHING)
    device = standings.get(key_of("device", device_id), _NOTHING) if device_id else _NOTHING
    said = Said(
        risk=person.risk,
        risk_at=person.risk_at,
        session_risk=itself.risk,
        device_risk=device.risk,
        compliance=device.compliance,
        compliance_at=device.compliance_at,
    )
    return UNSAID if said == UNSAID else said


def recheck_after(session: Session, device_id: str, standings: Mapping[str, Standing]) -> int:
    """Return since when the provider has to be asked anew about a session, 0 when nothing says so (ms)."""
    keys = [key_of("user", session.principal.id), key_of("session", session.id)]
    if device_id:
        keys.append(key_of("device", device_id))
    return max(standings.get(key, _NOTHING).recheck_after for key in keys)


def said_of_workload(name: str, standings: Mapping[str, Standing]) -> Said:
    """Return what policy may weigh of a workload."""
    standing = standings.get(key_of("workload", name))
    return UNSAID if standing is None else Said(risk=standing.risk, risk_at=standing.risk_at)


_NOTHING = Standing(target="", value="")
