"""Connectors on a whole node, from outside: enrolled with a code, told apart by TLS, renewed, revoked.

The connector is the real program; who tries what it must not is openssl, or bytes.
"""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from small_node import COOKIE, HOST, ROOT, Application, Node, eventually

from ztproxy.connector.enrolment import renew
from ztproxy.connector.renewal import Renewal
from ztproxy.connector.state import Folder
from ztproxy.crypto.csr import make_request
from ztproxy.net import keyfiles
from ztproxy.net.clock import FixedClock, SystemClock, entropy
from ztproxy.net.names import Resolver
from ztproxy.wire.carrying import Status, written

CONNECT = "connect.localhost"
CARRY = (
    f"GET /.ztproxy/carry HTTP/1.1\r\nHost: {CONNECT}\r\n"
    "Connection: Upgrade\r\nUpgrade: ztproxy-carry\r\n\r\n"
)
LET_IN, KEPT_OUT = "HTTP/1.1 101", "HTTP/1.1 403"
CUT = 5.0  # seconds; the bound is published elsewhere, here it must only come


@dataclass
class Site:
    """Where a connector runs: its folder, and its file."""

    root: Path
    node: Node

    def __post_init__(self) -> None:
        self.root.mkdir()
        self.config = self.root / "connector.yaml"
        self.state = self.root / "state"
        upstream = self.node.config.read_text().split("http://127.0.0.1:")[1].split('"')[0]
        self.config.write_text(f"state: state\nallow: ['http://127.0.0.1:{upstream}']\ndrain: 2s\n")

    def run(self, verb: str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(verb, *words),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=ROOT,
            env={**os.environ, **environ},
        )

    def command(self, verb: str, *words: str) -> list[str]:
        return [sys.executable, "-m", "ztproxy", "connector", verb, "--config", str(self.config), *words]

    def enrol(self, code: str, *words: str) -> subprocess.CompletedProcess[str]:
        portal, ca = f"https://portal.localhost:{self.node.port}", str(self.node.root / "ca.pem")
        return self.run("enrol", "--portal", portal, "--ca", ca, *words, ZTPROXY_ENROLMENT_CODE=code)

    def start(self) -> subprocess.Popen[bytes]:
        with (self.root / "log").open("wb") as log:
            return subprocess.Popen(self.command("run"), stderr=log, stdout=log, cwd=ROOT)

    def logged(self, words: str) -> bool:
        return words in (self.root / "log").read_text()

    @property
    def identity(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.state / "connector.json").read_text())
        return found

    def certificate(self) -> str:
        return (self.state / "connector.pem").read_text()

    def tls(self) -> ssl.SSLContext:
        context = self.node.tls()
        context.load_cert_chain(self.state / "connector.pem", self.state / "connector.key")
        return context


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    application = Application()
    made = Node(tmp_path, await application.start())
    made.config.write_text(
        made.config.read_text()
        + f"connectors: {{host: {CONNECT}, proxies: ['127.0.0.1:{made.port}'], certificate_lifetime: 9s}}\n"
    )
    await made.sign_in()
    with made.running():
        yield made
    await application.stop()


def lines(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


async def cli(node: Node, *words: str) -> str:
    return lines(await asyncio.to_thread(node.cli, *words))


async def code_for(node: Node, name: str) -> str:
    return (await cli(node, "connectors", "add", name)).strip()


async def enrolled(node: Node, name: str = "site") -> Site:
    site = Site(node.root / f"site-{len(list(node.root.glob('site-*')))}", node)
    lines(await asyncio.to_thread(site.enrol, await code_for(node, name)))
    return site


async def say(node: Node, context: ssl.SSLContext, name: str, text: str) -> str:
    """What the node answers to these bytes on a connection of its own; "" when it closes without a word."""
    try:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", node.port, ssl=context, server_hostname=name
        )
    except (OSError, EOFError):
        return ""
    try:
        writer.write(text.encode())
        return (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
    except (OSError, EOFError):
        return ""
    finally:
        writer.transport.abort()


async def dials(site: Site) -> str:
    """What a connector gets that dials once."""
    return await say(site.node, site.tls(), CONNECT, CARRY)


def request(host: str, path: str = "/", **fields: str) -> str:
    more = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nConnection: close\r\n{more}\r\n"
    )


# ---------------------------------------------------------------------- enrolment


async def test_a_code_is_for_one_connector_of_one_name(node: Node) -> None:
    code = await code_for(node, "site")
    site, other = Site(node.root / "site-a", node), Site(node.root / "site-b", node)
    wrong = await asyncio.to_thread(other.enrol, code, "--name", "elsewhere")
    assert (wrong.returncode, "another name" in wrong.stderr) == (1, True), wrong.stderr
    assert code not in lines(await asyncio.to_thread(site.enrol, code, "--name", "site"))
    assert site.identity["name"] == "site"
    assert oct(site.state.stat().st_mode)[-3:] == "700"
    assert all(oct(path.stat().st_mode)[-2:] == "00" for path in site.state.iterdir())
    again = await asyncio.to_thread(other.enrol, code)
    assert (again.returncode, "was used" in again.stderr) == (1, True), again.stderr
    assert not (other.state / "connector.json").exists()
    twice = await asyncio.to_thread(site.enrol, code)
    assert "is enrolled here already" in twice.stderr
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", str(site.state / "connector.pem")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"URI:spiffe://small.example/connector/site/{site.identity['instance']}" in shown
    authority = node.root / "state/ca/connectors.pem"
    lines(await asyncio.to_thread(openssl_verify, authority, site.state / "connector.pem"))
    devices = await asyncio.to_thread(
        openssl_verify, node.root / "state/ca/devices.pem", site.state / "connector.pem"
    )
    assert devices.returncode != 0


def openssl_verify(authority: Path, leaf: Path) -> subprocess.CompletedProcess[str]:
    command = ["openssl", "verify", "-partial_chain", "-no_check_time", "-trusted", str(authority), str(leaf)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def test_every_step_is_in_the_sealed_log_and_no_code_is(node: Node) -> None:
    code = await code_for(node, "site")
    site = Site(node.root / "site-a", node)
    lines(await asyncio.to_thread(site.enrol, code))
    await cli(node, "connectors", "revoke", "site")

    def sealed() -> bool:
        text = "".join(path.read_text() for path in (node.root / "state/recordings").glob("log-*.jsonl"))
        assert code not in text
        events = ("connector-invited", "connector-enrolled", "connector-revoked")
        return all(event in text for event in events)

    await asyncio.to_thread(eventually, sealed)
    shown = await cli(node, "recordings", "show", f"site/{site.identity['instance']}")
    assert "connector-enrolled" in shown
    assert "connector-revoked" in shown
    assert "connector-invited" in await cli(node, "recordings", "show", "site")
    for path in (node.root / "state").rglob("*"):
        if path.is_file():
            assert code.replace("-", "").encode() not in path.read_bytes(), path


async def test_who_asks_strangely_is_refused(node: Node) -> None:
    """A code that is no code, a wish that is none, many of them, and the wrong host."""
    origin = f"https://portal.localhost:{node.port}"
    csr = make_request(keyfiles.new_key(), "x")
    connector = aiohttp.TCPConnector(ssl=node.tls(), resolver=Resolver())
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(body: object, host: str = origin) -> tuple[int, str]:
            async with session.post(f"{host}/.ztproxy/connectors/enrol", json=body) as answer:
                return answer.status, (await answer.json())["code"]

        elsewhere = f"https://{HOST}:{node.port}"
        assert await ask({"code": "A", "csr": csr}, elsewhere) == (404, "not-found")
        assert await ask({"code": "0000-0000-0000", "csr": csr}) == (403, "enrolment-code-invalid")
        assert await ask({"code": "A", "csr": csr, "instance": "x"}) == (400, "bad-request")
        assert await ask({"code": "A", "csr": "x" * 6000}) == (413, "body-too-large")
        answers = [await ask({"code": "A", "csr": csr}) for _ in range(5)]
        assert answers[-1] == (429, "too-many-requests")


# ---------------------------------------------------------------------- who is who


async def test_a_connector_gets_in_on_its_own_host_and_nobody_else_does(node: Node) -> None:
    site = await enrolled(node)
    assert (await dials(site)).startswith(LET_IN)
    assert await say(node, node.tls(), CONNECT, CARRY) == "", "no certificate"
    old = site.tls()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await say(node, old, CONNECT, CARRY) == "", "an old protocol"
    for path in ("/", "/.ztproxy/", "/.ztproxy/login", "/.ztproxy/connectors/renew", "/.ztproxy/carry/"):
        answer = await say(node, site.tls(), CONNECT, request(CONNECT, path))
        assert answer.startswith(KEPT_OUT), path
    assert (await say(node, site.tls(), CONNECT, request(HOST))).startswith("HTTP/1.1 421")


async def test_a_connectors_certificate_is_nobodys_anywhere_else(node: Node) -> None:
    site = await enrolled(node)
    cookie = f"__Host-ztproxy={COOKIE}"
    assert "200" in (await say(node, node.tls(), HOST, request(HOST, Cookie=cookie))).partition("\r\n")[0]
    for host in (HOST, "portal.localhost"):
        for more in ({}, {"Cookie": cookie}):
            assert await say(node, site.tls(), host, request(host, **more)) == "", "TLS does not believe it"


async def test_certificates_of_others_are_nobodys_where_connectors_dial_in(node: Node) -> None:
    """A device of the same trust domain, and a leaf for a connector's name that another authority made."""
    from ztproxy.crypto.issue import create_authority, issue_identity, load_authority, pem
    from ztproxy.crypto.spiffe import make_id
    from ztproxy.crypto.template import term
    from ztproxy.net.clock import SystemClock, entropy

    site = await enrolled(node)
    now, state = SystemClock().now(), node.root / "state"
    devices = load_authority(
        keyfiles.load_key(state / "keys/device-ca.pem"), (state / "ca/devices.pem").read_bytes(), now
    )
    stranger = create_authority("x", keyfiles.new_key(), term(now, 86_400_000, entropy))
    for authority in (devices, stranger):
        for path in (("connector", "site", site.identity["instance"]), ("device", "dev_" + "a" * 26)):
            key = keyfiles.new_key()
            leaf = issue_identity(
                authority, make_id("small.example", *path), key.public_key(), term(now, 60_000, entropy)
            )
            (node.root / "leaf.pem").write_text(pem(leaf, authority.certificate))
            keyfiles.write(node.root / "leaf.key", keyfiles.key_pem(key))
            context = node.tls()
            context.load_cert_chain(node.root / "leaf.pem", node.root / "leaf.key")
            assert await say(node, context, CONNECT, CARRY) == ""


async def test_a_leaf_of_the_right_authority_for_another_key_is_not_enough(node: Node) -> None:
    """Whoever steals the authority's key still needs a name that is enrolled, with the key that it has."""
    from ztproxy.crypto.issue import issue_identity, load_authority, pem
    from ztproxy.crypto.spiffe import make_id
    from ztproxy.crypto.template import term
    from ztproxy.net.clock import SystemClock, entropy

    site = await enrolled(node)
    now, state = SystemClock().now(), node.root / "state"
    authority = load_authority(
        keyfiles.load_key(state / "keys/connector-ca.pem"), (state / "ca/connectors.pem").read_bytes(), now
    )
    for instance in (site.identity["instance"], "a" * 13):
        key = keyfiles.new_key()
        id_ = make_id("small.example", "connector", "site", instance)
        leaf = issue_identity(authority, id_, key.public_key(), term(now, 60_000, entropy))
        (node.root / "leaf.pem").write_text(pem(leaf))
        keyfiles.write(node.root / "leaf.key", keyfiles.key_pem(key))
        context = node.tls()
        context.load_cert_chain(node.root / "leaf.pem", node.root / "leaf.key")
        assert (await say(node, context, CONNECT, CARRY)).startswith(KEPT_OUT)


# ---------------------------------------------------------------------- the program


async def test_a_running_connector_renews_itself_and_ends_when_told(node: Node) -> None:
    site = await enrolled(node)
    first = site.certificate()
    process = site.start()
    try:
        await asyncio.to_thread(eventually, lambda: site.certificate() != first)
        await asyncio.to_thread(eventually, lambda: site.logged("the certificate was renewed"))
        assert (await dials(site)).startswith(LET_IN)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 30) == 0
    finally:
        process.kill()
    assert site.identity["instance"] not in (node.root / "ca.pem").read_text()
    text = (site.root / "log").read_text()
    assert "PRIVATE" not in text
    assert "eyJ" not in text


async def test_a_clock_that_is_wrong_keeps_no_connector_from_renewing(node: Node) -> None:
    """What it signs has not begun by the node's clock; the refusal tells that clock, and it signs anew."""
    site, renewed = await enrolled(node), asyncio.Event()
    first = site.certificate()
    clock = FixedClock(SystemClock().now() + 7_200_000)
    renewal = Renewal(Folder(site.state), ca=None, clock=clock, entropy=entropy, renewed=renewed.set)
    running = asyncio.create_task(renewal.run())
    try:
        async with asyncio.timeout(60):
            while not renewed.is_set():
                clock.ms = SystemClock().now() + 7_200_000
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert site.certificate() != first
    assert (await dials(site)).startswith(LET_IN)


async def test_a_revoked_connector_stops_and_says_so(node: Node) -> None:
    site, other = await enrolled(node), await enrolled(node)
    process = site.start()
    try:
        await asyncio.to_thread(eventually, lambda: site.logged("the connector is up"))
        await cli(node, "connectors", "revoke", f"site/{site.identity['instance']}")
        assert await asyncio.to_thread(process.wait, 60) == 3
    finally:
        process.kill()
    assert site.logged("was revoked")
    assert (await dials(site)).startswith(KEPT_OUT)
    listed = await cli(node, "connectors", "list")
    assert f"site/{site.identity['instance']}" in listed
    assert "revoked: " in listed
    state = await asyncio.to_thread(other.run, "check", "--offline")
    assert f"site/{other.identity['instance']}" in lines(state)


async def test_what_it_carries_is_cut_when_it_is_revoked(node: Node) -> None:
    site = await enrolled(node)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", node.port, ssl=site.tls(), server_hostname=CONNECT
    )
    writer.write(CARRY.encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(LET_IN.encode())
    reading = asyncio.create_task(reader.read(-1))
    await cli(node, "connectors", "revoke", "site")
    async with asyncio.timeout(CUT):
        try:
            await reading
        except OSError:
            pass
    writer.transport.abort()
    assert (await dials(site)).startswith(KEPT_OUT)


async def test_what_it_carries_ends_with_the_certificate_it_began_with_whoever_renews_meanwhile(
    node: Node,
) -> None:
    """Renewing proves who has the key, not who holds this connection."""
    site = await enrolled(node)
    folder, clock = Folder(site.state), SystemClock()
    await renew(folder, clock.now())
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", node.port, ssl=site.tls(), server_hostname=CONNECT
    )
    writer.write(CARRY.encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(LET_IN.encode())
    _, ends = folder.term()
    while folder.term()[1] < ends + 2000:
        await asyncio.sleep(2)  # certificates tell whole seconds
        await renew(folder, clock.now())

    async def beats() -> None:
        while True:
            writer.write(written(Status("1.2.3", 0, False)))
            await asyncio.sleep(5)

    beating = asyncio.create_task(beats())
    async with asyncio.timeout(60):
        with suppress(OSError):
            await reader.read(-1)
    beating.cancel()
    assert ends - 100 <= clock.now() < folder.term()[1], "neither sooner nor with its heir"
    writer.transport.abort()
    await renew(folder, clock.now())
    assert (await dials(site)).startswith(LET_IN)


async def test_locks_keep_it_out_and_let_it_in_again(node: Node) -> None:
    site = await enrolled(node)
    name = "spiffe://small.example/connector/site"
    lock = (await cli(node, "locks", "add", "workload", name, "--reason", "lost")).split()[0]

    async def answers(status: str) -> None:
        async with asyncio.timeout(CUT):
            while not (await dials(site)).startswith(status):
                pass

    await answers(KEPT_OUT)
    await cli(node, "locks", "remove", lock)
    await answers(LET_IN)


async def test_before_it_is_enrolled_it_says_what_to_do(node: Node) -> None:
    site = Site(node.root / "site-a", node)
    done = await asyncio.to_thread(site.run, "run")
    assert done.returncode == 3
    assert "ztproxy connectors add NAME" in done.stderr
    assert not (site.state / "connector.json").exists()
    shown = json.loads(await cli(node, "connectors", "list", "--json"))
    assert (shown["connectors"], shown["never_enrolled"]) == ([], [])
    (here,) = shown["nodes"]
    assert (here["here"], here["silent"], here["connectors"]) == (True, False, 0)


# ---------------------------------------------------------------------- what it carries


@pytest.fixture
async def behind(node: Node) -> Node:
    """The node's application is reached through connectors only: `site` carries to it."""
    node.config.write_text(
        node.config.read_text().replace("{name: app, from:", "{name: app, connector: site, from:")
    )
    await cli(node, "reload")
    return node


async def asked(node: Node, path: str = "/a") -> tuple[int, str]:
    connector = aiohttp.TCPConnector(ssl=node.tls(), resolver=Resolver(), force_close=True)
    headers = {"Cookie": f"__Host-ztproxy={COOKIE}", "Accept": "application/json"}
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as session,
        session.get(f"https://{HOST}:{node.port}{path}") as answer,
    ):
        text = await answer.text()
        return answer.status, text if answer.status == 200 else str(json.loads(text)["code"])


async def become(node: Node, expected: tuple[int, str]) -> None:
    async with asyncio.timeout(30):
        while await asked(node) != expected:
            await asyncio.sleep(0.05)


async def test_an_application_is_reached_through_its_connector_until_that_is_revoked(behind: Node) -> None:
    """Renewals in between, by the one that is left, and not at all in the end: a WebSocket ends at once."""
    node = behind
    assert await asked(node) == (502, "connector-unavailable")
    shown = json.loads(await cli(node, "connectors", "list", "--json"))
    assert shown["never_enrolled"] == ["site"]
    assert "never enrolled" in await cli(node, "connectors", "list")
    one, other = await enrolled(node), await enrolled(node)
    first, second = one.start(), other.start()
    try:
        await become(node, (200, "/a"))
        lines(await asyncio.to_thread(one.run, "check"))

        def connected() -> bool:
            listed = json.loads(lines(node.cli("connectors", "list", "--json")))["connectors"]
            return len([found for found in listed if found.get("live", {}).get("ready")]) == 2

        await asyncio.to_thread(eventually, connected, 60)
        listed = await cli(node, "connectors", "list")
        assert listed.count("connected") == 2, listed
        second.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(second.wait, 30) == 0
        assert await asked(node) == (200, "/a")

        certificate = one.certificate()
        await asyncio.to_thread(eventually, lambda: one.certificate() != certificate)
        await become(node, (200, "/a"))

        origin = f"https://{HOST}:{node.port}"
        connector = aiohttp.TCPConnector(ssl=node.tls(), resolver=Resolver())
        headers = {"Cookie": f"__Host-ztproxy={COOKIE}"}
        async with (
            aiohttp.ClientSession(connector=connector, headers=headers) as session,
            session.ws_connect(origin + "/ws", origin=origin) as socket,
        ):
            await socket.send_str("hello")
            assert await socket.receive_str(timeout=10) == "hello"
            reading = asyncio.create_task(socket.receive())
            await cli(node, "connectors", "revoke", "site")
            async with asyncio.timeout(CUT):
                ended = await reading
            assert ended.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        await become(node, (502, "connector-unavailable"))
        assert await asyncio.to_thread(first.wait, 60) == 3, "it learns it when it wants to renew"
    finally:
        first.kill()
        second.kill()
