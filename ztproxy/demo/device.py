"""The demo's device: enrolled like any other, with an agent that reports what a file says.

Called by `demo.run` (enrol, run the agent) and by `ztproxy demo posture` (change the file). Two processes
share the folder: the file `wanted` says whether the agent shall run, and the agent says what was accepted.
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ztproxy.demo.children import Child, Children
from ztproxy.demo.errors import DemoProblem
from ztproxy.demo.layout import POSTURE_EVERY, Layout, read_json, write, write_json

NAME: Final = "demo-laptop"
PATIENCE: Final = 20.0  # seconds that a change may take to be noticed
ZTPROXY: Final = [sys.executable, "-m", "ztproxy"]

CHECKS: Final[dict[str, dict[str, str]]] = {
    "healthy": {"disk_encrypted": "pass", "firewall": "pass", "screen_lock": "pass", "os_current": "pass"},
    "unhealthy": {"disk_encrypted": "pass", "firewall": "fail", "screen_lock": "pass", "os_current": "pass"},
}


class Device:
    """The device in the demo's folder."""

    def __init__(self, layout: Layout, port: int) -> None:
        self._layout = layout
        self._port = port
        self._folder = layout.path("device", "agent")
        self.cert = self._folder / "device.pem"
        self.key = self._folder / "device.key"

    @property
    def id(self) -> str:
        """The id it was enrolled as."""
        return str(read_json(self._folder / "device.json")["id"])

    async def enrol(self) -> None:
        """Enrol it, unless it was enrolled in this folder with this portal before."""
        known = read_json(self._folder / "device.json")
        if known and known["portal"] == self._layout.portal:
            return
        code = await self._ztproxy("devices", "code", "--config", str(self._layout.config), NAME)
        where = [self._layout.portal, "--ca", str(self._layout.path("tls", "ca.pem"))]
        own = ["--dir", str(self._folder), "--name", NAME, "--port", str(self._port), "--replace"]
        await self._ztproxy("agent", "enrol", *where, *own, ZTPROXY_ENROLMENT_CODE=code.strip())

    async def start(self, children: Children) -> None:
        """Start the agent with a healthy report, and wait until that is accepted."""
        report(self._layout.root, "healthy")
        own = ["--dir", str(self._folder), "--port", str(self._port)]
        how = ["--posture-file", str(self._layout.posture), "--interval", str(POSTURE_EVERY)]
        agent = await children.start("agent", [*ZTPROXY, "agent", "run", *own, *how])
        agent.wanted = lambda: wanted(self._layout.root)
        await until(lambda: accepted(self._layout.root), "The device's first report was not accepted.", agent)

    async def _ztproxy(self, *arguments: str, **environment: str) -> str:
        """Run the command line; what it printed."""
        done = await asyncio.to_thread(
            subprocess.run,
            [*ZTPROXY, *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DemoProblem(f"ztproxy {' '.join(arguments[:2])} failed: {done.stderr.strip()}")
        return done.stdout


def report(root: Path, state: str) -> None:
    """Put the checks of a state where the agent looks, and have the agent run."""
    write_json(root / "device" / "posture.json", {"checks": CHECKS[state]})
    write(root / "device" / "wanted", "run")


def wanted(root: Path) -> bool:
    """Whether the agent shall run."""
    return (root / "device" / "wanted").read_text() == "run"


def accepted(root: Path) -> bool:
    """Whether the proxy has accepted the report of the checks as they are now."""
    status = read_json(root / "device" / "agent" / "status.json") or {}
    changed = (root / "device" / "posture.json").stat().st_mtime_ns
    return bool(status.get("accepted")) and status.get("posture_file", 0) >= changed


async def change(root: Path, state: str) -> str:
    """Change what the device reports; returns when that is in force. Raises DemoProblem."""
    facts = read_json(root / "demo.json")
    if not facts:
        raise DemoProblem(f"No demo is running in {root}.", "start one: ztproxy demo (make demo)")
    if state != "stop":
        report(root, state)
        await until(lambda: accepted(root), "The proxy did not take notice of the report.")
        return f"The device reports that it is {state}."
    write(root / "device" / "wanted", "stop")
    port = read_json(root / "ports.json")["agent"]
    await until(lambda: _silent(port), "The device's agent goes on.")
    return "The device's agent is stopped; its last report grows old. Start it again: posture healthy"


def _silent(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def until(fact: Callable[[], bool], problem: str, child: Child | None = None) -> None:
    """Wait until something is the case. Raises DemoProblem."""
    deadline = time.monotonic() + PATIENCE
    while not fact():
        if time.monotonic() > deadline:
            raise DemoProblem(problem, f"see {child.log}" if child else "see logs/agent.log in its folder")
        await asyncio.sleep(0.05)
