"""The demo's applications in process, with a signing key of the test's own."""

import time
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from ztproxy.demo.apps.identity import Assertions

ISSUER = "https://portal.test:8443"
AUDIENCE = "https://app.test:8443"


class Signer:
    """Signs assertions as the portal would, and publishes its key without a network."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "k1"})
        self.asked: list[str] = []

    async def find(self, kid: str) -> KeySet | None:
        self.asked.append(kid)
        return KeySet([self.key]) if kid == "k1" else None

    def sign(self, key: ECKey | None = None, kid: str = "k1", **changes: Any) -> dict[str, str]:
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "demo:carol",
            "name": "Carol",
            "groups": ["contractors"],
            "exp": int(time.time()) + 60,
            **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return {"Zt-Assertion": jwt.encode({"alg": "ES256", "kid": kid}, claims, key or self.key)}


@pytest.fixture
def signer() -> Signer:
    return Signer()


@pytest.fixture
async def client(signer: Signer):
    """Serves an application made by the function it is given."""
    clients = []

    async def serve(make) -> TestClient:
        app = make(Assertions(ISSUER, AUDIENCE, signer))
        serving = TestClient(TestServer(app))
        await serving.start_server()
        clients.append(serving)
        return serving

    yield serve
    for serving in clients:
        await serving.close()
