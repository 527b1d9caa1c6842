"""The published keys are the ones that sign."""

from typing import Any

from ztproxy.crypto.jose import Expected, verify
from ztproxy.crypto.jwk import read_key_set


async def test_upstreams_can_check_an_assertion(service: Any) -> None:
    response = await service.client.get("/.ztproxy/jwks.json")
    assert response.status == 200 and response.content_type == "application/jwk-set+json"
    now = service.clock.now()
    token = service.assertions.sign({"iss": "https://p", "aud": "https://a", "exp": now // 1000 + 60})
    keys = read_key_set(await response.read(), {"ES256"})
    assert verify(token, keys, Expected(issuer="https://p", audience="https://a"), now)
