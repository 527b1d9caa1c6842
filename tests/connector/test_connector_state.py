"""The folder of a connector: private, whole, and only for what it was enrolled as."""

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from ztproxy.administrator.issue import CONNECTORS, load_authority
from ztproxy.connector.state import FOR_GOOD, ConnectorError, Folder, Identity
from ztproxy.net import keyfiles
from ztproxy.net.clock import SystemClock

IDENTITY = Identity("site", "a" * 13, "https://portal.example", "connect.example", ("gw.example:443",))


class Portal:
    """Whoever issues."""

    def __init__(self, folder: Path) -> None:
        self._authority = load_authority(
            folder,
            CONNECTORS,
            trust_domain="corp.example",
            lifetime=3_600_000,
            clock=SystemClock(),
            entropy=os.urandom,
        )

    def certificate(self, key: EllipticCurvePrivateKey, name: str = "site", instance: str = "a" * 13) -> str:
        return self._authority.issue(key.public_key(), name, instance).pem


@pytest.fixture
def portal(tmp_path: Path) -> Portal:
    return Portal(tmp_path / "portal")


@pytest.fixture
def key() -> EllipticCurvePrivateKey:
    return keyfiles.new_key()


@pytest.fixture
def folder(tmp_path: Path, portal: Portal, key: EllipticCurvePrivateKey) -> Folder:
    made = Folder(tmp_path / "state/own")
    made.create(IDENTITY, key, portal.certificate(key), None)
    return made


def test_it_is_for_its_owner_alone(folder: Folder) -> None:
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.path.iterdir()} == {0o600}
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "connector.json",
        "connector.key",
        "connector.pem",
    ]
    assert folder.identity() == IDENTITY
    assert folder.signer().kid == "site:" + "a" * 13


def test_a_certificate_of_somebody_else_replaces_nothing(
    folder: Folder, portal: Portal, key: EllipticCurvePrivateKey
) -> None:
    before = folder.certificate_file.read_bytes()
    for wrong in (
        portal.certificate(key, name="other"),
        portal.certificate(key, instance="b" * 13),
        portal.certificate(keyfiles.new_key()),
        "nothing",
        "",
    ):
        with pytest.raises(ConnectorError):
            folder.write_certificate(wrong, IDENTITY)
        assert folder.certificate_file.read_bytes() == before
    folder.write_certificate(portal.certificate(key), IDENTITY)
    assert folder.certificate_file.read_bytes() != before


def test_what_was_broken_off_is_no_connector(
    tmp_path: Path, portal: Portal, key: EllipticCurvePrivateKey
) -> None:
    made = Folder(tmp_path / "half")
    with pytest.raises(ConnectorError):
        made.create(IDENTITY, key, portal.certificate(keyfiles.new_key()), None)
    assert not made.enrolled
    with pytest.raises(ConnectorError, match="no connector is enrolled here") as caught:
        made.identity()
    assert caught.value.exit_code == FOR_GOOD


def test_a_key_that_others_may_read_is_not_used(folder: Folder) -> None:
    folder.key_file.chmod(0o640)
    with pytest.raises(ConnectorError, match="chmod 600"):
        folder.signer()


def test_a_folder_that_can_not_be_written_is_found_before_a_code_is_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConnectorError):
        Folder(tmp_path / "file/state").prepare()


def test_proxies_are_dialled_with_the_newest_protocol_and_our_certificate(folder: Folder) -> None:
    import ssl

    context = folder.context(None)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    folder.certificate_file.write_text("")
    with pytest.raises(ConnectorError, match="can not be used"):
        folder.context(None)


def test_authorities_given_at_enrolment_are_the_only_ones(
    tmp_path: Path, portal: Portal, key: EllipticCurvePrivateKey
) -> None:
    own = (tmp_path / "portal/ca/connectors.pem").read_bytes()
    made = Folder(tmp_path / "pinned")
    made.create(IDENTITY, key, portal.certificate(key), own)
    assert made.ca is not None
    assert len(made.context(None).get_ca_certs()) == 1
    made.create(IDENTITY, key, portal.certificate(key), None)
    assert made.ca is None, "enrolled anew without"
