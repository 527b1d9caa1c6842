"""People, sessions and devices as a sign-in and an enrolment leave them in the store. Used by `bench.cut`."""

import asyncio
import hashlib
import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bench.nodes import APP, PORTAL
from ztproxy.crypto import posture_document
from ztproxy.crypto.ids import new_device_id, new_session_id
from ztproxy.crypto.jose import SigningKey, sign, signing_key
from ztproxy.crypto.posture_document import Observation, PostureDocument
from ztproxy.model.subject import Check, Device, Handle, Posture, Principal, Session
from ztproxy.net import keyfiles
from ztproxy.net.clock import SystemClock, entropy
from ztproxy.store.interface import Records

HOUR = 3_600_000
AT_ONCE = 16  # records written at once
_number = itertools.count()
_clock = SystemClock()


@dataclass(frozen=True)
class Person:
    """Somebody who is signed in, with a cookie for the applications and one for the portal."""

    subject: str
    session: str
    cookie: str
    portal_cookie: str
    provider: str
    groups: tuple[str, ...]
    device: str
    key: SigningKey = field(repr=False)  # the device's
    expires_at: int
    idle: int

    @property
    def principal(self) -> str:
        """Return the principal id."""
        return f"{self.provider}:{self.subject}"

    def report(self, origin: str, *, healthy: bool) -> str:
        """Return what the device says of itself, signed."""
        now = _clock.now()
        checks = {"disk_encrypted": Observation("pass" if healthy else "fail", now // 1000)}
        document = PostureDocument(seq=now, source="ztproxy-agent", os="linux", checks=checks)
        claims = posture_document.build(document, self.device, origin, now, secrets.token_urlsafe(16))
        return sign(claims, self.key, posture_document.TYPE)


def new_person(
    *, provider: str = "corp", groups: Sequence[str] = ("staff",), lifetime: int = HOUR, idle: int = 0
) -> Person:
    """Return a new person whose session and device nobody else has. Times in ms."""
    device = new_device_id(entropy)
    return Person(
        subject=f"person-{next(_number)}",
        session=new_session_id(entropy),
        cookie=secrets.token_urlsafe(32),
        portal_cookie=secrets.token_urlsafe(32),
        provider=provider,
        groups=tuple(groups),
        device=device,
        key=signing_key(keyfiles.new_key(), device),
        expires_at=_clock.now() + lifetime,
        idle=idle,
    )


async def sign_in(records: Records, people: Sequence[Person]) -> None:
    """Put them into the store."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def put(kind: str, key: str, value: object) -> None:
        async with gate:
            await records.put(kind, key, msgspec.msgpack.encode(value))

    await asyncio.gather(*(put(*row) for person in people for row in rows(person)))


def rows(person: Person) -> list[tuple[str, str, Any]]:
    """Return kind, key and value of all that is known about a person."""
    now = _clock.now()
    principal = Principal(
        "User", person.principal, "https://idp.cut.example", person.subject, groups=person.groups
    )
    session = Session(
        id=person.session,
        principal=principal,
        provider=person.provider,
        created_at=now,
        auth_time=now,
        amr=("pwd", "otp"),
        last_seen_at=now,
        expires_at=person.expires_at,
        idle_limit=person.idle,
        device_id=person.device,
        device_proved_at=now,
    )
    jwk = person.key.jwk
    device = Device(
        person.device,
        "laptop",
        hashlib.sha256(person.device.encode()).hexdigest(),
        {name: jwk[name] for name in ("kty", "crv", "x", "y")},
        owner=person.principal,
        enrolled_at=now,
    )
    checks = {"disk_encrypted": Check("pass", now)}
    return [
        ("device", person.device, device),
        ("posture", person.device, Posture(person.device, now, 1, "ztproxy-agent", "self", True, checks)),
        ("session", person.session, session),
        ("handle", _digest(person.cookie), Handle(person.session, APP, now)),
        ("handle", _digest(person.portal_cookie), Handle(person.session, PORTAL, now)),
    ]


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
