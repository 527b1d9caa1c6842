"""Nodes that reach an application through connectors only: real processes, one Redis, one folder.

`bench.nodes` lays out the nodes. The application's own place may be a network namespace (`namespaces`).
"""

import asyncio
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import aiohttp

from bench.machine import free_port
from bench.nodes import DAY, TRUST_DOMAIN, Estate, Running, eventually
from ztproxy.administrator.issue import CONNECTORS, NODES, Kept, load_authority
from ztproxy.connector.state import Folder
from ztproxy.crypto.issue import issue_server, pem
from ztproxy.crypto.template import term
from ztproxy.net import keyfiles
from ztproxy.net.clock import SystemClock, entropy
from ztproxy.net.names import Resolver

HERE = Path(__file__).parent
SITE, CONNECT = "site.localhost", "connect.localhost"
NAME = "partner"
SECTION = "connectors: {host: connect.localhost}"
ROUTE = """\
  - {{name: site, from: "https://site.localhost", to: "http://127.0.0.1:{port}", connector: partner,
     client_certificate: required, max_body: 4GiB}}
"""
POLICY = '@id("site") permit (principal is Workload, action in Action::"http", resource == Route::"site");\n'
CONFIGURATION = """\
state: {state}
drain: {drain}
proxies: [{proxies}]
allow: [{allow}]
"""


class ConnectorProgram(Running):
    """`ztproxy connector run`, with its folder. `enter` is what runs it where the application is."""

    def __init__(self, folder: Path, enter: Sequence[str]) -> None:
        folder.mkdir(mode=0o700)
        super().__init__(folder / "log")
        self.folder = folder
        self.file = folder / "connector.yaml"
        self.enter = enter

    def run(self) -> None:
        """Start it."""
        command = [
            *self.enter,
            sys.executable,
            "-m",
            "ztproxy",
            "connector",
            "run",
            "--config",
            str(self.file),
        ]
        self.spawn(*command, cwd=self.folder)


class Connected(Estate):
    """Everything but connectors, which tests start. `beside` is the prefix of commands at the site, `proxy`
    the address at which nodes are reached from there."""

    def __init__(
        self, *, nodes: int = 2, workers: int = 2, beside: Sequence[str] = (), proxy: str = "127.0.0.1"
    ) -> None:
        super().__init__(nodes=nodes, workers=workers, redis=nodes > 1, more=SECTION)
        self.site_port = free_port()
        self.beside, self.proxy = list(beside), proxy
        self.site = Running(self.root / "site.log")
        self.connectors: list[ConnectorProgram] = []

    def __enter__(self) -> "Connected":
        self._stack.callback(self._end_site)
        super().__enter__()
        self.application_at(self.beside, self.site)
        self.cert, self.key, _ = self.identity("/caller")
        return self

    def application_at(self, beside: Sequence[str], where: Running) -> None:
        """Start the application somewhere; it is at the same address everywhere."""
        command = [
            *beside,
            sys.executable,
            str(HERE / "site_application.py"),
            "127.0.0.1",
            str(self.site_port),
        ]
        where.spawn(*command, cwd=HERE)

    def _end_site(self) -> None:
        for connector in self.connectors:
            connector.end(signal.SIGKILL)
        self.site.end(signal.SIGKILL)

    def prepare(self) -> None:
        """Write what the estate has, the route behind connectors, and authorities that all nodes share."""
        super().prepare()
        (self.root / "policies/site.cedar").write_text(POLICY)
        for node in self.nodes:
            text = node.config.read_text() + ROUTE.format(port=self.site_port)
            text = text.replace("drain: 1s", "drain: 8s", 1)
            text = text.replace("listen: 127.0.0.1:", "listen: 0.0.0.0:", 1)
            text = text.replace(SECTION, SECTION.replace("}", f", node: 127.0.0.1:{node.port}}}"))
            node.config.write_text(text)
        first, *others = (node.folder / "state" for node in self.nodes)
        for kept in (CONNECTORS, NODES):
            load_authority(
                first, kept, trust_domain=TRUST_DOMAIN, lifetime=DAY, clock=SystemClock(), entropy=entropy
            )
        for other in others:
            for folder in ("keys", "ca"):
                shutil.copytree(first / folder, other / folder)

    def _certify(self) -> None:
        super()._certify()
        own = keyfiles.new_key()
        names = ("app.localhost", "machines.localhost", "portal.localhost", SITE, CONNECT)
        leaf = issue_server(
            self.authority, own.public_key(), term(SystemClock().now(), DAY, entropy), dns_names=names
        )
        keyfiles.write(self.root / "server.key", keyfiles.key_pem(own))
        keyfiles.write(self.root / "server.pem", pem(leaf).encode(), 0o644)

    # ------------------------------------------------------------------ connectors

    def connector(
        self,
        nodes: Sequence[int] = (0, 1),
        *,
        allow: str = "",
        drain: str = "5s",
        beside: Sequence[str] | None = None,
    ) -> ConnectorProgram:
        """Enrol a connector that dials these nodes, and start it: at the site, or `beside` something else."""
        where = self.beside if beside is None else beside
        one = ConnectorProgram(self.root / f"connector{len(self.connectors)}", where)
        self.connectors.append(one)
        proxies = ", ".join(f'"{self.proxy}:{self.nodes[at].port}"' for at in nodes)
        allowed = allow or f'"http://127.0.0.1:{self.site_port}"'
        one.file.write_text(
            CONFIGURATION.format(state=one.folder / "state", drain=drain, proxies=proxies, allow=allowed)
        )
        added = self.nodes[0].cli("connectors", "add", NAME)
        assert added.returncode == 0, added.stderr
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ztproxy", "connector", "enrol", "--config", one.file),
                *("--portal", self.origin, "--ca", self.root / "ca.pem"),
            ],
            env={**os.environ, "ZTPROXY_ENROLMENT_CODE": added.stdout.strip()},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        self.start(one, nodes)
        return one

    def start(self, one: ConnectorProgram, nodes: Sequence[int] = (0, 1)) -> None:
        """Start a connector that is enrolled, and of which no node has anything; wait until these have it.

        Each node is asked for this very one: another that was started before may just come to more workers.
        """
        one.run()
        eventually(lambda: all(self._has(at, one) for at in nodes), 30)

    def _has(self, node: int, one: ConnectorProgram) -> bool:
        asking = self.nodes[node].ask("GET", "/v1/connectors")
        with ThreadPoolExecutor(1) as aside:  # a loop may be running here
            listed = aside.submit(asyncio.run, asking).result()
        which = Folder(one.folder / "state").identity().instance
        return any(
            shown["instance"] == which and place["here"] and place["ready"]
            for shown in listed["connectors"]
            for place in shown["nodes"]
        )

    def shows(self, kept: Kept, *path: str) -> ssl.SSLContext:
        """What somebody shows who has a key that one of our own authorities has certified."""
        key, state = keyfiles.new_key(), self.nodes[0].folder / "state"
        authority = load_authority(
            state, kept, trust_domain=TRUST_DOMAIN, lifetime=DAY, clock=SystemClock(), entropy=entropy
        )
        file = self.root / f"shown-{secrets.token_hex(4)}.pem"
        pair = authority.issue(key.public_key(), *path).pem.encode() + keyfiles.key_pem(key)
        keyfiles.write(file, pair)
        context = ssl.create_default_context(cafile=str(self.root / "ca.pem"))
        context.load_cert_chain(file)
        return context

    async def said(
        self, node: int, context: ssl.SSLContext, host: str, path: str, more: bytes = b""
    ) -> bytes:
        """What the public listener answers whoever comes with these credentials and asks to carry."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.nodes[node].port, ssl=context, server_hostname=host
        )
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: ztproxy-carry\r\n\r\n"
        writer.write(head.encode() + more)
        answer = b""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(3):
                while chunk := await reader.read(4096):
                    answer += chunk
        writer.transport.abort()
        return answer

    def known(self, node: int) -> float:
        """How many connectors the workers of a node have anything of, whether ready or not; added up."""
        return sum(self.nodes[node].numbers("ztproxy_connector_instances"))

    def ready(self, node: int) -> float:
        """How many connections of connectors the workers of a node have ready, together."""
        return sum(self.nodes[node].numbers("ztproxy_connector_ready"))

    def borrowed(self, node: int, whose: str) -> float:
        """How many connections a node has borrowed from workers or nodes."""
        name = "ztproxy_connector_borrowed_total"
        text = self.metrics(node)
        mark = f'whose="{whose}"'
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith(name) and mark in line
        )

    def metrics(self, node: int) -> str:
        """All metrics of a node."""
        url = f"http://127.0.0.1:{self.nodes[node].metrics}/metrics"
        return str(urlopen(url, timeout=10).read().decode())

    # ------------------------------------------------------------------ callers

    def url(self, node: int, path: str) -> str:
        """Where a node serves the application."""
        return f"https://{SITE}:{self.nodes[node].port}{path}"

    def tls(self) -> ssl.SSLContext:
        """How a caller shows who it is."""
        context = ssl.create_default_context(cafile=str(self.root / "ca.pem"))
        context.load_cert_chain(self.cert, self.key)
        return context

    @asynccontextmanager
    async def session(self, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
        """A caller. Nothing is kept between its requests unless a test says so."""
        connector = aiohttp.TCPConnector(ssl=self.tls(), resolver=Resolver(), limit=0, **options)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield session
        await asyncio.sleep(0.1)  # aiohttp does not wait for its TLS to close


async def until(fact: Callable[[], Any], seconds: float = 20) -> None:
    """Wait for something that is found out without waiting."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(fact):
        assert time.monotonic() < deadline, f"did not come to be within {seconds} s"
        await asyncio.sleep(0.1)
