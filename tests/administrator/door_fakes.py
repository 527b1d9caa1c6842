"""The one door over real policies and real memory, for the tests of this room."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ztproxy.administrator.access import Access, Identities
from ztproxy.administrator.audit import AuditUnavailable
from ztproxy.model.changes import RequestFields, Stamp
from ztproxy.model.messages import Changed
from ztproxy.model.passage import Passage
from ztproxy.model.permit import Permit
from ztproxy.model.ports import Ledger, Live
from ztproxy.model.record import DecisionRecord
from ztproxy.model.request import NOWHERE, AccessRequest, ClientCertificate, Context, Evidence, Resource
from ztproxy.model.resource import Upstream
from ztproxy.model.route import Route
from ztproxy.model.subject import Device, Handle, Posture, Principal, Session
from ztproxy.net.clock import FixedClock
from ztproxy.policy.load import load
from ztproxy.trust.caller import Caller
from ztproxy.trust.gather import Gatherer
from ztproxy.trust.memory import Memory

NOW = 1_800_000_000_000
COOKIE = "c" * 43
DIGEST = hashlib.sha256(COOKIE.encode()).hexdigest()

POLICIES = """
@id("support") @reason("Contractors on a healthy device.") @maxsession("10m")
permit (principal is User in Group::"contractors", action in Action::"http", resource == Route::"support")
when { principal has device && principal.device has posture && principal.device.posture.healthy
  && context.now.durationSince(principal.device.posture.reported_at) <= duration("1m")
  && principal.device has proved_at
  && context.now.durationSince(principal.device.proved_at) <= duration("1h") };
@id("deploy") @alert("pipeline-seen")
permit (principal == Workload::"spiffe://t/ci", action == Action::"GET", resource == Route::"status");
"""


def route(name: str, **changes: Any) -> Route:
    made = Route(
        name=name,
        app=name,
        host=f"{name}.test",
        prefix="/",
        upstream=Upstream(scheme="http", host="127.0.0.1", port=1),
    )
    return made.replaced(**changes)


STAMPS = RequestFields((Stamp("X-User", ("", "principal.id", " in ", "route.name", "")),))
SUPPORT, STATUS, PORTAL = route("support"), route("status"), route("portal", portal=True)
CAROL = Principal(kind="User", id="t:carol", name="Carol", groups=("contractors",))
SESSION = Session(
    id="ses_1",
    principal=CAROL,
    provider="t",
    created_at=NOW,
    auth_time=NOW,
    last_seen_at=NOW,
    expires_at=NOW + 3_600_000,
    device_id="dev_1",
    device_proved_at=NOW,
)
POSTURE = Posture(device_id="dev_1", reported_at=NOW, seq=1, source="a", level="self", healthy=True)
WORKLOAD = ClientCertificate(
    kind="workload",
    bundle="w",
    subject="spiffe://t/ci",
    fingerprint="f",
    spki="s",
    not_before=0,
    not_after=NOW + 1000_000,
    serial="1",
)


class Opened(Live):
    """A path that tells when it is cut."""

    def __init__(self, permit: Permit, cut: Callable[[str], object]) -> None:
        super().__init__(permit)
        self._cut = cut

    def cut(self, reason: str) -> None:
        self._cut(reason)


class Recorder(Ledger):
    """Has the world take what is written down."""

    def __init__(self, world: "World") -> None:
        self.world = world

    def decision(self, record: DecisionRecord) -> None:
        self.world.decision(record)

    def permit(self, beginning: bytes, caller: Passage, decision: Passage) -> None:
        self.world.permit(beginning, caller, decision)

    def outcome(self, *said: Any) -> None:
        raise AssertionError("the door sees no ends")


class Lines(Identities):
    """Asks the world who vouches for whom."""

    def __init__(self, world: "World") -> None:
        self.world = world

    def lines(self, caller: Caller, route: Route, now: int) -> bytes | None:
        return self.world.lines(caller, route, now)

    async def fetch(self, caller: Caller, route: Route, now: int) -> bytes | None:
        return await self.world.fetch(caller, route, now)


class World:
    """A door over real policies and real memory; audit, identities and feed are fakes."""

    def __init__(self) -> None:
        self.clock = FixedClock(ms=NOW)
        self.memory = Memory(self.clock.monotonic)
        self.records: list[DecisionRecord] = []
        self.touched: list[str] = []
        self.audit_fails = False
        self.signed: bytes | None = b"Zt-Assertion: x\r\n"
        self.fetched: bytes | None = b"Zt-Assertion: fetched\r\n"
        self.coming: list[tuple[str, str, Any]] = []
        self.heard = True
        self.access = Access(
            policies=load([("p.cedar", POLICIES)], [SUPPORT, STATUS, PORTAL], engine="verify"),
            gatherer=Gatherer(self.memory, groups={}, feed_limit=10_000),
            recorder=Recorder(self),
            identities=Lines(self),
            sync=self.sync,
            touched=self.touched.append,
            clock=self.clock,
        )
        self.put("session", "ses_1", SESSION)
        self.put("handle", DIGEST, Handle(session_id="ses_1", host="support.test", created_at=NOW))
        self.put("device", "dev_1", Device(id="dev_1", name="laptop", spki="aa"))
        self.put("posture", "dev_1", POSTURE)
        self.memory.heard(1)

    def put(self, kind: str, key: str, value: Any) -> None:
        encoded = None if value is None else msgspec.msgpack.encode(value)
        self.memory.apply(Changed(version=1, kind=kind, key=key, value=encoded))

    async def sync(self) -> bool:
        for change in self.coming:
            self.put(*change)
        return self.heard

    def decision(self, record: DecisionRecord) -> None:
        if self.audit_fails:
            raise AuditUnavailable
        self.records.append(record)

    def permit(self, beginning: bytes, caller: Passage, decision: Passage) -> None:
        record = b"%b,%b,%b}" % (beginning, caller.text, decision.text)
        self.decision(msgspec.json.decode(record, type=DecisionRecord))

    def lines(self, caller: Caller, route: Route, now: int) -> bytes | None:
        return self.signed

    async def fetch(self, caller: Caller, route: Route, now: int) -> bytes | None:
        return self.fetched

    async def ask(self, target: Route | None = SUPPORT, action: str = "GET", **evidence: Any) -> Any:
        resource = NOWHERE if target is None else Resource("Route", target.name, target)
        request = AccessRequest(
            subject=Evidence(**(evidence or {"handle": DIGEST})),
            resource=resource,
            action=action,
            context=Context(
                request_id="0" * 32, ip="127.0.0.1", host=target.host if target else "x.test", path="/a"
            ),
        )
        answer = self.access.authorize(request)
        self.was_cold = isinstance(answer, Awaitable)
        return await answer if isinstance(answer, Awaitable) else answer
