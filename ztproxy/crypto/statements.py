"""The short statements that a device or a connector signs with the key it is enrolled by: "I am here", "renew
my certificate".

The programs make them, the administrator reads them; both take their form from here. A statement names its
audience and lives for a minute, so that one made for us can be used nowhere else and not much later.
"""

from typing import Any, Final

#: Proof that this device is the one on which a browser asks; answers a nonce. `device-proof+jwt`
PROOF: Final = "device-proof+jwt"
#: Wish for a new certificate for the same key. `device-renewal+jwt`
RENEWAL: Final = "device-renewal+jwt"
#: The same wish of a connector. `connector-renewal+jwt`
CONNECTOR_RENEWAL: Final = "connector-renewal+jwt"

LIFE: Final = 60  # seconds
MAX_SIZE: Final = 4096  # characters


def proof(device_id: str, audience: str, nonce: str, now: int) -> dict[str, Any]:
    """Return the claims of a proof. `now` in ms; `audience` is the origin that asks."""
    return {**_claims(device_id, audience, now), "nonce": nonce}


def renewal(signer: str, audience: str, now: int) -> dict[str, Any]:
    """Return the claims of a renewal. `now` in ms; `signer` is who wishes, `audience` the portal."""
    return _claims(signer, audience, now)


def _claims(signer: str, audience: str, now: int) -> dict[str, Any]:
    seconds = now // 1000
    return {"iss": signer, "sub": signer, "aud": audience, "iat": seconds, "exp": seconds + LIFE}
