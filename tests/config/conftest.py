"""A directory with everything a configuration can name: certificates, keys, secrets, policies."""

import base64
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ztproxy.crypto.issue import create_authority, issue_identity, issue_server, pem
from ztproxy.crypto.spiffe import make_id
from ztproxy.crypto.template import term
from ztproxy.net.clock import SystemClock, entropy

DAY = 86_400_000
HOSTS = ("portal.corp.example", "app.corp.example", "api.corp.example", "connect.corp.example")

POLICY = """\
@id("app-staff")
permit (principal in Group::"staff", action in Action::"http", resource == Route::"app");
"""
BAD_POLICY = """\
@id("fine")
permit (principal in Group::"staff", action in Action::"http", resource == Route::"app");

@id("typo")
permit (principal in Group::"staff", action in Action::"http", resource == Route::"apps");
"""
FAILING_TESTS = """\
fixtures:
  ada: {user: "corp:ada", groups: [staff]}
cases:
  - {name: staff gets in, as: ada, do: GET, to: app, expect: allow}
  - {name: everybody is refused, as: ada, do: GET, to: app, expect: deny}
"""


def key_pem(key: EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def put(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once; tests take copies."""
    base = tmp_path_factory.mktemp("material")
    now = SystemClock().now()
    root_key, key = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
    root = create_authority("test", root_key, term(now - 90 * DAY, 365 * DAY, entropy))
    leaf = issue_server(root, key.public_key(), term(now, 30 * DAY, entropy), dns_names=HOSTS)
    old = issue_server(root, key.public_key(), term(now - 60 * DAY, 30 * DAY, entropy), dns_names=HOSTS)
    client = issue_identity(root, make_id("corp.example", "ci"), key.public_key(), term(now, DAY, entropy))
    put(base / "tls/root.pem", pem(root.certificate))
    put(base / "tls/server.pem", pem(leaf, root.certificate))
    put(base / "tls/server.key", key_pem(key), 0o600)
    put(base / "tls/open.key", key_pem(key), 0o644)
    put(base / "tls/other.key", key_pem(generate_private_key(SECP256R1())), 0o600)
    put(base / "tls/expired.pem", pem(old))
    put(base / "tls/client.pem", pem(client))
    put(base / "tls/client.key", key_pem(key), 0o600)
    put(base / "tls/junk.pem", "not a certificate\n")
    put(base / "secrets/client", "s3cr3t-in-a-file\n", 0o600)
    put(base / "secrets/open", "s3cr3t-for-all\n", 0o644)
    put(base / "secrets/store", base64.b64encode(bytes(range(32))).decode() + "\n", 0o600)
    put(base / "policies/good.cedar", POLICY)
    put(base / "policies/bad.cedar", BAD_POLICY)
    put(base / "policies/failing.yaml", FAILING_TESTS)
    return base


@pytest.fixture
def base(material: Path, tmp_path: Path) -> Path:
    """A copy of the material to write a configuration beside."""
    shutil.copytree(material, tmp_path, dirs_exist_ok=True)
    return tmp_path
