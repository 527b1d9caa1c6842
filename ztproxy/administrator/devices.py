"""Devices: enrolled by a one-time code, known by their key, believed for what they sign, revoked at once.

Called by `api.devices` (agents), the portal (device check) and the administrator's API. It must never take a
device's word for another device, believe a report twice, or keep a code in the clear.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from hmac import compare_digest
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from msgspec import Struct
from msgspec.structs import replace

from ztproxy.administrator.enrolment import (
    CODE_LIFETIME,
    Codes,
    Permission,
    Refused,
    claims_of,
    pages,
    printable,
)
from ztproxy.administrator.issue import IssuedCertificate, LeafAuthority
from ztproxy.administrator.locks import LockTable
from ztproxy.crypto import posture_document, statements
from ztproxy.crypto.ids import Entropy, is_device_id, new_device_id
from ztproxy.crypto.jose import JoseError, kid_of
from ztproxy.crypto.jwk import public_key, spki_digest, write_key
from ztproxy.model.record import SessionRecord
from ztproxy.model.subject import Device, Posture
from ztproxy.net.clock import Clock
from ztproxy.store.interface import Conflict, Records, StoreUnavailable, Versioned
from ztproxy.trust.posture.document import PostureRefused, judge
from ztproxy.trust.standing import Place

#: Who vouches for enrolled devices: the name of their built-in trust bundle.
_OURSELVES: Final = ("issuer", "devices")
_TRIES: Final = 16

_encode = msgspec.msgpack.Encoder().encode
_decode_device = msgspec.msgpack.Decoder(Device).decode
_decode_posture = msgspec.msgpack.Decoder(Posture).decode


class Enrolment(Permission, frozen=True, kw_only=True):
    """Permission to enrol one device. Record kind "enrolment"."""

    name: str
    owner: str


class Enrolled(Struct, frozen=True):
    """A device and its certificate."""

    device: Device
    certificate: IssuedCertificate


class Devices:
    """All devices, in `records`.

    `origin` is the portal's ("https://host[:port]"), the audience of reports and renewals. `witness` writes
    the audit record and raises when it can not: nothing is enrolled unseen.
    """

    def __init__(
        self,
        records: Records,
        clock: Clock,
        entropy: Entropy,
        issuer: LeafAuthority,
        witness: Callable[[SessionRecord], None],
        *,
        origin: str,
    ) -> None:
        self._records = records
        self._clock = clock
        self._entropy = entropy
        self._issuer = issuer
        self._witness = witness
        self._locks = LockTable(records, clock)
        self._codes = Codes(records, clock, entropy, "enrolment", Enrolment)
        self.origin = origin

    # ------------------------------------------------------------------ enrolment

    async def create_code(self, name: str, owner: str = "", lifetime: int = CODE_LIFETIME) -> str:
        """Return a new one-time code. `owner` is a principal id, `lifetime` in ms."""
        return await self._codes.create(Enrolment(name=printable(name), owner=owner), lifetime)

    async def enrol(self, code: str, csr: str, name: str = "") -> Enrolled:
        """Turn a code and a certificate request (PEM) into a device. Raises Refused.

        The code is gone before anything is issued: of two who use it at once, one gets a device.
        """
        found = await self._codes.find(code)
        await self._check_locks([("user", found.permission.owner), _OURSELVES])
        key = await self._codes.redeem(found, csr)
        return await self._admit(key, found.permission, name)

    async def _admit(self, key: EllipticCurvePublicKey, enrolment: Enrolment, name: str) -> Enrolled:
        device = Device(
            id=new_device_id(self._entropy),
            name=enrolment.name or printable(name) or "device",
            spki=spki_digest(key),
            jwk=write_key(key),
            owner=enrolment.owner,
            enrolled_at=self._clock.now(),
        )
        certificate = self._issuer.issue(key, device.id)
        self._tell(device, "device-enrolled")
        await self._records.put("device", device.id, _encode(device), if_version=0)
        return Enrolled(device=device, certificate=certificate)

    # ------------------------------------------------------------------ what devices say

    async def accept_posture(self, token: str) -> Posture:
        """Take a signed posture document; return what is believed of it. Raises Refused.

        Strictly newer than the one in force, whatever was in between: a restart, or a report at once.
        """
        device, claims = await self._heard(
            token,
            posture_document.TYPE,
            self.origin,
            posture_document.LONGEST_LIFE,
            posture_document.MAX_SIZE,
        )
        try:
            document = posture_document.parse(claims)
        except posture_document.PostureMalformed as error:
            raise Refused("posture-invalid", str(error)) from error
        digest = hashlib.sha256(token.encode("ascii")).hexdigest()
        for _ in range(_TRIES):
            stored = await self._records.get("posture", device.id)
            posture = self._judged(document, device, digest, stored)
            try:
                version = 0 if stored is None else stored.version
                await self._records.put("posture", device.id, _encode(posture), if_version=version)
            except Conflict:
                continue
            return posture
        raise StoreUnavailable("a posture is changed too often at once")

    def _judged(
        self,
        document: posture_document.PostureDocument,
        device: Device,
        digest: str,
        stored: Versioned | None,
    ) -> Posture:
        last = None if stored is None else _decode_posture(stored.value)
        try:
            return judge(document, device_id=device.id, digest=digest, last=last, now=self._clock.now())
        except PostureRefused as error:
            raise Refused(error.code, str(error)) from error

    async def verify_proof(self, token: str, audience: str, nonce: str) -> Device:
        """Return the device that answers this nonce for this origin. Raises Refused.

        That a nonce is used once is for the caller to see to.
        """
        device, claims = await self._heard(token, statements.PROOF, audience)
        answered = claims.get("nonce")
        if not nonce or not isinstance(answered, str) or not _same(answered, nonce):
            raise Refused("proof-invalid", "answers another question")
        return device

    async def renew(self, token: str) -> Enrolled:
        """Issue a new certificate for the key that is enrolled. Raises Refused."""
        device, _ = await self._heard(token, statements.RENEWAL, self.origin)
        await self._check_locks([_OURSELVES])
        return Enrolled(device=device, certificate=self._issuer.issue(public_key(device.jwk), device.id))

    async def _heard(
        self,
        token: str,
        typ: str,
        audience: str,
        longest_life: int = statements.LIFE,
        max_size: int = statements.MAX_SIZE,
    ) -> tuple[Device, dict[str, Any]]:
        """Who signed a statement and what it claims. The key is the enrolled one, never one it brings."""
        device = await self.get(_named(token, max_size))
        if device is None:
            raise Refused("statement-invalid", "names no device")
        claims = claims_of(
            token,
            device,
            device.id,
            typ,
            audience,
            self._clock.now(),
            longest_life=longest_life,
            max_size=max_size,
        )
        if device.revoked_at:
            raise Refused("device-revoked", "this device was revoked")
        await self._check_locks([("device", device.id)])
        return device, claims

    async def _check_locks(self, places: Iterable[Place]) -> None:
        """Nothing locked is enrolled, believed or renewed. Raises Refused."""
        if await self._locks.on(places) is not None:
            raise Refused("locked", "there is a lock")

    # ------------------------------------------------------------------ looking after them

    async def get(self, device_id: str) -> Device | None:
        """Return a device, revoked or not."""
        stored = await self._records.get("device", device_id)
        return None if stored is None else _decode_device(stored.value)

    async def posture(self, device_id: str) -> Posture | None:
        """Return the newest posture of a device."""
        stored = await self._records.get("posture", device_id)
        return None if stored is None else _decode_posture(stored.value)

    async def list(self) -> Sequence[Device]:
        """Return all devices in the order of their ids, revoked ones too."""
        return [_decode_device(stored.value) async for stored in pages(self._records, "device")]

    async def revoke(self, device_id: str, by: str) -> bool:
        """Revoke a device for ever; False when it is revoked already or unknown.

        Written before it is witnessed: a failing audit must not keep a device in.
        """
        for _ in range(_TRIES):
            stored = await self._records.get("device", device_id)
            device = None if stored is None else _decode_device(stored.value)
            if stored is None or device is None or device.revoked_at:
                return False
            gone = replace(device, revoked_at=self._clock.now(), revoked_by=printable(by))
            try:
                await self._records.put("device", device_id, _encode(gone), if_version=stored.version)
            except Conflict:
                continue
            self._tell(gone, "device-revoked", f"by {gone.revoked_by}")
            return True
        raise StoreUnavailable("a device is changed too often at once")

    def _tell(self, device: Device, event: str, detail: str = "") -> None:
        self._witness(
            SessionRecord(
                id=device.id,
                at=self._clock.now(),
                event=event,
                principal=f"User::{device.owner}" if device.owner else "",
                name=device.name,
                device=device.id,
                detail=detail,
            )
        )


def _named(token: str, max_size: int) -> str:
    try:
        kid = kid_of(token, max_size)
    except JoseError as error:
        raise Refused("statement-invalid", str(error)) from error
    if not is_device_id(kid):
        raise Refused("statement-invalid", "names no device")
    return kid


def _same(one: str, other: str) -> bool:
    return compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))
