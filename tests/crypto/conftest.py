"""Keys and a deterministic source of entropy."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec


@pytest.fixture(scope="session")
def private() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="session")
def stranger() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def entropy() -> Callable[[int], bytes]:
    return os.urandom


@pytest.fixture(scope="session")
def vectors() -> Path:
    root = os.environ.get("ZTPROXY_VECTORS")
    if not root:
        pytest.skip("ZTPROXY_VECTORS is not set")
    return Path(root)
