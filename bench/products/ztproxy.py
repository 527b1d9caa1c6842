"""ztproxy as it is shipped: `ztproxy run`; sessions and enrolled devices in its store, policies, records."""

import hashlib
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import msgspec

from bench.ground import COOKIE, HOST, MTLS_HOST, Ground, python
from bench.machine import LOAD_CORE, PROXY_CORE, family, free_port
from bench.products import Running, policies
from ztproxy.model.subject import Check, Device, Handle, Posture, Principal, Session
from ztproxy.net.clock import SystemClock
from ztproxy.store._sqlite import Tables

CONFIG = """
listen: 127.0.0.1:{port}
trust_domain: bench.example
state: state
tls: {{certificates: [{{cert: {cert}, key: "file:{key}"}}]}}
portal: {{host: portal.localhost}}
telemetry: {{listen: "127.0.0.1:{metrics}"}}
log: {{level: warning}}
client_certificates: [{{name: workloads, ca: {ca}, kind: workload, trust_domain: bench.example}}]
policy: {{files: [bench.cedar], timezone: {zone}}}
{limits}
routes:
{routes}
"""
LIMITS = """
limits:  # one source is everybody here: all is counted as ever, and nothing refused
  connections: 20000
  connections_per_source: 20000
  handshakes: 100000/s burst 100000
  handshakes_per_source: 100000/s burst 100000
  handshaking: 5000
  handshaking_per_source: 5000
  requests_per_source: 1000000/s burst 1000000
  body: 2GiB
"""
ROUTE = """
- name: app{number}
  from: "https://localhost/app{number}/"
  to: "http://127.0.0.1:{app}"
  client_certificate: off
  {more}
"""
MTLS_ROUTE = """
- name: machines
  from: "https://mtls.localhost"
  to: "http://127.0.0.1:{app}"
  client_certificate: required
"""
MTLS_POLICY = """
@id("machines") permit (
  principal == Workload::"spiffe://bench.example/ci/deploy", action in Action::"http",
  resource == Route::"machines"
) when { context.protocol == "http" };
"""
HOUR = 3_600_000
DEVICE = "dev_bench"


class RecordsMissing(Exception):
    """Requests were answered that no sealed record tells of."""


@dataclass(frozen=True)
class Variant:
    """What is changed from the main configuration: 50 routes, 200 rules, one session, all on one core."""

    name: str = "ztproxy"
    workers: int = 1
    routes: int = 50
    sessions: int = 1
    control_apart: bool = False  # the control process on the other core
    upstream: int = 0  # another application than the one of 1 KiB
    limits: str = LIMITS  # "": as ztproxy comes
    pinned: bool = True  # False: the workers may use both cores
    route: str = ""  # one more line in each route
    probe: bool = True  # False: the application answers no GET


def cookies(count: int) -> list[str]:
    """Return the cookies of that many sessions, the first that of everybody else's requests."""
    return [COOKIE, *(f"{number:043d}" for number in range(1, count))]


class Ztproxy:
    """One running product."""

    def __init__(self, ground: Ground, variant: Variant) -> None:
        self.ground, self.variant = ground, variant
        self.folder = ground.folder(variant.name)
        self.port, self.metrics = free_port(), free_port()
        self._configure()
        command = [python(), "-m", "ztproxy", "run", "--config", self.folder / "ztproxy.yaml"]
        command += ["--workers", str(variant.workers)]
        self.pid = ground.spawn(variant.name, command, core=PROXY_CORE)
        self._wait()
        if variant.control_apart:
            _move(self.parts()["control"], str(LOAD_CORE))
        if not variant.pinned:
            _move(self.parts()["workers"], f"{PROXY_CORE},{LOAD_CORE}")

    def running(self) -> Running:
        """Return it as one of the proxies."""
        return Running(
            self.variant.name,
            self.port,
            {part: lambda part=part: self.parts()[part] for part in ("workers", "control", "supervisor")},
            settle=self.settle,
            stop=lambda: self.ground.stop(self.pid),
        )

    def parts(self) -> dict[str, list[int]]:
        """Return the processes by what they are."""
        found: dict[str, list[int]] = {"workers": [], "control": [], "supervisor": []}
        for pid in family(self.pid):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            workers, control = b"ztproxy.service.worker" in line, b"ztproxy.service.control" in line
            found["workers" if workers else "control" if control else "supervisor"].append(pid)
        return found

    def settle(self, seconds: float = 60) -> None:
        """Wait until everything that was written down is sealed."""
        end, last = time.monotonic() + seconds, -1
        while time.monotonic() < end:
            sealed = self._sealed()
            if sealed == last:
                return
            last = sealed
            time.sleep(0.15)  # more than the sealer's pause
        raise TimeoutError("records are still being sealed")

    def records(self) -> dict[str, int]:
        """Return how many permits and outcomes lie in the sealed log."""
        logs = sorted((self.folder / "state" / "recordings").glob("log-*.jsonl"))
        return {
            "permits": _count(logs, r'"record":{"kind":"decision",.*"allow":true'),
            "outcomes": _count(logs, '"record":{"kind":"outcome"'),
        }

    def demand_records(self, requests: int) -> str:
        """Say how many records there are. Raises RecordsMissing when requests have none."""
        found = self.records()
        for what, count in found.items():
            if count < requests:
                raise RecordsMissing(f"{requests} requests were answered, but {count} {what} are sealed")
        return f"{requests} requests, {found['permits']} permits and {found['outcomes']} outcomes sealed"

    def numbers(self) -> str:
        """Return its metrics as Prometheus reads them."""
        return urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10).read().decode()

    def _configure(self) -> None:
        ground, variant = self.ground, self.variant
        app = variant.upstream or ground.app
        routes = "".join(
            ROUTE.format(number=number, app=app, more=variant.route) for number in range(variant.routes)
        )
        routes += MTLS_ROUTE.format(app=app)
        (self.folder / "bench.cedar").write_text(policies.text(variant.routes) + MTLS_POLICY)
        (self.folder / "ztproxy.yaml").write_text(
            CONFIG.format(
                port=self.port,
                metrics=self.metrics,
                cert=ground.cert,
                key=ground.key,
                ca=ground.root / "ca.pem",
                zone=policies.noon(),
                limits=variant.limits,
                routes=routes,
            )
        )
        (self.folder / "state").mkdir(mode=0o700)
        sign_in(self.folder / "state" / "ztproxy.db", cookies(variant.sessions))

    def _wait(self) -> None:
        end = time.monotonic() + 300  # thousands of routes take their time
        while time.monotonic() < end:
            try:
                if urlopen(f"http://127.0.0.1:{self.metrics}/readyz", timeout=5).status == 200:
                    break
            except OSError:
                time.sleep(0.1)
            if not Path(f"/proc/{self.pid}/task").exists():
                break
        if not self.variant.probe:
            return
        try:
            self.ground.wait_for(self.port, tls=True, seconds=10)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.ground.said(self.variant.name)}") from None

    def _sealed(self) -> int:
        lines = [
            line for line in self.numbers().splitlines() if line.startswith("ztproxy_sealed_records_total")
        ]
        return int(sum(float(line.rpartition(" ")[2]) for line in lines))


def sign_in(database: Path, values: Sequence[str]) -> None:
    """Put people, their sessions and cookies, their devices and healthy reports into a new store."""
    put_all(database, people(values))


def people(values: Sequence[str], host: str = HOST, *, devices: bool = True) -> list[tuple[str, str, bytes]]:
    """Return kind, key and value of all records of people with these cookies."""
    now = SystemClock().now()
    rows: list[tuple[str, str, bytes]] = []

    def put(kind: str, key: str, value: object) -> None:
        rows.append((kind, key, msgspec.msgpack.encode(value)))

    for number, value in enumerate(values):
        name, device = f"bench:{number}", f"{DEVICE}{number}"
        person = Principal(
            "User", name, "https://idp.bench.example", "Bench", groups=("contractors", "staff")
        )
        session = Session(
            id=f"ses_{number}",
            principal=person,
            provider="bench",
            created_at=now,
            auth_time=now,
            amr=("pwd", "otp"),
            last_seen_at=now,
            expires_at=now + 10 * HOUR,
            device_id=device if devices else "",
            device_proved_at=now if devices else 0,
        )
        digest = hashlib.sha256(value.encode()).hexdigest()
        put("session", session.id, session)
        put("handle", digest, Handle(session_id=session.id, host=host, created_at=now))
        if not devices:
            continue
        put("device", device, Device(device, "laptop", f"{number:064x}", owner=name, enrolled_at=now))
        checks = {check: Check("pass", now) for check in ("disk_encrypted", "firewall", "screen_lock")}
        put("posture", device, Posture(device, now, 1, "ztproxy-agent", "self", True, checks, "linux"))
    return rows


def put_all(database: Path, records: Sequence[tuple[str, str, bytes]]) -> None:
    """Make a store that holds these."""
    rows = [(kind, key, at, value, 0) for at, (kind, key, value) in enumerate(records, 1)]
    Tables(database, keep=1000).close()  # makes the tables
    with closing(sqlite3.connect(database)) as db, db:  # all at once: one by one a hundred thousand take long
        db.executemany("INSERT INTO record VALUES (?,?,?,?,?)", rows)
        kind, key, version, value, _ = rows[-1]
        db.execute(
            "INSERT INTO change (version, kind, key, value) VALUES (?,?,?,?)", (version, kind, key, value)
        )


def _count(files: Sequence[Path], pattern: str) -> int:
    found = subprocess.run(
        ["grep", "-ch", "--", pattern, *files], capture_output=True, text=True, env={"LC_ALL": "C"}
    )
    return sum(int(line) for line in found.stdout.split())


def _move(pids: Sequence[int], cores: str) -> None:
    for pid in pids:
        subprocess.run(["taskset", "-acp", cores, str(pid)], check=True, stdout=subprocess.DEVNULL)


__all__ = ["MTLS_HOST", "RecordsMissing", "Variant", "Ztproxy", "cookies"]
