"""What a running connector takes up: its own file when it is told to, and proxies that the portal tells."""

import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from ztproxy.administrator.issue import CONNECTORS, load_authority
from ztproxy.connector.configuration import Configuration, load
from ztproxy.connector.program import Running
from ztproxy.connector.state import Folder, Identity
from ztproxy.net import keyfiles
from ztproxy.net.clock import FixedClock

IDENTITY = Identity("site", "a" * 13, "https://portal.example", "connect.example", ("gw1.example:443",))


class World:
    """A connector that has been started, and its file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = Folder(folder / "state"), folder / "connector.yaml"
        authority = load_authority(
            folder,
            CONNECTORS,
            trust_domain="corp.example",
            lifetime=3_600_000,
            clock=FixedClock(),
            entropy=os.urandom,
        )
        key = keyfiles.new_key()
        self.folder.create(IDENTITY, key, authority.issue(key.public_key(), "site", "a" * 13).pem, None)
        self.running = Running(self.written(), self.folder, IDENTITY)

    def written(
        self, more: str = "", *, allow: str = "http://10.0.0.1:80", state: str = "state"
    ) -> Configuration:
        self.file.write_text(f"state: {state}\nallow: ['{allow}']\n{more}")
        return load(self.file)

    def reload(self) -> None:
        self.running.reload(lambda: load(self.file))

    def told(self, *proxies: str) -> None:
        """The portal tells these with the next certificate."""
        self.folder.write_identity(msgspec.structs.replace(IDENTITY, proxies=proxies))
        self.running._renewed()

    @property
    def dialled(self) -> list[str]:
        return [f"{one.host}:{one.port}" for one in self.running._links._keepers]

    def allows(self, host: str) -> bool:
        return self.running._links.allowed.permits("http", host, 80)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield World(tmp_path)
    root.handlers[:], logging.raiseExceptions = handlers, raising  # a reload sets up the log anew
    root.setLevel(level)
    logging.captureWarnings(False)


async def test_proxies_that_the_portal_tells_are_dialled_as_soon_as_it_tells_them(world: World) -> None:
    assert world.dialled == ["gw1.example:443"]
    world.told("gw1.example:443", "gw2.example:443")
    assert world.dialled == ["gw1.example:443", "gw2.example:443"]
    world.told("gw2.example:443")
    assert world.dialled == ["gw2.example:443"]
    world.told("not a place")
    assert world.dialled == ["gw2.example:443"]


async def test_the_files_own_proxies_go_before_those_that_are_told(world: World) -> None:
    world.written("proxies: ['gw7.example:443']\n")
    world.reload()
    assert world.dialled == ["gw7.example:443"]
    world.told("gw1.example:443", "gw2.example:443")
    assert world.dialled == ["gw7.example:443"]
    world.written()
    world.reload()
    assert world.dialled == ["gw1.example:443", "gw2.example:443"]


async def test_the_list_and_the_limits_are_taken_up(world: World) -> None:
    world.written("limits: {carrying: 7}\n", allow="http://10.0.0.2:80")
    world.reload()
    assert (world.allows("10.0.0.1"), world.allows("10.0.0.2")) == (False, True)
    assert world.running._links.limits.carrying == 7


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("allow: [http://10.0.0.2:80]\nproxies: [gw9.example]\n", "connector.yaml:2:"),
        ("allow: []\n", "connector.yaml:1:"),
        ("allow: [http://10.0.0.2:80]\nlog: {level: loud}\n", "connector.yaml:2:"),
        ("state: elsewhere\nallow: [http://10.0.0.2:80]\n", "that takes a restart"),
        ("state: state\nca: none.pem\nallow: [http://10.0.0.2:80]\n", "can not be used"),
        (None, "can not be read"),
    ],
)
async def test_a_file_that_is_not_sound_changes_nothing_and_says_why(
    world: World, caplog: pytest.LogCaptureFixture, text: str | None, why: str
) -> None:
    if text is None:
        world.file.unlink()
    else:
        world.file.write_text(text)
    world.reload()
    assert world.dialled == ["gw1.example:443"]
    assert world.allows("10.0.0.1") and not world.allows("10.0.0.2")
    (said,) = [record for record in caplog.records if record.message == "not reloaded"]
    assert why in vars(said)["why"]
