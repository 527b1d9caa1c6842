"""A worker's key is certified as one of its node's, for a while, and shown to other nodes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ztproxy.administrator.issue import NODES, load_authority
from ztproxy.model.messages import CertificateIssued, CertificateWanted
from ztproxy.net.clock import FixedClock, SystemClock, entropy
from ztproxy.service.certifying import Certifier
from ztproxy.service.membership import LIFETIME, SPARE, Membership


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(ms=SystemClock().now())


@pytest.fixture
def certifier(tmp_path: Path, clock: FixedClock) -> Certifier:
    authority = load_authority(
        tmp_path, NODES, trust_domain="t.example", lifetime=LIFETIME, clock=clock, entropy=entropy
    )
    return Certifier(authority, "gw1-443")


def der(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


async def test_it_says_which_node_and_ends_in_time(certifier: Certifier, clock: FixedClock) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    issued = await certifier.certify(CertificateWanted(ask=7, key=der(key)))
    leaf = x509.load_pem_x509_certificate(issued.pem.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == ["spiffe://t.example/node/gw1-443"]
    assert leaf.public_key() == key.public_key()
    assert issued.ask == 7
    assert clock.ms < issued.not_after <= clock.ms + LIFETIME


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())]
)
async def test_no_other_kind_of_key_is_certified(certifier: Certifier, key: Any) -> None:
    for wanted in (der(key), b"", b"nonsense"):
        with pytest.raises(ValueError):
            await certifier.certify(CertificateWanted(ask=1, key=wanted))


async def test_nothing_is_certified_where_there_are_no_other_nodes(tmp_path: Path, clock: FixedClock) -> None:
    authority = load_authority(
        tmp_path, NODES, trust_domain="t.example", lifetime=LIFETIME, clock=clock, entropy=entropy
    )
    with pytest.raises(ValueError, match="no other nodes"):
        await Certifier(authority, "").certify(CertificateWanted(ask=1, key=b""))


async def test_a_worker_asks_once_and_again_before_it_ends(certifier: Certifier, clock: FixedClock) -> None:
    asked: list[bytes] = []
    there = True

    async def certificate(key: bytes) -> CertificateIssued | None:
        asked.append(key)
        return await certifier.certify(CertificateWanted(ask=0, key=key)) if there else None

    membership = Membership(SimpleNamespace(certificate=certificate), clock)  # type: ignore[arg-type]
    first = await membership.context("")
    assert first is not None
    assert await membership.context("") is first
    assert len(asked) == 1
    clock.ms += LIFETIME - SPARE + 1
    there = False
    assert await membership.context("") is first, "it is good for a while; somebody may sign the next in time"
    there = True
    second = await membership.context("")
    assert second not in (None, first)
    assert len(set(asked)) == 1, "one key, as long as the worker lives"
    there = False
    clock.ms += LIFETIME
    assert await membership.context("") is None, "an old one is not shown"
