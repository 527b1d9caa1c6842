"""Identity lines for upstreams: who asks, in a signed assertion, ready to be sent.

Workers hold no signing key: the control process signs (service.vouching), once per caller, device and
audience; the lines are kept until shortly before the assertion expires, and renewed in the background.
"""

import asyncio
from typing import Final, final

from ztproxy.administrator.access import Identities
from ztproxy.model.messages import AssertionWanted
from ztproxy.model.route import Route
from ztproxy.model.subject import Principal
from ztproxy.service.link import Link
from ztproxy.trust.caller import Caller
from ztproxy.wire.text import field_text

#: An assertion is not used in its last minute, and renewed two minutes before its end (ms).
SPARE: Final = 60_000
RENEW: Final = 120_000
KEPT: Final = 100_000  # callers × devices × audiences; beyond it all are signed anew


#: A route, and whom lines are about (`Caller.whose`).
_Key = tuple[str, str]


@final
class _Signed:
    __slots__ = ("expires_at", "lines", "principal")

    def __init__(self, principal: Principal, lines: bytes, expires_at: int) -> None:
        self.principal: Final = principal
        self.lines: Final = lines
        self.expires_at: Final = expires_at


@final
class _Ready:
    """What is signed, by whom it is about and by route: two look-ups by texts whose hashes are known."""

    __slots__ = ("by_whose", "count")

    def __init__(self) -> None:
        self.by_whose: dict[str, dict[str, _Signed]] = {}
        self.count = 0

    def put(self, route: str, whose: str, signed: _Signed) -> None:
        if self.count >= KEPT:
            self.by_whose.clear()
            self.count = 0
        found = self.by_whose.get(whose)
        if found is None:
            found = self.by_whose[whose] = {}
        if route not in found:
            self.count += 1
        found[route] = signed

    def without(self, routes: set[str]) -> "_Ready":
        less = _Ready()
        for whose, found in self.by_whose.items():
            for route, signed in found.items():
                if route not in routes:
                    less.put(route, whose, signed)
        return less


class LinkedIdentities(Identities):
    """Lines by caller and audience. `origins` maps a route's name to its external origin (the audience).

    What the one `before` had signed is good for routes that are still where they were.
    """

    def __init__(self, link: Link, origins: dict[str, str], before: "LinkedIdentities | None" = None) -> None:
        self._link = link
        self._origins = origins
        self._ready = before.still_good(origins) if before is not None else _Ready()
        self._renewing: dict[_Key, asyncio.Task[bytes | None]] = {}

    def still_good(self, origins: dict[str, str]) -> _Ready:
        """Return what was signed for these origins."""
        moved = {name for name, origin in self._origins.items() if origins.get(name) != origin}
        return self._ready.without(moved) if moved else self._ready

    def lines(self, caller: Caller, route: Route, now: int) -> bytes | None:
        """Return ready header lines, each ended by CRLF, or None when they have to be fetched."""
        principal = caller.principal
        if not caller.session_id and principal.kind == "Anonymous":
            return b""
        of_caller = self._ready.by_whose.get(caller.whose)
        signed = of_caller.get(route.name) if of_caller is not None else None
        if signed is None or now >= signed.expires_at - SPARE:
            return b"" if route.carries else None  # a connector is nobody to any application
        if signed.principal is not principal and signed.principal != principal:
            return None
        if now >= signed.expires_at - RENEW and (route.name, caller.whose) not in self._renewing:
            self._renew(caller, route)
        return signed.lines

    async def fetch(self, caller: Caller, route: Route, now: int) -> bytes | None:
        """Return lines with a new assertion; requests of one caller share the asking."""
        task = self._renewing.get((route.name, caller.whose)) or self._renew(caller, route)
        return await asyncio.shield(task)

    def _renew(self, caller: Caller, route: Route) -> asyncio.Task[bytes | None]:
        key: _Key = (route.name, caller.whose)
        task = asyncio.create_task(self._sign(caller, route.name))
        self._renewing[key] = task
        task.add_done_callback(lambda _: self._renewing.pop(key, None))
        return task

    async def _sign(self, caller: Caller, route: str) -> bytes | None:
        principal = caller.principal
        answer = await self._link.assertion(
            AssertionWanted(
                ask=0,
                audience=self._origins[route],
                session=caller.session_id,
                workload=principal.id if principal.kind == "Workload" else "",
                issuer=principal.issuer,
                groups=principal.groups if principal.kind == "Workload" else (),
                device=caller.device_id,
                person=principal.id if caller.session_id else "",
                bound=caller.bound_id,
            )
        )
        if answer is None or not answer.token:
            return None
        lines = b"Zt-Principal: %b\r\nZt-Name: %b\r\nZt-Assertion: %b\r\n" % (
            field_text(principal.id),
            field_text(principal.name),
            answer.token.encode("ascii"),
        )
        self._ready.put(route, caller.whose, _Signed(principal, lines, answer.expires_at))
        return lines
