"""The whole demo as a person starts it, applications nobody here wrote behind it, and a real browser."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).parents[2]
APPS_BIN = ROOT / ".venv-apps" / "bin"
ZTPROXY = [sys.executable, "-m", "ztproxy"]
CHROMIUM = "/usr/bin/chromium"
FLAGS = """
    --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync
""".split()  # noqa: SIM905 - as one types it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is a scenario, and may take its time."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.scenario)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(180))


def eventually(fact: Callable[[], Any], seconds: float = 15, step: float = 0.1) -> Any:
    """What `fact` says once it says something true; the test fails when it never does."""
    deadline = time.monotonic() + seconds
    while True:
        found = fact()
        if found or time.monotonic() > deadline:
            assert found, f"did not come to be within {seconds} s: {fact}"
            return found
        time.sleep(step)


class Answer(NamedTuple):
    """What curl got."""

    status: int
    headers: str
    body: str
    code: int  # of curl itself

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Demo:
    """A running demo, as `demo.json` describes it."""

    root: Path
    process: subprocess.Popen[bytes]
    facts: dict[str, Any] = field(default_factory=dict)

    def url(self, app: str, path: str = "/") -> str:
        return self.facts["apps"][app]["url"] + path

    def curl(self, *arguments: str) -> Answer:
        """Run the real curl, trusting the demo's authority."""
        command = ["curl", "--silent", "--show-error", "--max-time", "20", "--cacert", self.facts["ca"]]
        done = subprocess.run(
            [*command, "--include", "--write-out", "\n%{http_code}", *arguments],
            capture_output=True,
            check=False,
        )
        text, _, status = done.stdout.decode(errors="replace").rpartition("\n")
        headers, _, body = text.partition("\r\n\r\n")
        return Answer(int(status or 0), headers, body, done.returncode)

    def as_workload(self, *arguments: str) -> Answer:
        """Run curl with the pipeline's certificate."""
        own = self.facts["workload"]
        return self.curl("--cert", own["cert"], "--key", own["key"], *arguments)

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `ztproxy`."""
        return ztproxy(*arguments, check=check)

    def posture(self, state: str) -> None:
        """Change what the device reports."""
        self.cli("demo", "posture", "--dir", str(self.root), state)

    def arrived(self, app: str) -> int:
        """How many requests the application itself has seen."""
        with urllib.request.urlopen(self.facts["apps"][app]["upstream"] + "/__requests", timeout=5) as answer:
            return int(json.load(answer)["total"])

    def logs(self, lines: int = 20) -> str:
        """The end of every log, for the report of a failed test."""
        parts = []
        for log in sorted((self.root / "logs").glob("*.log")):
            last = log.read_text(errors="replace").splitlines()[-lines:]
            parts.append(f"---- {log.name}\n" + "\n".join(last))
        return "\n".join(parts)


def ztproxy(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, as on a wide terminal."""
    command, wide = [*ZTPROXY, *arguments], {**os.environ, "COLUMNS": "300"}
    done = subprocess.run(command, env=wide, capture_output=True, text=True, timeout=60, check=False)
    if check:
        assert done.returncode == 0, f"ztproxy {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def below(pid: int) -> list[tuple[int, str]]:
    """Every process below this one, with its command line."""
    found = []
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    for child in map(int, done.stdout.split()):
        try:
            line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found += [(child, line), *below(child)]
    return found


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """JupyterLab and httpbin, started as their makers say. Name -> address."""
    if not (APPS_BIN / "jupyter-lab").exists():
        pytest.fail("applications are missing: run scripts/venv apps")
    home = tmp_path_factory.mktemp("lab")
    lab, bin_port = unused_port(), unused_port()
    options = ["--no-browser", "--allow-root", "--ServerApp.allow_remote_access=True", f"--port={lab}"]
    options += [
        "--IdentityProvider.token=",
        "--ServerApp.password=",
        f"--ServerApp.root_dir={home}",
        "--ip=127.0.0.1",
    ]
    httpbin = [str(APPS_BIN / "gunicorn"), "--bind", f"127.0.0.1:{bin_port}", "--worker-class", "gthread"]
    environment = {**os.environ, "HOME": str(home), "PATH": f"{APPS_BIN}:{os.environ['PATH']}"}
    with open(home / "lab.log", "wb") as log:
        started = [
            subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=home, start_new_session=True
            )
            for command in (
                [str(APPS_BIN / "jupyter-lab"), *options],
                [*httpbin, "--threads", "8", "httpbin:app"],
            )
        ]
    addresses = {"lab": f"http://127.0.0.1:{lab}", "httpbin": f"http://127.0.0.1:{bin_port}"}
    try:
        for address in addresses.values():
            eventually(lambda address=address: _answers(address), 60)
        yield addresses
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2):
            return True
    except OSError:
        return False


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, foreign: dict[str, str]) -> Iterator[Demo]:
    """One demo for all journeys, started and ended like a person would."""
    root = tmp_path_factory.mktemp("demo")
    also = [word for name, address in foreign.items() for word in ("--also", f"{name}={address}")]
    command = [*ZTPROXY, "demo", "--dir", str(root), "--port", str(unused_port()), *also]
    with open(root / "output", "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    running = Demo(root, process)
    try:
        try:
            eventually(lambda: (root / "demo.json").exists() or process.poll() is not None, 120)
            assert process.poll() is None
        except AssertionError:
            pytest.fail(f"the demo did not start\n{(root / 'output').read_text()}\n{running.logs()}")
        running.facts = json.loads((root / "demo.json").read_text())
        yield running
    finally:
        process.terminate()
        process.wait(60)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """A failed journey shows what the processes wrote."""
    report = yield
    demo = getattr(item, "funcargs", {}).get("demo")
    if report.failed and isinstance(demo, Demo):
        report.sections.append(("logs of the demo", demo.logs()))
    return report


@pytest.fixture
def healthy(demo: Demo) -> Iterator[None]:
    """Whatever the test makes of the device, it is healthy again afterwards."""
    yield
    demo.posture("healthy")


@pytest.fixture(scope="session")
def browser_home(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder whose browser trusts the demo's authority, as a person would set it up."""
    home = tmp_path_factory.mktemp("home")
    database = home / ".pki" / "nssdb"
    database.mkdir(parents=True)
    certutil = ["certutil", "-d", f"sql:{database}"]
    subprocess.run([*certutil, "-N", "--empty-password"], check=True)
    subprocess.run([*certutil, "-A", "-n", "demo", "-t", "C,,", "-i", demo.facts["ca"]], check=True)
    return home


@pytest.fixture
async def browser(browser_home: Path) -> AsyncIterator[Browser]:
    """Chromium, certificate errors and all: nothing is ignored."""
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS, env={**os.environ, "HOME": str(browser_home)}
        )
        yield launched
        await launched.close()


class Person:
    """Somebody with a browser of their own."""

    def __init__(self, demo: Demo, name: str, context: BrowserContext) -> None:
        self.demo = demo
        self.login = demo.facts["people"][name]
        self.context = context

    async def visit(self, app: str, path: str = "/") -> Page:
        """Open a page; signs in when asked to, and comes back."""
        page = await self.context.new_page()
        await page.goto(self.demo.url(app, path))
        await self.sign_in(page, self.demo.url(app, path))
        return page

    async def sign_in(self, page: Page, back: str) -> None:
        """Whatever it takes from here to the page that was wanted."""
        async with asyncio.timeout(40):
            while page.url.rstrip("/") != back.rstrip("/"):
                await self._step(page)
                await asyncio.sleep(0.1)
        await page.wait_for_load_state()

    async def _step(self, page: Page) -> None:
        for name, value in (("login", "username"), ("password", "password")):
            box = page.locator(f"input[name={name}]")
            if page.url.startswith("http://127.0.0.1") and await box.count():
                before = page.url
                await box.fill(self.login[value])
                await box.press("Enter")
                await page.wait_for_function("before => location.href !== before", arg=before, timeout=15_000)

    async def cookie(self, app: str) -> str:
        """The Cookie header this browser would send to an application."""
        return "; ".join(
            f"{cookie['name']}={cookie['value']}" for cookie in await self.context.cookies(self.demo.url(app))
        )


@pytest.fixture
async def sign_in(demo: Demo, browser: Browser) -> AsyncIterator[Callable[[str], Any]]:
    """Make a person with a fresh browser profile."""

    @asynccontextmanager
    async def profile(name: str) -> AsyncIterator[Person]:
        context = await browser.new_context()
        try:
            yield Person(demo, name, context)
        finally:
            await context.close()

    yield profile


@pytest.fixture
def processes(demo: Demo) -> Callable[[], dict[str, list[int]]]:
    """The processes of `ztproxy run` by what they do, as they are now."""
    kinds = {"supervisor": "ztproxy run --config", "control": "service.control", "worker": "service.worker"}

    def find() -> dict[str, list[int]]:
        alive = below(demo.process.pid)
        return {name: [pid for pid, line in alive if mark in line] for name, mark in kinds.items()}

    return find


@pytest.fixture
def descendants() -> Callable[[int], list[tuple[int, str]]]:
    """Every process below one, with its command line."""
    return below
