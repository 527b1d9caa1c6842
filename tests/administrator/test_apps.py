"""The portal's list: what would open now, on the same facts and locks as at the door."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from door_fakes import PORTAL, SESSION, STATUS, SUPPORT
from msgspec.structs import replace

from ztproxy.administrator.apps import Apps
from ztproxy.administrator.locks import Locks
from ztproxy.administrator.standing import Standings
from ztproxy.net.clock import FixedClock
from ztproxy.policy.load import load
from ztproxy.store.sqlite import SqliteStore

PERSON = replace(SESSION, ip="192.0.2.7")
ROUTES = [SUPPORT, STATUS, PORTAL]
POLICIES = '@id("calm") permit (principal is User, action, resource) when { principal.risk != "high" };'


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "ztproxy.db", FixedClock().now)
    yield opened
    await opened.close()


async def test_a_locked_application_and_a_risk_show(store: SqliteStore) -> None:
    clock, policies = FixedClock(), load([("p.cedar", POLICIES)], ROUTES)
    apps = Apps(lambda: policies, ROUTES, store, clock)
    assert [(route.name, allowed) for route, allowed, *_ in await apps.visible(PERSON)] == [
        ("support", True),
        ("status", True),
    ]
    locks = Locks(store, clock, os.urandom, lambda _: None, ["support"])
    await locks.add("route", "support", "stolen", "root")
    clock.advance(1)
    locked, other = await apps.visible(PERSON)
    assert locked[1:] == (False, "Access is locked.", ("contact-administrator",))
    assert other[1]
    await Standings(store, clock, lambda _: None, 1).note("user", "t:carol", by="x", risk="high")
    assert not any(allowed for _, allowed, *_ in await apps.visible(PERSON))
