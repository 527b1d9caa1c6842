"""Standings on the real store: times only move forward, and what opens a door is written down first."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ztproxy.administrator.audit import AuditUnavailable
from ztproxy.administrator.sessions import Limits, Sessions
from ztproxy.administrator.standing import KEEP_RISK, SKEW, Standings, read_standings, renew
from ztproxy.model.record import StandingRecord
from ztproxy.model.standing import Standing
from ztproxy.model.subject import Principal
from ztproxy.net.clock import FixedClock
from ztproxy.store.interface import Versioned
from ztproxy.store.sqlite import SqliteStore
from ztproxy.trust.identity.provider import SignIn

KEEP = 1_000_000


class World:
    def __init__(self, store: SqliteStore, clock: FixedClock) -> None:
        self.store, self.clock = store, clock
        self.told: list[StandingRecord] = []
        self.full = False
        self.standings = Standings(store, clock, self.witness, KEEP)

    def witness(self, record: StandingRecord) -> None:
        if self.full:
            raise AuditUnavailable("full")
        self.told.append(record)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = FixedClock()
    store = await SqliteStore.open(tmp_path / "ztproxy.db", clock.now)
    yield World(store, clock)
    await store.close()


async def test_what_is_said_adds_up_and_is_written_down(world: World) -> None:
    now = world.clock.now()
    await world.standings.note(
        "user", "corp:alice", by="okta", risk="high", risk_at=now - 5, risk_reason="odd"
    )
    stands = await world.standings.note("user", "corp:alice", by="admin", ended_before=now - 1)
    assert stands == Standing(
        target="user",
        value="corp:alice",
        risk="high",
        risk_at=now - 5,
        risk_reason="odd",
        ended_before=now - 1,
        ended_by="admin",
        source="admin",
    )
    assert await world.standings.get("user", "corp:alice") == stands
    assert await read_standings(world.store) == {"user:corp:alice": stands}
    assert [(told.event, told.value, told.by) for told in world.told] == [
        ("noted", "corp:alice", "okta"),
        ("noted", "corp:alice", "admin"),
    ]


async def test_times_only_move_forward_and_old_news_is_no_news(world: World) -> None:
    now, note = world.clock.now(), world.standings.note
    stands = await note("user", "a", by="x", risk="high", risk_at=now, ended_before=now, recheck_after=now)
    told = len(world.told)
    late = await note(
        "user", "a", by="y", risk="low", risk_at=now - 1, ended_before=now - 1, recheck_after=now - 1
    )
    assert late == stands
    assert len(world.told) == told
    assert (await note("user", "a", by="y", risk="low", risk_at=now)).risk == "high", "the worse of two"
    assert (await note("user", "a", by="y", risk="low", risk_at=now + 1)).risk == "low"


async def test_nobody_ends_the_future(world: World) -> None:
    now = world.clock.now()
    stands = await world.standings.note(
        "user", "a", by="x", ended_before=now + 10**9, risk="high", risk_at=1 << 60
    )
    assert (stands.ended_before, stands.risk_at) == (now + SKEW, now + SKEW)
    assert (await world.standings.end_sessions("user", "b", "x")).ended_before == now + SKEW


async def test_a_failing_audit_keeps_nobody_in_and_lets_nobody_in(world: World) -> None:
    note, get = world.standings.note, world.standings.get
    world.full = True
    with pytest.raises(AuditUnavailable):
        await note("device", "dev_1", by="mdm", compliance="not-compliant")
    assert (await get("device", "dev_1") or Standing("", "")).compliance == "not-compliant"
    world.clock.ms += 1
    for calmer in ("compliant", ""):
        with pytest.raises(AuditUnavailable):
            await note("device", "dev_1", by="mdm", compliance=calmer)  # type: ignore[arg-type]
        assert (await get("device", "dev_1") or Standing("", "")).compliance == "not-compliant"


async def test_the_end_of_sessions_is_kept_longer_than_they_live_and_a_risk_longer_than_that(
    world: World,
) -> None:
    now = world.clock.now()
    await world.standings.end_sessions("user", "a", "x")
    await world.standings.note("user", "b", by="x", risk="high")
    for target in ("device", "workload"):
        await world.standings.note(target, "c", by="x", risk="high")
    world.clock.ms = now + KEEP - 1
    assert await world.standings.get("user", "a")
    world.clock.ms = now + KEEP
    assert await world.standings.get("user", "a") is None
    assert await world.standings.get("user", "b")
    world.clock.ms = now + KEEP_RISK - 1
    assert await world.standings.get("user", "b")
    world.clock.ms = now + KEEP_RISK
    assert await world.standings.get("user", "b") is None
    for target in ("device", "workload"):
        assert await world.standings.get(target, "c"), "nothing tells whether it is still there"


async def test_a_risk_is_kept_of_whoever_comes_back_in_time(world: World) -> None:
    """Without a word of the source, and without a write at every sign-in."""
    await world.standings.note("user", "b", by="x", risk="high")
    versions = set()
    for _ in range(12):
        world.clock.ms += KEEP_RISK // 3
        await renew(world.store, "b", world.clock.now(), KEEP_RISK)
        stored = await world.store.get("standing", "user:b")
        assert stored is not None and stored.expires_at >= world.clock.now() + KEEP_RISK // 2
        versions.add(stored.version)
        standing = await world.standings.get("user", "b")
        assert standing is not None and standing.risk == "high"
    assert 1 < len(versions) < 12
    await renew(world.store, "nobody", world.clock.now(), KEEP_RISK)
    world.clock.ms += KEEP_RISK
    assert await world.standings.get("user", "b") is None


async def test_who_signs_in_keeps_the_risk(world: World) -> None:
    limits = Limits(idle=1_000, absolute=1_000)
    sessions = Sessions(world.store, world.clock, os.urandom, lambda _: None, limits)
    await world.standings.note("user", "b", by="x", risk="high")
    world.clock.ms += KEEP_RISK - 1
    now = world.clock.now()
    await sessions.start(SignIn(Principal("User", "b"), "corp", now, began=now, asked_at=now))
    world.clock.ms += KEEP_RISK - 1
    standing = await world.standings.get("user", "b")
    assert standing is not None and standing.risk == "high"


async def test_news_are_not_overwritten_by_a_renewal(world: World) -> None:
    await world.standings.note("user", "b", by="x", risk="low", risk_at=1)
    world.clock.ms += KEEP_RISK - 1

    class Late:
        """Somebody says something between the look and the write."""

        async def get(self, kind: str, key: str) -> Versioned | None:
            stored = await world.store.get(kind, key)
            await world.standings.note("user", "b", by="x", risk="high", risk_at=2)
            return stored

        def __getattr__(self, name: str) -> Any:
            return getattr(world.store, name)

    await renew(Late(), "b", world.clock.now(), KEEP_RISK)  # type: ignore[arg-type]
    standing = await world.standings.get("user", "b")
    assert standing is not None and standing.risk == "high"


@pytest.mark.parametrize(
    ("target", "value"), [("route", "wiki"), ("user", ""), ("user", "x" * 513), ("", "a")]
)
async def test_nothing_is_said_of_what_has_no_standing(world: World, target: str, value: str) -> None:
    with pytest.raises(ValueError, match="nothing can be said"):
        await world.standings.note(target, value, by="x", risk="high")
