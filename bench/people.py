"""People who sign in and devices that are enrolled, as the control process writes them. For `bench.cut`."""

import asyncio
import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from bench.nodes import APP, PORTAL
from ztproxy.administrator.sessions import Limits, Sessions
from ztproxy.administrator.vault import Vault
from ztproxy.crypto import posture_document
from ztproxy.crypto.ids import new_device_id
from ztproxy.crypto.jose import SigningKey, sign, signing_key
from ztproxy.crypto.jwk import spki_digest
from ztproxy.crypto.posture_document import Observation, PostureDocument
from ztproxy.model.subject import Check, Device, Posture, Principal
from ztproxy.net import keyfiles
from ztproxy.net.clock import SystemClock, entropy
from ztproxy.store.interface import Records
from ztproxy.trust.identity.provider import Granted, SignIn

HOUR = 3_600_000
AT_ONCE = 16  # people who sign in at once
_number = itertools.count()
_clock = SystemClock()


@dataclass(frozen=True)
class Person:
    """Somebody who is signed in, with a cookie for the applications and one for the portal."""

    subject: str
    principal: str
    session: str
    sid: str
    cookie: str
    portal_cookie: str
    device: str
    key: SigningKey = field(repr=False)  # the device's

    def report(self, origin: str, *, healthy: bool) -> str:
        """Return what the device says of itself, signed."""
        now = _clock.now()
        checks = {"disk_encrypted": Observation("pass" if healthy else "fail", now // 1000)}
        document = PostureDocument(seq=now, source="ztproxy-agent", os="linux", checks=checks)
        claims = posture_document.build(document, self.device, origin, now, secrets.token_urlsafe(16))
        return sign(claims, self.key, posture_document.TYPE)


async def sign_in(
    records: Records,
    *,
    provider: str = "corp",
    groups: Sequence[str] = ("staff",),
    lifetime: int = HOUR,
    idle: int = 0,
    asked_again: bool = False,
    subject: str = "",
) -> Person:
    """Sign somebody in whose session and device nobody else has, nor a name, unless it is given. Times in ms.

    `asked_again`: the provider gave what it can be asked again with (`bench.outside`).
    """
    subject, sid = subject or f"person-{next(_number)}", secrets.token_hex(8)
    principal = Principal(
        "User", f"{provider}:{subject}", "https://idp.cut.example", subject, groups=tuple(groups)
    )
    sessions = Sessions(
        records,
        _clock,
        entropy,
        lambda _: None,
        Limits(idle=idle or HOUR, absolute=lifetime),
        Vault(records, lambda *_: None),
    )
    device, key = await _enrol(records, principal.id)
    granted = Granted(refresh_token=subject, groups_from="userinfo") if asked_again else None
    proved = SignIn(
        principal,
        provider,
        _clock.now(),
        amr=("pwd", "otp"),
        sid=sid,
        granted=granted,
        began=_clock.now(),
        asked_at=_clock.now(),
    )
    session = await sessions.start(proved)
    await sessions.bind_device(session.id, device, _clock.now())
    return Person(
        subject=subject,
        principal=principal.id,
        session=session.id,
        sid=sid,
        cookie=await sessions.new_handle(session.id, APP),
        portal_cookie=await sessions.new_handle(session.id, PORTAL),
        device=device,
        key=key,
    )


async def sign_in_many(records: Records, count: int) -> list[Person]:
    """Sign that many people in."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> Person:
        async with gate:
            return await sign_in(records)

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def _enrol(records: Records, owner: str) -> tuple[str, SigningKey]:
    name, private, now = new_device_id(entropy), keyfiles.new_key(), _clock.now()
    key = signing_key(private, name)
    jwk = {part: key.jwk[part] for part in ("kty", "crv", "x", "y")}
    device = Device(name, "laptop", spki_digest(private), jwk, owner=owner, enrolled_at=now)
    posture = Posture(name, now, 1, "ztproxy-agent", "self", True, {"disk_encrypted": Check("pass", now)})
    await records.put("device", name, msgspec.msgpack.encode(device))
    await records.put("posture", name, msgspec.msgpack.encode(posture))
    return name, key
