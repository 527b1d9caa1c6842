"""Identity lines for upstreams: who asks, in a signed assertion, ready to be sent.

Workers hold no signing key: the control process signs (service.vouching), once per caller, device and
audience; the lines are kept until shortly before the assertion expires, and renewed in the background.
"""

import asyncio
from typing import Final, final

from ztproxy.administrator.access import Identities
from ztproxy.model.messages import AssertionWanted
from ztproxy.model.route import Route
from ztproxy.model.subject import Facts, Principal
from ztproxy.service.link import Link
from ztproxy.trust.caller import Caller
from ztproxy.wire.text import field_text

#: An assertion is not used in its last minute, and renewed two minutes before its end (ms).
SPARE: Final = 60_000
RENEW: Final = 120_000
KEPT: Final = 100_000  # callers × devices × audiences; beyond it all are signed anew


#: A session (or a workload's id), the device it comes from, a route.
_Key = tuple[str, str, str]


@final
class _Signed:
    __slots__ = ("expires_at", "lines", "principal")

    def __init__(self, principal: Principal, lines: bytes, expires_at: int) -> None:
        self.principal: Final = principal
        self.lines: Final = lines
        self.expires_at: Final = expires_at


class LinkedIdentities(Identities):
    """Lines by caller and audience. `origins` maps a route's name to its external origin (the audience).

    What the one `before` had signed is good for routes that are still where they were.
    """

    def __init__(self, link: Link, origins: dict[str, str], before: "LinkedIdentities | None" = None) -> None:
        self._link = link
        self._origins = origins
        self._ready: dict[_Key, _Signed] = before.still_good(origins) if before is not None else {}
        self._renewing: dict[_Key, asyncio.Task[bytes | None]] = {}

    def still_good(self, origins: dict[str, str]) -> dict[_Key, _Signed]:
        """Return what was signed for these origins."""
        moved = {name for name, origin in self._origins.items() if origins.get(name) != origin}
        if not moved:
            return self._ready
        return {key: signed for key, signed in self._ready.items() if key[2] not in moved}

    def lines(self, caller: Caller, route: Route, now: int) -> bytes | None:
        """Return ready header lines, each ended by CRLF, or None when they have to be fetched."""
        principal = caller.principal
        if not caller.session_id and principal.kind == "Anonymous":
            return b""
        key = _key(caller, route)
        signed = self._ready.get(key)
        if signed is None or now >= signed.expires_at - SPARE:
            return b"" if route.carries else None  # a connector is nobody to any application
        if signed.principal is not principal and signed.principal != principal:
            return None
        if now >= signed.expires_at - RENEW and key not in self._renewing:
            self._renew(key, caller.facts)
        return signed.lines

    async def fetch(self, caller: Caller, route: Route, now: int) -> bytes | None:
        """Return lines with a new assertion; requests of one caller share the asking."""
        key = _key(caller, route)
        return await asyncio.shield(self._renewing.get(key) or self._renew(key, caller.facts))

    def _renew(self, key: _Key, facts: Facts) -> asyncio.Task[bytes | None]:
        task = asyncio.create_task(self._sign(key, facts))
        self._renewing[key] = task
        task.add_done_callback(lambda _: self._renewing.pop(key, None))
        return task

    async def _sign(self, key: _Key, facts: Facts) -> bytes | None:
        principal = facts.principal
        answer = await self._link.assertion(
            AssertionWanted(
                ask=0,
                audience=self._origins[key[2]],
                session=facts.session.id if facts.session else "",
                workload=principal.id if principal.kind == "Workload" else "",
                issuer=principal.issuer,
                groups=principal.groups if principal.kind == "Workload" else (),
                device=key[1],
            )
        )
        if answer is None or not answer.token:
            return None
        if len(self._ready) >= KEPT:
            self._ready.clear()
        lines = b"Zt-Principal: %b\r\nZt-Name: %b\r\nZt-Assertion: %b\r\n" % (
            field_text(principal.id),
            field_text(principal.name),
            answer.token.encode("ascii"),
        )
        self._ready[key] = _Signed(principal=principal, lines=lines, expires_at=answer.expires_at)
        return lines


def _key(caller: Caller, route: Route) -> _Key:
    return caller.session_id or caller.principal_id, caller.device_id, route.name
