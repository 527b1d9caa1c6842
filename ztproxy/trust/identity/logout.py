"""Logout tokens of OpenID Connect Back-Channel Logout 1.0: verified, then read into whom they mean.

Called by `trust.identity.oidc` with the provider's keys. Pure. A logout token is no ID token: it has an
event and never a nonce, and neither is ever taken for the other.
"""

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

from ztproxy.crypto import jose
from ztproxy.crypto.jwk import VerifyKey

EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
MAX_TOKEN: Final = 32 * 1024
#: Longest time between issue and expiry, in seconds; the specification recommends two minutes.
LONGEST_LIFE: Final = 600
LEEWAY: Final = 60  # seconds


class Logout(Struct, frozen=True):
    """Whose sessions end: the one with `sid`, or all of `sub`. Times in ms."""

    jti: str
    issued_at: int
    expires_at: int
    sub: str = ""
    sid: str = ""


def read(token: str, keys: Sequence[VerifyKey], issuer: str, client_id: str, now: int) -> Logout:
    """Return what a genuine logout token says. Raises JoseError."""
    expected = jose.Expected(
        issuer=issuer,
        audience=client_id,
        types=("logout+jwt", "JWT", ""),  # section 2.4 recommends the type and does not demand it
        leeway=LEEWAY,
        longest_life=LONGEST_LIFE,
        max_size=MAX_TOKEN,
    )
    claims = jose.verify(token, keys, expected, now)
    if "nonce" in claims:  # section 2.6: it would be an ID token
        raise jose.JoseError("has a nonce")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict):
        raise jose.JoseError("is not about a logout")
    found = Logout(
        jti=_text(claims, "jti", required=True),
        issued_at=int(claims["iat"] * 1000),
        expires_at=int(claims["exp"] * 1000),
        sub=_text(claims, "sub"),
        sid=_text(claims, "sid"),
    )
    if not found.sub and not found.sid:
        raise jose.JoseError("names neither a person nor a session")
    return found


def _text(claims: dict[str, Any], name: str, *, required: bool = False) -> str:
    if name not in claims and not required:
        return ""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 255 or not value.isprintable():
        raise jose.JoseError(f"its {name} is absent or malformed")
    return value
