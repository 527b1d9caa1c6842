"""The door and live paths while a provider has to be asked again: who waits, who passes, who is cut."""

import asyncio

import pytest
from door_fakes import NOW, SESSION, SUPPORT, Lines, Recorder, World
from msgspec.structs import replace

from ztproxy.administrator.access import Access
from ztproxy.administrator.freshness import NEVER, SKEW, Line, Rule, confirmed_at, line_of
from ztproxy.administrator.rechecked import Freshness
from ztproxy.model.decision import Refusal
from ztproxy.model.permit import Permit
from ztproxy.model.standing import Standing
from ztproxy.policy.load import load
from ztproxy.trust.gather import Gatherer

MINUTE = 60_000
POLICY = """
@id("support") %s
permit (principal is User, action in Action::"http", resource == Route::"support");
"""


class Asked:
    """The provider's end: what comes of asking is what a test says."""

    def __init__(self, world):
        self.world = world
        self.words = {}
        self.begun = []
        self.asked = []
        self.coming = None
        self.first = {}

    def since(self, session):
        return self.first.get(session.checked_at, NEVER)

    def state(self, session, after, now):
        return self.words.get((session.checked_at, after), "")

    def begin(self, session, after):
        self.begun.append(session.checked_at)
        self.first.setdefault(session.checked_at, after)

    async def ask(self, session, after):
        self.asked.append(session.checked_at)
        await asyncio.sleep(0)
        if self.coming is not None:
            self.coming(session, after)


def world_with(duty='@recheck("10m keep 5m")', rule=Rule()):  # noqa: B008
    world = World()
    world.rechecks = Asked(world)
    world.access = Access(
        policies=load([("p.cedar", POLICY % duty)], [SUPPORT], engine="verify"),
        gatherer=Gatherer(world.memory, groups={}, feed_limit=10**9),
        recorder=Recorder(world),
        identities=Lines(world),
        sync=world.sync,
        touched=world.touched.append,
        clock=world.clock,
        freshness=Freshness(world.rechecks, rule),
    )
    world.put("session", "ses_1", replace(SESSION, checked_at=NOW, expires_at=NOW + 10**9))
    return world


def later(world, ms):
    world.clock.advance(ms / 1000)
    world.memory.heard(1)


def comes(world, **changes):
    def come(session, after):
        world.put("session", "ses_1", replace(session, checked_at=world.clock.now(), **changes))

    world.rechecks.coming = come


def keeps(world, word="kept"):
    def come(session, after):
        world.rechecks.words[session.checked_at, after] = word

    world.rechecks.coming = come


async def test_nothing_is_asked_while_it_is_fresh():
    world = world_with()
    later(world, 7 * MINUTE)
    assert isinstance(await world.ask(), Permit)
    assert (world.was_cold, world.rechecks.begun, world.rechecks.asked) == (False, [], [])


async def test_it_is_asked_ahead_and_nobody_waits():
    world = world_with()
    later(world, 9 * MINUTE)
    assert isinstance(await world.ask(), Permit)
    assert (world.was_cold, world.rechecks.begun) == (False, [NOW])


async def test_a_due_request_waits_and_passes_with_the_answer():
    world = world_with()
    comes(world)
    later(world, 11 * MINUTE)
    assert isinstance(await world.ask(), Permit)
    assert world.was_cold
    assert isinstance(await world.ask(), Permit)
    assert not world.was_cold
    assert len(world.rechecks.asked) == 1


async def test_a_group_that_is_gone_refuses_the_request_that_asked():
    world = world_with('@recheck("10m")')
    world.access.policies = load(
        [("p.cedar", (POLICY % '@recheck("10m")').replace("is User", 'is User in Group::"contractors"'))],
        [SUPPORT],
        engine="verify",
    )
    assert isinstance(await world.ask(), Permit)
    comes(world, principal=replace(SESSION.principal, groups=()))
    later(world, 11 * MINUTE)
    refusal = await world.ask()
    assert isinstance(refusal, Refusal)
    assert refusal.code == "access-denied"


async def test_a_session_that_the_provider_ended_is_over():
    world = world_with()
    comes(world, ended_at=NOW)
    later(world, 11 * MINUTE)
    assert (await world.ask()).code == "session-ended"


async def test_a_provider_that_is_away_is_borne_for_the_grace_and_no_longer():
    world = world_with()
    keeps(world)
    later(world, 11 * MINUTE)
    assert isinstance(await world.ask(), Permit)
    assert world.was_cold
    assert isinstance(await world.ask(), Permit)
    assert not world.was_cold, "it was asked a moment ago"
    later(world, 4 * MINUTE)
    assert (await world.ask()).code == "facts-unavailable"
    world.rechecks.words.clear()
    assert (await world.ask()).code == "facts-unavailable", "whoever waits is answered, not asked for ever"


async def test_where_only_the_browser_can_help_it_is_sent_there():
    world = world_with()
    keeps(world, "impossible")
    later(world, 11 * MINUTE)
    refusal = await world.ask()
    assert (refusal.code, refusal.status, refusal.remedies) == ("recheck-required", 401, ("confirm-sign-in",))


async def test_the_configuration_asks_where_no_policy_does():
    world = world_with("", Rule(every=MINUTE, keep=0))
    keeps(world)
    later(world, 2 * MINUTE)
    assert (await world.ask()).code == "facts-unavailable"


async def test_without_either_nobody_is_asked():
    world = world_with("")
    later(world, 1000 * MINUTE)
    assert isinstance(await world.ask(), Permit)
    assert not world.was_cold


@pytest.mark.parametrize("target, value", [("user", "t:carol"), ("session", "ses_1"), ("device", "dev_1")])
async def test_a_word_of_a_signal_asks_at_once(target, value):
    world = world_with("")
    later(world, MINUTE)
    standing = Standing(target=target, value=value, recheck_after=world.clock.now())
    world.put("standing", f"{target}:{value}", standing)
    comes(world)
    assert isinstance(await world.ask(), Permit)
    assert world.was_cold
    assert isinstance(await world.ask(), Permit)
    assert not world.was_cold


async def test_a_live_path_goes_on_while_the_provider_is_asked():
    world = world_with()
    permit = await world.ask()
    later(world, 11 * MINUTE)
    assert world.access.reconsider(permit, world.clock.now()) == ""
    assert world.rechecks.begun == [NOW]
    keeps(world)
    world.rechecks.coming(replace(SESSION, checked_at=NOW), 0)
    later(world, 3 * MINUTE)
    assert world.access.reconsider(permit, world.clock.now()) == ""
    later(world, MINUTE)
    assert world.access.reconsider(permit, world.clock.now()) == "recheck-required"


@pytest.mark.parametrize("word", ["kept", "impossible"])
async def test_what_is_known_to_have_changed_is_borne_for_a_shorter_time(word):
    """The provider is out of order, or has to be asked by way of the browser."""
    world = world_with('@recheck("10h keep 5h")', Rule(0, 60 * MINUTE, MINUTE))
    permit = await world.ask()
    later(world, 1_000)
    told = world.clock.now()
    world.put("standing", "user:t:carol", Standing("user", SESSION.principal.id, recheck_after=told))
    world.rechecks.words[NOW, told] = word
    later(world, MINUTE - 1)
    assert world.access.reconsider(permit, world.clock.now()) == ""
    answer = await world.ask()
    assert isinstance(answer, Permit) if word == "kept" else answer.code == "recheck-required"
    later(world, 1)
    assert world.access.reconsider(permit, world.clock.now()) == "recheck-required"
    assert (await world.ask()).code == ("facts-unavailable" if word == "kept" else "recheck-required")


async def test_signal_after_signal_does_not_keep_a_path_alive():
    world = world_with("", Rule(0, 60 * MINUTE, MINUTE))
    permit = await world.ask()
    later(world, 1_000)
    for _ in range(2):
        told = world.clock.now()
        world.put("standing", "user:t:carol", Standing("user", SESSION.principal.id, recheck_after=told))
        assert world.access.reconsider(permit, world.clock.now()) == ""
        world.rechecks.words[NOW, told] = "kept"
        later(world, MINUTE // 2)
    assert world.access.reconsider(permit, world.clock.now()) == "recheck-required"


async def test_a_live_path_is_cut_when_a_group_is_gone():
    world = world_with()
    world.access.policies = load(
        [("p.cedar", (POLICY % '@recheck("10m")').replace("is User", 'is User in Group::"contractors"'))],
        [SUPPORT],
        engine="verify",
    )
    permit = await world.ask()
    assert world.access.reconsider(permit, world.clock.now()) == ""
    gone = replace(SESSION, principal=replace(SESSION.principal, groups=()), checked_at=NOW)
    world.put("session", "ses_1", gone)
    assert world.access.reconsider(permit, world.clock.now()) == "access-denied"


def test_the_strictest_of_all_counts():
    session = replace(SESSION, checked_at=100)
    duties = (("maxsession", "1m"), ("recheck", "10s"), ("recheck", "20s keep 1s"))
    assert line_of(session, duties, Rule(0, 5_000), 0) == Line(8_100, 10_100, 15_100)
    assert line_of(session, duties, Rule(5_000, 60_000), 0) == Line(4_100, 5_100, 21_100)
    assert line_of(session, (), Rule(), 0) == Line(NEVER, NEVER, NEVER)
    assert line_of(session, (), Rule(0, 7), 100).due == NEVER
    assert line_of(session, (), Rule(0, 7, 9), 101) == Line(101, 101, 108)
    assert line_of(session, (), Rule(0, 7, 3), 101) == Line(101, 101, 104)
    assert line_of(session, (), Rule(0, 700, 300), 150, 120) == Line(150, 150, 420)
    assert line_of(session, (("recheck", "10s keep 1s"),), Rule(0, 7_000, 60_000), 101).over == 1_101
    assert line_of(session, (("recheck", "10s keep 1s"),), Rule(0, 7_000, 60), 101).over == 161


def test_what_is_no_duration_is_due_at_once():
    assert line_of(replace(SESSION, checked_at=100), (("recheck", "soon"),), Rule(), 0).over == 100


def test_a_word_from_the_far_future_settles_nothing():
    assert confirmed_at(1_000, 900) == 1_000
    assert confirmed_at(1_000, 1_000 + SKEW) == 1_000 + SKEW
    assert confirmed_at(1_000, 1_001 + SKEW) == 1_000


async def test_what_became_due_while_an_assertion_was_signed_is_not_let_in():
    world = world_with()
    world.signed = None
    lines = world.fetched

    async def fetch(caller, route, now):
        world.put("standing", "user:t:carol", Standing("user", SESSION.principal.id, recheck_after=NOW + 1))
        later(world, 1_000)
        return lines

    assert isinstance(await world.ask(), Permit)
    world.fetch = fetch
    world.access._callers.clear()
    answer = await world.ask()
    assert isinstance(answer, Refusal)
    assert answer.code == "facts-unavailable"
