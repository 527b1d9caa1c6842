"""Assertions about callers, signed in the control process for workers that ask.

About people it says what the store knows, not what the worker says: a worker names a session and no more.
"""

from collections.abc import Callable
from typing import Any, Final

from ztproxy.administrator.issue import Assertions
from ztproxy.administrator.sessions import Sessions
from ztproxy.model.messages import AssertionSigned, AssertionWanted

LIFETIME: Final = 5 * 60_000  # ms


class Voucher:
    """Signs for the workers of this node. `issuer` is the portal's origin."""

    def __init__(
        self, assertions: Assertions, sessions: Sessions, *, issuer: str, now: Callable[[], int]
    ) -> None:
        self._assertions = assertions
        self._sessions = sessions
        self._issuer = issuer
        self._now = now

    async def sign(self, wanted: AssertionWanted) -> AssertionSigned:
        """Return the signed assertion; an empty token when the session is over."""
        now = self._now()
        who = await self._person(wanted) if wanted.session else _workload(wanted)
        if who is None:
            return AssertionSigned(ask=wanted.ask, token="", expires_at=0)
        expires_at = now + LIFETIME
        claims = {
            "iss": self._issuer,
            "aud": wanted.audience,
            "iat": now // 1000,
            "exp": expires_at // 1000,
            **who,
        }
        if wanted.device:
            claims["device"] = wanted.device
        return AssertionSigned(ask=wanted.ask, token=self._assertions.sign(claims), expires_at=expires_at)

    async def _person(self, wanted: AssertionWanted) -> dict[str, Any] | None:
        session = await self._sessions.live(
            wanted.session, person=wanted.person, device=wanted.bound or wanted.device
        )
        if session is None:
            return None
        principal = session.principal
        claims: dict[str, Any] = {
            "sub": principal.id,
            "name": principal.name,
            "groups": list(principal.groups),
            "sid": session.id,
        }
        if principal.email:
            claims["email"] = principal.email
        return claims


def _workload(wanted: AssertionWanted) -> dict[str, Any] | None:
    if not wanted.workload:
        return None
    return {"sub": wanted.workload, "name": wanted.workload, "groups": list(wanted.groups)}
