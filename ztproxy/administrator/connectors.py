"""Connectors: enrolled by a one-time code for one name, known by their key, renewed, revoked at once.

Called by `api.connectors`, for connectors and for administrators. It must never let a connector choose its
name, take one for another, or keep a code in the clear.
"""

from collections.abc import Callable, Sequence
from typing import Final

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
    no_code,
    pages,
    printable,
)
from ztproxy.administrator.issue import IssuedCertificate, LeafAuthority
from ztproxy.administrator.locks import LockTable
from ztproxy.crypto import statements
from ztproxy.crypto.ids import Entropy, new_instance
from ztproxy.crypto.jose import JoseError, kid_of
from ztproxy.crypto.jwk import public_key, spki_digest, write_key
from ztproxy.model.connector import BUNDLE, NAME, Connector, signer_of
from ztproxy.model.record import SessionRecord
from ztproxy.net.clock import Clock
from ztproxy.store.interface import Conflict, Records, StoreUnavailable, Versioned
from ztproxy.trust.standing import Place

#: Certificates of one connector that are good at once: more is no connector that renews in time.
MOST_CERTIFICATES: Final = 16
#: Live instances of one name.
MOST_INSTANCES: Final = 1000

_TRIES: Final = 16

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Connector).decode


class Admission(Permission, frozen=True, kw_only=True):
    """Permission to enrol one instance of one name. Record kind "connector-code"."""

    name: str


class Enrolled(Struct, frozen=True):
    """A connector and its certificate."""

    connector: Connector
    certificate: IssuedCertificate


class Connectors:
    """All connectors, in `records`.

    `origin` is the portal's ("https://host[:port]"), the audience of renewals. `witness` writes the audit
    record and raises when it can not: nothing is enrolled or renewed unseen.
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
        self._codes = Codes(records, clock, entropy, "connector-code", Admission)
        self.origin = origin

    # ------------------------------------------------------------------ enrolment

    async def create_code(self, name: str, by: str, lifetime: int = CODE_LIFETIME) -> str:
        """Return a new one-time code for an instance of this name, good for `lifetime` ms. Raises Refused."""
        if not NAME.fullmatch(name):
            raise Refused(
                "connector-name-invalid",
                "a name is made of at most 63 of a-z, 0-9, '-', '_' and '.', and begins with a-z or 0-9",
            )
        await self._check_locks(self._places(name))
        self._tell(name, "", "connector-invited", f"by {printable(by)}")
        return await self._codes.create(Admission(name=name), lifetime)

    async def enrol(self, code: str, csr: str, name: str = "") -> Enrolled:
        """Turn a code and a certificate request (PEM) into a connector. Raises Refused.

        The code says which name it is for; whoever expects another one (`name`) gets none. It is used up
        before anything is issued: of two who use it at once, one becomes a connector, and none when the name
        is revoked meanwhile.
        """
        found = await self._codes.find(code)
        permitted = found.permission.name
        if name and name != permitted:
            await self._codes.count(found)
            raise Refused("connector-name-mismatch", "this code is for a connector of another name")
        await self._check_locks(self._places(permitted))
        if len(await self.list(permitted, revoked=False)) >= MOST_INSTANCES:
            raise Refused("too-many-connectors", f"{permitted} has {MOST_INSTANCES} instances; revoke some")
        enrolled = await self._admit(await self._codes.begin(found, csr), permitted)
        if not await self._codes.finish(found):
            await self.revoke(permitted, enrolled.connector.instance, "whoever withdrew its code")
            raise no_code()
        return enrolled

    async def _admit(self, key: EllipticCurvePublicKey, name: str) -> Enrolled:
        instance, now = new_instance(self._entropy), self._clock.now()
        certificate = self._issuer.issue(key, name, instance)
        connector = Connector(
            name=name,
            instance=instance,
            spki=spki_digest(key),
            jwk=write_key(key),
            enrolled_at=now,
            certificates={certificate.fingerprint: certificate.not_after},
        )
        self._tell(name, instance, "connector-enrolled", f"certificate {certificate.fingerprint}")
        await self._records.put("connector", connector.key, _encode(connector), if_version=0)
        return Enrolled(connector=connector, certificate=certificate)

    # ------------------------------------------------------------------ renewal

    async def renew(self, token: str) -> Enrolled:
        """Issue a new certificate for the key that is enrolled, if it signed this wish. Raises Refused."""
        name, instance = _named(token)
        for _ in range(_TRIES):
            stored = await self._find(name, instance)
            if stored is None:
                raise Refused("statement-invalid", "names no connector")
            connector = _decode(stored.value)
            now = self._clock.now()
            claims_of(token, connector, connector.signer, statements.CONNECTOR_RENEWAL, self.origin, now)
            await self._check_renewable(connector, now)
            certificate = self._issuer.issue(public_key(connector.jwk), name, instance)
            good = {digest: end for digest, end in connector.certificates.items() if end > now}
            good[certificate.fingerprint] = certificate.not_after
            renewed = replace(connector, renewed_at=now, certificates=good)
            try:
                await self._records.put("connector", stored.key, _encode(renewed), if_version=stored.version)
            except Conflict:  # it may have been revoked meanwhile
                continue
            self._tell(name, instance, "connector-renewed", f"certificate {certificate.fingerprint}")
            return Enrolled(connector=renewed, certificate=certificate)
        raise StoreUnavailable("a connector is changed too often at once")

    async def _check_renewable(self, connector: Connector, now: int) -> None:
        """Neither who was revoked nor who is locked; and a lock on a certificate is one on its heir."""
        if connector.revoked_at:
            raise Refused("connector-revoked", "this connector was revoked")
        good = [digest for digest, end in connector.certificates.items() if end > now]
        places = self._places(connector.name, connector.instance)
        await self._check_locks([*places, *(("credential", digest) for digest in good)])
        if len(good) >= MOST_CERTIFICATES:
            raise Refused("too-many-requests", "it has many certificates that are good for long")

    def _places(self, name: str, instance: str = "") -> list[Place]:
        """Return where a lock keeps a connector out: on all, on its name, on itself."""
        places = [("issuer", BUNDLE), ("workload", self._issuer.name(name))]
        return [*places, ("workload", self._issuer.name(name, instance))] if instance else places

    async def _check_locks(self, places: Sequence[Place]) -> None:
        if await self._locks.on(places) is not None:
            raise Refused("locked", "there is a lock")

    # ------------------------------------------------------------------ looking after them

    async def list(self, name: str = "", *, revoked: bool = True) -> Sequence[Connector]:
        """Return the instances of a name, or all, in the order of their keys."""
        found = [_decode(stored.value) async for stored in pages(self._records, "connector", _before(name))]
        return [one for one in found if name in ("", one.name) and (revoked or not one.revoked_at)]

    async def revoke(self, name: str, instance: str, by: str) -> Sequence[str]:
        """Revoke an instance for ever, or with "" all of a name and the codes given out for it.

        Returns the keys of those that were not revoked before. All is written before any of it is
        witnessed: a failing audit must not keep a connector in.
        """
        by, gone, withdrawn = printable(by), list[Connector](), 0
        if instance:
            gone += await self._revoke(name, instance, by)
        else:
            withdrawn = await self._codes.withdraw(lambda code: code.name == name)
            while live := await self.list(name, revoked=False):  # somebody may have been about to enrol
                for one in live:
                    gone += await self._revoke(name, one.instance, by)
        if withdrawn:
            self._tell(name, "", "connector-codes-withdrawn", f"{withdrawn} by {by}")
        for one in gone:
            self._tell(name, one.instance, "connector-revoked", f"by {by}")
        return [one.key for one in gone]

    async def _revoke(self, name: str, instance: str, by: str) -> Sequence[Connector]:
        """Write it down; nothing when it is revoked already or unknown."""
        for _ in range(_TRIES):
            stored = await self._find(name, instance)
            connector = None if stored is None else _decode(stored.value)
            if stored is None or connector is None or connector.revoked_at:
                return ()
            gone = replace(connector, revoked_at=self._clock.now(), revoked_by=by)
            try:
                await self._records.put("connector", stored.key, _encode(gone), if_version=stored.version)
            except Conflict:
                continue
            return (gone,)
        raise StoreUnavailable("a connector is changed too often at once")

    async def _find(self, name: str, instance: str) -> Versioned | None:
        return await self._records.get("connector", f"{name}/{instance}")

    def _tell(self, name: str, instance: str, event: str, detail: str) -> None:
        path = (name, instance) if instance else (name,)
        self._witness(
            SessionRecord(
                id="/".join(path),
                at=self._clock.now(),
                event=event,
                principal=f"Workload::{self._issuer.name(*path)}",
                name=name,
                detail=detail,
            )
        )


def _named(token: str) -> tuple[str, str]:
    try:
        named = signer_of(kid_of(token, statements.MAX_SIZE))
    except JoseError as error:
        raise Refused("statement-invalid", str(error)) from error
    if named is None:
        raise Refused("statement-invalid", "names no connector")
    return named


def _before(name: str) -> str:
    """Return where the instances of a name begin among all keys, "" for the first of all."""
    return f"{name}/" if name else ""
