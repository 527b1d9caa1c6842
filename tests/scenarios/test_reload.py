"""Reload, drain and upgrade under load, on a whole node: nobody is refused, nothing half-new is served."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from small_node import COOKIE, HOST, POLICY, Application, Node, eventually

from ztproxy.net import large_pages
from ztproxy.net.names import Resolver

HEADERS = {"Cookie": f"__Host-ztproxy={COOKIE}", "Accept": "application/json"}
GOING_AWAY, POLICY_VIOLATION = 1001, 1008


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
async def node(tmp_path: Path, application: Application) -> AsyncIterator[Node]:
    made = Node(tmp_path, await application.start())
    await made.sign_in()
    with made.running():
        yield made
    await application.stop()


class Load:
    """Clients that ask all the time: some keep their connection, some open one for each request."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.tls = node.tls()
        self.served = 0
        self.failed: list[str] = []
        self.slowest = 0.0
        self._stop = asyncio.Event()

    def session(self, keep: bool) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=self.tls, resolver=Resolver(), force_close=not keep)
        timeout = aiohttp.ClientTimeout(total=30)
        return aiohttp.ClientSession(connector=connector, headers=HEADERS, timeout=timeout)

    @asynccontextmanager
    async def running(self, keeping: int = 4, opening: int = 2) -> AsyncIterator["Load"]:
        async with asyncio.TaskGroup() as group:
            for keep in [True] * keeping + [False] * opening:
                group.create_task(self._client(keep))
            try:
                await self.progress(50)
                yield self
                await self.progress(50)
            finally:
                self._stop.set()

    async def progress(self, more: int) -> None:
        target = self.served + more
        async with asyncio.timeout(60):
            while self.served < target:
                await asyncio.sleep(0.02)

    async def _client(self, keep: bool) -> None:
        async with self.session(keep) as session:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    async with session.get(f"https://{HOST}:{self.node.port}/a") as answer:
                        text = await answer.text()
                    if (answer.status, text) == (200, "/a"):
                        self.served += 1
                    else:
                        self.failed.append(f"{answer.status} {text[:200]}")
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    self.failed.append(f"{type(error).__name__}: {error}")
                self.slowest = max(self.slowest, time.monotonic() - began)
                await asyncio.sleep(0.002)


async def eventual(fact: Callable[[], object], seconds: float = 40) -> None:
    await asyncio.to_thread(eventually, fact, seconds)


async def cli(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(node.cli, *words)


@asynccontextmanager
async def websocket(node: Node, path: str = "/ws") -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    connector = aiohttp.TCPConnector(ssl=node.tls(), resolver=Resolver())
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:
        origin = f"https://{HOST}:{node.port}"
        async with session.ws_connect(origin + path, origin=origin) as opened:
            yield opened


async def echoes(opened: aiohttp.ClientWebSocketResponse, text: str) -> bool:
    await opened.send_str(text)
    return await opened.receive_str(timeout=10) == text


def without_websockets() -> str:
    return POLICY.replace(");", ') when { context.protocol == "http" };')


async def test_reloads_under_load_fail_nobody_and_cut_who_is_no_longer_allowed(node: Node) -> None:
    async with websocket(node) as opened, Load(node).running() as load:
        assert await echoes(opened, "before")
        for number in range(3):
            node.policy.write_text(POLICY + f"// {number}\n")
            done = await cli(node, "reload")
            assert (done.returncode, done.stdout[:9]) == (0, "in force:"), done.stderr
            assert await echoes(opened, f"after {number}"), "still allowed: lives on untouched"
            await load.progress(20)
        node.policy.write_text(without_websockets())
        assert (await cli(node, "reload")).returncode == 0
        closed = await opened.receive(timeout=10)
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, POLICY_VIOLATION)
    assert load.failed == []
    found = node.scrape()
    assert 'ztproxy_config_reloads_total{outcome="applied",worker="control"} 4.0' in found
    shown = (await cli(node, "recordings", "show", "configuration")).stdout
    assert shown.count("reload applied") == 4


@asynccontextmanager
async def talking(opened: aiohttp.ClientWebSocketResponse) -> AsyncIterator[list[str]]:
    """Numbered messages all the time, several under way at once; fails unless each comes back, in order."""
    back: list[str] = []
    sent, stop = 0, asyncio.Event()

    async def send() -> None:
        nonlocal sent
        while not stop.is_set():
            await opened.send_str(f"{sent}:" + "x" * (sent % 3_000))
            sent += 1
            await asyncio.sleep(0.002)

    async def receive() -> None:
        while not (stop.is_set() and sender.done() and len(back) == sent):
            back.append(await opened.receive_str(timeout=20))

    async with asyncio.TaskGroup() as group:
        sender = group.create_task(send())
        receiver = group.create_task(receive())
        yield back
        stop.set()
        await sender
        await opened.send_str(f"{sent}:" + "x" * (sent % 3_000))  # so that the receiver wakes once more
        sent += 1
        await receiver
    assert back == [f"{number}:" + "x" * (number % 3_000) for number in range(sent)]


@pytest.mark.parametrize("by", ["reload", "watch"])
async def test_of_two_live_websockets_policies_end_one_and_the_other_loses_no_byte(
    node: Node, application: Application, by: str
) -> None:
    if by == "watch":
        node.config.write_text(node.config.read_text() + "reload: watch\n")
        assert (await cli(node, "reload")).returncode == 0
    async with websocket(node, "/ws/kept") as kept, websocket(node, "/ws/ended") as ended:
        assert await echoes(kept, "before") and await echoes(ended, "before")
        async with talking(kept) as back:
            forbid = '@id("no") forbid (principal, action, resource) when { context.path == "/ws/ended" };'
            fresh = node.policy.with_suffix(".new")
            fresh.write_text(POLICY + forbid + "\n")
            fresh.replace(node.policy)
            if by == "reload":
                assert (await cli(node, "reload")).returncode == 0
            closed = await ended.receive(timeout=20)
            assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, POLICY_VIOLATION)
            assert closed.extra == "access-denied"
            after = len(back)
            await eventual(lambda: len(back) > after + 20)
        await eventual(lambda: application.ended == ["/ws/ended"])
        assert application.opened == ["/ws/kept", "/ws/ended"], "the same connection to the application"

    await eventual(lambda: "cut: access-denied" in node.cli("recordings", "show", "ses_carol").stdout)


async def test_a_route_that_is_gone_takes_its_live_paths_along(node: Node) -> None:
    async with websocket(node) as opened:
        assert await echoes(opened, "before")
        text = node.config.read_text()
        moved = text.replace("name: app", "name: other").replace("app.localhost", "other.localhost")
        node.config.write_text(moved.replace("policies/*.tests.yaml", "").replace(", tests: []", ""))
        node.policy.write_text(POLICY.replace('"app"', '"other"'))
        done = await cli(node, "reload")
        assert done.returncode == 0, done.stderr
        closed = await opened.receive(timeout=10)
        assert closed.data == POLICY_VIOLATION


async def test_what_is_wrong_changes_nothing_and_is_said(node: Node) -> None:
    text, certificate = node.config.read_text(), (node.root / "server.pem").read_bytes()
    in_force = (await cli(node, "status", "--json")).stdout
    broken = {
        "half a file": lambda: node.config.write_text(text[: len(text) // 2]),
        "an unknown key": lambda: node.config.write_text(text + "spelt: wrong\n"),
        "a policy that is not Cedar": lambda: node.policy.write_text("permit ("),
        "a policy whose tests fail": lambda: node.policy.write_text(POLICY.replace("staff", "others")),
        "a certificate that is gone": lambda: (node.root / "server.pem").unlink(),
        "a key of another": lambda: node.certify() or (node.root / "server.pem").write_bytes(certificate),
        "another address": lambda: node.config.write_text(text.replace("workers: 2", "workers: 3")),
        "another state": lambda: node.config.write_text(text.replace(str(node.port), "1")),
    }
    key = (node.root / "server.key").read_bytes()
    async with Load(node).running() as load:
        for what, spoil in broken.items():
            spoil()
            done = await cli(node, "reload")
            assert done.returncode == 1, what
            assert f"{node.root}/" in done.stderr, what
            assert "remedy:" in done.stderr or "expected" in done.stderr, (what, done.stderr)
            node.config.write_text(text)
            node.policy.write_text(POLICY)
            (node.root / "server.pem").write_bytes(certificate)
            (node.root / "server.key").write_bytes(key)
        assert "needs a restart to change" in done.stderr
    assert load.failed == []
    after = (await cli(node, "status", "--json")).stdout
    assert after.split('"last"')[0] == in_force.split('"last"')[0]
    node.hup()
    await eventual(lambda: node.logged('"reload done"'))


async def test_a_hangup_while_a_node_starts_does_not_end_it(tmp_path: Path, application: Application) -> None:
    """Whatever renews certificates does not know. What was asked for then is done as soon as it can be."""
    made = Node(tmp_path, await application.start())
    with made.log.open("wb") as log:
        command = [sys.executable, "-m", "ztproxy", "run", "--config", str(made.config)]
        made.process = subprocess.Popen(command, stderr=log, stdout=log)
    try:
        await eventual(lambda: made.children("ztproxy run"))  # the one that stands by, which is there first
        made.hup()
        await eventual(made.ready)
        await eventual(lambda: made.logged("reload done"))
    finally:
        made.process.terminate()
        await asyncio.to_thread(made.process.wait, 40)
        await application.stop()


async def test_workers_that_serve_have_what_they_keep_in_large_pages(node: Node) -> None:
    if not large_pages.gather():
        pytest.skip("this kernel has no large pages to give")
    for worker in node.children("service.worker"):
        rollup = Path(f"/proc/{worker}/smaps_rollup").read_text()
        assert int(rollup.partition("AnonHugePages:")[2].split()[0]) > 0


async def test_a_killed_worker_comes_back_with_what_is_in_force(node: Node) -> None:
    """Not with what lies on disk, even while that is being loaded."""
    async with Load(node).running(keeping=2, opening=4) as load:
        node.policy.write_text("permit (")
        victim = node.children("service.worker")[0]
        os.kill(victim, signal.SIGKILL)
        await eventual(lambda: len(node.children("service.worker")) == 2 and node.ready())
        assert len(load.failed) <= 4, "only what was under way on that worker"
        node.policy.write_text(POLICY + "// new\n")
        node.hup()
        os.kill(node.children("service.worker")[0], signal.SIGKILL)
        await eventual(lambda: node.logged("in force: configuration"))
        await eventual(node.ready)
        await load.progress(100)
        assert len(load.failed) <= 8
        node.policy.write_text(without_websockets())
        assert (await cli(node, "reload")).returncode == 0
    for _ in range(6):  # whichever worker it is
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with websocket(node):
                pass


async def test_without_anybody_who_stands_by_a_fresh_process_reads(node: Node) -> None:
    (standby,) = node.children("ztproxy run")
    node.policy.write_text(POLICY + "// one\n")
    assert (await cli(node, "reload")).returncode == 0
    assert not node.logged("the process that stood by is gone")
    os.kill(standby, signal.SIGKILL)
    for text, code in (("permit (", 1), (POLICY + "// two\n", 0)):
        node.policy.write_text(text)
        assert (await cli(node, "reload")).returncode == code
    assert node.logged("the process that stood by is gone")
    assert (await cli(node, "upgrade")).returncode == 0
    (other,) = node.children("ztproxy run")
    assert other != standby, "the new program has one of its own, and the old one is not left as a zombie"


async def test_a_renewed_certificate_is_taken_up_by_the_watch(node: Node) -> None:
    node.config.write_text(node.config.read_text() + "reload: watch\n")
    assert (await cli(node, "reload")).returncode == 0

    def served() -> bytes:
        with socket.create_connection(("127.0.0.1", node.port)) as plain:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(plain, server_hostname=HOST) as tls:
                return tls.getpeercert(binary_form=True) or b""

    before = served()
    node.certify()  # several files, one after the other: a half-changed pair is refused, then mended
    await eventual(lambda: all(served() != before for _ in range(8)))


async def test_an_upgrade_under_load_refuses_and_fails_nobody(node: Node) -> None:
    async with websocket(node) as opened, Load(node).running() as load:
        assert await echoes(opened, "before")
        workers, control = node.children("service.worker"), node.children("service.control")
        done = await cli(node, "upgrade")
        assert done.returncode == 0, done.stdout + done.stderr
        assert await echoes(opened, "drained"), "what is under way has time"
        assert not set(control) & set(node.children("service.control"))
        await load.progress(200)
        closed = await opened.receive(timeout=20)
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, GOING_AWAY)
        await eventual(lambda: not set(workers) & set(node.children("service.worker")))
        await eventual(lambda: len(node.children("service.worker")) == 2)
    assert load.failed == []
    assert node.process.poll() is None, "the same process id"
    assert (await cli(node, "recordings", "verify")).returncode == 0
    node.policy.write_text(POLICY + "// after\n")
    assert (await cli(node, "reload")).returncode == 0


async def test_an_upgrade_to_other_policies_leaves_nothing_open_that_they_did_not_permit(node: Node) -> None:
    async with websocket(node) as opened:
        assert await echoes(opened, "before")
        node.policy.write_text(without_websockets())
        assert (await cli(node, "upgrade")).returncode == 0
        closed = await opened.receive(timeout=3)  # long before `drain`
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, GOING_AWAY)
    with pytest.raises(aiohttp.WSServerHandshakeError):
        async with websocket(node):
            pass


@pytest.mark.parametrize("by", ["hangup", "watch"])
async def test_what_is_edited_while_one_program_follows_the_other_is_taken_up(node: Node, by: str) -> None:
    """The new program has read the files already, and nobody looks at them until it is up."""
    if by == "watch":
        node.config.write_text(node.config.read_text() + "reload: watch\n")
        assert (await cli(node, "reload")).returncode == 0
    command = [sys.executable, "-m", "ztproxy", "upgrade", "--config", str(node.config)]
    asking = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    assert "takes over" in await asyncio.to_thread(asking.stdout.readline)
    node.policy.write_text(without_websockets())
    if by == "hangup":
        node.hup()
    assert await asyncio.to_thread(asking.wait, 60) == 0, "told of the upgrade, not of the reload after it"
    asking.stdout.close()
    before = 1 if by == "watch" else 0
    await eventual(lambda: node.log.read_text().count('"reload done"') > before)
    with pytest.raises(aiohttp.WSServerHandshakeError):
        async with websocket(node):
            pass


async def test_an_upgrade_that_fails_leaves_everything_as_it_was(node: Node) -> None:
    """The new program's workers never get ready: here, because something is in the way of their journals."""
    workers = node.children("service.worker")
    journals = node.root / "state/journals"
    async with Load(node).running(keeping=2, opening=2) as load:
        journals.rename(journals.with_name("away"))
        journals.write_text("in the way")
        done = await cli(node, "upgrade")
        journals.unlink()
        journals.with_name("away").rename(journals)
        assert done.returncode == 1
        assert "the old program goes on" in done.stderr
        await load.progress(100)
    assert load.failed == []
    assert node.children("service.worker") == workers
    assert (await cli(node, "status")).returncode == 0


async def test_stopping_lets_requests_under_way_finish(node: Node) -> None:
    connector = aiohttp.TCPConnector(ssl=node.tls(), resolver=Resolver())
    async with (
        websocket(node) as opened,
        aiohttp.ClientSession(connector=connector, headers=HEADERS) as session,
    ):
        url = f"https://{HOST}:{node.port}"
        async with session.get(f"{url}/kept") as answer:
            await answer.text()
        async with session.get(f"{url}/slow?parts=25") as slow:
            assert slow.status == 200
            node.process.send_signal(signal.SIGTERM)
            assert (await slow.text()).count("part") == 25
        closed = await opened.receive(timeout=20)
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, GOING_AWAY)
    assert await asyncio.to_thread(node.process.wait, 20) == 0


async def test_who_asks_twice_does_not_wait_for_others(node: Node) -> None:
    node.config.write_text(node.config.read_text().replace("drain: 5s", "drain: 1h"))
    assert (await cli(node, "reload")).returncode == 0
    async with websocket(node) as opened:
        node.process.send_signal(signal.SIGTERM)
        assert await echoes(opened, "still here")
        node.process.send_signal(signal.SIGTERM)
        closed = await opened.receive(timeout=10)
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, GOING_AWAY)
    assert await asyncio.to_thread(node.process.wait, 20) == 0
