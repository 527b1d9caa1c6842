"""Requests per second and CPU per request of the data plane alone: TLS, one hop, a door that always permits.

    python bench/gateway.py [--seconds 4] [--rounds 3] [--loop uvloop] [--profile FILE]

The gateway is pinned to one core, nginx (the application, 1 KiB) and wrk (64 connections, TLS 1.3,
keep-alive) to the other. CPU is user + system of the gateway (/proc): decide by it, req/s swings.
"""

import argparse
import asyncio
import cProfile
import gc
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from ztproxy.gateway.connection import Connection
from ztproxy.gateway.limits import Limits
from ztproxy.gateway.quotas import Quotas
from ztproxy.gateway.world import World
from ztproxy.model._seal import SEAL
from ztproxy.model.permit import Permit
from ztproxy.model.resource import Resource, Route, Upstream
from ztproxy.net.clock import SystemClock, entropy
from ztproxy.net.dial import Dialler
from ztproxy.net.listener import Listener
from ztproxy.net.sources import Bounds, Sources
from ztproxy.net.tls import KeyPair, ServerContexts
from ztproxy.net.wheel import Wheel
from ztproxy.upstream.upstreams import Upstreams

HOST = "localhost"  # wrk sends the host of its URL as server name
NGINX = """
worker_processes 1; daemon off; pid {root}/nginx.pid; error_log {root}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 100000000;
  client_body_temp_path {root}; proxy_temp_path {root}; fastcgi_temp_path {root}; uwsgi_temp_path {root};
  scgi_temp_path {root};
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{body}"; }} }} }}
"""


class Open:
    """A door, its paths, ledger, router and counters: as little as the gateway needs."""

    def __init__(self, route: Route) -> None:
        self.resource = Resource("Route", "bench", route)
        self.route = route
        self.live: dict[int, Any] = {}
        self.number = 0
        self.counts: dict[tuple[str, int], int] = {}

    def match(self, host: str, path: str) -> Resource:
        return self.resource

    def authorize(self, request: Any) -> Permit:
        return Permit(
            decision_id=request.context.request_id,
            request=request,
            route=self.route,
            principal_id="corp:bench",
            session_id="ses_bench",
            device_id="",
            handle="",
            expires_at=1 << 60,
            identity=(b"Zt-Principal: corp:bench", b"Zt-Name: Bench", b"Zt-Assertion: " + b"e" * 300),
            obligations=(),
            seal=SEAL,
        )

    def refuse(self, request: Any, peer: Any, refusal: Any) -> None: ...

    def open(self, permit: Permit, cut: Any) -> int:
        self.number += 1
        self.live[self.number] = cut
        return self.number

    def close(self, number: int) -> None:
        del self.live[number]

    def outcome(self, record: Any) -> None: ...

    def request(self, route: str, status: int, seconds: float) -> None:
        self.counts[route, status] = self.counts.get((route, status), 0) + 1

    def refused(self, code: str) -> None: ...

    def limited(self, limit: str) -> None: ...

    def connections_opened(self) -> None: ...

    def connections_closed(self) -> None: ...

    def handshake_failed(self, reason: str) -> None: ...

    def accepting_paused(self) -> None: ...


async def serve(port: int, upstream: int, root: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    clock = SystemClock()
    wheel = Wheel(clock)
    target = Upstream(scheme="http", host="127.0.0.1", port=upstream)
    route = Route(name="bench", app="bench", host=HOST, prefix="/", upstream=target, client_certificate="off")
    everything = Open(route)
    world = World(
        door=everything,
        paths=everything,
        ledger=everything,
        routes=everything,
        quotas=Quotas([], {}),
        upstreams=Upstreams(Dialler({}), wheel=wheel, clock=clock),
        counters=everything,
        clock=clock,
        wheel=wheel,
        limits=Limits(),
        new_request_id=lambda: entropy(16).hex(),
    )
    listener = Listener(
        socket.create_server(("127.0.0.1", port), backlog=1024),
        ServerContexts([KeyPair(root / "cert.pem", root / "key.pem")], {}, []),
        lambda arrival: Connection(lambda: world, arrival),
        wheel=wheel,
        clock=clock,
        tally=everything,
        sources=Sources(Bounds(connections_per_source=10_000), clock.monotonic()),
        handshake_timeout=10,
    )
    wheel.start()
    listener.start()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    await stop.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port: int, seconds: float) -> tuple[float, str]:
    command = ["taskset", "-c", "1", "wrk", "-t1", "-c64", f"-d{seconds:g}s", "--latency"]
    command += ["-H", f"Cookie: __Host-ztproxy={'b' * 43}; theme=dark", "-H", "Accept: */*"]
    out = subprocess.run(
        [*command, f"https://{HOST}:{port}/a"], capture_output=True, text=True, check=True
    ).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    p99 = re.search(r"99%\s+(\S+)", out)
    if rate is None or "Non-2xx" in out:
        sys.exit(out)
    return float(rate[1]), p99[1] if p99 else ""


def measure(options: argparse.Namespace) -> None:
    root = Path(tempfile.mkdtemp(prefix="ztproxy-bench-"))
    port, upstream = free_port(), free_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", root / "key.pem", "-out", root / "cert.pem", "-days", "2", "-subj", "/CN=bench",
         "-addext", f"subjectAltName=DNS:{HOST}"],
        check=True, capture_output=True,
    )  # fmt: skip
    nginx = root / "nginx.conf"
    nginx.write_text(NGINX.format(root=root, port=upstream, body="x" * 1024))
    own = [sys.executable, __file__, "--serve", str(port), str(upstream), str(root), "--loop", options.loop]
    if options.profile:
        own += ["--profile", options.profile]
    running = [
        subprocess.Popen(["taskset", "-c", "1", "nginx", "-p", root, "-c", nginx, "-e", root / "error.log"]),
        subprocess.Popen(["taskset", "-c", "0", *own]),
    ]
    try:
        time.sleep(1.5)
        load(port, 1)
        for _ in range(options.rounds):
            before = cpu(running[1].pid)
            rate, p99 = load(port, options.seconds)
            used = cpu(running[1].pid) - before
            print(f"{rate:10.0f} req/s   {used / (rate * options.seconds) * 1e6:6.1f} CPU µs/req   p99 {p99}")
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(10)
        shutil.rmtree(root, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU per request of the data plane alone")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    parser.add_argument("--profile")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.serve:
        measure(options)
        return
    port, upstream, root = options.serve
    factory = uvloop.new_event_loop if options.loop == "uvloop" else asyncio.new_event_loop
    profile = cProfile.Profile() if options.profile else None
    with asyncio.Runner(loop_factory=factory) as runner:
        if profile is not None:
            profile.enable()
        runner.run(serve(int(port), int(upstream), Path(root)))
        if profile is not None:
            profile.disable()
            profile.dump_stats(options.profile)


if __name__ == "__main__":
    main()
