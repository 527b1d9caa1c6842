"""The door for connectors: who gets in to carry, and what ends it, under real policies."""

from typing import Any

import msgspec
import pytest
from door_fakes import CAROL, DIGEST, NOW, STATUS, SUPPORT, WORKLOAD, Lines, Opened, Recorder, World, route
from msgspec.structs import replace

from ztproxy.administrator.access import Access
from ztproxy.administrator.paths import Paths
from ztproxy.model.connector import Connector
from ztproxy.model.decision import Refusal
from ztproxy.model.messages import Changed
from ztproxy.model.permit import Permit
from ztproxy.model.route import Route
from ztproxy.model.standing import Lock
from ztproxy.policy.load import PolicyProblems, load
from ztproxy.policy.routes import RouteTable
from ztproxy.trust.gather import Gatherer

CARRY = route("ztproxy-connectors", carries=True, client_certificate="required")
PORTAL = route("portal", portal=True)
SITE = Connector(name="site", instance="a" * 13, spki="s")
CERTIFICATE = replace(
    WORKLOAD,
    kind="connector",
    bundle="connectors",
    subject=f"spiffe://t/connector/{SITE.key}",
    fingerprint="f3",
)
GUARD = '@id("no-robots") forbid (principal is Workload, action, resource);'


class Carrying(World):
    """A door behind which connectors dial in, and live paths."""

    def __init__(self, policies: str = GUARD) -> None:
        super().__init__()
        self.cut: list[str] = []
        self.access = Access(
            policies=load([("p.cedar", policies)], [SUPPORT, STATUS, PORTAL, CARRY], engine="verify"),
            gatherer=Gatherer(self.memory, groups={}, feed_limit=10_000, connectors=CARRY.host),
            recorder=Recorder(self),
            identities=Lines(self),
            sync=self.sync,
            touched=self.touched.append,
            clock=self.clock,
        )
        self.paths = Paths(self.access, self.clock.now, self.clock.monotonic, lambda: None)
        self.put("connector", SITE.key, SITE)

    async def dial(self, **evidence: Any) -> Permit | Refusal:
        found: Permit | Refusal = await self.ask(CARRY, **{"certificate": CERTIFICATE, **evidence})
        return found

    async def carry(self) -> None:
        permit = await self.dial()
        assert isinstance(permit, Permit)
        self.paths.open(Opened(permit, self.cut.append))

    def happens(self, kind: str, key: str, value: Any) -> None:
        """The feed tells of a change, and the paths concerned are decided again."""

        encoded = None if value is None else msgspec.msgpack.encode(value)
        concerns = self.memory.apply(Changed(version=2, kind=kind, key=key, value=encoded))
        self.paths.changed(concerns)
        while self.paths.step():
            pass


@pytest.fixture
def world() -> Carrying:
    return Carrying()


async def test_an_enrolled_connector_gets_in_whatever_policies_say_of_applications(world: Carrying) -> None:
    permit = await world.dial()
    assert isinstance(permit, Permit)
    assert permit.expires_at == CERTIFICATE.not_after
    assert permit.principal_id == CERTIFICATE.subject
    (record,) = world.records
    assert (record.allow, record.policies) == (True, ("ztproxy-connectors",))
    assert record.principal == f"Workload::{CERTIFICATE.subject}"


async def test_policies_that_name_the_place_concern_it() -> None:
    policies = '@id("lan") forbid (principal, action, resource == Route::"ztproxy-connectors");'
    assert (await Carrying(policies).dial()).code == "access-denied"  # type: ignore[union-attr]


async def test_nobody_else_gets_in_even_if_a_policy_says_so() -> None:
    world = Carrying('@id("all") permit (principal, action, resource == Route::"ztproxy-connectors");')
    for evidence in ({"certificate": WORKLOAD}, {"certificate": None}):
        refusal = await world.dial(**evidence)
        assert isinstance(refusal, Refusal)
        assert refusal.code == "certificate-unsuitable"
    refusal = await world.dial(handle=DIGEST, certificate=None)
    assert isinstance(refusal, Refusal), "a cookie of another host"


async def test_a_connector_is_no_caller_of_applications_and_of_the_portal() -> None:
    world = Carrying('@id("all") permit (principal, action, resource);')
    for target in (SUPPORT, STATUS, PORTAL):
        refusal = await world.ask(target, certificate=CERTIFICATE)
        assert isinstance(refusal, Refusal)
        assert refusal.code == "certificate-unsuitable"


async def test_who_is_enrolled_this_moment_is_waited_for(world: Carrying) -> None:
    world.put("connector", SITE.key, None)
    world.coming = [("connector", SITE.key, SITE)]
    assert isinstance(await world.dial(), Permit)
    assert world.was_cold
    world.put("connector", SITE.key, None)
    world.coming = []
    refusal = await world.dial()
    assert isinstance(refusal, Refusal)
    assert refusal.code == "connector-not-enrolled"


@pytest.mark.parametrize("how", ["revoked", "another key", "forgotten"])
async def test_a_change_of_its_record_cuts_what_it_carries(world: Carrying, how: str) -> None:
    await world.carry()
    after = {
        "revoked": replace(SITE, revoked_at=NOW),
        "another key": replace(SITE, spki="t"),
        "forgotten": None,
    }
    world.happens("connector", "other/" + "a" * 13, SITE)
    assert world.cut == []
    world.happens("connector", SITE.key, after[how])
    assert world.cut == ["connector-not-enrolled"]
    assert isinstance(await world.dial(), Refusal)


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("workload", CERTIFICATE.subject),
        ("workload", "spiffe://t/connector/site"),
        ("issuer", "connectors"),
        ("credential", CERTIFICATE.fingerprint),
        ("route", CARRY.name),
    ],
)
async def test_locks_cut_it_and_keep_it_out(world: Carrying, target: str, value: str) -> None:
    await world.carry()
    world.happens("lock", "lck_1", Lock("lck_1", target, value, "lost", NOW, "ops"))
    assert world.cut == ["locked"]
    refusal = await world.dial()
    assert isinstance(refusal, Refusal)
    assert refusal.code == "locked"


async def test_locks_on_others_leave_it_alone(world: Carrying) -> None:
    await world.carry()
    for number, (target, value) in enumerate(
        [("workload", "spiffe://t/connector/sit"), ("device", "a" * 13), ("user", CAROL.id)]
    ):
        world.happens("lock", f"lck_{number}", Lock(f"lck_{number}", target, value, "x", NOW, "ops"))
    assert world.cut == []


async def test_the_end_of_its_certificate_ends_it(world: Carrying) -> None:
    await world.carry()
    world.paths.pulse()
    world.clock.advance(1001)
    world.memory.heard(2)
    world.paths.pulse()
    while world.paths.step():
        pass
    assert world.cut == ["expired"]


def test_its_place_is_one_path_of_one_host() -> None:
    table = RouteTable([SUPPORT, PORTAL, CARRY], PORTAL)
    assert table.match(CARRY.host, "/.ztproxy/carry").route == CARRY
    assert table.match(CARRY.host, "/.ztproxy/carry/site").route == CARRY, "where nodes borrow"
    for path in ("/", "/.ztproxy/carryx", "/.ztproxy/login", "/.ztproxy/", "/a", "*"):
        assert table.match(CARRY.host, path).route is None
    assert table.match(SUPPORT.host, "/.ztproxy/carry").route == PORTAL
    with pytest.raises(ValueError, match="belongs to connectors"):
        RouteTable([SUPPORT.replaced(host=CARRY.host), CARRY], PORTAL)
    with pytest.raises(ValueError, match="belongs to connectors"):
        RouteTable([CARRY, PORTAL], PORTAL.replaced(host=CARRY.host))


def named(name: str, app: str) -> Route:
    return SUPPORT.replaced(name=name, app=app)


@pytest.mark.parametrize(
    "wrong", [named(CARRY.name, "x"), named("x", CARRY.name), CARRY.replaced(name="carry")]
)
def test_no_other_route_has_its_name(wrong: Route) -> None:
    with pytest.raises(PolicyProblems, match="the connectors' name"):
        load([("p.cedar", GUARD)], [wrong, PORTAL])


def test_a_set_without_connectors_is_what_it_was() -> None:
    policies = load([("p.cedar", GUARD)], [SUPPORT, PORTAL])
    assert [policy.id for policy in policies.policies] == ["no-robots", "ztproxy-portal"]
