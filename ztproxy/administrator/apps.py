"""What a signed-in person would be allowed to open now: the portal's list of applications.

Runs in the control process, on the same policies as the door. It opens nothing: whoever follows a link meets
the door, and these answers are neither permits nor evidence.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from ztproxy.administrator.explaining import refusal_of
from ztproxy.administrator.locks import LockTable
from ztproxy.administrator.standing import read_standings
from ztproxy.model.codes import CODES
from ztproxy.model.request import Context, Resource
from ztproxy.model.route import Route
from ztproxy.model.subject import Device, Facts, Posture, Session
from ztproxy.net.clock import Clock
from ztproxy.policy.engine import PolicySet
from ztproxy.store.interface import Records
from ztproxy.trust.gather import facts_of
from ztproxy.trust.standing import keys_of, said_of_person

T = TypeVar("T")

#: A route, whether it would open, and if not: why, and what would help.
App = tuple[Route, bool, str, tuple[str, ...]]

#: Stands for the request that has not been made; no real request has this id.
_ID = "f" * 32


class Apps:
    """The list for the portal, over the routes of the configuration."""

    def __init__(
        self,
        policies: Callable[[], PolicySet],
        routes: Sequence[Route],
        records: Records,
        clock: Clock,
    ) -> None:
        self._policies = policies
        self._routes = [route for route in routes if not (route.portal or route.carries)]
        self._records = records
        self._now = clock.now
        self._locks = LockTable(records, clock)

    async def visible(self, session: Session) -> Sequence[App]:
        """Return what would open, and what would after a remedy. Others are not told of."""
        device = await self._read("device", session.device_id, Device)
        if device is not None and device.revoked_at:
            device = None
        posture = await self._read("posture", device.id, Posture) if device else None
        standings = await read_standings(self._records, keys_of(session))
        said = said_of_person(session, device.id if device else "", standings)
        facts = facts_of(session, device, posture, "agent", session.device_proved_at, 0, said)
        answers = [self._answer(route, facts, session.ip) for route in self._routes]
        return [await self._unless_locked(answer) for answer in answers if answer is not None]

    async def _unless_locked(self, answer: App) -> App:
        if await self._locks.on([("route", answer[0].name)]) is None:
            return answer
        return answer[0], False, CODES["locked"][1], ("contact-administrator",)

    def _answer(self, route: Route, facts: Facts, ip: str) -> App | None:
        policies, now = self._policies(), self._now()
        subject = policies.subject(facts)
        resource = Resource("Route", route.name, route)
        context = Context(request_id=_ID, ip=ip, host=route.host, path=route.prefix)
        decision = policies.decide(subject, resource, "GET", context, now)
        if decision.allow:
            return route, True, "", ()
        explanation = policies.explain(subject, resource, "GET", context, now)
        refusal = refusal_of(decision, explanation, facts, _ID)
        if refusal.code == "access-denied" and not explanation.remedies:
            return None
        return route, False, refusal.reason, refusal.remedies

    async def _read(self, kind: str, key: str, type_: type[T]) -> T | None:
        found = await self._records.get(kind, key) if key else None
        return msgspec.msgpack.decode(found.value, type=type_) if found else None
