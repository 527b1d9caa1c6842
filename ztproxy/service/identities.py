"""Identity lines for upstreams: who asks, in a signed assertion, ready to be sent.

Workers hold no signing key: the control process signs (service.control), once per caller and audience; the
lines are kept until shortly before the assertion expires and renewed in the background before that.
"""

import asyncio
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from ztproxy.model.messages import AssertionWanted
from ztproxy.model.resource import Route
from ztproxy.model.subject import Device, Facts
from ztproxy.service.link import Link

#: An assertion is not used in its last minute, and renewed two minutes before its end (ms).
SPARE: Final = 60_000
RENEW: Final = 120_000
KEPT: Final = 100_000  # callers × audiences


class _Signed(Struct, frozen=True, gc=False):
    facts: Facts
    lines: tuple[bytes, ...]
    expires_at: int


class LinkedIdentities:
    """Lines by caller and audience. `origins` maps a route's name to its external origin (the audience)."""

    def __init__(self, link: Link, origins: dict[str, str]) -> None:
        self._link = link
        self._origins = origins
        self._signed: dict[tuple[str, str], _Signed] = {}
        self._renewing: dict[tuple[str, str], asyncio.Task[tuple[bytes, ...] | None]] = {}

    def lines(self, facts: Facts, route: Route, now: int) -> tuple[bytes, ...] | None:
        """Return ready header lines, or None when they have to be fetched."""
        if facts.principal.kind == "Anonymous":
            return ()
        key = (facts.session.id if facts.session else facts.principal.id, route.name)
        signed = self._signed.get(key)
        if signed is None or now >= signed.expires_at - SPARE or not _same(signed.facts, facts):
            return None
        if now >= signed.expires_at - RENEW and key not in self._renewing:
            self._renew(key, facts)
        return signed.lines

    async def fetch(self, facts: Facts, route: Route, now: int) -> tuple[bytes, ...] | None:
        """Return lines with a new assertion; requests of one caller share the asking."""
        key = (facts.session.id if facts.session else facts.principal.id, route.name)
        return await asyncio.shield(self._renewing.get(key) or self._renew(key, facts))

    def forget(self, session_id: str) -> None:
        """Drop what is kept for a session that is gone."""
        for name in self._origins:
            self._signed.pop((session_id, name), None)

    def _renew(self, key: tuple[str, str], facts: Facts) -> asyncio.Task[tuple[bytes, ...] | None]:
        task = asyncio.create_task(self._sign(key, facts))
        self._renewing[key] = task
        task.add_done_callback(lambda _: self._renewing.pop(key, None))
        return task

    async def _sign(self, key: tuple[str, str], facts: Facts) -> tuple[bytes, ...] | None:
        principal = facts.principal
        answer = await self._link.assertion(
            AssertionWanted(
                ask=0,
                audience=self._origins[key[1]],
                session=facts.session.id if facts.session else "",
                workload=principal.id if principal.kind == "Workload" else "",
                issuer=principal.issuer,
                groups=principal.groups if principal.kind == "Workload" else (),
                device=facts.device.id if isinstance(facts.device, Device) else "",
            )
        )
        if answer is None or not answer.token:
            return None
        if len(self._signed) >= KEPT:
            self._signed.clear()
        lines = (
            b"Zt-Principal: " + _plain(principal.id),
            b"Zt-Name: " + _plain(principal.name),
            b"Zt-Assertion: " + answer.token.encode("ascii"),
        )
        self._signed[key] = _Signed(facts=facts, lines=lines, expires_at=answer.expires_at)
        return lines


def _same(old: Facts, new: Facts) -> bool:
    """Whether an assertion made for the old facts still says the truth."""
    return old is new or (
        old.principal == new.principal
        and (old.session is None) == (new.session is None)
        and _device(old) == _device(new)
    )


def _device(facts: Facts) -> str:
    return facts.device.id if isinstance(facts.device, Device) else ""


def _plain(text: str) -> bytes:
    """Return text as a header value: printable ASCII, everything else percent-encoded."""
    return quote(text, safe=" !#$&'()*+,/:;=?@[]-._~").encode("ascii")
