"""Requests per second and CPU per request of the whole product: session, policy, records, one worker.

    python bench/product.py [--seconds 5] [--rounds 3]

Starts nginx as the application (1 KiB), `ztproxy run` with one worker on a configuration of its own, puts one
session into the store, and loads it with wrk (64 connections, TLS 1.3, keep-alive). The worker is pinned to
one core, everything else to the other. CPU is user + system of the worker (/proc), the steadiest figure.
"""

import argparse
import asyncio
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

import msgspec

from ztproxy.model.subject import Handle, Principal, Session
from ztproxy.net.clock import SystemClock
from ztproxy.store.sqlite import SqliteStore

COOKIE = "b" * 43
CONFIG = """
listen: 127.0.0.1:{port}
trust_domain: bench.example
state: state
tls: {{certificates: [{{cert: server.pem, key: "file:server.key"}}]}}
portal: {{host: portal.localhost}}
telemetry: {{listen: "127.0.0.1:{metrics}"}}
log: {{level: warning}}
limits: {{requests_per_source: unlimited, handshakes_per_source: unlimited, handshakes: unlimited}}
policy: {{files: [bench.cedar]}}
routes: [{{name: app, from: "https://localhost", to: "http://127.0.0.1:{upstream}"}}]
"""
POLICY = """
@id("bench") permit (principal is User in Group::"staff", action in Action::"http", resource == Route::"app")
when { context.path like "/*" && principal.session.provider == "bench" };
"""
NGINX = """
worker_processes 1; daemon off; pid {root}/nginx.pid; error_log {root}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 100000000;
  client_body_temp_path {root}; proxy_temp_path {root}; fastcgi_temp_path {root}; uwsgi_temp_path {root};
  scgi_temp_path {root};
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{body}"; }} }} }}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def sign_in(state: Path) -> None:
    now = SystemClock().now()
    store = await SqliteStore.open(state / "ztproxy.db", SystemClock().now)
    person = Principal(kind="User", id="bench:bench", issuer="bench", name="Bench", groups=("staff",))
    session = Session(
        id="ses_bench",
        principal=person,
        provider="bench",
        created_at=now,
        auth_time=now,
        last_seen_at=now,
        expires_at=now + 3_600_000,
    )
    handle = Handle(session_id="ses_bench", host="localhost", created_at=now)
    digest = hashlib.sha256(COOKIE.encode()).hexdigest()
    await store.put("session", session.id, msgspec.msgpack.encode(session))
    await store.put("handle", digest, msgspec.msgpack.encode(handle))
    await store.close()


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def load(port: int, seconds: float) -> tuple[float, str]:
    command = ["taskset", "-c", "1", "wrk", "-t1", "-c64", f"-d{seconds:g}s", "--latency"]
    cookie = ["-H", f"Cookie: __Host-ztproxy={COOKIE}"]
    out = subprocess.run(
        [*command, *cookie, f"https://localhost:{port}/a"], capture_output=True, text=True, check=True
    ).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])  # type: ignore[index]
    p99 = re.search(r"99%\s+(\S+)", out)
    if "Non-2xx" in out:
        sys.exit(out)
    return rate, p99[1] if p99 else ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="ztproxy-bench-"))
    port, upstream, metrics = free_port(), free_port(), free_port()
    names = "subjectAltName=DNS:localhost,DNS:portal.localhost"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", str(root / "server.key")]
    what = ["-days", "2", "-subj", "/CN=bench", "-addext", names, "-out", str(root / "server.pem")]
    subprocess.run(["openssl", "req", "-x509", "-nodes", *key, *what], check=True, capture_output=True)
    (root / "server.key").chmod(0o600)
    (root / "bench.cedar").write_text(POLICY)
    config = root / "ztproxy.yaml"
    config.write_text(CONFIG.format(port=port, metrics=metrics, upstream=upstream))
    nginx = root / "nginx.conf"
    nginx.write_text(NGINX.format(root=root, port=upstream, body="x" * 1024))
    (root / "state").mkdir(mode=0o700)
    asyncio.run(sign_in(root / "state"))
    running = [
        subprocess.Popen(["taskset", "-c", "1", "nginx", "-p", root, "-c", nginx, "-e", root / "error.log"]),
        subprocess.Popen(
            [sys.executable, "-m", "ztproxy", "run", "--config", str(config), "--workers", "1"],
            stderr=(root / "log").open("w"),
        ),
    ]
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                if urlopen(f"http://127.0.0.1:{metrics}/readyz").status == 200:
                    break
            except OSError:
                time.sleep(0.1)
        worker = next(
            pid for pid in children(running[1].pid)
            if b"ztproxy.service.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )  # fmt: skip
        subprocess.run(["taskset", "-acp", "0", str(worker)], check=True, stdout=subprocess.DEVNULL)
        load(port, 1)
        for _ in range(arguments.rounds):
            before = cpu(worker)
            rate, p99 = load(port, arguments.seconds)
            used = cpu(worker) - before
            each = used / (rate * arguments.seconds) * 1e6
            print(f"{rate:10.0f} req/s   {each:6.1f} CPU µs/req   p99 {p99}")
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(20)
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
