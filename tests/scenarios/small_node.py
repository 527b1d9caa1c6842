"""A whole node on loopback with one small application behind it: no browser, no provider, a session on disk.

Processes, sockets and files are real. The application answers every GET with its path, streams at /slow and
echoes WebSockets at /ws; it counts connections.
"""

import asyncio
import hashlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
from aiohttp import WSMsgType, web

from ztproxy.crypto.issue import create_authority, issue_server, pem
from ztproxy.crypto.template import term
from ztproxy.model.subject import Handle, Principal, Session
from ztproxy.net import keyfiles
from ztproxy.net.clock import SystemClock, entropy
from ztproxy.store.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]
COOKIE = "b" * 43
HOST = "app.localhost"
CONFIG = """\
listen: 127.0.0.1:{port}
workers: 2
trust_domain: small.example
state: state
drain: 5s
tls: {{certificates: [{{cert: server.pem, key: "file:server.key"}}]}}
portal: {{host: portal.localhost}}
limits: {{handshakes_per_source: 5000/s burst 5000, requests_per_source: 50000/s burst 50000}}
telemetry: {{listen: "127.0.0.1:{metrics}"}}
policy: {{files: [policies/*.cedar], tests: [policies/*.tests.yaml]}}
routes:
  - {{name: app, from: "https://app.localhost", to: "http://127.0.0.1:{upstream}"}}
"""
POLICY = """\
@id("staff") permit (principal is User in Group::"staff", action in Action::"http", resource == Route::"app");
"""
TESTS = """\
fixtures:
  carol: {user: "corp:carol", groups: [staff]}
cases:
  - {name: staff may, as: carol, do: GET, to: app, expect: allow}
"""


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(fact: Callable[[], Any], seconds: float = 30, step: float = 0.05) -> Any:
    """What `fact` says once it says something true."""
    deadline = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < deadline, f"did not come to be within {seconds} s: {fact}"
        time.sleep(step)
    return found


class Application:
    """What the node protects."""

    def __init__(self) -> None:
        self.opened: list[str] = []  # the path of every WebSocket, when it began
        self.ended: list[str] = []

    async def start(self) -> int:
        app = web.Application()
        app.router.add_get("/ws", self._echo)
        app.router.add_get("/ws/{name}", self._echo)
        app.router.add_get("/slow", self._slow)
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        port = unused_port()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        return port

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        return web.Response(text=request.path)

    async def _slow(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if request.headers.get("Accept") == "text/event-stream":
            response.content_type = "text/event-stream"
        await response.prepare(request)
        for _ in range(int(request.query.get("parts", "10"))):
            await response.write(b"part\n")
            await asyncio.sleep(0.1)
        return response

    async def _echo(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.opened.append(request.path)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await socket.send_str(message.data)
        finally:
            self.ended.append(request.path)
        return socket


class Node:
    """`ztproxy run`, its files and its processes."""

    def __init__(self, root: Path, upstream: int) -> None:
        self.root = root
        self.port, self.metrics = unused_port(), unused_port()
        self.config = root / "ztproxy.yaml"
        self.log = root / "log"
        (root / "policies").mkdir()
        self.policy = root / "policies/app.cedar"
        self.policy.write_text(POLICY)
        (root / "policies/app.tests.yaml").write_text(TESTS)
        self.config.write_text(CONFIG.format(port=self.port, metrics=self.metrics, upstream=upstream))
        self.certify()
        (root / "state").mkdir(mode=0o700)

    def certify(self) -> None:
        """Write a new server certificate, by renaming it into place."""
        key, now = keyfiles.new_key(), SystemClock().now()
        authority = create_authority("small", key, term(now, 86_400_000, entropy))
        own = keyfiles.new_key()
        leaf = issue_server(
            authority,
            own.public_key(),
            term(now, 86_400_000, entropy),
            dns_names=(HOST, "other.localhost", "portal.localhost", "connect.localhost"),
        )
        keyfiles.write(self.root / "server.key", keyfiles.key_pem(own))
        keyfiles.write(self.root / "server.pem", pem(leaf).encode(), 0o644)
        keyfiles.write(self.root / "ca.pem", pem(authority.certificate).encode(), 0o644)

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.root / "ca.pem"))

    async def sign_in(self) -> None:
        """Put carol's session into the store."""
        now = SystemClock().now()
        store = await SqliteStore.open(self.root / "state/ztproxy.db", SystemClock().now)
        person = Principal(kind="User", id="corp:carol", issuer="corp", name="Carol", groups=("staff",))
        session = Session(
            id="ses_carol",
            principal=person,
            provider="corp",
            created_at=now,
            auth_time=now,
            last_seen_at=now,
            expires_at=now + 3_600_000,
        )
        handle = hashlib.sha256(COOKIE.encode()).hexdigest()
        await store.put("session", session.id, msgspec.msgpack.encode(session))
        for host, digest in ((HOST, handle),):
            value = Handle(session_id=session.id, host=host, created_at=now)
            await store.put("handle", digest, msgspec.msgpack.encode(value))
        await store.close()

    @contextmanager
    def running(self) -> Iterator["Node"]:
        """Run it until the block ends; a node that does not end by itself fails the test."""
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "ztproxy", "run", "--config", str(self.config)]
            self.process = subprocess.Popen(command, stderr=log, stdout=log, cwd=ROOT)
        try:
            eventually(self.ready, 60)
            yield self
        except BaseException:
            print(self.log.read_text()[-6000:])
            raise
        finally:
            self.process.terminate()
            try:
                self.process.wait(40)
            finally:
                self.process.kill()

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urlopen(f"http://127.0.0.1:{self.metrics}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def scrape(self) -> str:
        with urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a verb."""
        command = [sys.executable, "-m", "ztproxy", *words, "--config", str(self.config)]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "300"},
        )

    def children(self, mark: str) -> list[int]:
        """Processes whose command line has the mark, below the supervisor."""
        found = []
        done = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        for pid in map(int, done.stdout.split()):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if mark in line:
                found.append(pid)
        return sorted(found)

    def logged(self, words: str) -> bool:
        return words in self.log.read_text()

    def hup(self) -> None:
        os.kill(self.process.pid, signal.SIGHUP)
