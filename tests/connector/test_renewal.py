"""Renewal: in the last third, with growing pauses, whatever the clock says, until it is revoked."""

import asyncio
import os
from pathlib import Path

import pytest

from ztproxy.administrator.issue import CONNECTORS, load_authority
from ztproxy.connector import renewal
from ztproxy.connector.renewal import Renewal
from ztproxy.connector.state import ConnectorError, Folder, Identity
from ztproxy.net import keyfiles
from ztproxy.net.clock import FixedClock
from ztproxy.net.portal import PortalRefused, PortalUnreachable

LIFE = 3_600_000
IDENTITY = Identity("site", "a" * 13, "https://portal.example", "connect.example", ("gw.example:443",))


class World:
    """A connector, its portal, and a clock each. `answers` are what the portal does, one after the other."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.portal_clock = FixedClock(), FixedClock()
        self.key, self.folder = keyfiles.new_key(), Folder(folder / "state")
        self.authority = load_authority(
            folder,
            CONNECTORS,
            trust_domain="corp.example",
            lifetime=LIFE,
            clock=self.portal_clock,
            entropy=os.urandom,
        )
        self.folder.create(IDENTITY, self.key, self.issued(), None)
        self.answers: list[Exception | None] = []
        self.asked: list[int] = []
        self.slept: list[float] = []
        self.renewed = 0
        self.renewal = Renewal(
            self.folder,
            ca=None,
            clock=self.clock,
            entropy=lambda size: b"\xff" * size,
            renewed=self.note,
        )
        monkeypatch.setattr(renewal, "renew", self.renew)
        monkeypatch.setattr(renewal.asyncio, "sleep", self.sleep)

    def issued(self) -> str:
        return self.authority.issue(self.key.public_key(), "site", "a" * 13).pem

    def note(self) -> None:
        self.renewed += 1

    async def renew(self, folder: Folder, now: int, ca: Path | None) -> None:
        self.asked.append(now)
        if abs(now - self.portal_clock.now()) > 90_000:
            raise PortalRefused(403, "statement-invalid", "not now", self.portal_clock.now())
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        folder.write_certificate(self.issued(), IDENTITY)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) > 500:
            raise asyncio.CancelledError
        for clock in (self.clock, self.portal_clock):
            clock.advance(seconds)

    async def run(self, sleeps: int) -> None:
        self.slept = [0.0] * (500 - sleeps)
        with pytest.raises(asyncio.CancelledError):
            await self.renewal.run()
        self.slept = self.slept[500 - sleeps :]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


async def test_it_waits_for_the_last_third_of_the_life(world: World) -> None:
    begins, ends = world.folder.term()
    await world.run(200)
    first = world.asked[0]
    assert ends - (ends - begins) // 3 <= first < ends - (ends - begins) // 3 + 61_000
    assert world.renewed == len(world.asked) > 1
    assert max(world.slept) <= renewal.LONGEST_PAUSE, "so that a clock that is set is noticed"


async def test_a_portal_that_is_away_is_asked_after_growing_pauses(world: World) -> None:
    world.clock.advance(LIFE / 1000)
    world.portal_clock.advance(LIFE / 1000)
    world.answers = [PortalUnreachable("away")] * 9
    await world.run(10)
    pauses = world.slept[:9]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1.0 < pauses[-1] <= renewal.LONGEST_PAUSE
    assert world.renewed == 1, "also of a certificate that was over"


async def test_a_revoked_connector_gives_up(world: World) -> None:
    world.clock.advance(LIFE / 1000)
    world.portal_clock.advance(LIFE / 1000)
    world.answers = [PortalRefused(403, "connector-revoked", "gone")]
    with pytest.raises(ConnectorError, match="revoked") as caught:
        await world.renewal.run()
    assert caught.value.exit_code == 3


async def test_in_doubt_it_asks_sooner_and_not_all_the_time(world: World) -> None:
    """A proxy that does not let it in may know what it does not: that it was revoked."""
    await world.run(5)
    assert not world.asked
    begins, ends = world.folder.term()
    world.renewal.doubt()
    await world.run(9)
    (first,) = world.asked
    assert begins + (ends - begins) // 8 <= first < begins + (ends - begins) // 8 + 61_000
    for _ in range(40):
        world.renewal.doubt()
        await world.run(4)
    assert world.renewed <= 26, "in 160 minutes: a certificate begins a minute ago, and an eighth is 7.5"
    world.renewal.doubt()
    world.answers = [PortalRefused(403, "connector-revoked", "gone")]
    world.slept = []
    with pytest.raises(ConnectorError, match="revoked"):
        await world.renewal.run()


@pytest.mark.parametrize("hours", [-26, -1, 1, 26])
async def test_a_wrong_clock_keeps_nobody_from_renewing(world: World, hours: int) -> None:
    """By the portal's clock it is renewed in time: neither too late nor again and again."""
    world.clock.advance(hours * 3600)
    world.portal_clock.advance(LIFE / 1000)
    if hours < 0:  # it does not know yet that it is late, and learns it when its own clock says so
        world.clock.advance(-hours * 3600 + 3600)
        world.portal_clock.advance(26 * 3600)
    await world.run(120)
    assert world.renewed >= 1
    assert world.renewed <= 4, "about once in forty minutes"
    _, ends = world.folder.term()
    assert ends > world.portal_clock.now()
