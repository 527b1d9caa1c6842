"""Sessions on the real store: ids, handles, codes, limits, devices, and what is written down when."""

import asyncio
import hashlib
import os

import pytest

from ztproxy.administrator.audit import AuditUnavailable
from ztproxy.administrator.expiry import REPORTING_DELAY, Expiry
from ztproxy.administrator.locks import Locks
from ztproxy.administrator.sessions import (
    CODE_LIFETIME,
    Limits,
    OtherDevice,
    Sessions,
    SignInLocked,
    SignInOverdue,
)
from ztproxy.administrator.standing import SKEW, Standings
from ztproxy.model.subject import Principal
from ztproxy.net.clock import FixedClock
from ztproxy.store.sqlite import SqliteStore
from ztproxy.trust.identity.provider import SignIn

HOST = "support.example"
FLOW = hashlib.sha256(b"flow").hexdigest()
IDLE, ABSOLUTE = 1_800_000, 36_000_000


def sign_in(name="carol", **changes):
    principal = Principal(kind="User", id=f"corp:{name}", name=name.title())
    return SignIn(**{"principal": principal, "provider": "corp", "auth_time": 1_799_999_990_000} | changes)


class World:
    def __init__(self, store, clock):
        self.store, self.clock = store, clock
        self.told = []
        self.full = False
        limits = Limits(idle=IDLE, absolute=ABSOLUTE)
        self.sessions = Sessions(store, clock, os.urandom, self.witness, limits)
        self.expiry = Expiry(store, store, clock.now)
        self.locks = Locks(store, clock, os.urandom, lambda _: None, [])
        self.standings = Standings(store, clock, lambda _: None, ABSOLUTE)

    def witness(self, record):
        if self.full:
            raise AuditUnavailable("full")
        self.told.append(record)

    def events(self):
        return [(record.event, record.session, record.detail) for record in self.told]


@pytest.fixture
async def world(tmp_path):
    clock = FixedClock()
    store = await SqliteStore.open(tmp_path / "ztproxy.db", clock.now)
    yield World(store, clock)
    await store.close()


async def test_a_session_is_found_by_its_handle_on_its_host_only(world):
    session = await world.sessions.start(sign_in(), ip="10.0.0.9", user_agent="Browser" * 100)
    handle = await world.sessions.new_handle(session.id, HOST)
    assert len(handle) == 43
    assert await world.sessions.find(handle, HOST) == session
    assert await world.sessions.find(handle, "wiki.example") is None
    assert await world.sessions.find(handle[:-1] + ("B" if handle.endswith("A") else "A"), HOST) is None
    assert (session.ip, len(session.user_agent), session.provider) == ("10.0.0.9", 256, "corp")


async def test_only_digests_of_handles_and_codes_are_stored(world):
    session = await world.sessions.start(sign_in())
    handle = await world.sessions.new_handle(session.id, HOST)
    code = await world.sessions.new_code(session.id, HOST, FLOW)
    for kind, secret in (("handle", handle), ("code", code)):
        (stored,) = await world.store.scan(kind)
        assert stored.key == hashlib.sha256(secret.encode()).hexdigest()
        assert secret.encode() not in stored.value
        assert stored.expires_at


async def test_a_session_is_witnessed_before_it_is_usable(world):
    world.full = True
    with pytest.raises(AuditUnavailable):
        await world.sessions.start(sign_in())
    assert await world.store.scan("session") == []


async def test_signing_in_again_ends_the_session_it_replaces_with_all_its_handles(world):
    old = await world.sessions.start(sign_in())
    handles = {host: await world.sessions.new_handle(old.id, host) for host in (HOST, "wiki.example")}
    new = await world.sessions.start(sign_in(), replaces=old.id)
    assert new.id != old.id
    for host, handle in handles.items():
        assert await world.sessions.find(handle, host) is None
    assert world.events() == [
        ("started", old.id, "provider corp"),
        ("started", new.id, "provider corp"),
        ("ended", old.id, "signed in again"),
    ]
    assert world.told[0].principal == "User::corp:carol"


async def test_a_new_handle_drops_the_one_it_replaces(world):
    session = await world.sessions.start(sign_in())
    first = await world.sessions.new_handle(session.id, HOST)
    second = await world.sessions.new_handle(session.id, HOST, drops=first)
    assert await world.sessions.find(first, HOST) is None
    assert await world.sessions.find(second, HOST) == session


async def test_idle_and_absolute_limits(world):
    session = await world.sessions.start(sign_in())
    handle = await world.sessions.new_handle(session.id, HOST)
    for _ in range(ABSOLUTE // (IDLE // 2) - 1):
        world.clock.advance(IDLE / 2000)
        await world.sessions.touch({session.id: world.clock.now()})
        assert await world.sessions.find(handle, HOST)
    world.clock.advance(IDLE / 2000)
    assert await world.sessions.find(handle, HOST) is None, "the absolute limit does not move"


async def test_an_idle_session_is_over_and_stays_over(world):
    session = await world.sessions.start(sign_in())
    handle = await world.sessions.new_handle(session.id, HOST)
    world.clock.advance(IDLE / 1000 - 0.001)
    assert await world.sessions.find(handle, HOST)
    world.clock.advance(0.001)
    assert await world.sessions.find(handle, HOST) is None
    await world.sessions.touch({session.id: world.clock.now(), "ses_unknown": world.clock.now()})
    assert await world.sessions.find(handle, HOST) is None
    with pytest.raises(LookupError):
        await world.sessions.new_handle(session.id, HOST)
    assert await world.sessions.bind_device(session.id, "dev_a", world.clock.now()) is None


async def test_an_older_report_of_use_changes_nothing(world):
    session = await world.sessions.start(sign_in())
    await world.sessions.touch({session.id: world.clock.now() - 5000})
    assert (await world.sessions.get(session.id)).last_seen_at == session.last_seen_at


async def test_uses_are_written_once_in_a_quarter_of_the_idle_limit(world):
    session = await world.sessions.start(sign_in())
    before, began = await world.store.head(), world.clock.now()
    for _ in range(4 * 60):  # two hours of a use every half minute, told by two workers
        world.clock.advance(30)
        for _ in range(2):
            assert await world.sessions.touch({session.id: world.clock.now()}) == []
    assert await world.store.head() - before == (world.clock.now() - began) // (IDLE // 4)
    assert (await world.sessions.get(session.id)).ended_at == 0


async def test_uses_that_can_not_be_written_are_named(world):
    session = await world.sessions.start(sign_in())
    await world.store.close()
    uses = {session.id: world.clock.now(), "ses_other": world.clock.now()}
    assert sorted(await world.sessions.touch(uses)) == sorted(uses)


async def test_ending_works_once_and_even_when_the_audit_does_not(world):
    session = await world.sessions.start(sign_in())
    handle = await world.sessions.new_handle(session.id, HOST)
    world.full = True
    with pytest.raises(AuditUnavailable):
        await world.sessions.end(session.id, "cut by ada")
    assert await world.sessions.find(handle, HOST) is None
    world.full = False
    assert not await world.sessions.end(session.id, "sign-out")
    assert (await world.sessions.get(session.id)).ended_by == "cut by ada"
    assert not await world.sessions.end("ses_unknown", "sign-out")


async def test_ended_sessions_are_kept_for_the_review_and_then_go(world):
    session = await world.sessions.start(sign_in())
    await world.sessions.end(session.id, "sign-out")
    world.clock.advance(89 * 86400)
    assert [s.id for s in await world.sessions.list(ended=True)] == [session.id]
    assert await world.sessions.list() == []
    world.clock.advance(2 * 86400)
    assert await world.sessions.list(ended=True) == []


async def test_the_sweep_marks_sessions_whose_time_is_over(world):
    idle = await world.sessions.start(sign_in())
    world.clock.advance(IDLE / 1000)
    assert await world.expiry.sweep(world.sessions) == 0, "workers may still report a use"
    world.clock.advance(REPORTING_DELAY / 1000)
    live = await world.sessions.start(sign_in("dave"))
    assert await world.expiry.sweep(world.sessions) == 1
    assert (await world.sessions.get(idle.id)).ended_by == "expired"
    assert [s.id for s in await world.sessions.list()] == [live.id]
    assert await world.expiry.sweep(world.sessions) == 0


async def test_listing_goes_on_after_a_key(world):
    ids = sorted([(await world.sessions.start(sign_in(f"p{n}"))).id for n in range(7)])
    page = [s.id for s in await world.sessions.list(limit=3)]
    rest = [s.id for s in await world.sessions.list(after=page[-1])]
    assert page + rest == ids


async def test_a_code_hands_over_once_to_its_host_and_browser(world):
    session = await world.sessions.start(sign_in())
    code = await world.sessions.new_code(session.id, HOST, FLOW)
    assert await world.sessions.redeem(code, HOST, FLOW) == session
    assert await world.sessions.redeem(code, HOST, FLOW) is None


@pytest.mark.parametrize(("host", "flow"), [("wiki.example", FLOW), (HOST, "0" * 64), (HOST, ""), ("", FLOW)])
async def test_a_code_in_the_wrong_place_is_spent(world, host, flow):
    session = await world.sessions.start(sign_in())
    code = await world.sessions.new_code(session.id, HOST, FLOW)
    assert await world.sessions.redeem(code, host, flow) is None
    assert await world.sessions.redeem(code, HOST, FLOW) is None


async def test_of_many_who_redeem_at_once_one_succeeds(world):
    session = await world.sessions.start(sign_in())
    code = await world.sessions.new_code(session.id, HOST, FLOW)
    results = await asyncio.gather(*[world.sessions.redeem(code, HOST, FLOW) for _ in range(8)])
    assert [r for r in results if r] == [session]


async def test_a_code_is_good_for_a_minute_and_not_after_the_session(world):
    session = await world.sessions.start(sign_in())
    late = await world.sessions.new_code(session.id, HOST, FLOW)
    world.clock.advance(CODE_LIFETIME / 1000)
    assert await world.sessions.redeem(late, HOST, FLOW) is None
    code = await world.sessions.new_code(session.id, HOST, FLOW)
    await world.sessions.end(session.id, "sign-out")
    assert await world.sessions.redeem(code, HOST, FLOW) is None


async def test_the_first_device_binds_the_session(world):
    session = await world.sessions.start(sign_in())
    first = world.clock.now()
    assert (await world.sessions.bind_device(session.id, "dev_a", first)).device_id == "dev_a"
    world.clock.advance(60)
    again = await world.sessions.bind_device(session.id, "dev_a", world.clock.now())
    assert again.device_proved_at == first + 60_000
    with pytest.raises(OtherDevice):
        await world.sessions.bind_device(session.id, "dev_b", world.clock.now())
    assert [record.device for record in world.told if record.event == "device-bound"] == ["dev_a"]


async def test_no_device_is_bound_unseen(world):
    session = await world.sessions.start(sign_in())
    world.full = True
    with pytest.raises(AuditUnavailable):
        await world.sessions.bind_device(session.id, "dev_a", world.clock.now())
    assert (await world.sessions.get(session.id)).device_id == ""


async def test_changes_at_once_are_all_kept(world):
    session = await world.sessions.start(sign_in())
    now = world.clock.now()
    await asyncio.gather(
        world.sessions.bind_device(session.id, "dev_a", now),
        *[world.sessions.touch({session.id: now + step * (IDLE // 4)}) for step in range(1, 3)],
    )
    kept = await world.sessions.get(session.id)
    assert (kept.device_id, kept.last_seen_at) == ("dev_a", now + IDLE // 2)


async def test_an_auth_time_in_the_future_is_now(world):
    session = await world.sessions.start(sign_in(auth_time=world.clock.now() + 10_000))
    assert session.auth_time == world.clock.now()


# ------------------------------------------------------------------ locks, and ends of many sessions


@pytest.mark.parametrize(
    ("target", "value"), [("user", "corp:carol"), ("issuer", "corp"), ("session", ""), ("device", "dev_1")]
)
async def test_a_locked_session_is_none_here_until_the_lock_is_gone(world, target, value):
    session = await world.sessions.start(sign_in())
    await world.sessions.bind_device(session.id, "dev_1", world.clock.now())
    handle = await world.sessions.new_handle(session.id, HOST)
    code = await world.sessions.new_code(session.id, HOST, FLOW)
    other = await world.sessions.start(sign_in("dave", provider="partner"))
    lock = await world.locks.add(target, value or session.id, "r", "root")
    world.clock.advance(1)
    assert await world.sessions.find(handle, HOST) is None
    assert await world.sessions.redeem(code, HOST, FLOW) is None
    assert await world.sessions.bind_device(session.id, "dev_1", world.clock.now()) is None
    with pytest.raises(LookupError):
        await world.sessions.new_handle(session.id, HOST)
    assert await world.sessions.live(other.id)
    await world.locks.remove(lock.id, "root")
    world.clock.advance(1)
    assert await world.sessions.live(session.id)


@pytest.mark.parametrize(("target", "value"), [("user", "corp:carol"), ("issuer", "corp")])
async def test_who_is_locked_starts_no_session_and_the_attempt_is_on_record(world, target, value):
    lock = await world.locks.add(target, value, "r", "root")
    with pytest.raises(SignInLocked):
        await world.sessions.start(sign_in())
    assert await world.store.scan("session") == []
    assert [(event, detail) for event, _, detail in world.events()] == [("refused", f"locked: {lock.id}")]
    assert await world.sessions.start(sign_in("dave", provider="partner"))


async def test_a_locked_device_is_bound_to_nobody(world):
    session = await world.sessions.start(sign_in())
    await world.locks.add("device", "dev_1", "r", "root")
    world.clock.advance(1)
    assert await world.sessions.bind_device(session.id, "dev_1", world.clock.now()) is None
    assert (await world.sessions.get(session.id)).device_id == ""


async def test_all_sessions_of_somebody_end_at_once_and_the_review_says_why(world):
    before = await world.sessions.start(sign_in())
    other = await world.sessions.start(sign_in("carol2"))
    handle = await world.sessions.new_handle(before.id, HOST)
    await world.standings.end_sessions("user", "corp:carol", "cut by root")
    assert await world.sessions.find(handle, HOST) is None
    with pytest.raises(SignInOverdue) as overdue:  # clocks of nodes differ: it may have been begun before
        await world.sessions.start(sign_in(began=world.clock.now()))
    assert overdue.value.until == world.clock.now() + SKEW
    after = await world.sessions.start(sign_in(began=overdue.value.until))
    assert await world.sessions.live(after.id), "who signs in again is in"
    assert await world.expiry.sweep(world.sessions) == 1
    ended = {one.id: one.ended_by for one in await world.sessions.list(ended=True)}
    assert ended == {before.id: "cut by root", other.id: "", after.id: ""}
    assert world.events()[-1] == ("ended", before.id, "cut by root")


@pytest.mark.parametrize(("person", "device"), [("corp:carol", "dev_1"), ("corp:dave", "dev_2"), ("", "")])
@pytest.mark.parametrize("target", ["user", "device", "session"])
async def test_a_wrong_guess_hides_no_standing_and_brings_nobody_elses(world, target, person, device):
    session = await world.sessions.start(sign_in())
    await world.sessions.bind_device(session.id, "dev_1", world.clock.now())
    await world.standings.end_sessions("user", "corp:dave", "root")
    await world.standings.end_sessions("device", "dev_2", "root")
    assert await world.sessions.live(session.id, person=person, device=device)
    value = {"user": "corp:carol", "device": "dev_1", "session": session.id}[target]
    await world.standings.end_sessions(target, value, "root")
    assert await world.sessions.live(session.id, person=person, device=device) is None


async def test_a_session_that_was_guessed_right_takes_one_way_to_the_store(world, monkeypatch):
    session = await world.sessions.start(sign_in())
    session = await world.sessions.bind_device(session.id, "dev_1", world.clock.now())
    assert await world.sessions.live(session.id)  # locks are read
    ways = []
    call = world.store._reader.call
    monkeypatch.setattr(
        type(world.store._reader), "call", lambda _, *args: ways.append(args[0]) or call(*args)
    )
    assert await world.sessions.live(session.id, person="corp:carol", device="dev_1") == session
    assert len(ways) == 1
    assert await world.sessions.live(session.id) == session
    assert len(ways) == 3


async def test_a_node_whose_clock_is_ahead_keeps_no_session_alive(world):
    world.clock.ms += 1500
    session = await world.sessions.start(sign_in())
    world.clock.ms -= 1500
    await world.standings.end_sessions("user", "corp:carol", "root")
    assert await world.sessions.live(session.id) is None
