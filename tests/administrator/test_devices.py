"""Enrolment, reports, proofs and revocation, on the real store."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from ztproxy.administrator.devices import Devices, Enrolled
from ztproxy.administrator.enrolment import CODE_ATTEMPTS, Refused
from ztproxy.administrator.issue import DEVICES, load_authority
from ztproxy.administrator.locks import Locks
from ztproxy.crypto import posture_document, statements
from ztproxy.crypto.csr import make_request
from ztproxy.crypto.jose import sign, signing_key
from ztproxy.crypto.posture_document import Observation, PostureDocument
from ztproxy.model.record import SessionRecord
from ztproxy.net.clock import FixedClock
from ztproxy.net.keyfiles import new_key
from ztproxy.store.sqlite import SqliteStore

ORIGIN = "https://portal.example:8443"
UNKNOWN_CODE = "0000-0000-0000"


class World:
    """Devices with everything they need; `reopen` is a restart of the control process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FixedClock()
        self.told: list[SessionRecord] = []
        self.journal_is_full = False

    async def open(self) -> None:
        self.store = await SqliteStore.open(self.folder / "ztproxy.db", self.clock.now)
        authority = load_authority(
            self.folder,
            DEVICES,
            trust_domain="corp.example",
            lifetime=3_600_000,
            clock=self.clock,
            entropy=os.urandom,
        )
        self.devices = Devices(self.store, self.clock, os.urandom, authority, self.witness, origin=ORIGIN)

    async def reopen(self) -> None:
        await self.store.close()
        await self.open()

    def witness(self, record: SessionRecord) -> None:
        if self.journal_is_full:
            raise OSError("full")
        self.told.append(record)

    async def enrol(self, key: EllipticCurvePrivateKey, name: str = "laptop") -> Enrolled:
        code = await self.devices.create_code(name, "corp:carol")
        return await self.devices.enrol(code, make_request(key, name))

    def report(self, key: EllipticCurvePrivateKey, device: str, seq: int = 1, **changes: Any) -> str:
        """A signed document; `changes` replace claims, `...` removes them."""
        now = self.clock.now()
        document = PostureDocument(seq, "test", "Debian 12", {"disk": Observation("pass", now // 1000)})
        claims = {**posture_document.build(document, device, ORIGIN, now, "j"), **changes}
        claims = {name: value for name, value in claims.items() if value is not ...}
        return sign(claims, signing_key(key, kid=device), posture_document.TYPE)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.open()
    yield world
    await world.store.close()


@pytest.fixture(scope="module")
def key() -> EllipticCurvePrivateKey:
    return new_key()


@pytest.fixture
async def enrolled(world: World, key: EllipticCurvePrivateKey) -> Enrolled:
    return await world.enrol(key)


async def refused(code: str, what: Any) -> None:
    with pytest.raises(Refused) as caught:
        await what
    assert caught.value.code == code


# ---------------------------------------------------------------------- enrolment


async def test_a_code_makes_one_device(world: World, key: EllipticCurvePrivateKey) -> None:
    code = await world.devices.create_code("laptop", "corp:carol")
    enrolled = await world.devices.enrol(code.lower().replace("-", " "), make_request(key, "x"))
    device = enrolled.device
    assert (device.name, device.owner, device.enrolled_at) == ("laptop", "corp:carol", world.clock.now())
    leaf = x509.load_pem_x509_certificates(enrolled.certificate.pem.encode())[0]
    assert leaf.public_key() == key.public_key()
    assert await world.devices.list() == [device]
    assert [(record.event, record.device) for record in world.told] == [("device-enrolled", device.id)]
    await refused("enrolment-code-invalid", world.devices.enrol(code, make_request(key, "x")))
    assert len(await world.devices.list()) == 1


async def test_of_many_who_use_a_code_at_once_one_wins(world: World, key: EllipticCurvePrivateKey) -> None:
    code = await world.devices.create_code("laptop")
    tries = [world.devices.enrol(code, make_request(key, "x")) for _ in range(8)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(answer, Enrolled) for answer in answers) == 1
    assert sum(isinstance(answer, Refused) for answer in answers) == 7
    assert len(await world.devices.list()) == 1


async def test_a_code_ends(world: World, key: EllipticCurvePrivateKey) -> None:
    code = await world.devices.create_code("laptop")
    world.clock.advance(601)
    await refused("enrolment-code-invalid", world.devices.enrol(code, make_request(key, "x")))


@pytest.mark.parametrize("code", [UNKNOWN_CODE, "", "x", "no code", "ü" * 12, "A" * 10_000])
async def test_what_is_no_code(world: World, key: EllipticCurvePrivateKey, code: str) -> None:
    await refused("enrolment-code-invalid", world.devices.enrol(code, make_request(key, "x")))


async def test_a_code_survives_few_wrong_requests_only(world: World, key: EllipticCurvePrivateKey) -> None:
    code = await world.devices.create_code("laptop")
    for _ in range(CODE_ATTEMPTS - 1):
        await refused("certificate-request-invalid", world.devices.enrol(code, "junk"))
    other = await world.devices.create_code("second")
    await world.devices.enrol(other, make_request(key, "x"))
    await refused("certificate-request-invalid", world.devices.enrol(code, "junk"))
    await refused("enrolment-code-invalid", world.devices.enrol(code, make_request(key, "x")))


async def test_codes_are_not_stored_in_the_clear(world: World, tmp_path: Path) -> None:
    code = await world.devices.create_code("laptop")
    stored = (await world.store.scan("enrolment"))[0]
    assert code not in stored.key and code.replace("-", "") not in stored.key
    assert code.encode() not in stored.value


async def test_nothing_is_enrolled_unseen(world: World, key: EllipticCurvePrivateKey) -> None:
    code = await world.devices.create_code("laptop")
    world.journal_is_full = True
    with pytest.raises(OSError, match="full"):
        await world.devices.enrol(code, make_request(key, "x"))
    assert await world.devices.list() == []


# ---------------------------------------------------------------------- posture


async def test_a_report_counts(world: World, key: EllipticCurvePrivateKey, enrolled: Enrolled) -> None:
    token = world.report(key, enrolled.device.id)
    posture = await world.devices.accept_posture(token)
    assert posture.healthy and posture.seq == 1 and posture.os == "Debian 12" and posture.level == "self"
    assert await world.devices.posture(enrolled.device.id) == posture


async def test_a_report_counts_once_and_never_backwards(
    world: World, key: EllipticCurvePrivateKey, enrolled: Enrolled
) -> None:
    device = enrolled.device.id
    await world.devices.accept_posture(world.report(key, device, 5))
    for seq in (5, 4, 1):
        await refused("posture-replayed", world.devices.accept_posture(world.report(key, device, seq)))
    await world.reopen()
    await refused("posture-replayed", world.devices.accept_posture(world.report(key, device, 5)))
    assert (await world.devices.accept_posture(world.report(key, device, 6))).seq == 6


async def test_reports_at_once_leave_the_newest(
    world: World, key: EllipticCurvePrivateKey, enrolled: Enrolled
) -> None:
    tokens = [world.report(key, enrolled.device.id, seq) for seq in (3, 1, 8, 2, 7, 5)]
    await asyncio.gather(*map(world.devices.accept_posture, tokens), return_exceptions=True)
    posture = await world.devices.posture(enrolled.device.id)
    assert posture is not None and posture.seq == 8


async def test_a_stale_report_is_refused(
    world: World, key: EllipticCurvePrivateKey, enrolled: Enrolled
) -> None:
    token = world.report(key, enrolled.device.id)
    world.clock.advance(posture_document.LIFE + 31)
    await refused("statement-invalid", world.devices.accept_posture(token))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": ...},
        {"exp": None},
        {"iat": ...},
        {"iat": None},
        {"exp": 1_800_000_000 + 901},
        {"iat": 1_800_000_000 + 61},
        {"aud": "https://app.example"},
        {"aud": [ORIGIN, "https://app.example"]},
        {"aud": ...},
        {"iss": "dev_" + "b" * 26},
        {"iss": ...},
    ],
)
async def test_claims_that_are_not_believed(
    world: World, key: EllipticCurvePrivateKey, enrolled: Enrolled, changes: dict[str, Any]
) -> None:
    token = world.report(key, enrolled.device.id, **changes)
    await refused("statement-invalid", world.devices.accept_posture(token))


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": ...},
        {"seq": None},
        {"seq": "2"},
        {"seq": True},
        {"seq": 0},
        {"seq": -1},
        {"seq": 2.0},
        {"seq": 1 << 53},
        {"sub": "dev_" + "b" * 26},
        {"checks": None},
        {"checks": {"disk": "pass"}},
        {"checks": [{"id": "disk"}, {"id": "disk"}]},
        {"checks": [{"id": "../x"}]},
        {"checks": ["disk"]},
        {"checks": [{"id": f"c{number}"} for number in range(65)]},
        {"os": "\x1b[2J"},
        {"source": 7},
    ],
)
async def test_documents_that_are_malformed(
    world: World, key: EllipticCurvePrivateKey, enrolled: Enrolled, changes: dict[str, Any]
) -> None:
    token = world.report(key, enrolled.device.id, **changes)
    await refused("posture-invalid", world.devices.accept_posture(token))
    assert await world.devices.posture(enrolled.device.id) is None


async def test_an_observation_in_the_future_is_refused(
    world: World, key: EllipticCurvePrivateKey, enrolled: Enrolled
) -> None:
    late = [{"id": "disk", "result": "pass", "observed_at": world.clock.now() // 1000 + 61}]
    token = world.report(key, enrolled.device.id, checks=late)
    await refused("posture-from-the-future", world.devices.accept_posture(token))


async def test_a_document_is_bounded(world: World, key: EllipticCurvePrivateKey, enrolled: Enrolled) -> None:
    token = world.report(key, enrolled.device.id, padding="x" * 16384)
    await refused("statement-invalid", world.devices.accept_posture(token))


async def test_another_devices_key_is_refused(
    world: World, key: EllipticCurvePrivateKey, enrolled: Enrolled
) -> None:
    other_key = new_key()
    other = await world.enrol(other_key, "other")
    token = world.report(other_key, enrolled.device.id)  # claims to be the first device
    await refused("statement-invalid", world.devices.accept_posture(token))
    claims_first = posture_document.build(
        PostureDocument(1, "t", "", {}), enrolled.device.id, ORIGIN, world.clock.now(), "j"
    )
    token = sign(claims_first, signing_key(other_key, kid=other.device.id), posture_document.TYPE)
    await refused("statement-invalid", world.devices.accept_posture(token))


@pytest.mark.parametrize("kid", ["", "dev_short", "dev_" + "z" * 26, "../x"])
async def test_unknown_names_are_refused(
    world: World, key: EllipticCurvePrivateKey, enrolled: Enrolled, kid: str
) -> None:
    token = sign({"iss": kid}, signing_key(key, kid=kid or "x"), posture_document.TYPE)
    await refused("statement-invalid", world.devices.accept_posture(token))


async def test_statements_are_not_taken_for_each_other(
    world: World, key: EllipticCurvePrivateKey, enrolled: Enrolled
) -> None:
    report = world.report(key, enrolled.device.id)
    await refused("statement-invalid", world.devices.renew(report))
    await refused("statement-invalid", world.devices.verify_proof(report, ORIGIN, "n"))
    claims = statements.renewal(enrolled.device.id, ORIGIN, world.clock.now())
    renewal = sign(claims, signing_key(key, kid=enrolled.device.id), statements.RENEWAL)
    await refused("statement-invalid", world.devices.accept_posture(renewal))


# ---------------------------------------------------------------------- proof, renewal, revocation


def prove(world: World, key: EllipticCurvePrivateKey, device: str, nonce: str, origin: str = ORIGIN) -> str:
    claims = statements.proof(device, origin, nonce, world.clock.now())
    return sign(claims, signing_key(key, kid=device), statements.PROOF)


async def test_a_proof_answers_one_nonce_of_one_origin(
    world: World, key: EllipticCurvePrivateKey, enrolled: Enrolled
) -> None:
    token = prove(world, key, enrolled.device.id, "n1")
    assert await world.devices.verify_proof(token, ORIGIN, "n1") == enrolled.device
    await refused("proof-invalid", world.devices.verify_proof(token, ORIGIN, "n2"))
    empty = prove(world, key, enrolled.device.id, "")
    await refused("proof-invalid", world.devices.verify_proof(empty, ORIGIN, ""))
    await refused("statement-invalid", world.devices.verify_proof(token, "https://evil.example", "n1"))
    foreign = prove(world, key, enrolled.device.id, "n1", "https://evil.example")
    await refused("statement-invalid", world.devices.verify_proof(foreign, ORIGIN, "n1"))
    world.clock.advance(statements.LIFE + 31)
    await refused("statement-invalid", world.devices.verify_proof(token, ORIGIN, "n1"))


async def test_a_long_lived_proof_is_refused(
    world: World, key: EllipticCurvePrivateKey, enrolled: Enrolled
) -> None:
    claims = statements.proof(enrolled.device.id, ORIGIN, "n", world.clock.now())
    claims["exp"] += 1
    token = sign(claims, signing_key(key, kid=enrolled.device.id), statements.PROOF)
    await refused("statement-invalid", world.devices.verify_proof(token, ORIGIN, "n"))


async def test_a_renewed_certificate_holds_the_enrolled_key(
    world: World, key: EllipticCurvePrivateKey, enrolled: Enrolled
) -> None:
    world.clock.advance(3000)
    claims = statements.renewal(enrolled.device.id, ORIGIN, world.clock.now())
    token = sign(claims, signing_key(key, kid=enrolled.device.id), statements.RENEWAL)
    renewed = await world.devices.renew(token)
    leaf = x509.load_pem_x509_certificates(renewed.certificate.pem.encode())[0]
    assert leaf.public_key() == key.public_key()
    assert renewed.certificate.not_after > enrolled.certificate.not_after


async def test_a_revoked_device_is_not_heard(
    world: World, key: EllipticCurvePrivateKey, enrolled: Enrolled
) -> None:
    device = enrolled.device.id
    assert await world.devices.revoke(device, "dana") is True
    assert await world.devices.revoke(device, "dana") is False
    assert await world.devices.revoke("dev_unknown", "dana") is False
    stored = await world.devices.get(device)
    assert stored is not None and stored.revoked_at == world.clock.now() and stored.revoked_by == "dana"
    assert world.told[-1].event == "device-revoked" and world.told[-1].detail == "by dana"
    claims = statements.renewal(device, ORIGIN, world.clock.now())
    renewal = sign(claims, signing_key(key, kid=device), statements.RENEWAL)
    await refused("device-revoked", world.devices.accept_posture(world.report(key, device)))
    await refused("device-revoked", world.devices.verify_proof(prove(world, key, device, "n"), ORIGIN, "n"))
    await refused("device-revoked", world.devices.renew(renewal))


async def test_revocation_holds_when_the_audit_fails(world: World, enrolled: Enrolled) -> None:
    world.journal_is_full = True
    with pytest.raises(OSError, match="full"):
        await world.devices.revoke(enrolled.device.id, "dana")
    stored = await world.devices.get(enrolled.device.id)
    assert stored is not None and stored.revoked_at


# ------------------------------------------------------------------ locks


async def lock(world: World, target: str, value: str) -> None:
    locks = Locks(world.store, world.clock, os.urandom, lambda _: None, [])
    await locks.add(target, value, "r", "root")
    world.clock.advance(1)


async def test_a_locked_device_is_not_believed_and_not_renewed(
    world: World, key: EllipticCurvePrivateKey
) -> None:
    device = (await world.enrol(key)).device
    claims = statements.renewal(device.id, ORIGIN, world.clock.now())
    renewal = sign(claims, signing_key(key, kid=device.id), statements.RENEWAL)
    await lock(world, "device", "dev_" + "a" * 26)
    await world.devices.renew(renewal)
    await lock(world, "device", device.id)
    for said in (world.devices.renew(renewal), world.devices.accept_posture(world.report(key, device.id))):
        with pytest.raises(Refused) as refused:
            await said
        assert refused.value.code == "locked"
    assert await world.devices.posture(device.id) is None


@pytest.mark.parametrize(("target", "value"), [("user", "corp:carol"), ("issuer", "devices")])
async def test_nothing_is_enrolled_for_a_locked_person_or_while_devices_are_locked(
    world: World, key: EllipticCurvePrivateKey, target: str, value: str
) -> None:
    code = await world.devices.create_code("laptop", "corp:carol")
    await lock(world, target, value)
    with pytest.raises(Refused) as refused:
        await world.devices.enrol(code, make_request(key, "laptop"))
    assert refused.value.code == "locked"
    assert await world.devices.list() == []
