"""What can be said against a caller: where a lock may be on it, and whether its session has been ended.

Pure; used by `trust.gather` on what workers hold and by `administrator` on what is stored. Never decides
what is allowed: a lock and an end are not for policy to weigh.
"""

from collections.abc import Mapping

from ztproxy.model.request import ClientCertificate
from ztproxy.model.standing import Standing, key_of
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
    if certificate.kind == "workload":
        return (*places, ("workload", certificate.subject))
    return (*places, ("device", certificate.subject.rpartition("/")[2]))


def keys_of(session: Session) -> tuple[str, ...]:
    """Return the keys of what is said of a session, its person and its device."""
    keys = (key_of("user", session.principal.id), key_of("session", session.id))
    return (*keys, key_of("device", session.device_id)) if session.device_id else keys


def ended_by(session: Session, standings: Mapping[str, Standing]) -> Standing | None:
    """Return what ended a session that began before, if anything did."""
    for key in keys_of(session):
        standing = standings.get(key)
        if standing is not None and session.created_at < standing.ended_before:
            return standing
    return None
