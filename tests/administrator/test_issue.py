"""The keys of the control process on disk."""

import os
import stat
from pathlib import Path

import pytest
from cryptography import x509

from ztproxy.administrator import issue
from ztproxy.administrator.issue import (
    DEVICES,
    Assertions,
    LeafAuthority,
    load_assertions,
    load_authority,
)
from ztproxy.crypto.certificates import CertificateError
from ztproxy.crypto.jose import Expected, JoseError, verify
from ztproxy.crypto.jwk import read_key
from ztproxy.net import keyfiles
from ztproxy.net.clock import FixedClock
from ztproxy.net.keyfiles import KeyFileError

HOUR = 3_600_000
DEVICE = "dev_" + "a" * 26


def load(state: Path, clock: FixedClock) -> LeafAuthority:
    return load_authority(
        state, DEVICES, trust_domain="corp.example", lifetime=24 * HOUR, clock=clock, entropy=os.urandom
    )


def modes(state: Path) -> dict[str, int]:
    return {str(path.relative_to(state)): stat.S_IMODE(path.stat().st_mode) for path in state.rglob("*")}


def test_the_authority_is_made_once_and_kept(tmp_path: Path) -> None:
    clock = FixedClock()
    load(tmp_path, clock)
    first = (tmp_path / DEVICES.certificate).read_bytes()
    load(tmp_path, clock)
    assert (tmp_path / DEVICES.certificate).read_bytes() == first
    assert modes(tmp_path) == {
        "keys": 0o700,
        "keys/device-ca.pem": 0o600,
        "ca": 0o700,
        "ca/devices.pem": 0o644,
    }


def test_certificates_name_the_device_and_end_in_time(tmp_path: Path) -> None:
    clock = FixedClock()
    authority = load(tmp_path, clock)
    issued = authority.issue(keyfiles.new_key().public_key(), DEVICE)
    leaf, root = x509.load_pem_x509_certificates(issued.pem.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        f"spiffe://corp.example/device/{DEVICE}"
    ]
    leaf.verify_directly_issued_by(root)
    assert issued.not_after == clock.now() + 24 * HOUR


def test_a_key_others_can_read_is_refused(tmp_path: Path) -> None:
    load(tmp_path, FixedClock())
    (tmp_path / "keys/device-ca.pem").chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load(tmp_path, FixedClock())


def test_a_lost_key_is_not_replaced_but_a_lost_certificate_is(tmp_path: Path) -> None:
    clock = FixedClock()
    authority = load(tmp_path, clock)
    path = tmp_path / DEVICES.certificate
    old = x509.load_pem_x509_certificate(path.read_bytes())
    leaf = x509.load_pem_x509_certificates(
        authority.issue(keyfiles.new_key().public_key(), DEVICE).pem.encode()
    )[0]
    path.unlink()
    load(tmp_path, clock)
    again = x509.load_pem_x509_certificate(path.read_bytes())
    leaf.verify_directly_issued_by(again)
    assert again.subject == old.subject
    (tmp_path / "keys/device-ca.pem").unlink()
    with pytest.raises(KeyFileError, match="No such file"):
        load(tmp_path, clock)
    assert not (tmp_path / "keys/device-ca.pem").exists()


def test_an_exchanged_key_and_an_old_authority_are_noticed(tmp_path: Path) -> None:
    clock = FixedClock()
    load(tmp_path, clock)
    keyfiles.write(tmp_path / "keys/device-ca.pem", keyfiles.key_pem(keyfiles.new_key()))
    with pytest.raises(CertificateError, match="another key"):
        load(tmp_path, clock)
    (tmp_path / "ca/devices.pem").unlink()
    load(tmp_path, clock)
    clock.advance(11 * 365 * 86400)
    with pytest.raises(CertificateError, match="not valid at this time"):
        load(tmp_path, clock)


def test_assertions_are_believed_with_the_published_keys(tmp_path: Path) -> None:
    assertions = load_assertions(tmp_path)
    now = FixedClock().now()
    claims = {"iss": "https://portal", "aud": "https://app", "sub": "x", "exp": now // 1000 + 300}
    expected = Expected(issuer="https://portal", audience="https://app")
    old = assertions.sign(claims)
    keys = [read_key(jwk) for jwk in assertions.published()]
    assert verify(old, keys, expected, now)["sub"] == "x"

    for _ in range(2):  # a start changes nothing
        assert load_assertions(tmp_path).published() == assertions.published()

    rotated = rotate(tmp_path)
    new = rotated.sign(claims)
    published = [read_key(jwk) for jwk in rotated.published()]
    assert len(published) == 2
    assert verify(old, published, expected, now)
    assert verify(new, published, expected, now)
    with pytest.raises(JoseError):
        verify(new, keys, expected, now)

    with pytest.raises(JoseError):
        verify(old, [read_key(jwk) for jwk in rotate(tmp_path).published()], expected, now)


def rotate(state: Path) -> Assertions:
    """Do what docs/reference/upstream-identity.md says."""
    (state / issue.ASSERTION_KEY).replace(state / issue.PREVIOUS_KEY)
    return load_assertions(state)


def test_nothing_private_is_published(tmp_path: Path) -> None:
    for jwk in load_assertions(tmp_path).published():
        assert set(jwk) == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    assert stat.S_IMODE((tmp_path / issue.ASSERTION_KEY).stat().st_mode) == 0o600
