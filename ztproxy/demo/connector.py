"""The demo's connector: the only way to its applications. Enrolled like any other, with a list of its own.

Called by `demo.run`. It runs where the applications are (`demo.apart`) and dials out from there.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from typing import Final

import aiohttp

from ztproxy.demo.apart import Apart
from ztproxy.demo.children import Children
from ztproxy.demo.errors import DemoProblem
from ztproxy.demo.layout import APPS, CONNECTOR, Layout, read_json, write

PATIENCE: Final = 60.0  # seconds until it is connected
ZTPROXY: Final = [sys.executable, "-m", "ztproxy"]
_READY: Final = re.compile(rf'^ztproxy_connector_ready{{[^}}]*connector="{CONNECTOR}"[^}}]*}} ([1-9])', re.M)
_CONFIGURATION: Final = """\
# The connector's own list: what it carries to, whatever a proxy asks. Written anew at every start.
state: {state}
drain: 1s
proxies: ["127.0.0.1:{port}"]
allow:
{allow}
log: {{level: info, format: text}}
"""


class Connector:
    """The connector in the demo's folder."""

    def __init__(self, layout: Layout, apart: Apart) -> None:
        self._layout = layout
        self._apart = apart
        self._folder = layout.path("connector", "state")
        self._file = layout.path("connector", "connector.yaml")

    def configure(self) -> None:
        """Write its own configuration."""
        allow = "\n".join(f"  - {self._apart.target(app)}" for app in APPS)
        write(self._file, _CONFIGURATION.format(state=self._folder, port=self._layout.port, allow=allow))

    async def start(self, children: Children) -> None:
        """Start it; it enrols itself with a code, unless it was enrolled with this portal before."""
        portal = self._layout.portal
        known = read_json(self._folder / "connector.json") or {}
        environment = dict(os.environ)
        enrol: list[str] = []
        if known.get("portal") != portal:
            shutil.rmtree(self._folder, ignore_errors=True)
            environment["ZTPROXY_ENROLMENT_CODE"] = await self._code()
            enrol = ["--portal", portal, "--ca", str(self._layout.path("tls", "ca.pem"))]
        command = [*ZTPROXY, "connector", "run", "--config", str(self._file), *enrol]
        await children.start("connector", [*self._apart.enter, *command], env=environment)

    async def connected(self, metrics: str) -> None:
        """Wait until the proxy has a connection of it. Raises DemoProblem."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            for _ in range(int(PATIENCE / 0.1)):
                async with session.get(metrics) as answer:
                    if _READY.search(await answer.text()):
                        return
                await asyncio.sleep(0.1)
        log = self._layout.path("logs", "connector.log")
        raise DemoProblem("The connector does not connect.", f"see {log}")

    async def _code(self) -> str:
        command = [*ZTPROXY, "connectors", "add", CONNECTOR, "--config", str(self._layout.config)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoProblem(f"ztproxy connectors add failed: {done.stderr.strip()}")
        return done.stdout.strip()
