"""Security event tokens (RFC 8417) under the rules of SSF 1.0: verified, then read into a `SecurityEvent`.

Called by `trust.signals.inbox` with the transmitter's keys. Pure. Nothing of a token is believed, or told,
before its signature is verified; every refusal carries the error code of RFC 8935 section 2.4.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal

from msgspec import Struct, field

from ztproxy.crypto import jose
from ztproxy.crypto.encoding import EncodingError, read_object
from ztproxy.crypto.jwk import VerifyKey
from ztproxy.trust.signals.events import NAMES, STREAM_UPDATED, VERIFICATION
from ztproxy.trust.signals.subjects import Subject, SubjectRefused, read_subject

#: Characters of a token read at most, and how deep its claims may be nested.
MAX_TOKEN: Final = 32 * 1024
MAX_DEPTH: Final = 10
LEEWAY: Final = 60_000  # ms
ALGORITHMS: Final = ("RS256", "ES256")
TYPE: Final = "secevent+jwt"

_LONGEST: Final = 255
_LATEST: Final = 1 << 43  # seconds; beyond it a time is a mistake

Err = Literal[
    "invalid_request",
    "invalid_key",
    "invalid_issuer",
    "invalid_audience",
    "authentication_failed",
    "access_denied",
    "invalid_state",
]


class SetRefused(Exception):
    """A token that is not believed. `err` goes back to its sender; the text holds nothing of the token."""

    def __init__(self, err: Err, description: str) -> None:
        super().__init__(f"{err}: {description}")
        self.err: Err = err
        self.description = description


class Expected(Struct, frozen=True):
    """What a token has to say. Times in ms."""

    issuer: str
    audiences: tuple[str, ...]
    max_age: int


class SecurityEvent(Struct, frozen=True):
    """What a genuine token says. Times in ms."""

    jti: str
    issued_at: int
    happened_at: int  # event_timestamp, or issued_at
    name: str  # of trust.signals.events, or "" for one we do not know
    uri: str
    subject: Subject
    members: dict[str, Any] = field(default_factory=dict)
    txn: str = ""

    def text(self, name: str, longest: int = _LONGEST) -> str:
        """Return a member that is a printable text, else ""."""
        value = self.members.get(name)
        return value if isinstance(value, str) and value.isprintable() and len(value) <= longest else ""

    def reason(self) -> str:
        """Return what the transmitter tells administrators, in English if it can."""
        found = self.members.get("reason_admin")
        if isinstance(found, dict) and found:
            found = found.get("en", next(iter(found.values())))
        return found[:_LONGEST] if isinstance(found, str) and found.isprintable() else ""


def kid_of(token: str) -> str:
    """Return the key name an unverified token asks for. Raises SetRefused."""
    try:
        return jose.kid_of(token, MAX_TOKEN)
    except jose.JoseError as error:
        raise SetRefused("invalid_request", str(error)) from error


def read(token: str, keys: Sequence[VerifyKey], expected: Expected, now: int) -> SecurityEvent:
    """Return the event of a token that is signed by one of the keys and says what is expected.

    Raises SetRefused.
    """
    claims = _verified(token, keys, (TYPE,))
    _check_parties(claims, expected)
    for name in ("sub", "exp"):
        if name in claims:  # SSF 1.0 section 4.1: it could be taken for an access or ID token
            raise SetRefused("invalid_request", f"{name} must not be present")
    return _event(claims, expected, now)


def _verified(token: str, keys: Sequence[VerifyKey], types: Collection[str]) -> dict[str, Any]:
    try:
        claims = read_object(jose.verify_bytes(token, keys, types, MAX_TOKEN))
    except jose.SignatureRefused as error:
        raise SetRefused("invalid_key", str(error)) from error
    except (jose.JoseError, EncodingError) as error:
        raise SetRefused("invalid_request", str(error)) from error
    if _deeper(claims, MAX_DEPTH):
        raise SetRefused("invalid_request", f"is nested deeper than {MAX_DEPTH}")
    return claims


def _deeper(value: object, most: int) -> bool:
    below = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return bool(below) and (most == 0 or any(_deeper(one, most - 1) for one in below))


def _check_parties(claims: Mapping[str, Any], expected: Expected) -> None:
    if claims.get("iss") != expected.issuer:
        raise SetRefused("invalid_issuer", "is from another issuer")
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(name, str) for name in audiences):
        raise SetRefused("invalid_audience", "has no audience")
    if not set(audiences) & set(expected.audiences):
        raise SetRefused("invalid_audience", "is for another audience")


def _event(claims: Mapping[str, Any], expected: Expected, now: int) -> SecurityEvent:
    issued_at = _time(claims.get("iat"), "iat")
    if not now - expected.max_age <= issued_at <= now + LEEWAY:
        raise SetRefused("invalid_request", "iat is in the future, or too long ago")
    uri, members = _the_event(claims.get("events"))
    stated = members.get("event_timestamp", claims.get("toe"))
    happened_at = issued_at if stated is None else min(_time(stated, "event_timestamp"), now)
    return SecurityEvent(
        jti=_text(claims.get("jti"), "jti"),
        issued_at=issued_at,
        happened_at=happened_at,
        name=NAMES.get(uri, ""),
        uri=uri,
        subject=_subject(claims, members, NAMES.get(uri, "")),
        members=members,
        txn=_text(claims["txn"], "txn") if "txn" in claims else "",
    )


def _the_event(events: object) -> tuple[str, dict[str, Any]]:
    if not isinstance(events, dict) or len(events) != 1:
        raise SetRefused("invalid_request", "does not hold exactly one event")
    ((uri, members),) = events.items()
    if not isinstance(members, dict) or not 0 < len(uri) <= 512 or not uri.isprintable():
        raise SetRefused("invalid_request", "its event is malformed")
    return uri, members


def _subject(claims: Mapping[str, Any], members: Mapping[str, Any], name: str) -> Subject:
    """`sub_id`, or what older transmitters write into the event; the two may not disagree."""
    stated, legacy = claims.get("sub_id"), members.get("subject")
    try:
        if stated is None and legacy is None and name in (VERIFICATION, STREAM_UPDATED):
            raise SubjectRefused("an event of the stream does not name the stream")
        subject = read_subject(stated if stated is not None else legacy)
        if stated is not None and legacy is not None and read_subject(legacy) != subject:
            raise SubjectRefused("sub_id and the subject of the event differ")
    except SubjectRefused as error:
        raise SetRefused("invalid_request", str(error)) from error
    return subject


def _time(value: object, name: str) -> int:
    """A NumericDate in ms."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LATEST:
        raise SetRefused("invalid_request", f"{name} is absent or no time")
    return int(value * 1000)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST or not value.isprintable():
        raise SetRefused("invalid_request", f"{name} is absent or malformed")
    return value
