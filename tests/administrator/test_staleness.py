"""Facts that are out of date: they let nobody in, and @stale says how long what is live goes on by them."""

from typing import Any

import pytest
from door_fakes import DIGEST, NOW, PORTAL, SESSION, STATUS, SUPPORT, Lines, Recorder, World
from msgspec.structs import replace

from ztproxy.administrator.access import Access
from ztproxy.administrator.staleness import WITHOUT_END, patience_of
from ztproxy.model.decision import Refusal
from ztproxy.model.permit import Permit
from ztproxy.model.request import Evidence
from ztproxy.model.standing import Source, Standing
from ztproxy.policy.load import load
from ztproxy.policy.problems import PolicyProblems
from ztproxy.trust.gather import Gatherer

POLICY = '@id("p") {} permit (principal is User, action, resource == Route::"support") {};'
READS = """when { context.sources has "corp-idp" && context.sources["corp-idp"].state == "ok"
  && context.sources["corp-idp"].age < 60000 }"""
NOBODY_ELSE = (SUPPORT, STATUS, PORTAL)


class Stage:
    """A door whose policy carries an annotation and a condition; its feed and its source can fall silent."""

    def __init__(self, annotation: str = "", condition: str = "") -> None:
        self.world = World()
        text = POLICY.replace("{}", annotation, 1).replace("{}", condition, 1)
        self.world.access = Access(
            policies=load([("p.cedar", text)], NOBODY_ELSE, heard=("corp-idp",)),
            gatherer=Gatherer(self.world.memory, groups={}, feed_limit=10_000, sources=("corp-idp",)),
            recorder=Recorder(self.world),
            identities=Lines(self.world),
            sync=self.world.sync,
            touched=self.world.touched.append,
            clock=self.world.clock,
        )

    def heard(self, age: int = 0, state: Any = "ok") -> None:
        source = Source("corp-idp", "provider", self.world.clock.now() - age, state)
        self.world.put("source", "corp-idp", source)

    def silent(self, seconds: float, *, feed: bool) -> None:
        self.world.clock.advance(seconds)
        if not feed:
            self.world.memory.heard(self.world.memory.version)

    async def ask(self) -> Permit | Refusal:
        return await self.world.ask(handle=DIGEST)

    def goes_on(self, permit: Permit | Refusal) -> str:
        assert isinstance(permit, Permit)
        return self.world.access.reconsider(permit, self.world.clock.now())


@pytest.mark.parametrize(
    ("annotation", "lives"),
    [("", 10), ('@stale("cut")', 10), ('@stale("keep 5m")', 300), ('@stale("refuse")', 3000)],
)
async def test_a_silent_feed_lets_nobody_in_and_what_is_live_goes_on_as_said(
    annotation: str, lives: int
) -> None:
    stage = Stage(annotation)
    permit = await stage.ask()
    assert isinstance(permit, Permit)
    stage.silent(lives - 0.5, feed=True)
    assert stage.goes_on(permit) == ""
    assert stage.world.access.kept == (lives > 10)
    if lives > 10:
        refused = await stage.ask()
        assert isinstance(refused, Refusal) and refused.code == "facts-unavailable"
    if lives < 3000:
        stage.silent(1, feed=True)
        assert stage.goes_on(permit) == "facts-unavailable"
    stage.silent(0, feed=False)
    assert stage.goes_on(permit) == "", "it recovers by itself"
    assert isinstance(await stage.ask(), Permit)


async def test_whoever_is_kept_ends_with_what_is_known_all_the_same() -> None:
    stage = Stage('@stale("refuse")')
    permit = await stage.ask()
    stage.silent(60, feed=True)
    assert stage.goes_on(permit) == ""
    stage.silent(3600, feed=True)
    assert stage.goes_on(permit) == "session-ended"
    stage = Stage('@stale("refuse")')
    permit = await stage.ask()
    stage.silent(60, feed=True)
    stage.world.put("session", "ses_1", replace(SESSION, ended_at=NOW))
    assert stage.goes_on(permit) == "session-ended"


@pytest.mark.parametrize(
    ("annotation", "seconds", "code"),
    [
        ("", 61, "access-denied"),
        ('@stale("cut")', 61, "access-denied"),
        ('@stale("keep 5m")', 290, ""),
        ('@stale("keep 5m")', 301, "access-denied"),
        ('@stale("refuse")', 3000, ""),
    ],
)
async def test_a_source_that_is_lost_lets_nobody_in_and_what_is_live_goes_on_as_said(
    annotation: str, seconds: int, code: str
) -> None:
    stage = Stage(annotation, READS)
    stage.heard()
    permit = await stage.ask()
    assert isinstance(permit, Permit)
    stage.silent(seconds, feed=False)
    assert isinstance(await stage.ask(), Refusal)
    assert stage.goes_on(permit) == code
    assert stage.world.access.kept == (code == "")
    stage.heard()
    stage.silent(1, feed=False)
    assert stage.goes_on(permit) == ""
    assert isinstance(await stage.ask(), Permit)


async def test_what_is_kept_is_kept_from_nothing_but_staleness() -> None:
    stage = Stage('@stale("refuse")', READS + ' unless { principal.risk == "high" }')
    stage.heard()
    permit = await stage.ask()
    stage.silent(120, feed=False)
    assert stage.goes_on(permit) == ""
    stage.world.put("standing", "user:t:carol", Standing("user", "t:carol", risk="high", risk_at=NOW))
    assert stage.goes_on(permit) == "access-denied"


@pytest.mark.parametrize(
    ("age", "state"), [(None, "ok"), (0, "failing"), (0, "disabled"), (120_000, "ok"), (-600_000, "ok")]
)
async def test_a_source_that_was_never_heard_or_is_not_well_never_permits(
    age: int | None, state: str
) -> None:
    stage = Stage("", READS)
    if age is not None:
        stage.heard(age, state)
    assert isinstance(await stage.ask(), Refusal)


async def test_the_record_says_how_fresh_sources_were() -> None:
    stage = Stage("", READS)
    stage.heard()
    await stage.ask()
    stage.silent(47, feed=False)
    await stage.ask()
    assert [record.sources for record in stage.world.records][-2:] == [
        ("corp-idp ok 0",),
        ("corp-idp ok 50000",),
    ]


def test_while_all_is_fresh_callers_are_not_made_anew() -> None:
    stage = Stage("", READS)
    stage.heard()
    gatherer, evidence = stage.world.access._gatherer, Evidence(handle=DIGEST)
    first = gatherer.gather(evidence, "support.test", NOW)
    stage.silent(20, feed=False)
    assert gatherer.gather(evidence, "support.test", stage.world.clock.now()) is first


def test_a_source_that_is_not_configured_is_a_mistake_of_the_policy() -> None:
    for condition in (
        "when { context.sources has okta && context.sources.okta.age < 1000 }",
        'when { context.sources["corp-idp"].age < 1000 }',
        READS.replace('"ok"', '"okay"'),
    ):
        with pytest.raises(PolicyProblems):
            Stage("", condition)


@pytest.mark.parametrize("value", ["keep", "keep 0s", "keep 5", "5m", "Cut", "", "keep 1h30m"])
def test_an_annotation_that_says_nothing_is_a_mistake(value: str) -> None:
    with pytest.raises(PolicyProblems, match="stale"):
        Stage(f'@stale("{value}")')


def test_the_strictest_counts() -> None:
    kept, refused, cut = ("stale", "keep 5m"), ("stale", "refuse"), ("stale", "cut")
    assert patience_of((kept, refused)) == 300_000
    assert patience_of((kept, refused, cut)) == 0
    assert patience_of((refused,)) == WITHOUT_END
    assert patience_of((("alert", "x"),)) == 0
