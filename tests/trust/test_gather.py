"""Who asks: from memory, for this host, now. Anything doubtful is a refusal or a question, never a guess."""

import hashlib
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from ztproxy.model.connector import Connector
from ztproxy.model.messages import Changed
from ztproxy.model.request import ClientCertificate, Evidence
from ztproxy.model.standing import Lock, Standing
from ztproxy.model.subject import Device, Facts, Handle, Posture, Principal, Session
from ztproxy.net.clock import FixedClock
from ztproxy.trust.caller import NOBODY, Caller, Locked
from ztproxy.trust.gather import COLD, TOUCH_SELDOM, Gatherer, told_after
from ztproxy.trust.memory import Memory

NOW = 1_800_000_000_000
COOKIE = "c" * 43
DIGEST = hashlib.sha256(COOKIE.encode()).hexdigest()
CAROL = Principal(kind="User", id="t:carol", name="Carol", groups=("contractors",))
SESSION = Session(
    id="ses_1",
    principal=CAROL,
    provider="t",
    created_at=NOW - 1000,
    auth_time=NOW - 1000,
    last_seen_at=NOW - 1000,
    expires_at=NOW + 3_600_000,
    idle_limit=600_000,
    device_id="dev_1",
    device_proved_at=NOW - 500,
)
DEVICE = Device(id="dev_1", name="laptop", spki="aa")
POSTURE = Posture(device_id="dev_1", reported_at=NOW - 100, seq=1, source="a", level="self", healthy=True)
CERTIFICATE = ClientCertificate(
    kind="device",
    bundle="devices",
    subject="spiffe://t/device/dev_1",
    fingerprint="f1",
    spki="aa",
    not_before=NOW - 10,
    not_after=NOW + 1_000_000,
    serial="01",
)
WORKLOAD = replace(CERTIFICATE, kind="workload", bundle="w", subject="spiffe://t/ci", fingerprint="f2")


class World:
    def __init__(self) -> None:
        self.clock = FixedClock(ms=NOW)
        self.memory = Memory(self.clock.monotonic)
        self.gatherer = Gatherer(self.memory, groups={"spiffe://t/ci": ("deployers",)}, feed_limit=10_000)
        self.put("session", "ses_1", SESSION)
        self.put("handle", DIGEST, Handle(session_id="ses_1", host="app.test", created_at=NOW))
        self.put("device", "dev_1", DEVICE)
        self.put("posture", "dev_1", POSTURE)
        self.memory.heard(1)

    def put(self, kind: str, key: str, value: Any) -> None:
        self.memory.apply(
            Changed(
                version=1,
                kind=kind,
                key=key,
                value=None if value is None else msgspec.msgpack.encode(value),
            )
        )

    def gather(self, host: str = "app.test", **evidence: Any) -> Any:
        return self.gatherer.gather(Evidence(**{"handle": DIGEST, **evidence}), host, self.clock.now())


@pytest.fixture
def world() -> World:
    return World()


def test_a_warm_session_is_gathered_with_its_device_and_posture(world: World) -> None:
    caller = world.gather()
    assert isinstance(caller, Caller)
    facts = caller.facts
    assert (facts.principal, facts.session, facts.device, facts.posture) == (CAROL, SESSION, DEVICE, POSTURE)
    assert (facts.device_proof, facts.device_proved_at, facts.feed_age) == ("agent", NOW - 500, 0)
    assert world.gather() is caller, "warm facts are not made again"


def test_no_credentials_is_nobody_and_an_unknown_cookie_asks_first(world: World) -> None:
    assert world.gather(handle=None) is NOBODY
    assert world.gather(handle="x" * 43) is COLD
    world.put("session", "ses_1", None)
    assert world.gather() == "session-ended"


@pytest.mark.parametrize(
    "session",
    [
        replace(SESSION, ended_at=NOW - 1),
        replace(SESSION, expires_at=NOW),
        replace(SESSION, last_seen_at=NOW - 600_000),
    ],
    ids=["ended", "absolute limit", "idle limit"],
)
def test_a_session_that_is_over_is_over(world: World, session: Session) -> None:
    assert isinstance(world.gather(), Caller)
    world.put("session", "ses_1", session)
    assert world.gather() == "session-ended"


QUARTER = 150_000  # of the idle limit of SESSION
USER = Caller(Facts(principal=SESSION.principal, session=SESSION))


def test_use_keeps_an_idle_session_alive_and_is_reported_now_and_then(world: World) -> None:
    assert not world.gatherer.touch(USER, NOW)
    world.clock.ms = SESSION.last_seen_at + QUARTER - 1
    assert not world.gatherer.touch(USER, world.clock.now())
    world.clock.ms = NOW + QUARTER
    assert world.gatherer.touch(USER, world.clock.now())
    assert not world.gatherer.touch(USER, world.clock.now())
    world.clock.ms = NOW + 610_000
    assert isinstance(world.gather(), Caller)
    world.clock.ms = NOW + QUARTER + 600_000
    assert world.gather() == "session-ended"


@pytest.mark.parametrize(
    ("idle", "told"), [(1_800_000, 450_000), (60_000, 30_000), (40_000, 20_000), (0, TOUCH_SELDOM)]
)
def test_how_often_uses_are_told_follows_the_idle_limit(idle: int, told: int) -> None:
    assert told_after(idle) == told


def test_a_cookie_is_good_for_its_own_host_only(world: World) -> None:
    assert world.gather(host="other.test") == "session-ended"


def test_a_silent_feed_closes_the_door_for_sessions(world: World) -> None:
    world.clock.seconds += 5
    caller = world.gather()
    assert isinstance(caller, Caller)
    assert caller.facts.feed_age == 5000, "policies are told"
    world.clock.seconds += 5.1
    assert world.gather() == "facts-unavailable"
    world.memory.heard(1)
    assert world.gather().facts.feed_age == 0


def test_every_change_is_seen_at_once(world: World) -> None:
    world.gather()
    world.put("posture", "dev_1", replace(POSTURE, healthy=False))
    assert world.gather().facts.posture.healthy is False
    world.put("posture", "dev_1", None)
    assert world.gather().facts.posture is None
    world.put("device", "dev_1", replace(DEVICE, revoked_at=NOW))
    facts = world.gather().facts
    assert (facts.device, facts.posture, facts.device_proof) == (None, None, "")


def test_a_device_certificate_is_a_proof_of_its_own(world: World) -> None:
    world.put("session", "ses_1", replace(SESSION, device_id="", device_proved_at=0))
    assert world.gather().facts.device is None
    facts = world.gather(certificate=CERTIFICATE).facts
    assert (facts.device, facts.device_proof) == (DEVICE, "mtls")
    assert NOW - facts.device_proved_at <= 5000


@pytest.mark.parametrize(
    "certificate",
    [
        replace(CERTIFICATE, subject="spiffe://t/device/dev_2"),
        replace(CERTIFICATE, subject="spiffe://t/device/dev_9"),
        replace(CERTIFICATE, spki="bb"),
    ],
    ids=["another device", "an unknown device", "another key"],
)
def test_a_session_does_not_move_to_another_device(world: World, certificate: ClientCertificate) -> None:
    world.put("device", "dev_2", replace(DEVICE, id="dev_2"))
    assert world.gather(certificate=certificate) == "device-mismatch"


@pytest.mark.parametrize("device_id", ["", "dev_1"], ids=["no device yet", "bound to it"])
def test_a_device_certificate_proves_nothing_for_anybody_but_its_owner(world: World, device_id: str) -> None:
    world.put("session", "ses_1", replace(SESSION, device_id=device_id))
    world.put("device", "dev_1", replace(DEVICE, owner="t:adam"))
    assert world.gather(certificate=CERTIFICATE) == "device-mismatch"
    world.put("device", "dev_1", replace(DEVICE, owner=CAROL.id))
    assert isinstance(world.gather(certificate=CERTIFICATE), Caller)


@pytest.mark.parametrize("kind", [CERTIFICATE, WORKLOAD])
def test_a_certificate_is_checked_against_the_clock_at_every_request(
    world: World, kind: ClientCertificate
) -> None:
    handle = DIGEST if kind is CERTIFICATE else None
    assert isinstance(world.gather(handle=handle, certificate=kind), Caller)
    world.clock.ms = kind.not_after
    assert world.gather(handle=handle, certificate=kind) == "certificate-expired"
    world.clock.ms = kind.not_before - 1
    assert world.gather(handle=handle, certificate=kind) == "certificate-expired"


def test_a_workload_is_its_certificate(world: World) -> None:
    caller = world.gather(handle=None, certificate=WORKLOAD)
    principal = caller.facts.principal
    assert (principal.kind, principal.id, principal.issuer) == ("Workload", "spiffe://t/ci", "w")
    assert principal.groups == ("deployers",)
    assert caller.facts.certificate_expires_at == WORKLOAD.not_after
    assert world.gather(handle=None, certificate=WORKLOAD) is caller
    other = world.gather(handle=None, certificate=replace(WORKLOAD, subject="spiffe://t/x", fingerprint="f3"))
    assert other.facts.principal.groups == ()


def test_two_credentials_at_once_are_refused(world: World) -> None:
    assert world.gather(certificate=WORKLOAD) == "credentials-conflict"


def _later(world: World, *, ms: int = 0, seconds: float = 0.0) -> None:
    world.clock.ms += ms
    world.clock.seconds += seconds


OTHER_DEVICE = replace(DEVICE, id="dev_2")


def _without_posture(world: World) -> Memory:
    fresh = world.memory.another()
    fresh.sessions, fresh.handles = dict(world.memory.sessions), dict(world.memory.handles)
    fresh.devices = dict(world.memory.devices)
    return fresh


HAPPENS = {
    "the session ends": lambda world: world.put("session", "ses_1", None),
    "the session is another": lambda world: world.put("session", "ses_1", replace(SESSION, acr="high")),
    "its limit is over": lambda world: _later(world, ms=3_600_000),
    "it was idle": lambda world: _later(world, ms=600_000),
    "another device": lambda world: world.put("session", "ses_1", replace(SESSION, device_id="dev_2")),
    "no device": lambda world: world.put("session", "ses_1", replace(SESSION, device_id="")),
    "the device is revoked": lambda world: world.put("device", "dev_1", replace(DEVICE, revoked_at=NOW)),
    "the device is gone": lambda world: world.put("device", "dev_1", None),
    "unhealthy": lambda world: world.put("posture", "dev_1", replace(POSTURE, healthy=False)),
    "no report": lambda world: world.put("posture", "dev_1", None),
    "the cookie ends": lambda world: world.put("handle", DIGEST, None),
    "the cookie moves": lambda world: world.put("handle", DIGEST, Handle("ses_1", "other.test", NOW)),
    "the cookie is another session's": lambda world: world.put("handle", DIGEST, Handle("s", "app.test", 0)),
    "the session is locked": lambda world: world.put(
        "lock", "l", Lock("l", "session", "ses_1", "", NOW, "x")
    ),
    "the person is risky": lambda world: world.put(
        "standing", "user:t:carol", Standing("user", "t:carol", risk="high", risk_at=NOW)
    ),
    "all sessions before now end": lambda world: world.put(
        "standing", "user:t:carol", Standing("user", "t:carol", ended_before=NOW + 1)
    ),
    "it is in no snapshot any more": lambda world: world.memory.become(_without_posture(world)),
    "the feed is quiet": lambda world: _later(world, seconds=2.6),
    "the feed is silent": lambda world: _later(world, seconds=10.1),
}


@pytest.mark.parametrize("name", HAPPENS)
@pytest.mark.parametrize("before", [{}, {"certificate": CERTIFICATE}], ids=["cookie", "certificate"])
@pytest.mark.parametrize("after", [{}, {"certificate": CERTIFICATE}], ids=["cookie", "certificate"])
@pytest.mark.parametrize("host", ["app.test", "other.test"])
def test_who_was_gathered_before_is_gathered_as_if_for_the_first_time(
    world: World, name: str, before: dict[str, Any], after: dict[str, Any], host: str
) -> None:
    world.put("device", "dev_2", OTHER_DEVICE)
    for evidence in (before, after, before):
        assert isinstance(world.gather(**evidence), Caller)
    HAPPENS[name](world)
    warm = world.gather(host, **after)
    world.gatherer = Gatherer(world.memory, groups={}, feed_limit=10_000)
    first = world.gather(host, **after)
    assert type(warm) is type(first)
    if isinstance(first, Caller):
        assert (warm.facts, warm.session_id) == (first.facts, first.session_id)
    elif isinstance(first, str):
        assert warm == first


def test_who_is_known_is_looked_at_once_more_after_any_change_and_no_more_often(world: World) -> None:
    caller = world.gather()
    assert isinstance(caller, Caller)
    assert world.gather() is caller
    assert caller.looked == world.memory.changed
    world.put("session", "ses_2", replace(SESSION, id="ses_2"))
    assert caller.looked != world.memory.changed
    assert world.gather() is caller
    assert caller.looked == world.memory.changed
    world.memory.become(_without_posture(world))
    assert caller.looked != world.memory.changed


def test_a_feed_limit_shorter_than_its_beats_holds_for_who_is_known_too(world: World) -> None:
    world.gatherer = Gatherer(world.memory, groups={}, feed_limit=1000)
    assert isinstance(world.gather(), Caller)
    _later(world, seconds=1.1)
    assert world.gather() == "facts-unavailable"


# ---------------------------------------------------------------------- connectors

CONNECT = "connect.test"
ENROLLED = Connector(name="site", instance="a" * 13, spki="cc", enrolled_at=NOW)
CARRIES = replace(
    CERTIFICATE,
    kind="connector",
    bundle="connectors",
    subject=f"spiffe://t/connector/{ENROLLED.key}",
    fingerprint="f3",
    spki="cc",
)


@pytest.fixture
def site(world: World) -> World:
    world.gatherer = Gatherer(world.memory, groups={}, feed_limit=10_000, connectors=CONNECT)
    world.put("connector", ENROLLED.key, ENROLLED)
    return world


def carries(world: World, host: str = CONNECT, **changes: Any) -> Any:
    return world.gather(host, **{"handle": None, "certificate": CARRIES, **changes})


def test_an_enrolled_connector_is_a_workload_in_no_group(site: World) -> None:
    facts = carries(site).facts
    assert facts.principal == Principal(
        kind="Workload", id=CARRIES.subject, issuer="connectors", name=CARRIES.subject
    )
    assert facts.certificate_expires_at == CARRIES.not_after
    assert (facts.session, facts.device) == (None, None)


def test_a_connector_is_nobody_anywhere_else(site: World) -> None:
    assert carries(site, "app.test") == "certificate-unsuitable"
    assert carries(site, "app.test", handle=DIGEST) == "certificate-unsuitable"
    site.gatherer = Gatherer(site.memory, groups={}, feed_limit=10_000)
    assert carries(site) == "certificate-unsuitable", "no section, no place"
    assert carries(site, "") == "certificate-unsuitable"


def test_nobody_else_is_anybody_where_connectors_dial_in(site: World) -> None:
    site.gatherer = Gatherer(
        site.memory, groups={"spiffe://t/ci": ("g",)}, feed_limit=10_000, connectors=CONNECT
    )
    for certificate in (CERTIFICATE, WORKLOAD, replace(WORKLOAD, subject=CARRIES.subject)):
        assert carries(site, certificate=certificate) == "certificate-unsuitable"
    assert carries(site, certificate=None) == "certificate-unsuitable"
    assert carries(site, handle=DIGEST) == "credentials-conflict"


@pytest.mark.parametrize(
    "subject",
    [
        "spiffe://t/connector/site",
        "spiffe://t/device/site/" + "a" * 13,
        "spiffe://t/connector/other/" + "a" * 13,
        f"spiffe://t/x/connector/{ENROLLED.key}",
    ],
)
def test_a_certificate_of_another_name_is_not_this_connector(site: World, subject: str) -> None:
    found = carries(site, certificate=replace(CARRIES, subject=subject))
    assert found in (COLD, "certificate-unsuitable")


def test_a_connector_is_known_revoked_replaced_or_unknown(site: World) -> None:
    assert carries(site, certificate=replace(CARRIES, spki="dd")) == "connector-not-enrolled"
    site.put("connector", ENROLLED.key, replace(ENROLLED, revoked_at=NOW))
    assert carries(site) == "connector-not-enrolled"
    site.put("connector", ENROLLED.key, None)
    assert carries(site) is COLD
    site.clock.advance(11)
    assert carries(site) == "facts-unavailable"
    site.put("connector", ENROLLED.key, ENROLLED)
    assert carries(site) == "facts-unavailable", "it may have been revoked since"
    site.memory.heard(2)
    assert isinstance(carries(site), Caller)


def test_time_ends_a_connectors_certificate(site: World) -> None:
    assert carries(site, certificate=replace(CARRIES, not_after=NOW)) == "certificate-expired"
    assert carries(site, certificate=replace(CARRIES, not_before=NOW + 1)) == "certificate-expired"


def test_a_change_of_a_connector_concerns_its_paths(site: World) -> None:
    value = msgspec.msgpack.encode(ENROLLED)
    change = Changed(version=9, kind="connector", key=ENROLLED.key, value=value)
    assert site.memory.apply(change) == (("connector", ENROLLED.key),)


# ---------------------------------------------------------------------- nodes

NODE = replace(CARRIES, kind="node", bundle="nodes", subject="spiffe://t/node/gw2-443", fingerprint="f4")


def test_another_node_is_a_workload_where_connectors_dial_in_and_nobody_anywhere_else(site: World) -> None:
    facts = carries(site, certificate=NODE).facts
    assert facts.principal == Principal(kind="Workload", id=NODE.subject, issuer="nodes", name=NODE.subject)
    for host in ("app.test", ""):
        assert carries(site, host, certificate=NODE) == "certificate-unsuitable"
        assert carries(site, host, certificate=NODE, handle=DIGEST) == "certificate-unsuitable"
    assert carries(site, certificate=NODE, handle=DIGEST) == "credentials-conflict"
    for subject in ("spiffe://t/node/a/b", "spiffe://t/node", f"spiffe://t/connector/{ENROLLED.key}"):
        assert carries(site, certificate=replace(NODE, subject=subject)) == "certificate-unsuitable"
    assert carries(site, certificate=replace(CARRIES, subject=NODE.subject)) == "certificate-unsuitable"


def test_a_node_is_locked_out_by_its_name_and_refused_when_that_might_not_be_heard(site: World) -> None:
    site.put("lock", "l", Lock("l", "workload", NODE.subject, "", NOW, "x"))
    assert isinstance(carries(site, certificate=NODE), Locked)
    assert isinstance(carries(site), Caller), "nobody else is"
    site.put("lock", "l", None)
    _later(site, seconds=10.1)
    assert carries(site, certificate=NODE) == "facts-unavailable"
