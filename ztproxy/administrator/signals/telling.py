"""What happens here in the words of CAEP 1.0: claims of events, and how their subjects are named.

Called by `administrator.signals.teller`. Pure.
"""

from typing import Any, Final, Literal

from msgspec import Struct

from ztproxy.model.subject import Session
from ztproxy.trust.signals.events import SSF, URIS

Subjects = Literal["complex", "iss_sub", "email"]

#: What we tell, by name.
TOLD: Final = ("session-established", "session-presented", "session-revoked", "device-compliance-change")


class Telling(Struct, frozen=True):
    """Something to be told. Times in ms."""

    name: str
    at: int
    members: dict[str, Any]
    session: Session | None = None
    device: str = ""


def established(session: Session) -> Telling:
    """A session began."""
    members: dict[str, Any] = {"initiating_entity": "user", **_reason("signed in")}
    if session.acr:
        members["acr"] = session.acr
    if session.amr:
        members["amr"] = list(session.amr)
    return Telling("session-established", session.created_at, members, session, session.device_id)


def presented(session: Session, at: int) -> Telling:
    """A session was taken to another host."""
    members = {"initiating_entity": "user", **_reason("opened an application")}
    return Telling("session-presented", at, members, session, session.device_id)


def revoked(session: Session) -> Telling:
    """A session is over before its time."""
    who = "user" if session.ended_by == "sign-out" else "admin" if "cut by" in session.ended_by else "policy"
    members = {"initiating_entity": who, **_reason(session.ended_by or "ended")}
    return Telling("session-revoked", session.ended_at, members, session, session.device_id)


def compliance(device: str, at: int, *, healthy: bool) -> Telling:
    """A device's report is no longer what it was."""
    words = ("not-compliant", "compliant")
    members = {"current_status": words[healthy], "previous_status": words[not healthy]}
    why = _reason("its report is healthy again" if healthy else "its report is not healthy")
    return Telling(
        "device-compliance-change", at, {**members, "initiating_entity": "policy", **why}, None, device
    )


def claims_of(telling: Telling, subjects: Subjects) -> dict[str, Any] | None:
    """Return `sub_id` and `events` of a token; None when this receiver has no name for whom it is about."""
    subject = _subject(telling, subjects)
    if subject is None:
        return None
    members = {**telling.members, "event_timestamp": telling.at // 1000}
    return {"sub_id": subject, "events": {URIS[telling.name]: members}}


def of_stream(stream_id: str, name: str, members: dict[str, Any]) -> dict[str, Any]:
    """Return the same for an event of the stream itself."""
    return {"sub_id": {"format": "opaque", "id": stream_id}, "events": {SSF + name: members}}


def _subject(telling: Telling, subjects: Subjects) -> dict[str, Any] | None:
    device = {"format": "opaque", "id": telling.device} if telling.device else None
    if telling.session is None:
        return {"format": "complex", "device": device} if subjects == "complex" else device
    person = telling.session.principal
    user = {"format": "iss_sub", "iss": person.issuer, "sub": person.id.partition(":")[2]}
    if subjects == "email":
        return {"format": "email", "email": person.email} if person.email else None
    if subjects == "iss_sub":
        return user
    session = {"format": "opaque", "id": telling.session.id}
    return {"format": "complex", "user": user, "session": session, **({"device": device} if device else {})}


def _reason(text: str) -> dict[str, Any]:
    return {"reason_admin": {"en": text}}  # never empty: CAEP interoperability profile
