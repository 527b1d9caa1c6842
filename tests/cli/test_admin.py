"""Verbs that ask the running node, against a node that answers like the real one."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from msgspec.structs import replace
from typer import Exit
from typer.testing import CliRunner

from ztproxy.administrator.audit import AuditUnavailable
from ztproxy.administrator.locks import LockRefused
from ztproxy.api import admin as admin_api
from ztproxy.api import locks as locks_api
from ztproxy.cli import devices, locks, sessions
from ztproxy.cli.admin import ask
from ztproxy.model.standing import LOCKABLE, Lock, Standing
from ztproxy.model.subject import Device, Principal, Session
from ztproxy.store.interface import StoreUnavailable

runner = CliRunner()
NOW = 1_800_000_000_000
CAROL = Session(
    id="ses_carol",
    principal=Principal(kind="User", id="corp:carol", name="Carol \x1b[31m", groups=("contractors",)),
    provider="corp",
    created_at=1_800_000_000_000,
    auth_time=1_800_000_000_000,
    device_id="dev_laptop",
)
LAPTOP = Device(id="dev_laptop", name="laptop", spki="00", owner="corp:carol", enrolled_at=1_800_000_000_000)


class Sessions:
    """What the node does with sessions."""

    def __init__(self, count: int) -> None:
        many = [replace(CAROL, id=f"ses_{number:05}") for number in range(count)]
        self.all = {one.id: one for one in [*many, CAROL]}
        self.cut: list[tuple[str, str]] = []
        self.fails: Exception | None = None

    async def list(self, *, after: str = "", limit: int = 100, ended: bool = False) -> list[Session]:
        return [one for key, one in sorted(self.all.items()) if key > after][:limit]

    async def get(self, session_id: str) -> Session | None:
        return self.all.get(session_id)

    async def end(self, session_id: str, by: str) -> bool:
        if self.fails:
            raise self.fails
        self.cut.append((session_id, by))
        return len(self.cut) == 1


class Devices:
    """What the node does with devices."""

    def __init__(self) -> None:
        self.codes: list[tuple[str, str]] = []
        self.revoked: list[tuple[str, str]] = []

    async def list(self) -> list[Device]:
        return [LAPTOP]

    async def create_code(self, name: str, owner: str = "") -> str:
        self.codes.append((name, owner))
        return "ABCD-EFGH"

    async def revoke(self, device_id: str, by: str) -> bool:
        self.revoked.append((device_id, by))
        return device_id == "dev_laptop"


class Locks:
    """What the node does with locks."""

    def __init__(self) -> None:
        self.all: dict[str, Lock] = {}
        self.fails: Exception | None = None

    async def add(self, target: str, value: str, reason: str, by: str, expires_at: int = 0) -> Lock:
        if target not in LOCKABLE:
            raise LockRefused(f"name one of {', '.join(LOCKABLE)}")
        if (target, value) == ("route", "wikki"):
            raise LockRefused("no route is called 'wikki'; there are wiki")
        lock = Lock(f"lck_{len(self.all)}", target, value, reason, NOW, by, expires_at)
        self.all[lock.id] = lock
        return lock

    async def remove(self, id: str, by: str) -> bool:
        if self.fails:
            raise self.fails
        return self.all.pop(id, None) is not None

    async def list(self) -> list[Lock]:
        return list(self.all.values())


class Node:
    """A running node's admin socket."""

    def __init__(self, base: Path) -> None:
        self.config = base / "ztproxy.yaml"
        self.config.write_text("state: here\nthis: is not sound, and still sessions can be cut\n")
        self.sessions, self.devices, self.locks = Sessions(1200), Devices(), Locks()
        self.ended: list[tuple[str, str, str]] = []
        self._socket = base / "here" / "run" / "admin.sock"
        self._socket.parent.mkdir(parents=True)
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        async def start() -> web.AppRunner:
            more = locks_api.routes(self.locks, self, self.known, lambda: NOW)
            site = web.AppRunner(admin_api.make(self.sessions, self.devices, more))
            await site.setup()
            await web.UnixSite(site, str(self._socket)).start()
            return site

        site = self._loop.run_until_complete(start())
        self._up.set()
        self._loop.run_forever()
        self._loop.run_until_complete(site.cleanup())
        self._loop.close()

    async def end_sessions(self, target: str, value: str, by: str) -> Standing:
        self.ended.append((target, value, by))
        return Standing(target=target, value=value, ended_before=NOW)

    async def known(self, target: str, value: str) -> bool:
        return value != "corp:karol"

    def __enter__(self) -> "Node":
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def ask(self, app: Any, *arguments: str) -> Any:
        return runner.invoke(app, [*arguments, "--config", str(self.config)])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path) as running:
        yield running


def test_sessions_are_listed_page_after_page(node: Node) -> None:
    done = node.ask(sessions.app, "list", "--json")
    assert done.exit_code == 0, done.output
    assert {one["id"] for one in json.loads(done.output)} == set(node.sessions.all)


def test_names_can_not_speak_to_the_terminal(node: Node) -> None:
    for done in (node.ask(sessions.app, "list"), node.ask(sessions.app, "show", "ses_carol")):
        assert done.exit_code == 0
        assert "\x1b[31m" not in done.output and "Carol" in done.output


def test_a_session_is_shown(node: Node) -> None:
    text = node.ask(sessions.app, "show", "ses_carol").output
    for words in ("corp:carol", "contractors", "dev_laptop", "alive"):
        assert words in text
    done = node.ask(sessions.app, "show", "ses_nobody")
    assert done.exit_code == 1 and "there is no session" in done.output


def test_a_session_is_cut_and_the_record_says_by_whom(node: Node) -> None:
    assert "is cut" in node.ask(sessions.app, "cut", "ses_carol", "--by", "ada").output
    assert node.sessions.cut == [("ses_carol", "cut by ada")]
    assert "was over already" in node.ask(sessions.app, "cut", "ses_carol").output
    assert node.ask(sessions.app, "cut", "ses_nobody").exit_code == 1


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (StoreUnavailable("the disk is full"), "the disk is full"),
        (AuditUnavailable("the journal is full"), "done, but not recorded: the journal is full"),
    ],
    ids=repr,
)
def test_what_is_in_the_way_of_a_cut_is_told(node: Node, failure: Exception, words: str) -> None:
    node.sessions.fails = failure
    done = node.ask(sessions.app, "cut", "ses_carol")
    assert done.exit_code == 1 and words in done.output


@pytest.mark.parametrize("limit", ["x", "-1", "²", "1" * 10])
def test_a_limit_is_a_number(node: Node, limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exit):
        ask(node.config, "GET", "v1", "sessions", query=f"?limit={quote(limit)}")
    assert "limit is not a number" in capsys.readouterr().err


def test_a_strange_id_stays_one_step_of_the_path(node: Node) -> None:
    done = node.ask(sessions.app, "cut", "ses_carol/end?x=../..")
    assert done.exit_code == 1
    assert node.sessions.cut == []


def test_devices(node: Node) -> None:
    assert "dev_laptop" in node.ask(devices.app, "list").output
    done = node.ask(devices.app, "code", "tablet", "--owner", "corp:carol")
    assert done.output == "ABCD-EFGH\n" and node.devices.codes == [("tablet", "corp:carol")]
    assert "is revoked" in node.ask(devices.app, "revoke", "dev_laptop", "--by", "ada").output
    assert node.devices.revoked == [("dev_laptop", "ada")]
    assert node.ask(devices.app, "revoke", "dev_other").exit_code == 1


def test_without_a_node_it_says_so(tmp_path: Path) -> None:
    config = tmp_path / "ztproxy.yaml"
    config.write_text("state: here\n")
    for app in (sessions.app, devices.app):
        done = runner.invoke(app, ["list", "--config", str(config)])
        assert done.exit_code == 1
        assert "no node is running" in done.output and str(tmp_path / "here/run/admin.sock") in done.output
        assert "Traceback" not in done.output
    assert "no such file" in runner.invoke(sessions.app, ["list", "--config", str(tmp_path / "x")]).output


# ------------------------------------------------------------------ locks


def test_a_lock_is_set_listed_and_removed(node: Node) -> None:
    done = node.ask(
        locks.app, "add", "user", "corp:carol", "--reason", "stolen \x1b[31m", "--for", "2h", "--by", "ada"
    )
    assert done.exit_code == 0, done.output
    (lock,) = node.locks.all.values()
    assert done.output.startswith(f"{lock.id} is on user corp:carol, until ")
    assert (lock.set_by, lock.expires_at) == ("ada", NOW + 7_200_000)
    assert json.loads(node.ask(locks.app, "list", "--json").output)[0]["value"] == "corp:carol"
    shown = node.ask(locks.app, "list").output
    assert lock.id in shown and "ada" in shown and "\x1b[31m" not in shown
    assert "is removed" in node.ask(locks.app, "remove", lock.id).output
    done = node.ask(locks.app, "remove", lock.id)
    assert done.exit_code == 1 and "there is no lock" in done.output
    assert "no locks" in node.ask(locks.app, "list").output


def test_a_lock_on_nobody_known_is_set_and_said(node: Node) -> None:
    done = node.ask(locks.app, "add", "user", "corp:karol", "--reason", "r")
    assert done.exit_code == 0 and "until it is removed" in done.output
    assert "no user of this name is known here" in done.output
    assert len(node.locks.all) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("route", "wikki", "--reason", "r"), "no route is called 'wikki'; there are wiki"),
        (("people", "x", "--reason", "r"), "name one of user, workload"),
        (("user", "corp:carol", "--reason", " "), "a lock needs a reason"),
        (("user", "corp:carol", "--reason", "r", "--for", "2 hours"), "write one like 30m, 2h or 7d"),
        (("user", "corp:carol", "--reason", "r", "--for", "9999d"), "ten years at most"),
        (("user", "corp:carol"), "--reason"),
    ],
)
def test_a_lock_that_is_none_is_refused_with_what_to_do(
    node: Node, arguments: tuple[str, ...], words: str
) -> None:
    done = node.ask(locks.app, "add", *arguments)
    assert done.exit_code in (1, 2)
    assert words in done.output
    assert not node.locks.all


def test_what_can_not_be_recorded_takes_no_lock_away(node: Node) -> None:
    node.ask(locks.app, "add", "user", "corp:carol", "--reason", "r")
    node.locks.fails = AuditUnavailable("the journal is full")
    (name,) = node.locks.all
    done = node.ask(locks.app, "remove", name)
    assert done.exit_code == 1 and "not recorded, so not done" in done.output
    assert name in node.locks.all


def test_all_sessions_of_a_person_are_cut(node: Node) -> None:
    done = node.ask(sessions.app, "cut", "--user", "corp:carol", "--by", "ada")
    assert done.exit_code == 0 and "all sessions of corp:carol" in done.output
    assert node.ended == [("user", "corp:carol", "cut by ada")]
    assert "compare the spelling" in node.ask(sessions.app, "cut", "--user", "corp:karol").output
    for arguments in ((), ("ses_carol", "--user", "corp:carol")):
        assert node.ask(sessions.app, "cut", *arguments).exit_code == 2
    assert node.sessions.cut == []
