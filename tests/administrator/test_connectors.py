"""Connectors: enrolment, renewal and revocation, on the real store."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from ztproxy.administrator.connectors import MOST_CERTIFICATES, Connectors, Enrolled
from ztproxy.administrator.enrolment import CODE_ATTEMPTS, CODE_LIFETIME, Refused
from ztproxy.administrator.issue import CONNECTORS, load_authority
from ztproxy.administrator.locks import FRESH, Locks
from ztproxy.crypto import statements
from ztproxy.crypto.csr import make_request
from ztproxy.crypto.jose import sign, signing_key
from ztproxy.model.connector import connector_of
from ztproxy.model.record import SessionRecord
from ztproxy.net.clock import FixedClock
from ztproxy.net.keyfiles import new_key
from ztproxy.store.sqlite import SqliteStore

ORIGIN = "https://portal.example:8443"
HOUR = 3_600_000


class World:
    """Connectors with everything they need."""

    def __init__(self, folder: Path, store: SqliteStore, clock: FixedClock) -> None:
        self.folder, self.store, self.clock = folder, store, clock
        self.told: list[SessionRecord] = []
        self.journal_is_full = False
        authority = load_authority(
            folder, CONNECTORS, trust_domain="corp.example", lifetime=HOUR, clock=clock, entropy=os.urandom
        )
        self.connectors = Connectors(store, clock, os.urandom, authority, self.witness, origin=ORIGIN)
        self.locks = Locks(store, clock, os.urandom, lambda record: None, [])

    def witness(self, record: SessionRecord) -> None:
        if self.journal_is_full:
            raise OSError("full")
        self.told.append(record)

    async def enrol(self, key: EllipticCurvePrivateKey, name: str = "site") -> Enrolled:
        return await self.connectors.enrol(await self.connectors.create_code(name, "ops"), request(key))

    def wish(self, key: EllipticCurvePrivateKey, signer: str, **changes: Any) -> str:
        claims = {**statements.renewal(signer, ORIGIN, self.clock.now()), **changes}
        return sign(claims, signing_key(key, kid=signer), statements.CONNECTOR_RENEWAL)

    async def lock(self, target: str, value: str) -> None:
        await self.locks.add(target, value, "lost", "ops")
        self.clock.advance(FRESH + 0.1)


def request(key: EllipticCurvePrivateKey) -> str:
    return make_request(key, "whatever it calls itself")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = FixedClock()
    store = await SqliteStore.open(tmp_path / "ztproxy.db", clock.now)
    yield World(tmp_path, store, clock)
    await store.close()


@pytest.fixture(scope="module")
def key() -> EllipticCurvePrivateKey:
    return new_key()


async def refused(code: str, what: Any) -> None:
    with pytest.raises(Refused) as caught:
        await what
    assert caught.value.code == code


def uri_of(enrolled: Enrolled) -> str:
    leaf = x509.load_pem_x509_certificates(enrolled.certificate.pem.encode())[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return str(names.get_values_for_type(x509.UniformResourceIdentifier)[0])


async def test_a_code_makes_one_connector_of_the_name_it_is_for(
    world: World, key: EllipticCurvePrivateKey
) -> None:
    code = await world.connectors.create_code("site", "ops")
    enrolled = await world.connectors.enrol(code.lower().replace("-", " "), request(key))
    found = enrolled.connector
    assert uri_of(enrolled) == f"spiffe://corp.example/connector/site/{found.instance}"
    assert connector_of(uri_of(enrolled)) == ("site", found.instance)
    assert enrolled.certificate.not_after == world.clock.now() + HOUR
    assert await world.connectors.list() == [found]
    assert [(record.event, record.id) for record in world.told] == [
        ("connector-invited", "site"),
        ("connector-enrolled", found.key),
    ]
    await refused("enrolment-code-invalid", world.connectors.enrol(code, request(key)))
    assert len(await world.connectors.list()) == 1


async def test_its_authority_is_not_that_of_devices(world: World, key: EllipticCurvePrivateKey) -> None:
    assert (world.folder / "ca/connectors.pem").exists()
    assert not (world.folder / "ca/devices.pem").exists()
    assert (
        "connectors"
        in x509.load_pem_x509_certificates((await world.enrol(key)).certificate.pem.encode())[
            1
        ].subject.rfc4514_string()
    )


async def test_of_many_who_use_a_code_at_once_one_is_enrolled(
    world: World, key: EllipticCurvePrivateKey
) -> None:
    code = await world.connectors.create_code("site", "ops")
    tried = (world.connectors.enrol(code, request(key)) for _ in range(8))
    answers = await asyncio.gather(*tried, return_exceptions=True)
    assert sum(isinstance(answer, Refused) for answer in answers) == 7
    assert len(await world.connectors.list()) == 1


async def test_a_code_is_stored_as_a_hash_and_ends(world: World, key: EllipticCurvePrivateKey) -> None:
    code = await world.connectors.create_code("site", "ops")
    (stored,) = await world.store.scan("connector-code")
    assert code.replace("-", "") not in stored.key.upper() + repr(stored.value).upper()
    world.clock.advance(CODE_LIFETIME / 1000 + 1)
    await refused("enrolment-code-invalid", world.connectors.enrol(code, request(key)))


async def test_wrong_uses_of_a_code_are_counted(world: World, key: EllipticCurvePrivateKey) -> None:
    code = await world.connectors.create_code("site", "ops")
    for attempt in range(CODE_ATTEMPTS):
        wrong = ("other", request(key)) if attempt % 2 else ("site", "no request")
        with pytest.raises(Refused) as caught:
            await world.connectors.enrol(code, wrong[1], wrong[0])
        assert caught.value.code == (
            "connector-name-mismatch" if attempt % 2 else "certificate-request-invalid"
        )
    await refused("enrolment-code-invalid", world.connectors.enrol(code, request(key)))


@pytest.mark.parametrize("name", ["", "Site", "a/b", "../x", "a" * 64, "-a", "a b", "a\n"])
async def test_a_name_is_one(world: World, name: str) -> None:
    await refused("connector-name-invalid", world.connectors.create_code(name, "ops"))
    assert not await world.store.scan("connector-code")


async def test_nothing_is_enrolled_or_renewed_unseen(world: World, key: EllipticCurvePrivateKey) -> None:
    enrolled = await world.enrol(key)
    code = await world.connectors.create_code("site", "ops")
    world.journal_is_full = True
    for what in (
        world.connectors.create_code("site", "ops"),
        world.connectors.enrol(code, request(key)),
        world.connectors.renew(world.wish(key, enrolled.connector.signer)),
    ):
        with pytest.raises(OSError, match="full"):
            await what
    assert len(await world.connectors.list()) == 1


# ---------------------------------------------------------------------- renewal


async def test_it_renews_with_its_own_key_also_when_its_certificate_is_over(
    world: World, key: EllipticCurvePrivateKey
) -> None:
    enrolled = await world.enrol(key)
    world.clock.advance(48 * 3600)
    renewed = await world.connectors.renew(world.wish(key, enrolled.connector.signer))
    assert uri_of(renewed) == uri_of(enrolled)
    assert renewed.certificate.not_after == world.clock.now() + HOUR
    assert list(renewed.connector.certificates) == [renewed.certificate.fingerprint], "the old one is over"
    assert world.told[-1].event == "connector-renewed"


async def test_a_captured_connector_can_not_claim_another(world: World, key: EllipticCurvePrivateKey) -> None:
    theirs = (await world.enrol(new_key(), "other")).connector.signer
    own = (await world.enrol(key)).connector.signer
    await refused("statement-invalid", world.connectors.renew(world.wish(key, theirs)))
    await refused("statement-invalid", world.connectors.renew(world.wish(key, own, iss=theirs, sub=theirs)))
    invented = own.replace("site:", "other:")
    await refused("statement-invalid", world.connectors.renew(world.wish(key, invented)))


async def test_a_wish_is_for_us_and_for_now(world: World, key: EllipticCurvePrivateKey) -> None:
    signer = (await world.enrol(key)).connector.signer
    elsewhere = world.wish(key, signer, aud="https://evil.example")
    await refused("statement-invalid", world.connectors.renew(elsewhere))
    several = world.wish(key, signer, aud=[ORIGIN, "https://evil.example"])
    await refused("statement-invalid", world.connectors.renew(several))
    old = world.wish(key, signer)
    for seconds in (-200, 200):  # of a clock that is behind or ahead
        world.clock.advance(seconds)
        await refused("statement-invalid", world.connectors.renew(old))
        world.clock.advance(-seconds)
    assert await world.connectors.renew(old)
    device = sign(
        statements.renewal(signer, ORIGIN, world.clock.now()),
        signing_key(key, kid=signer),
        statements.RENEWAL,
    )
    await refused("statement-invalid", world.connectors.renew(device))


async def test_certificates_that_are_good_at_once_are_few(world: World, key: EllipticCurvePrivateKey) -> None:
    signer = (await world.enrol(key)).connector.signer
    for _ in range(MOST_CERTIFICATES - 1):
        await world.connectors.renew(world.wish(key, signer))
    await refused("too-many-requests", world.connectors.renew(world.wish(key, signer)))


# ---------------------------------------------------------------------- revocation and locks


async def test_a_revoked_instance_is_not_renewed_and_others_are(
    world: World, key: EllipticCurvePrivateKey
) -> None:
    one, other = (await world.enrol(key)).connector, (await world.enrol(key)).connector
    assert await world.connectors.revoke("site", one.instance, "ops") == [one.key]
    assert await world.connectors.revoke("site", one.instance, "ops") == [], "once"
    await refused("connector-revoked", world.connectors.renew(world.wish(key, one.signer)))
    assert await world.connectors.renew(world.wish(key, other.signer))
    assert [found.key for found in await world.connectors.list("site", revoked=False)] == [other.key]


async def test_a_name_is_revoked_with_all_instances_and_codes(
    world: World, key: EllipticCurvePrivateKey
) -> None:
    mine = [(await world.enrol(key)).connector.key for _ in range(3)]
    await world.enrol(key, "site-2")
    code = await world.connectors.create_code("site", "ops")
    assert sorted(await world.connectors.revoke("site", "", "ops")) == sorted(mine)
    await refused("enrolment-code-invalid", world.connectors.enrol(code, request(key)))
    assert [found.name for found in await world.connectors.list(revoked=False)] == ["site-2"]
    events = [record.event for record in world.told[-4:]]
    assert events == ["connector-codes-withdrawn", *["connector-revoked"] * 3]


class Slow:
    """A store that writes a connector only after something else has happened."""

    def __init__(self, store: SqliteStore, first: Callable[[], Awaitable[Any]]) -> None:
        self._store = store
        self._first: list[Callable[[], Awaitable[Any]]] = [first]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def put(self, *what: Any, **how: Any) -> Any:
        while self._first:
            await self._first.pop()()
        return await self._store.put(*what, **how)


async def test_who_is_being_enrolled_while_the_name_is_revoked_is_revoked_too(
    world: World, key: EllipticCurvePrivateKey
) -> None:
    """The code is used up and the connector not yet there when all of its name are looked for."""

    async def revoke() -> None:
        assert await world.connectors.revoke("site", "", "ops") == []

    world.connectors._records = Slow(world.store, revoke)  # type: ignore[assignment]
    await refused("enrolment-code-invalid", world.enrol(key))
    assert await world.connectors.list("site", revoked=False) == []
    (gone,) = await world.connectors.list("site")
    await refused("connector-revoked", world.connectors.renew(world.wish(key, gone.signer)))
    assert await world.store.scan("connector-code") == []


async def test_a_failing_audit_keeps_no_connector_in(world: World, key: EllipticCurvePrivateKey) -> None:
    for _ in range(2):
        await world.enrol(key)
    world.journal_is_full = True
    with pytest.raises(OSError, match="full"):
        await world.connectors.revoke("site", "", "ops")
    assert not await world.connectors.list(revoked=False)


@pytest.mark.parametrize("on", ["instance", "name", "all", "certificate"])
async def test_locks_keep_out_whom_they_are_on(world: World, key: EllipticCurvePrivateKey, on: str) -> None:
    enrolled = await world.enrol(key)
    code = await world.connectors.create_code("site", "ops")
    identity = uri_of(enrolled)
    targets = {
        "instance": ("workload", identity),
        "name": ("workload", identity.rpartition("/")[0]),
        "all": ("issuer", "connectors"),
        "certificate": ("credential", enrolled.certificate.fingerprint),
    }
    await world.lock(*targets[on])
    await refused("locked", world.connectors.renew(world.wish(key, enrolled.connector.signer)))
    if on in ("name", "all"):
        await refused("locked", world.connectors.enrol(code, request(key)))
        await refused("locked", world.connectors.create_code("site", "ops"))
    else:
        assert await world.connectors.enrol(code, request(key))
