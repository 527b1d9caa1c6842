"""ztproxy with a connector beside the application: half of its routes are reached through it."""

import os
import re
import subprocess
import time

from bench.ground import PATH, python
from bench.machine import LOAD_CORE
from bench.products.ztproxy import Ztproxy

CONNECT = "connect.localhost"
ROUTES = 50  # the second half of them behind the connector


class Connected(Ztproxy):
    """A product with a connector."""

    def _configure(self) -> None:
        super()._configure()
        file = self.folder / "ztproxy.yaml"
        routes = re.split(r"(?=\n- name: )", file.read_text())
        for index, text in enumerate(routes):
            found = re.match(r"\n- name: app(\d+)\n", text)
            if found and int(found[1]) >= ROUTES // 2:
                routes[index] = f"{text.rstrip()}\n  connector: bench\n"
        section = f'\nconnectors:\n  host: {CONNECT}\n  proxies: ["127.0.0.1:{self.port}"]\n'
        file.write_text("".join(routes) + section)

    def connect(self, name: str = "bench") -> int:
        """Enrol a connector and start it; return its pid once it is ready."""
        folder = self.ground.folder(f"connector-{name}")
        config = folder / "connector.yaml"
        config.write_text(
            f"state: {folder / 'state'}\nlog: {{level: warning}}\n"
            f'allow: ["http://127.0.0.1:{self.ground.app}"]\n'
        )
        code = self._ztproxy("connectors", "add", name, "--config", str(self.folder / "ztproxy.yaml")).strip()
        portal = f"https://portal.localhost:{self.port}"
        self._ztproxy(
            *("connector", "enrol", "--portal", portal, "--ca", str(self.ground.cert)),
            *("--config", str(config)),
            ZTPROXY_ENROLMENT_CODE=code,
        )
        command = [python(), "-m", "ztproxy", "connector", "run", "--config", config]
        pid = self.ground.spawn(f"connector-{name}", command, core=LOAD_CORE)
        self.ready(1)
        return pid

    def ready(self, count: int, *, seconds: float = 60) -> None:
        """Wait until so many connections of connectors are ready."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.number("ztproxy_connector_ready") >= count:
                return
            time.sleep(0.1)
        raise TimeoutError(f"connectors do not get ready: {self.ground.said('connector-bench')}")

    def number(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        lines = [line for line in self.numbers().splitlines() if line.startswith(f"{name}{{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def _ztproxy(self, *words: str, **env: str) -> str:
        done = subprocess.run(
            [python(), "-m", "ztproxy", *words],
            capture_output=True,
            text=True,
            cwd=self.ground.root,
            env={**os.environ, "PYTHONPATH": PATH, **env},
            timeout=60,
        )
        if done.returncode:
            raise RuntimeError(f"ztproxy {words[0]} {words[1]}: {done.stderr[-1000:]}")
        return done.stdout
