"""Nodes that share one Redis: servers, certificates, configuration, policies, an application behind them.

Used by `bench.cut` and by the scenario tests of several nodes. Processes, sockets and files are real, and all
that was started ends with the block that started it.
"""

import asyncio
import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import Certificate

from bench.ground import PATH, SOURCE
from bench.machine import family, free_port
from bench.outside import AUTHORIZATION
from bench.outside import CONFIG as OUTSIDE
from bench.wires import Wire
from ztproxy.cli.admin import asked
from ztproxy.config.load import load
from ztproxy.config.settings import Settings
from ztproxy.crypto.issue import create_authority, issue_identity, issue_server, pem
from ztproxy.crypto.signing import Issuer
from ztproxy.crypto.spiffe import SpiffeId
from ztproxy.crypto.template import term
from ztproxy.net import keyfiles
from ztproxy.net.clock import SystemClock, entropy

TRUST_DOMAIN = "cut.example"
APP, MACHINES, PORTAL = "app.localhost", "machines.localhost", "portal.localhost"
CELLS = 40  # routes that can be locked without touching anybody else
DAY = 86_400_000

CONFIG = """\
listen: 127.0.0.1:{port}
external_port: {external}
workers: {workers}
trust_domain: cut.example
state: state
drain: 1s
{store}
tls: {{certificates: [{{cert: ../server.pem, key: "file:../server.key"}}]}}
portal: {{host: portal.localhost}}
telemetry: {{listen: "127.0.0.1:{metrics}"}}
log: {{level: warning}}
client_certificates: [{{name: machines, ca: ../ca.pem, kind: workload, trust_domain: cut.example}}]
policy: {{files: [../policies/*.cedar, own/*.cedar], feed_limit: {feed_limit}}}
limits:  # one source is everybody here
  connections: 20000
  connections_per_source: 20000
  handshakes: 100000/s burst 100000
  handshakes_per_source: 100000/s burst 100000
  handshaking: 5000
  handshaking_per_source: 5000
  requests_per_source: 1000000/s burst 1000000
  sign_in_per_source: 100000/s burst 100000
{outside}
{more}
routes:
  - {{name: app, from: "https://app.localhost", to: "http://127.0.0.1:{upstream}"}}
  - {{name: device, from: "https://app.localhost/device/", to: "http://127.0.0.1:{upstream}"}}
  - {{name: reload, from: "https://app.localhost/reload/", to: "http://127.0.0.1:{upstream}"}}
  - {{name: fresh, from: "https://app.localhost/fresh/", to: "http://127.0.0.1:{upstream}"}}
  - {{name: machines, from: "https://machines.localhost", to: "http://127.0.0.1:{upstream}",
     client_certificate: required}}
{cells}
"""
CELL = """\
  - {{name: cell{number}, app: cells, from: "https://app.localhost/cell{number}/",
     to: "http://127.0.0.1:{upstream}"}}
"""
POLICY = """\
@id("staff") permit (principal is User in Group::"staff", action in Action::"http", resource == Route::"app");
@id("cells") permit (principal is User in Group::"staff", action in Action::"http", resource in App::"cells");
@id("device") permit (
  principal is User in Group::"staff", action in Action::"http", resource == Route::"device"
) when { principal has device && principal.device has posture && principal.device.posture.healthy };
@id("fresh") @recheck("500ms keep 2s") permit (
  principal is User in Group::"staff", action in Action::"http", resource == Route::"fresh"
);
@id("machines") permit (principal is Workload, action in Action::"http", resource == Route::"machines");
"""
#: Policies of one node that are edited: who may use the route `reload`.
RELOADED = """\
@id("reload-{group}")
permit (principal is User in Group::"{group}", action in Action::"http", resource == Route::"reload");
"""


def eventually(fact: Callable[[], Any], seconds: float = 30, step: float = 0.05) -> Any:
    """Return what `fact` says once it says something true. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not (found := fact()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"did not come to be within {seconds} s: {fact}")
        time.sleep(step)
    return found


class Running:
    """A process of ours and its log. `path` is where Python finds the product."""

    path = str(SOURCE)

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self, *command: str | Path, cwd: Path, **env: str) -> None:
        """Start it; what it says goes to the log."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=cwd,
                env={**os.environ, "PYTHONPATH": self.path, **env},
            )

    @property
    def pid(self) -> int:
        """Return its pid. Raises LookupError when it does not run."""
        if self.process is None or self.process.poll() is not None:
            raise LookupError(f"not running:\n{self.said()}")
        return self.process.pid

    def said(self) -> str:
        """Return the end of what it said."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def end(self, how: int = signal.SIGTERM) -> None:
        """End it and whatever it started."""
        process, self.process = self.process, None
        if process is None:
            return
        rest = family(process.pid)[1:]
        for one in (process.pid, *rest):
            _signal(one, signal.SIGCONT)
        _signal(process.pid, how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for one in rest:
            _signal(one, signal.SIGKILL)


class RedisServer(Running):
    """A redis-server of our own that keeps what it acknowledged; it comes back on the same port."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        super().__init__(folder / "log")
        self._folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers. Raises TimeoutError."""
        program = shutil.which("redis-server")
        if program is None:
            raise LookupError("redis-server is not installed")
        options = f"--port {self.port} --bind 127.0.0.1 --appendonly yes --appendfsync always --daemonize no"
        self.spawn(program, *options.split(), "--save", "", "--dir", self._folder, cwd=self._folder)
        eventually(self.answers, 20, 0.02)

    def answers(self) -> bool:
        """Tell whether it says PONG."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def pause(self) -> None:
        """Let it stand still: it takes connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)


class Node(Running):
    """One `ztproxy run`: its folder, ports and processes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o711)
        (folder / "own").mkdir()
        (folder / "state").mkdir(mode=0o700)
        super().__init__(folder / "log")
        self.folder = folder
        self.config = folder / "ztproxy.yaml"
        self.port, self.metrics = free_port(), free_port()

    def start(self) -> None:
        """Start it; `wait` for it afterwards."""
        command = [sys.executable, "-m", "ztproxy", "run", "--config", str(self.config)]
        self.spawn(*command, cwd=self.folder)

    def wait(self, seconds: float = 60) -> None:
        """Return when it is ready. Raises TimeoutError, LookupError."""
        eventually(self.ready, seconds)

    def ready(self) -> bool:
        """Tell whether all its workers are fed."""
        assert self.pid
        try:
            return bool(urlopen(f"http://127.0.0.1:{self.metrics}/readyz", timeout=5).status == 200)
        except OSError:
            return False

    def numbers(self, name: str) -> list[float]:
        """Return a metric of each worker."""
        text = urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10).read().decode()
        lines = [line for line in text.splitlines() if line.startswith(name + "{")]
        return [float(line.rpartition(" ")[2]) for line in lines if 'worker="control"' not in line]

    def parts(self, what: str) -> list[int]:
        """Return the pids of its "worker"s or its "control"."""
        mark = f"ztproxy.service.{what}".encode()
        return [pid for pid in family(self.pid) if mark in Path(f"/proc/{pid}/cmdline").read_bytes()]

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return what the administrator's API answers, as the command line asks it."""
        door = self.folder / "state/run/admin.sock"
        return await asyncio.to_thread(asked, door, method, path, body, 30.0)

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a verb."""
        command = [sys.executable, "-m", "ztproxy", *words, "--config", str(self.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=SOURCE)


class Estate:
    """Everything: `with Estate(...) as estate:` has all of it running.

    `redis` False: one node on SQLite. `more` are further lines of configuration at the top level. `compiled`:
    what `scripts/compile` laid out is run, where it is. `wired`: every node has a wire of its own to Redis.
    `before` is called before the nodes are started.
    """

    def __init__(
        self,
        *,
        nodes: int = 2,
        workers: int = 2,
        redis: bool = True,
        more: str = "",
        feed_limit: str = "10s",
        compiled: bool = False,
        wired: bool = False,
        before: Callable[["Estate"], None] = lambda _: None,
    ) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="ztproxy-nodes-"))
        self.root.chmod(0o711)
        self.redis = RedisServer(self.root / "redis") if redis else None
        self.wires = [Wire(self.redis.port) for _ in range(nodes)] if self.redis and wired else []
        self.application = Running(self.root / "application.log")
        self.upstream = free_port()
        self.outside = free_port()  # of the identity provider, which `bench.outside` is, if it runs
        self.nodes = [Node(self.root / f"node{number}") for number in range(nodes)]
        self.origin = f"https://{PORTAL}:{self.nodes[0].port}"
        if compiled:
            for node in self.nodes:
                node.path = PATH
        self._before = before
        self._workers, self._more, self._feed_limit = workers, more, feed_limit
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.callback(shutil.rmtree, self.root, ignore_errors=True)
        try:
            self.prepare()
            if self.redis is not None:
                self._stack.callback(self.redis.end)
                self.redis.start()
            for wire in self.wires:
                wire.start()
                self._stack.callback(wire.end)
            self._stack.callback(self.application.end)
            self.application.spawn(sys.executable, "-m", "bench.upstream", str(self.upstream), cwd=self.root)
            self._before(self)
            for node in self.nodes:
                self._stack.callback(node.end)
                node.start()
            for node in self.nodes:
                node.wait(180)  # a hundred thousand sessions take their time
        except BaseException:
            print("\n".join(node.said() for node in self.nodes), file=sys.stderr)
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print("\n".join(node.said() for node in self.nodes), file=sys.stderr)
        self._stack.close()

    def settings(self) -> Settings:
        """Return the first node's configuration as it reads it."""
        return load(self.nodes[0].config)

    def identity(self, path: str) -> tuple[Path, Path, str]:
        """Return files of a workload's new certificate and key, and the certificate's SHA-256 in hex."""
        key = keyfiles.new_key()
        now = SystemClock().now()
        leaf = issue_identity(
            self.authority, SpiffeId(TRUST_DOMAIN, path), key.public_key(), term(now, DAY, entropy)
        )
        stem = self.root / f"client-{secrets.token_hex(8)}"
        cert, key_file = stem.with_suffix(".pem"), stem.with_suffix(".key")
        keyfiles.write(cert, pem(leaf).encode(), 0o644)
        keyfiles.write(key_file, keyfiles.key_pem(key))
        return cert, key_file, fingerprint(leaf)

    def permit(self, groups: list[str]) -> None:
        """Write on every node who may use the route `reload`."""
        text = "".join(RELOADED.format(group=group) for group in groups)
        for node in self.nodes:
            keyfiles.write(node.folder / "own/reload.cedar", text.encode(), 0o644)

    def prepare(self) -> None:
        """Write certificates, policies and configurations."""
        self._certify()
        (self.root / "policies").mkdir()
        (self.root / "policies/cut.cedar").write_text(POLICY)
        self.permit(["staff"])
        if self.redis is not None:
            keyfiles.write(self.root / "sealing.key", _sealing_key())
        keyfiles.write(self.root / "client.secret", secrets.token_hex(16).encode())
        keyfiles.write(self.root / "push.secret", AUTHORIZATION.encode())
        cells = "".join(CELL.format(number=number, upstream=self.upstream) for number in range(CELLS))
        for number, node in enumerate(self.nodes):
            node.config.write_text(
                CONFIG.format(
                    port=node.port,
                    external=self.nodes[0].port,
                    workers=self._workers,
                    metrics=node.metrics,
                    store=self._store(number),
                    feed_limit=self._feed_limit,
                    outside=OUTSIDE.format(issuer=f"http://127.0.0.1:{self.outside}"),
                    more=self._more,
                    upstream=self.upstream,
                    cells=cells,
                )
            )

    def _store(self, number: int) -> str:
        if self.redis is None:
            return ""
        port = self.wires[number].port if self.wires else self.redis.port
        section = {"redis": {"url": f"redis://127.0.0.1:{port}"}, "keys": ["file:../sealing.key"]}
        return f"store: {json.dumps(section)}"

    def _certify(self) -> None:
        key, own, now = keyfiles.new_key(), keyfiles.new_key(), SystemClock().now()
        self.authority: Issuer = create_authority("cut", key, term(now, DAY, entropy))
        leaf = issue_server(
            self.authority, own.public_key(), term(now, DAY, entropy), dns_names=(APP, MACHINES, PORTAL)
        )
        keyfiles.write(self.root / "server.key", keyfiles.key_pem(own))
        keyfiles.write(self.root / "server.pem", pem(leaf).encode(), 0o644)
        keyfiles.write(self.root / "ca.pem", pem(self.authority.certificate).encode(), 0o644)


def fingerprint(certificate: Certificate) -> str:
    """Return a certificate's SHA-256 in hex."""
    return certificate.fingerprint(SHA256()).hex()


def _sealing_key() -> bytes:
    return base64.b64encode(secrets.token_bytes(32)) + b"\n"


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
